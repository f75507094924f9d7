"""The whole suite once more, with the C part built by AddressSanitizer and UBSan."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent


def sanitizer_library() -> str | None:
    """Path of libasan, which has to be loaded before Python."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return None
    found = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return found if os.path.isabs(found) else None


@pytest.mark.skipif("PYSANDBOX_SANITIZE" in os.environ, reason="this is the sanitized run")
def test_under_sanitizers(tmp_path: Path) -> None:
    library = sanitizer_library()
    if library is None:
        pytest.skip("gcc or its libasan is not installed")
    environment = {**os.environ, "PYSANDBOX_SANITIZE": "1"}
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("*.so", "build", "*.egg-info"))
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=source,
        env=environment,
        check=True,
        capture_output=True,
    )
    environment |= {
        "LD_PRELOAD": library,
        # Python itself leaks at exit; what the platform leaks is the conformance kit's business.
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
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert "passed" in result.stdout


@pytest.mark.skipif("PYSANDBOX_SANITIZE" not in os.environ, reason="for the sanitized run")
def test_this_is_the_sanitized_build() -> None:
    from pysandbox_kvm import _native

    assert b"__asan_init" in Path(_native.__file__).read_bytes()
