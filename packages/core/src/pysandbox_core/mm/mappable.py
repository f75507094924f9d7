"""Mappable: what a file gives to be mapped, and the two kinds of it.

Interface:
- `FileDescription.mappable(task)` returns one object for each inode, not for each open: mappings of
  a file share their pages through it. The result carries a reference of the caller's.
- `frames` says where pages of the file are, as host file ranges. Pages of the memory file stay the
  file's; who maps them takes references of its own (`MemoryFile.incref`).
- Before a file gives up pages (truncate, hole punch), it calls `invalidate`; when that returns, no
  program can reach them any more. After it grew, nothing needs to be said.

Linux: struct address_space.
"""

from __future__ import annotations

import mmap
import os
from errno import EFAULT, EOPNOTSUPP
from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE, PROT_EXEC, PROT_READ, PROT_WRITE

from pysandbox_core.errors import ERESTARTNOINTR, Interrupted, LinuxError, linux_errors
from pysandbox_core.mm.vma import VM_SHARED
from pysandbox_core.ranges import RangeMap
from pysandbox_core.waiting import Turn

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.memory_file import MemoryFile
    from pysandbox_core.mm.memory_manager import MemoryManager
    from pysandbox_core.task import Task

Frames = tuple[int, int, int, bool]
"""(host fd, offset in that host file, length, whether that is the memory file), bytes."""


_MANY_PIECES = 10_000
"""It takes tens of milliseconds to take so many away."""


def page_up(length: int) -> int:
    """`length` rounded up to whole pages."""
    return (length + PAGE_SIZE - 1) & -PAGE_SIZE


class Mappable:
    """Base class. `refs` counts who needs it: the inode, open files, address spaces."""

    __slots__ = ("mappings", "refs")

    in_memory_file = True
    """Its pages are frames of the memory file; False: pages of a host file, `host_fd`."""
    host_fd = -1
    can_write = True
    """Programs may change it: `host_fd` may be mapped shared and writable. Private mappings of what
    can't be changed copy more pages than are written."""

    def __init__(self) -> None:
        self.refs = 1
        self.mappings: dict[MemoryManager, int] = {}
        """Address spaces that may have it mapped, and how many open files each has it mapped by."""

    @property
    def size(self) -> int:
        """Length of the file in bytes, now. Pages wholly beyond it can't be reached: SIGBUS."""
        raise NotImplementedError

    def can_map(self, executable: bool) -> bool:
        """May its pages be mapped as they are? If not, private mappings copy them."""
        return True

    def frames(self, offset: int, length: int, write: bool) -> list[Frames]:
        """Where the pages of [offset, offset+length), page multiples, are: from `offset` on, in
        order, without gaps, and possibly less than was asked for; nothing only where the file ends.

        Holes are filled, with zero pages. With `write` the pages are about to be changed through a
        shared mapping. ENOMEM
        """
        raise NotImplementedError

    def identity(self, offset: int) -> int:
        """A number that only this byte of this file has, for shared futexes. EFAULT where there is
        none: the file ends before."""
        raise NotImplementedError

    def invalidate(self, start: int, end: int, *, copies: bool = True) -> None:
        """Take the pages of [start, end) out of every address space; with `copies`, also what
        private mappings have made of them (truncate does, a hole punch does not)."""
        for mm in tuple(self.mappings):
            mm.zap_file(self, start, end, copies)

    def unmap_in_turns(self, task: Task, start: int, end: int) -> None:
        """Before something that needs `invalidate`: if address spaces have it mapped in very many
        pieces, take these away one space after the other, with turns for others in between.

        It changes nothing that a program could see: what is reached again comes back, and copies
        that private mappings have made stay. `invalidate` then finds little left.
        """
        if sum(len(mm.pages) for mm in self.mappings) < _MANY_PIECES:
            return
        turn = Turn(task)
        for mm in tuple(self.mappings):
            if mm in self.mappings:  # still
                mm.zap_file(self, start, end, False)
                if not turn.goes_on(killable_only=True):
                    raise Interrupted(ERESTARTNOINTR)

    def has_writable_mappings(self) -> bool:
        """Is it mapped shared where a program writes, or may make it so? F_SEAL_WRITE"""
        return any(
            vma.flags & VM_SHARED and vma.max_prot & PROT_WRITE
            for mm in self.mappings
            for _, _, vma in mm.vmas
            if vma.backing is not None and vma.backing.mappable is self
        )

    def punch(self, start: int, end: int) -> None:
        """Make the pages of [start, end), page multiples, holes. EOPNOTSUPP where that can't be."""
        raise LinuxError(EOPNOTSUPP)

    def incref(self) -> None:
        self.refs += 1

    def decref(self) -> None:
        self.refs -= 1
        if self.refs == 0:
            self.release()

    def release(self) -> None:
        """The last reference is gone."""


_device_prots: dict[int, int] = {}
"""Device -> PROT_* bits with which the host maps files of it."""


