"""What the jail reads ahead is what the packages may import late."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pysandbox_core
import pysandbox_platform
import pytest

NEVER_JAILED = (
    "compat", "conformance", "control", "discovery", "native", "sentry_server", "syscall_index",
    "trial", "vdso",
)  # fmt: skip
"""Imported by processes outside, or before the jail: tools, tests, what talks to the SDK."""


def python(script: str) -> subprocess.CompletedProcess[bytes]:
    """`script` in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, timeout=120
    )


def late_imports(path: Path) -> set[str]:
    """Modules that functions import, and whole modules do that may themselves be imported late."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def sources() -> list[Path]:
    roots = [Path(package.__path__[0]) for package in (pysandbox_core, pysandbox_platform)]
    return [
        path
        for root in roots
        for path in sorted(root.rglob("*.py"))
        if not any(part in NEVER_JAILED for part in path.relative_to(root).with_suffix("").parts)
    ]


def test_everything_of_the_standard_library_that_is_imported_is_there() -> None:
    wanted = set().union(*map(late_imports, sources()))
    standard = {name for name in wanted if name.partition(".")[0] in sys.stdlib_module_names}
    script = (
        "import sys\n"
        "from pysandbox_core import sentry\n"
        "from pysandbox_core.jail import jail, preload, root, landlock, allowed, bpf, privileges\n"
        "import pysandbox_core.host_calls\n"
        "preload.read_modules(['pysandbox_core', 'pysandbox_platform'])\n"
        "preload.seal_imports()\n"
        f"for name in {sorted(standard)!r}:\n"
        "    __import__(name)\n"
        "import traceback\n"
        "try: 1 / 0\n"
        "except Exception as error: print(traceback.format_exception(error)[-1])\n"
    )
    ended = python(script)
    assert ended.returncode == 0, ended.stderr.decode()
    assert b"ZeroDivisionError" in ended.stdout


def test_every_module_of_the_packages_can_be_imported_without_files() -> None:
    names = []
    for path in sources():
        package = pysandbox_core if "pysandbox_core" in path.parts else pysandbox_platform
        relative = path.relative_to(Path(package.__path__[0])).with_suffix("")
        names.append(".".join([package.__name__, *relative.parts]).removesuffix(".__init__"))
    script = (
        "import os, sys\n"
        "from pysandbox_core import sentry\n"
        "from pysandbox_core.jail import jail, preload\n"
        "import pluggy\n"
        "preload.read_modules(['pysandbox_core', 'pysandbox_platform'])\n"
        "preload.seal_imports()\n"
        "def no_files(event, arguments):\n"
        "    if event == 'open': raise SystemExit(f'opened {arguments}')\n"
        "sys.addaudithook(no_files)\n"
        f"for name in {names!r}:\n"
        "    __import__(name)\n"
        "print(len(sys.modules))\n"
    )
    ended = python(script)
    assert ended.returncode == 0, ended.stderr.decode()
    assert int(ended.stdout) > len(names)


def test_what_is_not_there_is_an_import_error() -> None:
    script = (
        "import pysandbox_core\n"
        "from pysandbox_core.jail import preload\n"
        "preload.read_modules(['pysandbox_core'])\n"
        "preload.seal_imports()\n"
        "import xml.dom.minidom\n"
    )
    ended = python(script)
    assert ended.returncode == 1
    assert b"No module named 'xml'" in ended.stderr


@pytest.mark.parametrize("compiled", [True, False])
def test_code_is_read_compiled_or_not(tmp_path: Path, compiled: bool) -> None:
    folder = tmp_path / "reading"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "late.py").write_text("WHERE = __file__\ndef f(): return 41 + 1\n")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"sys.dont_write_bytecode = {not compiled}\n"
        "import reading\n"
        "from pysandbox_core.jail import preload\n"
        "preload.read_modules(['reading'])\n"
        "preload.seal_imports()\n"
        "from reading import late\n"
        f"assert preload._finder.waiting['reading.late'].is_compiled is {compiled}\n"
        "print(late.f(), late.WHERE)\n"
    )
    ended = python(script)
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stdout.decode().split() == ["42", str(folder / "late.py")]
    assert bool(list(folder.glob("__pycache__/late*"))) is compiled
