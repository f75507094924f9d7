"""The project's chores, each in an environment of its own: `nox -l` lists them.

`nox` alone does what continuous integration does: lint, then all tests.
"""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.error_on_missing_interpreters = True

PACKAGES = ("platform-api", "core", "platform-ptrace", "cli")
"""In the order in which they depend on each other."""

KVM = "platform-kvm"
"""Not among them until what it needs of a machine can be had wherever the tests run."""

TEST_TOOLS = ("pytest>=8", "hypothesis>=6.100", "pyelftools>=0.30", "setuptools>=77", "cffi>=1.16")
"""pyelftools: a second opinion on ELF headers. setuptools and cffi: tests build and install the
examples without asking a package index."""

LINT_TOOLS = ("ruff>=0.6,<1", "mypy>=1.11", "types-greenlet", "nox", *TEST_TOOLS)


def install_packages(session: nox.Session, *more: str) -> None:
    """All packages, and `more` of them, together, so that pip takes the siblings from here."""
    session.install(*[f"./packages/{name}" for name in (*PACKAGES, *more)])


@nox.session
def lint(session: nox.Session) -> None:
    """ruff's checks and format, and mypy --strict over every package."""
    session.install(*LINT_TOOLS)
    install_packages(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    for name in (*PACKAGES, KVM):
        session.run("mypy", f"packages/{name}/src")
    scripts = ["noxfile.py", "benchmarks/run.py", "docs/check_links.py"]
    session.run("mypy", *scripts, *[str(path) for path in Path("examples/sdk").glob("*.py")])


@nox.session
def tests(session: nox.Session) -> None:
    """Every test there is: units, conformance, guest programs, whole programs, the command."""
    session.install(*TEST_TOOLS)
    install_packages(session)
    session.run("pytest", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """The conformance kit alone, on the platforms of this repository."""
    session.install(*TEST_TOOLS)
    install_packages(session)
    session.run("pytest", "packages/platform-ptrace/tests", *session.posargs)


@nox.session
def sanitizers(session: nox.Session) -> None:
    """The C parts under AddressSanitizer and UndefinedBehaviorSanitizer: the conformance kit again.

    The test itself builds the C part once more; it needs libasan, and says so where it is missing.
    """
    session.install(*TEST_TOOLS)
    install_packages(session)
    session.run("pytest", "packages/platform-ptrace/tests/test_sanitized.py", *session.posargs)


@nox.session
def kvm(session: nox.Session) -> None:
    """The KVM platform, on this machine's /dev/kvm: its own tests, then every program in it."""
    session.install(*TEST_TOOLS)
    install_packages(session, KVM)
    session.run("pytest", f"packages/{KVM}/tests")
    session.run("pytest", "tests", "-k", "kvm", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Native beside PySandbox, as a table. Give it an otherwise idle machine."""
    install_packages(session)
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Write the compatibility tables anew from the declarations; check links between pages."""
    install_packages(session)
    session.run("python", "-m", "pysandbox_core.compat", ".")
    session.run("python", "docs/check_links.py", *[str(path) for path in _pages()])


def _pages() -> list[Path]:
    root = Path(__file__).parent
    return [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("packages/*/README.md")]