def _try_prots(host_fd: int, size: int) -> int:
    """With what protections does the host map this file? Some file systems can't (FUSE with direct
    input and output), some may not be executed from (mounted noexec)."""
    try:
        # Never touched, so that no truncation can harm this process.
        mmap.mmap(host_fd, size, flags=mmap.MAP_SHARED, prot=PROT_READ).close()
        executable = not os.fstatvfs(host_fd).f_flag & os.ST_NOEXEC
    except (OSError, ValueError):  # ValueError: it has shrunk meanwhile
        return 0
    return PROT_READ | PROT_EXEC if executable else PROT_READ


class HostFileMappable(Mappable):
    """A file of the host, mapped from its own page cache. Owns `host_fd`, closed with the last
    reference; `can_write` says that it was opened for writing as well."""

    __slots__ = ("_host_prots", "_identity", "can_write", "host_fd")

    in_memory_file = False

    def __init__(self, host_fd: int, *, can_write: bool = False) -> None:
        super().__init__()
        self.host_fd = host_fd
        self.can_write = can_write
        self._identity: int | None = None
        self._host_prots: int | None = None

    @property
    def size(self) -> int:
        with linux_errors():
            return os.fstat(self.host_fd).st_size

    def can_map(self, executable: bool) -> bool:
        if self._host_prots is None:
            with linux_errors():
                status = os.fstat(self.host_fd)
            if status.st_size == 0:
                return True
            prots = _device_prots.get(status.st_dev)
            if prots is None:
                size = min(status.st_size, PAGE_SIZE)
                prots = _device_prots[status.st_dev] = _try_prots(self.host_fd, size)
            self._host_prots = prots
        return bool(self._host_prots & (PROT_EXEC if executable else PROT_READ))

    def frames(self, offset: int, length: int, write: bool) -> list[Frames]:
        length = min(length, page_up(self.size) - offset)
        return [(self.host_fd, offset, length, False)] if length > 0 else []

    def identity(self, offset: int) -> int:
        if self._identity is None:
            status = os.fstat(self.host_fd)
            self._identity = (status.st_dev << 64 | status.st_ino) << 64
        return -(self._identity | offset)  # negative: never a memory-file offset

    def release(self) -> None:
        os.close(self.host_fd)
        self.host_fd = -1


class MemoryMappable(Mappable):
    """Pages in the memory file, made when first needed: shared anonymous memory, System V shared
    memory, and what a tmpfs file can be built on."""

    __slots__ = ("_memory_file", "_size", "pages")

    RUN = 16
    """Pages that a hole is filled with at a time."""

    def __init__(self, memory_file: MemoryFile, size: int) -> None:
        super().__init__()
        self._memory_file = memory_file
        self._size = size
        self.pages: RangeMap[int] = RangeMap()
        """File range -> difference of memory-file offset and file offset; holes are not in it."""

    @property
    def size(self) -> int:
        return self._size

    def frames(self, offset: int, length: int, write: bool) -> list[Frames]:
        end = min(offset + length, page_up(self._size))
        if offset >= end:
            return []
        fd = self._memory_file.fd
        index = self.pages.find(offset)
        if index < 0:
            self._fill(offset, end)
        found: list[Frames] = []
        for start, stop, delta in self.pages.within(offset, end):
            if start != offset:
                break
            found.append((fd, start + delta, stop - start, True))
            offset = stop
        return found

    def _fill(self, offset: int, end: int) -> None:
        run = self.RUN * PAGE_SIZE
        if self._memory_file.tight:
            run = PAGE_SIZE
        elif end - offset <= 1 << 21:
            run = 1 << 21
        start, stop = self.pages.gap_around(offset, offset & -run, min(end, (offset & -run) + run))
        frames = self._memory_file.allocate((stop - start) // PAGE_SIZE)
        self.pages.set(start, stop, frames - start)

    def identity(self, offset: int) -> int:
        page = offset & -PAGE_SIZE
        found = self.frames(page, PAGE_SIZE, True)
        if not found:
            raise LinuxError(EFAULT)
        return found[0][1] + offset - page

    def resize(self, size: int) -> None:
        """truncate(2): pages beyond the new end are gone, what is left of the last one is
        zeroed."""
        old, self._size = self._size, size
        if size < old:
            first_gone = page_up(size)
            self.invalidate(first_gone, page_up(old))
            self._drop(first_gone, page_up(old))
            delta = self.pages.get(size)
            if size < first_gone and delta is not None:
                self._memory_file.view[size + delta : first_gone + delta] = bytes(first_gone - size)

    def punch(self, start: int, end: int) -> None:
        """Make the pages of [start, end), page multiples, holes."""
        self.invalidate(start, end, copies=False)
        self._drop(start, end)

    def _drop(self, start: int, end: int) -> None:
        for first, last, delta in self.pages.take(start, end):
            self._memory_file.decref(first + delta, last - first)

    def release(self) -> None:
        self._drop(0, 1 << 63)


def zero_mappable(kernel: Kernel) -> Mappable:
    """Shared memory of the caller's own, zeros at first: what mmap(2) of /dev/zero gives."""
    return MemoryMappable(kernel.memory_file, 1 << 62)
