"""A package's tests once more, with its C part built by AddressSanitizer and UBSan.

A package with C in it has one test file like this:

    from pysandbox_platform.conformance.sanitized import SanitizedTests

    class TestSanitized(SanitizedTests):
        package = Path(__file__).resolve().parent.parent
        native_module = "my_platform._native"

Interface: `package` is the source of a distribution, with setup.py, src and tests. Its build obeys
the environment variable PYSANDBOX_SANITIZE=1. The build happens in a copy, so gcc, setuptools and
cffi must be installed where the tests run. Inside the sanitized run the variable is set: a test
that can't run there skips by it.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

VARIABLE = "PYSANDBOX_SANITIZE"
_WORDS = 4000
"""How much of what a failed run wrote is shown, from its end."""


def sanitizer_library() -> str | None:
    """Path of libasan, which has to be loaded before Python."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return None
    found = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return found if os.path.isabs(found) else None


def build(package: Path, source: Path) -> None:
    """Copies a package to `source` and builds its C part there, sanitized."""
    shutil.copytree(package, source, ignore=shutil.ignore_patterns("*.so", "build", "*.egg-info"))
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=source,
        env={**os.environ, VARIABLE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout[-_WORDS:] + built.stderr[-_WORDS:]


class SanitizedTests:
    """Base of the test class; the name of what derives from it starts with Test."""

    package: ClassVar[Path]
    native_module: ClassVar[str]

    @pytest.mark.skipif(VARIABLE in os.environ, reason="this is the sanitized run")
    def test_under_sanitizers(self, tmp_path: Path) -> None:
        library = sanitizer_library()
        if library is None:
            pytest.skip("gcc or its libasan is not installed")
        source = tmp_path / "source"
        build(self.package, source)
        environment = {
            **os.environ,
            VARIABLE: "1",
            "LD_PRELOAD": library,
            # Python itself leaks at exit; what the platform leaks is the conformance kit's business
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
            "PYTHONPATH": os.pathsep.join([str(source / "src"), *filter(None, sys.path)]),
        }
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
            cwd=source,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-_WORDS:] + result.stderr[-_WORDS:]
        assert "passed" in result.stdout

    @pytest.mark.skipif(VARIABLE not in os.environ, reason="for the sanitized run")
    def test_this_is_the_sanitized_build(self) -> None:
        path = importlib.import_module(self.native_module).__file__
        assert path is not None
        assert b"__asan_init" in Path(path).read_bytes()
