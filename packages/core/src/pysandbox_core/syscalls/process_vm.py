"""process_vm_readv(2), process_vm_writev(2)"""

from __future__ import annotations

from errno import EFAULT, EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING

from pysandbox_core.declare import IovecPtr, Pid, Result, ULong, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.proc.access import may_access
from pysandbox_core.mm.user_access import UIO_MAXIOV
from pysandbox_core.waiting import Turn

if TYPE_CHECKING:
    from pysandbox_core.task import Task

_CHUNK = 1 << 20


@syscall("process_vm_readv")
def process_vm_readv(
    task: Task,
    pid: Pid,
    local_iov: IovecPtr,
    liovcnt: ULong,
    remote_iov: IovecPtr,
    riovcnt: ULong,
    flags: ULong,
) -> Result:
    """Copy from another process's memory; bytes copied, fewer where it ends. process_vm_readv(2)

    Errors, first match wins: EINVAL flags; EINVAL, EFAULT vectors; ESRCH; EPERM; EFAULT nothing
    copied.
    """
    return _transfer(task, pid, (local_iov, liovcnt), (remote_iov, riovcnt), flags, write=False)


@syscall("process_vm_writev")
def process_vm_writev(
    task: Task,
    pid: Pid,
    local_iov: IovecPtr,
    liovcnt: ULong,
    remote_iov: IovecPtr,
    riovcnt: ULong,
    flags: ULong,
) -> Result:
    """Copy to another process's memory; as process_vm_readv. process_vm_writev(2)"""
    return _transfer(task, pid, (local_iov, liovcnt), (remote_iov, riovcnt), flags, write=True)


def _transfer(
    task: Task,
    pid: int,
    local: tuple[int, int],
    remote: tuple[int, int],
    flags: int,
    *,
    write: bool,
) -> int:
    if flags:
        raise LinuxError(EINVAL)
    mm = task.mm
    if local[1] > UIO_MAXIOV:
        raise LinuxError(EINVAL)
    mine = mm.source_iov(*local) if write else mm.sink_iov(*local)
    if not mine.remaining:
        return 0
    if remote[1] > UIO_MAXIOV:
        raise LinuxError(EINVAL)
    ranges = mm.read_iov(*remote, check=False)
    if not any(length for _, length in ranges):
        return 0
    target = task.kernel.tasks.get(pid)
    if target is None or target.exited:
        raise LinuxError(ESRCH)
    if not may_access(task, target):
        raise LinuxError(EPERM)
    theirs = target.mm
    turn = Turn(task)
    done = 0
    while ranges and mine.remaining:
        addr, length = ranges.pop()
        while length and mine.remaining:
            size = min(length, _CHUNK, mine.remaining)
            try:
                if write:
                    data = mine.read(size)  # type: ignore[union-attr]
                    moved = theirs.write_some(addr, data)
                else:
                    moved = mine.write(theirs.read_some(addr, size))  # type: ignore[union-attr]
            except LinuxError:
                moved = 0
            done += moved
            addr += moved
            length -= moved
            if moved < size:
                if not done:
                    raise LinuxError(EFAULT)
                return done
            if not turn.goes_on(killable_only=True):
                return done
    return done
