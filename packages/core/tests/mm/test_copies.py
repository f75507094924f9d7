"""Frames that were taken for a copy which then can't be made are given back."""

from __future__ import annotations

from errno import EFAULT
from signal import SIGKILL

import pytest
from mm_fakes import HostFile, MemoryFileDescription, Program, Segfault, new_kernel, new_mm
from pysandbox_core.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE
from pysandbox_core.errors import LinuxError
from pysandbox_core.mm.mappable import MemoryMappable
from pysandbox_platform import PAGE_SIZE, PROT_READ, PROT_WRITE

RW = PROT_READ | PROT_WRITE


def test_a_hole_that_there_is_no_memory_for():
    """The last frame there is would be the copy, and one more is needed for the file."""
    kernel = new_kernel(16 * PAGE_SIZE)
    mm = new_mm(kernel)
    program = Program(mm)
    file = MemoryFileDescription(MemoryMappable(kernel.memory_file, PAGE_SIZE))
    private = mm.mmap(None, 0, PAGE_SIZE, RW, MAP_PRIVATE, file)
    others = mm.mmap(None, 0, 15 * PAGE_SIZE, RW, MAP_PRIVATE | MAP_ANONYMOUS)
    program.write(others, b"x" * 15 * PAGE_SIZE)
    with pytest.raises(Segfault) as caught:
        program.write(private, b"x")
    assert caught.value.args[0] == SIGKILL
    assert kernel.memory_file.granted == 15 * PAGE_SIZE
    mm.release()
    kernel.memory_file.close()


def test_a_host_file_that_can_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"x" * PAGE_SIZE)
    kernel = new_kernel()
    mm = new_mm(kernel)
    file = HostFile(str(path))
    addr = mm.mmap(None, 0, PAGE_SIZE, PROT_READ, MAP_PRIVATE, file)
    mm.mprotect(addr, addr + PAGE_SIZE, RW)

    def fail(*arguments: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.pread", fail)
    with pytest.raises(LinuxError) as caught:
        mm.write(addr, b"y")
    monkeypatch.undo()
    assert caught.value.errno != EFAULT
    assert kernel.memory_file.granted == 0
    mm.release()
    file.decref()
    kernel.memory_file.close()
