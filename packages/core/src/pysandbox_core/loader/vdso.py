"""Mapping the vDSO: [vvar], the page of clock parameters, and right above it [vdso], the code.

Interface: `map_vdso` for each new address space. The code is one image for all; it finds the
parameter page at the page below its own first. Both are read-only to the program.

Linux: arch/x86/entry/vdso/vma.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE, PROT_EXEC, PROT_READ

from pysandbox_core.host_facts import host_facts
from pysandbox_core.mm.layout import find_range, random_bytes_below
from pysandbox_core.mm.mappable import Frames, Mappable, page_up
from pysandbox_core.mm.vma import VM_SPECIAL, Backing, Vma

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.memory_manager import MemoryManager


_PMD_SIZE = 2 << 20


class KernelPages(Mappable):
    """Frames of the kernel's own that programs may see. Lives as long as the kernel."""

    __slots__ = ("_fd", "_length", "_offset")

    def __init__(self, fd: int, offset: int, length: int) -> None:
        super().__init__()
        self._fd = fd
        self._offset = offset
        self._length = length

    @property
    def size(self) -> int:
        return self._length

    def frames(self, offset: int, length: int, write: bool) -> list[Frames]:
        length = min(length, self._length - offset)
        return [(self._fd, self._offset + offset, length, True)] if length > 0 else []

    def identity(self, offset: int) -> int:
        return self._offset + offset


class VdsoPages:
    """What is mapped, made once for each kernel."""

    __slots__ = ("code", "parameters")

    def __init__(self, kernel: Kernel) -> None:
        memory_file = kernel.memory_file
        image = host_facts().vdso_image
        length = page_up(len(image))
        offset = memory_file.allocate(length // PAGE_SIZE)
        memory_file.view[offset : offset + len(image)] = image
        self.code = KernelPages(memory_file.fd, offset, length)
        self.parameters = KernelPages(memory_file.fd, kernel.clocks.vvar_offset, PAGE_SIZE)


def map_vdso(mm: MemoryManager, stack_top: int, *, randomize: bool) -> None:
    """Map both and set `mm.vdso`."""
    kernel = mm.kernel
    pages = kernel.vdso
    if pages is None:
        pages = kernel.vdso = VdsoPages(kernel)
    length = pages.code.size
    total = PAGE_SIZE + length
    hint = _random_hint(stack_top, total, mm.task_size) if randomize else 0
    start = find_range(mm, hint, total, 0)
    _map(mm, start, PAGE_SIZE, PROT_READ, pages.parameters, b"[vvar]")
    _map(mm, start + PAGE_SIZE, length, PROT_READ | PROT_EXEC, pages.code, b"[vdso]")
    mm.vdso = start + PAGE_SIZE


def _map(
    mm: MemoryManager, start: int, length: int, prot: int, pages: Mappable, name: bytes
) -> None:
    pages.incref()
    vma = Vma(prot, VM_SPECIAL, prot, Backing(None, pages), -start, name)
    mm.insert(start, start + length, vma)
    mm.populate(start, start + length)


def _random_hint(stack_top: int, length: int, task_size: int) -> int:
    """Somewhere above the stack and in the same 2 MiB if there is room. Linux: vdso_addr()"""
    start = page_up(stack_top)
    end = min((start + length + _PMD_SIZE - 1) & -_PMD_SIZE, task_size) - length
    if end <= start:
        return 0
    return start + random_bytes_below(_PMD_SIZE) % (end - start + PAGE_SIZE)
