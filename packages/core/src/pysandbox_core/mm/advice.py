"""What programs say about how they use memory. madvise(2); Linux: mm/madvise.c

Advice that only speeds things up on Linux (WILLNEED, COLD, MERGEABLE, ...) is checked and then has
no effect. MADV_FREE gives memory back at once, which it allows.
"""

from __future__ import annotations

from errno import EACCES, EBUSY, EINVAL, ENOMEM, EPERM
from typing import TYPE_CHECKING

from pysandbox_platform import PROT_WRITE

from pysandbox_core.abi import mman
from pysandbox_core.errors import LinuxError
from pysandbox_core.mm.vma import (
    VM_DONTDUMP,
    VM_DONTFORK,
    VM_HUGEPAGE,
    VM_LOCKED,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_RANDOM,
    VM_SEALED,
    VM_SEQUENTIAL,
    VM_SHARED,
    VM_SPECIAL,
    VM_WIPEONFORK,
    Vma,
)
from pysandbox_core.waiting import Turn

if TYPE_CHECKING:
    from pysandbox_core.mm.memory_manager import MemoryManager
    from pysandbox_core.task import Task

FLAG_CHANGES = {
    mman.MADV_NORMAL: (0, VM_RANDOM | VM_SEQUENTIAL),
    mman.MADV_RANDOM: (VM_RANDOM, VM_SEQUENTIAL),
    mman.MADV_SEQUENTIAL: (VM_SEQUENTIAL, VM_RANDOM),
    mman.MADV_DONTFORK: (VM_DONTFORK, 0),
    mman.MADV_DOFORK: (0, VM_DONTFORK),
    mman.MADV_WIPEONFORK: (VM_WIPEONFORK, 0),
    mman.MADV_KEEPONFORK: (0, VM_WIPEONFORK),
    mman.MADV_DONTDUMP: (VM_DONTDUMP, 0),
    mman.MADV_DODUMP: (0, VM_DONTDUMP),
    mman.MADV_MERGEABLE: (VM_MERGEABLE, 0),
    mman.MADV_UNMERGEABLE: (0, VM_MERGEABLE),
    mman.MADV_HUGEPAGE: (VM_HUGEPAGE, VM_NOHUGEPAGE),
    mman.MADV_NOHUGEPAGE: (VM_NOHUGEPAGE, VM_HUGEPAGE),
}
"""Advice that is kept -> (VM_* bits set, bits cleared)."""

_DISCARDS = (mman.MADV_DONTNEED, mman.MADV_DONTNEED_LOCKED, mman.MADV_FREE)
_IGNORED = (mman.MADV_WILLNEED, mman.MADV_COLD, mman.MADV_PAGEOUT)
_POPULATES = (mman.MADV_POPULATE_READ, mman.MADV_POPULATE_WRITE)

VALID = frozenset((*FLAG_CHANGES, *_DISCARDS, *_IGNORED, *_POPULATES, mman.MADV_REMOVE))
"""Every advice that is known."""


def advise(task: Task, mm: MemoryManager, start: int, end: int, advice: int) -> None:
    """Follow `advice`, one of VALID, for a range of whole pages that is not empty.

    What precedes an error is done. Errors: ENOMEM for a gap, once all the rest is done; EINVAL,
    EACCES where the mapping does not allow it; EPERM sealed; EFAULT, ENOMEM for populating.
    """
    if advice in _POPULATES:
        _populate(task, mm, start, end, write=advice == mman.MADV_POPULATE_WRITE)
        return
    covered = mm.vmas.covers(start, end)
    if advice == mman.MADV_REMOVE:
        _remove_all(task, mm, start, end)
        start = end
    for at, stop, vma in mm.vmas.within(start, end):
        if advice in FLAG_CHANGES:
            add, remove = FLAG_CHANGES[advice]
            _check_flag_change(vma, advice)
            mm.change_flags(at, stop, add, remove)
        elif advice in _DISCARDS:
            _discard(mm, at, stop, vma, advice)
        elif vma.flags & VM_LOCKED and advice != mman.MADV_WILLNEED:
            raise LinuxError(EINVAL)
    if not covered:
        raise LinuxError(ENOMEM)


def _check_flag_change(vma: Vma, advice: int) -> None:
    if advice == mman.MADV_WIPEONFORK and (vma.backing is not None or vma.flags & VM_SHARED):
        raise LinuxError(EINVAL)
    if advice == mman.MADV_DODUMP and vma.flags & VM_SPECIAL:
        raise LinuxError(EINVAL)


