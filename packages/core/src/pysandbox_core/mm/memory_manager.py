"""MemoryManager: the memory of a process. Linux: struct mm_struct.

Interface: shared by the tasks that cloned with CLONE_VM, `users` counts them; copied by fork; replaced
by execve. The last `release` gives everything back, when no context runs in it any more.

It is built of layers, each in a file of its own and each using only those below:

    memory_manager   fork and release
    mapping          VMAs: mmap, munmap, mprotect, brk
    user_access      the kernel reads and writes the program's memory
    pages            faults, copy-on-write, what the platform is told
    state            what there is
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE

from pysandbox_core.mm.mapping import MmMapping
from pysandbox_core.mm.vma import HOST_PROT, VM_DONTFORK, VM_LOCKED, VM_SHARED, VM_WIPEONFORK, Piece

if TYPE_CHECKING:
    from pysandbox_platform import AddressSpace

    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.limits import ResourceLimits
    from pysandbox_core.mm.vma import Vma
    from pysandbox_core.task import Task

_LAYOUT = (
    "mmap_base", "start_code", "end_code", "start_data", "end_data", "start_brk", "brk",
    "start_stack", "arg_start", "arg_end", "env_start", "env_end", "auxv", "vdso", "dumpable",
)  # fmt: skip
"""What fork copies as it is."""

_STACK_COPY = 4 * PAGE_SIZE
"""Bytes around the stack pointer that fork copies at once: parent and child both write there next."""


class MemoryManager(MmMapping):
    """One address space with what is in it."""

    def fork(
        self,
        address_space: AddressSpace,
        limits: ResourceLimits | None = None,
        stack_pointer: int = 0,
    ) -> MemoryManager:
        """A copy, for a child that runs in `address_space` under `limits` (its parent's if None).
        Private pages are shared until one of the two writes; those near `stack_pointer` are copied
        now. ENOMEM"""
        child = MemoryManager(self.kernel, limits or self.limits, address_space)
        for name in _LAYOUT:
            setattr(child, name, getattr(self, name))
        if self.exe_file is not None:
            child.set_exe_file(self.exe_file)
        hot = self.vmas.find(stack_pointer)
        if hot >= 0 and (self.vmas.values[hot].flags & VM_SHARED or self.vmas.values[hot].backing):
            hot = -1
        for index, (start, end, vma) in enumerate(self.vmas):
            if vma.flags & VM_DONTFORK:
                continue
            child.insert(start, end, vma._replace(flags=vma.flags & ~VM_LOCKED))
            if not vma.flags & VM_WIPEONFORK:
                self._share_pages(child, start, end, vma, stack_pointer if index == hot else 0)
        self.forget_ranges()
        self.settle()
        return child

    def _share_pages(
        self, child: MemoryManager, start: int, end: int, vma: Vma, stack_pointer: int
    ) -> None:
        """Give `child` the pages of one VMA."""
        shared = vma.flags & VM_SHARED
        memory_file = self.memory_file
        low = high = 0
        if stack_pointer:
            low = max(start, (stack_pointer & -PAGE_SIZE) - _STACK_COPY // 2)
            high = min(end, low + _STACK_COPY)
        for at, stop, piece in self.pages.within(start, end):
            source = piece.source
            if source is not None and not source.in_memory_file:
                child.adopt(at, stop, piece, vma)
                continue
            for first, last in (
                ((at, min(stop, low)), (max(at, high), stop)) if high else ((at, stop),)
            ):
                if first < last:
                    memory_file.incref(first + piece.delta, last - first)
                    copied = piece if shared or piece.cow else piece._replace(cow=True)
                    if copied is not piece:
                        self.pages.set(first, last, copied)
                        if vma.prot & 2:
                            prot = HOST_PROT[vma.prot + 8]
                            self.address_space.protect(first, last - first, prot)
                    child.adopt(first, last, copied, vma)
            if high and at < high and stop > low:
                self._copy_pages(child, max(at, low), min(stop, high), piece, vma)

    def _copy_pages(
        self, child: MemoryManager, start: int, end: int, piece: Piece, vma: Vma
    ) -> None:
        """Give `child` pages of its own with what is in ours."""
        for at, stop, offset in child.new_frames(start, end):
            self.memory_file.copy(at + piece.delta, offset, stop - at)
            child.adopt(at, stop, Piece(None, offset - at, False), vma)

    def adopt(self, start: int, end: int, piece: Piece, vma: Vma) -> None:
        """Have `piece` present in [start, end); a reference on its frames is taken over."""
        self.pages.set(start, end, piece)
        self._tell(vma, start, end, piece)

    def release(self, task: Task | None = None) -> None:
        """One user less; the last one gives everything back. No context may be running in it then."""
        self.users -= 1
        if self.users:
            return
        self.forget_ranges()
        self.address_space.release()
        self.drop_stale()
        self.drop_pieces(self.pages.take(0, self.task_size))
        for backing in self.backing_bytes:
            backing.mappable.mappings.pop(self, None)
            self.release_backing(backing)
            self.drop_stale()  # at once: there is nothing left that could be synchronised
        self.backing_bytes.clear()
        self.backings.clear()
        self.vmas.clear(0, self.task_size)
        for extent in self.extents.values():
            self.memory_file.release_extent(extent)
        self.extents.clear()
        if self.exe_file is not None:
            self.exe_file.inode.executions -= 1
            self.exe_file.decref()
            self.exe_file = None

    def set_exe_file(self, file: FileDescription) -> None:
        """Run `file`: nobody may write it meanwhile. Takes a reference."""
        file.incref()
        file.inode.executions += 1
        if self.exe_file is not None:
            self.exe_file.inode.executions -= 1
            self.exe_file.decref()
        self.exe_file = file

    def peak_rss(self) -> int:
        """Bytes present, as far as is known: the most there were is not kept."""
        return self.resident(0, self.task_size)

    def resident(self, start: int, end: int) -> int:
        """Bytes of the range that the host keeps memory for; granted, not touched is not counted."""
        total = 0
        for at, stop, piece in self.pages.within(start, end):
            source = piece.source
            if source is not None and not source.in_memory_file:
                total += stop - at
            else:
                ranges = self.memory_file.data_ranges(at + piece.delta, stop - at)
                total += sum(length for _, length in ranges)
        return total
