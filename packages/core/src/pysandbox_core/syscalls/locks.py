"""flock(2). The locks of fcntl(2) are in fcntl.py."""

from __future__ import annotations

from errno import EINVAL
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN

from pysandbox_core.declare import Fd, Int, Result, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.locks import lock_file
from pysandbox_core.task import Task

LOCK_MAND = 32


@syscall("flock")
def flock(task: Task, fd: Fd, operation: Int) -> Result:
    """Take, change or give up the lock of an open file. flock(2)

    Errors: EINVAL; EBADF; EWOULDBLOCK with LOCK_NB; EINTR.
    """
    if operation & LOCK_MAND:
        return 0  # mandatory locks are no more: Linux ignores them since 5.15
    kind = operation & ~LOCK_NB
    if kind not in (LOCK_SH, LOCK_EX, LOCK_UN):
        raise LinuxError(EINVAL)
    file = task.files.get(fd)
    if kind == LOCK_UN:
        if file.inode.locks is not None:
            lock_file(task, file, 0, wait=False)
        return 0
    lock_file(task, file, kind, wait=not operation & LOCK_NB)
    return 0
