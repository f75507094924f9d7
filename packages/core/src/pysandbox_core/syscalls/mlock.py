"""mlock(2), mlock2(2), munlock(2), mlockall(2), munlockall(2)

Locked memory is made present and counted against RLIMIT_MEMLOCK. Nothing is ever swapped out here,
so that is all there is to it.
"""

from __future__ import annotations

from errno import EINVAL, ENOMEM, EPERM
from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE

from pysandbox_core.abi.mman import MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT
from pysandbox_core.credentials import CAP_IPC_LOCK
from pysandbox_core.declare import Int, Result, Size, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.mm.vma import VM_LOCKED, VM_LOCKONFAULT
from pysandbox_core.syscalls.mmap import page_align
from pysandbox_core.waiting import Turn

if TYPE_CHECKING:
    from pysandbox_core.task import Task

_U64 = 0xFFFFFFFFFFFFFFFF
_BOTH = VM_LOCKED | VM_LOCKONFAULT


@syscall("mlock")
def mlock(task: Task, addr: UserAddr, length: Size) -> Result:
    """Make a range present and keep it so. mlock(2)

    Errors, first match wins: EPERM RLIMIT_MEMLOCK is 0; ENOMEM above it; EINVAL overflow; ENOMEM a
    gap, or pages that can't be had.
    """
    return _lock(task, addr, length, VM_LOCKED)


@syscall("mlock2")
def mlock2(task: Task, addr: UserAddr, length: Size, flags: Int) -> Result:
    """mlock, with MLOCK_ONFAULT for pages as they come. EINVAL flags; mlock2(2)"""
    if flags & ~MLOCK_ONFAULT:
        raise LinuxError(EINVAL)
    return _lock(task, addr, length, _BOTH if flags else VM_LOCKED)


@syscall("munlock")
def munlock(task: Task, addr: UserAddr, length: Size) -> Result:
    """Undo mlock. EINVAL overflow; ENOMEM a gap. munlock(2)"""
    start, end = _pages(addr, length)
    _change(task, start, end, 0)
    return 0


@syscall("mlockall")
def mlockall(task: Task, flags: Int) -> Result:
    """Lock what is mapped, what will be, or both. mlockall(2)

    Errors, first match wins: EINVAL flags; EPERM; ENOMEM above RLIMIT_MEMLOCK.
    """
    if not flags or flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) or flags == MCL_ONFAULT:
        raise LinuxError(EINVAL)
    mm = task.mm
    limit = _limit(task)
    if limit == 0:
        raise LinuxError(EPERM)
    if flags & MCL_CURRENT and mm.total_bytes > limit:
        raise LinuxError(ENOMEM)
    bits = _BOTH if flags & MCL_ONFAULT else VM_LOCKED
    mm.lock_future = bits if flags & MCL_FUTURE else 0
    if flags & MCL_CURRENT:
        mm.change_flags(0, mm.task_size, bits, _BOTH & ~bits)
        if bits == VM_LOCKED:
            mm.populate(0, mm.task_size, turn=Turn(task))
    return 0


@syscall("munlockall")
def munlockall(task: Task) -> Result:
    """Undo mlockall. munlockall(2)"""
    task.mm.lock_future = 0
    task.mm.change_flags(0, task.mm.task_size, 0, _BOTH)
    return 0


def _limit(task: Task) -> int:
    """Bytes that may be locked."""
    return 1 << 64 if task.creds.capable(CAP_IPC_LOCK) else task.group.limits.memlock


def _pages(addr: int, length: int) -> tuple[int, int]:
    start = addr & -PAGE_SIZE
    return start, start + page_align(length + addr % PAGE_SIZE)


def _lock(task: Task, addr: int, length: int, bits: int) -> Result:
    limit = _limit(task)
    if limit == 0:
        raise LinuxError(EPERM)
    start, end = _pages(addr, length)
    mm = task.mm
    wanted = mm.locked_bytes + end - start
    if wanted > limit:
        for at, stop, vma in mm.vmas.within(start, end):
            wanted -= stop - at if vma.flags & VM_LOCKED else 0
        if wanted > limit:
            raise LinuxError(ENOMEM)
    _change(task, start, end, bits)
    if bits == VM_LOCKED:
        _bring_in(task, start, end)
    return 0


def _bring_in(task: Task, at: int, end: int) -> None:
    """Make a range present. ENOMEM for pages that can't be had"""
    mm = task.mm
    turn = Turn(task)
    while at < end and not task.interrupted(killable_only=True):
        index = mm.vmas.find(at)
        if index < 0 or not mm.vmas.values[index].prot:
            raise LinuxError(ENOMEM)
        stop = min(end, mm.vmas.ends[index])
        mm.populate(at, stop, turn=turn)
        if not mm.pages.covers(at, stop):
            raise LinuxError(ENOMEM)
        at = stop


def _change(task: Task, start: int, end: int, bits: int) -> None:
    """Give the VMAs of the range exactly the lock `bits`, as far as the first gap."""
    if end > _U64:
        raise LinuxError(EINVAL)
    mm = task.mm
    at = start
    for vma_start, vma_end, _ in mm.vmas.within(start, end):
        if vma_start != at:
            break
        mm.change_flags(vma_start, vma_end, bits, _BOTH & ~bits)
        at = vma_end
    if at < end:
        raise LinuxError(ENOMEM)
