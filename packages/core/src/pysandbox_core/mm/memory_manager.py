"""MemoryManager: the memory of a process. Linux: struct mm_struct.

Interface: shared by the tasks that cloned with CLONE_VM, `users` counts them; copied by fork;
replaced by execve. The last `release` gives everything back, when no context runs in it any more.

It is built of layers, each in a file of its own and each using only those below:

    memory_manager   fork and release
    mapping          VMAs: mmap, munmap, mprotect, brk
    user_access      the kernel reads and writes the program's memory
    pages            faults, copy-on-write, what the platform is told
    state            what there is
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE, PROT_WRITE

from pysandbox_core.errors import LinuxError
from pysandbox_core.mm.mapping import MmMapping
from pysandbox_core.mm.vma import HOST_PROT, VM_DONTFORK, VM_LOCKED, VM_SHARED, VM_WIPEONFORK, Piece
from pysandbox_core.ranges import RangeMap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pysandbox_platform import AddressSpace

    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.limits import ResourceLimits
    from pysandbox_core.mm.vma import Vma
    from pysandbox_core.task import Task

_LAYOUT = (
    "mmap_base", "start_code", "end_code", "start_data", "end_data", "start_brk", "brk",
    "start_stack", "arg_start", "arg_end", "env_start", "env_end", "auxv", "vdso", "dumpable",
    "hot_pages", "has_seals",
)  # fmt: skip
"""What fork copies as it is."""


class MemoryManager(MmMapping):
    """One address space with what is in it."""

    def fork(
        self,
        address_space: AddressSpace,
        limits: ResourceLimits | None = None,
        hot_addresses: Iterable[int] = (),
    ) -> MemoryManager:
        """A copy, for a child that runs in `address_space` under `limits` (its parent's if None).

        Private pages are shared until one of the two writes. Those that will be at once are copied
        now, which saves both a fault: around `hot_addresses` (stack, thread pointer), and where
        earlier forks of the same program faulted. ENOMEM
        """
        child = MemoryManager(self.kernel, limits or self.limits, address_space)
        for name in _LAYOUT:
            setattr(child, name, getattr(self, name))
        if self.exe_file is not None:
            child.set_exe_file(self.exe_file)
        hot: RangeMap[bool] = RangeMap()
        for page in self.hot_pages:
            hot.set(page, page + PAGE_SIZE, True)
        for addr in hot_addresses:
            page = addr & -PAGE_SIZE
            hot.set(page - PAGE_SIZE, page + 2 * PAGE_SIZE, True)
        self.forget_ranges()
        try:
            for start, end, vma in self.vmas:
                if vma.flags & VM_DONTFORK:
                    continue
                child.insert(start, end, vma._replace(flags=vma.flags & ~VM_LOCKED))
                if not vma.flags & VM_WIPEONFORK:
                    self._share_pages(child, start, end, vma, hot)
        except LinuxError:
            child.release()
            raise
        finally:
            self.settle()
        return child

    def _share_pages(
        self, child: MemoryManager, start: int, end: int, vma: Vma, hot: RangeMap[bool]
    ) -> None:
        """Give `child` the pages of one VMA, or copies of those in `hot`."""
        shared = vma.flags & VM_SHARED
        for at, stop, piece in self.pages.within(start, end):
            source = piece.source
            if source is not None and not source.in_memory_file:
                child.adopt(at, stop, piece, vma)
            elif (
                shared
                or source is not None  # still shows what happens to the file
                or not vma.prot & PROT_WRITE
                or not hot.overlaps(at, stop)
            ):
                self._share_piece(child, at, stop, piece, vma)
            else:
                for first, last in hot.gaps(at, stop):
                    self._share_piece(child, first, last, piece, vma)
                for first, last, _ in hot.within(at, stop):
                    self._copy_pages(child, first, last, piece, vma)

    def _share_piece(
        self, child: MemoryManager, start: int, end: int, piece: Piece, vma: Vma
    ) -> None:
        """Have both map the same frames, read-only if they are private."""
        self.memory_file.incref(start + piece.delta, end - start)
        if not vma.flags & VM_SHARED and not piece.cow:
            piece = piece._replace(cow=True)
            self.pages.set(start, end, piece)
            if vma.prot & PROT_WRITE:
                self.host_protect(start, end - start, HOST_PROT[vma.prot + 8])
        child.adopt(start, end, piece, vma)

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
        """One user less; the last one gives everything back. No context may be running in it
        then."""
        self.users -= 1
        if self.users:
            return
        self.forget_ranges()
        del self.memory_file.spaces[self]
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
        """Bytes of the range that the host keeps memory for; granted, not touched is not
        counted."""
        total = 0
        frames: list[tuple[int, int]] = []
        for at, stop, piece in self.pages.within(start, end):
            source = piece.source
            if source is not None and not source.in_memory_file:
                total += stop - at
            else:
                frames.append((at + piece.delta, stop + piece.delta))
        # neighbours in the memory file are asked about together, wherever they are mapped
        for first, last in _joined(frames):
            total += sum(length for _, length in self.memory_file.data_ranges(first, last - first))
        return total


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same ranges, lowest first, with those that touch made one."""
    ranges.sort()
    joined: list[tuple[int, int]] = []
    for start, end in ranges:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