def _discard(mm: MemoryManager, start: int, end: int, vma: Vma, advice: int) -> None:
    """Pages read as zeros, or as the file, when they are next touched."""
    if (vma.flags & VM_LOCKED and advice != mman.MADV_DONTNEED_LOCKED) or vma.flags & VM_SPECIAL:
        raise LinuxError(EINVAL)
    if advice == mman.MADV_FREE and vma.backing is not None:
        raise LinuxError(EINVAL)
    if vma.flags & VM_SEALED and vma.backing is None and not vma.prot & PROT_WRITE:
        raise LinuxError(EPERM)
    memory_file = mm.memory_file
    for at, stop, (source, delta, cow) in mm.pages.within(start, end):
        if source is None and not cow and vma.backing is None:
            # Ours alone: the pages go, the mapping stays, and no program has to fault for it.
            memory_file.zero(at + delta, stop - at)
        elif source is None or source.in_memory_file:
            mm.zap(at, stop)


def _remove_all(task: Task, mm: MemoryManager, start: int, end: int) -> None:
    """Punch a hole for each VMA. Every hole is looked for in all mappings of its file, so that many
    small ones take long: others have their turn in between, and may change what is mapped. Linux
    lets go of the lock of the address space for each of them, too."""
    turn = Turn(task)
    while start < end:
        index = mm.vmas.first_after(start)
        if index == len(mm.vmas) or mm.vmas.starts[index] >= end:
            return
        start, stop = max(start, mm.vmas.starts[index]), min(end, mm.vmas.ends[index])
        _remove(task, mm, start, stop, mm.vmas.values[index])
        start = stop
        if not turn.goes_on(killable_only=True):
            return


def _remove(task: Task, mm: MemoryManager, start: int, end: int, vma: Vma) -> None:
    """Punch a hole into what is shared."""
    if vma.flags & VM_LOCKED or vma.backing is None:
        raise LinuxError(EINVAL)
    if not vma.flags & VM_SHARED or not vma.max_prot & vma.prot & PROT_WRITE:
        raise LinuxError(EACCES)
    offset = start + vma.delta
    mappable = vma.backing.mappable
    mappable.unmap_in_turns(task, offset, offset + end - start)
    if vma.backing.file is None:
        mappable.punch(offset, offset + end - start)
    else:
        keep_size_and_punch = 0x1 | 0x2  # FALLOC_FL_*
        vma.backing.file.allocate(task, keep_size_and_punch, offset, end - start)


def _populate(task: Task, mm: MemoryManager, at: int, end: int, *, write: bool) -> None:
    """Errors: ENOMEM a gap; EINVAL not allowed by the protection; EFAULT; ENOMEM the limit."""
    turn = Turn(task)
    while at < end and not task.interrupted(killable_only=True):
        index = mm.vmas.find(at)
        if index < 0:
            raise LinuxError(ENOMEM)
        vma, stop = mm.vmas.values[index], min(end, mm.vmas.ends[index])
        if not (vma.prot & PROT_WRITE if write else vma.prot):
            raise LinuxError(EINVAL)
        mm.populate(at, stop, write=write, turn=turn)
        at = stop


def sync(task: Task, mm: MemoryManager, start: int, end: int, flags: int) -> None:
    """msync(2) of whole pages. ENOMEM for a gap, once all the rest is done; EBUSY locked; EIO"""
    covered = mm.vmas.covers(start, end)
    for _, _, vma in mm.vmas.within(start, end):
        if flags & mman.MS_INVALIDATE and vma.flags & VM_LOCKED:
            raise LinuxError(EBUSY)
        backing = vma.backing
        if (
            flags & mman.MS_SYNC
            and vma.flags & VM_SHARED
            and backing is not None
            and backing.file is not None
        ):
            backing.file.sync(task, True)
    if not covered:
        raise LinuxError(ENOMEM)


def residency(mm: MemoryManager, start: int, end: int) -> bytes:
    """mincore(2) of whole pages that are mapped: a byte for each, 1 for what is in memory."""
    vector = bytearray((end - start) >> 12)
    for at, stop, piece in mm.pages.within(start, end):
        source = piece.source
        if source is not None and not source.in_memory_file:
            ranges = [(at, stop - at)]
        else:
            data = mm.memory_file.data_ranges(at + piece.delta, stop - at)
            ranges = [(offset - piece.delta, length) for offset, length in data]
        for first, length in ranges:
            low, high = (first - start) >> 12, (first + length - start + 4095) >> 12
            vector[low:high] = b"\1" * (high - low)
    return bytes(vector)
