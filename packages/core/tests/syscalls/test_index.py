"""The index of system calls is what the declarations say, and only what is called is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pysandbox_core import syscall_index
from pysandbox_core.syscalls import index


def test_the_index_is_current() -> None:
    text = Path(index.__file__).read_text(encoding="utf-8")
    assert text == syscall_index.index_text(), "run python -m pysandbox_core.syscall_index"


def test_no_family_is_imported_to_start_a_kernel() -> None:
    code = (
        "import sys, pysandbox_core.sentry\n"
        "print(*[name for name in sys.modules if name.startswith('pysandbox_core.syscalls.')])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    # execve's helpers may be shared with the kernel's first exec, and mmap's with the loader
    assert set(output.split()) <= {"pysandbox_core.syscalls.index"}
