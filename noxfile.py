"""The project's chores, each in an environment of its own: `nox -l` lists them.

`nox` alone does what continuous integration does: lint, all tests, and some on KVM as hardware has
it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests", "machine-short"]
nox.options.error_on_missing_interpreters = True

PACKAGES = ("platform-api", "core", "platform-ptrace", "platform-kvm", "cli")
"""In the order in which they depend on each other."""

MACHINE = "packages/platform-kvm/machine/boot.py"
"""Boots it."""

FEW_PROGRAMS = (
    "test_program[kvm-true]",
    "test_program[kvm-false]",
    "test_program[kvm-dash]",
    "test_program[kvm-busybox]",
    "test_program[kvm-gcc]",
    "test_python[kvm-debian-python_core]",
)
"""Those that run in a machine that computes 20 times as slowly, each time the tests run."""

TEST_TOOLS = ("pytest>=8", "hypothesis>=6.100", "pyelftools>=0.30", "setuptools>=77", "cffi>=1.16")
"""pyelftools: a second opinion on ELF headers. setuptools and cffi: tests build and install the
examples without asking a package index."""

LINT_TOOLS = ("ruff>=0.6,<1", "mypy>=1.11", "types-greenlet", "nox", *TEST_TOOLS)


def install_packages(session: nox.Session) -> None:
    """All packages together, so that pip takes the siblings from here."""
    session.install(*[f"./packages/{name}" for name in PACKAGES])


@nox.session
def lint(session: nox.Session) -> None:
    """ruff's checks and format, and mypy --strict over every package."""
    session.install(*LINT_TOOLS)
    install_packages(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    for name in PACKAGES:
        session.run("mypy", f"packages/{name}/src")
    scripts = ["noxfile.py", MACHINE, "benchmarks/run.py", "docs/check_links.py"]
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
    session.run(
        "pytest", "packages/platform-ptrace/tests", "packages/platform-kvm/tests", *session.posargs
    )


@nox.session
def sanitizers(session: nox.Session) -> None:
    """The C parts under AddressSanitizer and UndefinedBehaviorSanitizer: the conformance kit again.

    The tests themselves build the C parts once more; they need libasan, and say so where it is
    missing.
    """
    session.install(*TEST_TOOLS)
    install_packages(session)
    session.run(
        "pytest",
        "packages/platform-ptrace/tests/test_sanitized.py",
        "packages/platform-kvm/tests/test_sanitized.py",
        *session.posargs,
    )


@nox.session
def machine(session: nox.Session) -> None:
    """KVM as hardware has it, in a machine under QEMU: every test of it. Takes an hour or more."""
    # What the kernel keeps is the same on every platform, and takes hours to see here.
    run_machine(session, ["tests", "-k", "kvm and not test_flat"])


@nox.session(name="machine-short")
def machine_short(session: nox.Session) -> None:
    """As `machine`, with a few programs."""
    run_machine(session, [f"tests/programs/test_programs.py::{name}" for name in FEW_PROGRAMS])


def run_machine(session: nox.Session, programs: list[str]) -> None:
    """The KVM platform's own tests, the conformance kit among them, and `programs`, in a machine
    that has KVM. Where there can't be one, the session is skipped, but fails where CI=true."""
    try:
        kernel = stock_kernel(session.cache_dir)
    except UnavailableError as error:
        if os.environ.get("CI") == "true":
            session.error(f"no machine: {error}")
        session.skip(f"no machine: {error}")
    session.install(*TEST_TOOLS)
    install_packages(session)
    boot = ["python", MACHINE, "--kernel", str(kernel), "--timeout", str(3 * 3600)]
    # What the sanitizers find they find outside as well.
    own = ["packages/platform-kvm/tests", "--ignore-glob=*/test_sanitized.py"]
    # pytest's cache can't be kept; -u and -v: its progress is seen line by line.
    tests = ["python", "-u", "-m", "pytest", "-v", "-p", "no:cacheprovider"]
    session.run(*boot, *tests, *own)
    session.run(*boot, *tests, *programs, env={"PYSANDBOX_PATIENCE": "5"})


class UnavailableError(Exception):
    """What a machine needs and is not here."""


def stock_kernel(directory: Path) -> Path:
    """Debian's newest stock kernel, unpacked in `directory` and installed nowhere."""
    for program in ("qemu-system-x86_64", "busybox", "apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise UnavailableError(f"{program} is not installed; see tests/debian-packages.txt")
    package = "linux-image-amd64"
    shown = subprocess.run(
        ["apt-cache", "depends", package], capture_output=True, text=True, check=False
    )
    found = re.search(r"Depends: (linux-image-\S+)", shown.stdout)
    if found is None:
        raise UnavailableError(f"apt does not know {package}, Debian's stock kernel")
    unpacked = directory / found[1]
    if not unpacked.exists():
        partial = Path(f"{unpacked}.part")
        shutil.rmtree(partial, ignore_errors=True)
        fetch = ["apt-get", "-qq", "download", found[1]]
        if subprocess.run(fetch, cwd=directory, check=False).returncode:
            raise UnavailableError(f"{found[1]} can't be downloaded")
        archive = max(directory.glob(f"{found[1]}_*.deb"), key=lambda path: path.stat().st_mtime)
        subprocess.run(["dpkg", "-x", archive, partial], check=True)
        archive.unlink()
        partial.rename(unpacked)
    return unpacked


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
