"""madvise(2), process_madvise(2), msync(2), mincore(2)"""

from __future__ import annotations

from errno import EBADF, EFAULT, EINVAL, ENOMEM, EPERM, ESRCH
from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE

from pysandbox_core.abi import mman
from pysandbox_core.credentials import CAP_SYS_ADMIN, CAP_SYS_NICE
from pysandbox_core.declare import Fd, Int, IovecPtr, Result, Size, UInt, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.mm import advice as advices
from pysandbox_core.syscalls.mmap import page_align
from pysandbox_core.waiting import Turn

if TYPE_CHECKING:
    from pysandbox_core.mm.memory_manager import MemoryManager
    from pysandbox_core.task import Task

_U64 = 0xFFFFFFFFFFFFFFFF
_MINCORE_CHUNK = 16 << 20
_PROCESS_ADVICE = (
    mman.MADV_COLD, mman.MADV_PAGEOUT, mman.MADV_WILLNEED, mman.MADV_COLLAPSE,
)  # fmt: skip


@syscall("madvise")
def madvise(task: Task, addr: UserAddr, length: Size, advice: Int) -> Result:
    """Say how a range will be used. madvise(2)

    Errors, first match wins: EINVAL advice, `addr` not on a page, overflow; EPERM; then those of
    mm/advice.py.
    """
    _madvise(task, task.mm, addr, length, advice)
    return 0


def _madvise(task: Task, mm: MemoryManager, addr: int, length: int, advice: int) -> None:
    poison = advice in (mman.MADV_HWPOISON, mman.MADV_SOFT_OFFLINE)
    if advice not in advices.VALID and not poison:
        raise LinuxError(EINVAL)
    end = addr + page_align(length)
    if addr % PAGE_SIZE or (length and end == addr) or end > _U64:
        raise LinuxError(EINVAL)
    if end == addr:
        return
    if poison:
        if not task.creds.capable(CAP_SYS_ADMIN):
            raise LinuxError(EPERM)
        raise LinuxError(EINVAL)  # as without memory failure handling
    advices.advise(task, mm, addr, end, advice)


@syscall("process_madvise")
def process_madvise(
    task: Task, pidfd: Fd, iov: IovecPtr, iovcnt: Size, advice: Int, flags: UInt
) -> Result:
    """madvise for another process; bytes advised. process_madvise(2)

    Errors: EINVAL flags; EINVAL, EFAULT the vector; EBADF; ESRCH; EINVAL advice; EPERM.
    """
    from pysandbox_core.fs.pidfd import PidFd
    from pysandbox_core.fs.proc.access import may_access

    if flags:
        raise LinuxError(EINVAL)
    ranges = task.mm.read_iov(iov, min(iovcnt, 1 << 20), check=False)
    file = task.files.get(pidfd)
    if not isinstance(file, PidFd):
        raise LinuxError(EBADF)
    if not file.group.tasks:
        raise LinuxError(ESRCH)
    target = file.group.tasks[0]
    if target.mm is not task.mm and advice not in _PROCESS_ADVICE:
        raise LinuxError(EINVAL)
    if not may_access(task, target):
        raise LinuxError(EPERM)
    if target.mm is not task.mm and not task.creds.capable(CAP_SYS_NICE):
        raise LinuxError(EPERM)
    done = 0
    turn = Turn(task)
    while ranges:
        addr, length = ranges.pop()
        try:
            _madvise(task, target.mm, addr, length, advice)
        except LinuxError:
            if not done:
                raise
            break
        done += length
        if ranges and not turn.goes_on(killable_only=True):
            break
        if target.exited:  # meanwhile
            break
    return done


@syscall("msync")
def msync(task: Task, addr: UserAddr, length: Size, flags: Int) -> Result:
    """Bring a file up to date with its shared mapping. msync(2)

    Errors, first match wins: EINVAL flags, `addr`; ENOMEM overflow; EBUSY; ENOMEM a gap.
    """
    both = mman.MS_ASYNC | mman.MS_SYNC
    if flags & ~(both | mman.MS_INVALIDATE) or addr % PAGE_SIZE or flags & both == both:
        raise LinuxError(EINVAL)
    end = addr + page_align(length)
    if end > _U64:
        raise LinuxError(ENOMEM)
    if end > addr:
        advices.sync(task, task.mm, addr, end, flags)
    return 0


@syscall("mincore")
def mincore(task: Task, addr: UserAddr, length: Size, vec: UserAddr) -> Result:
    """Which pages are in memory: a byte each. mincore(2)

    Errors, first match wins: EINVAL `addr` not on a page; ENOMEM beyond user space; EFAULT `vec`;
    ENOMEM a gap.
    """
    mm = task.mm
    if addr % PAGE_SIZE:
        raise LinuxError(EINVAL)
    if addr + length > mm.task_size:
        raise LinuxError(ENOMEM)
    end = addr + page_align(length)
    if vec + (end - addr) // PAGE_SIZE > mm.task_size:
        raise LinuxError(EFAULT)
    turn = Turn(task)
    while addr < end:
        stop = min(end, addr + _MINCORE_CHUNK)
        covered = mm.vmas.covers(addr, stop)
        if not covered:
            raise LinuxError(ENOMEM)
        mm.write(vec, advices.residency(mm, addr, stop))
        vec += (stop - addr) // PAGE_SIZE
        addr = stop
        if not turn.goes_on(killable_only=True):
            break
    return 0
