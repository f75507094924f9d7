"""fadvise64(2), readahead(2): advice that is checked and not needed."""

from __future__ import annotations

from errno import EBADF, EINVAL, ESPIPE

from pysandbox_core.declare import Fd, Int, Loff, Result, Size, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.task import Task

POSIX_FADV_NOREUSE = 5
S_IFMT, S_IFIFO, S_IFREG = 0o170000, 0o010000, 0o100000


@syscall("fadvise64")
def fadvise64(task: Task, fd: Fd, offset: Loff, length: Loff, advice: Int) -> Result:
    """How a file will be read. EBADF; ESPIPE fifo; EINVAL. posix_fadvise(2)"""
    file = task.files.get(fd)
    if file.inode.mode & S_IFMT == S_IFIFO:
        raise LinuxError(ESPIPE)
    if length < 0 or not 0 <= advice <= POSIX_FADV_NOREUSE:
        raise LinuxError(EINVAL)
    return 0


@syscall("readahead")
def readahead(task: Task, fd: Fd, offset: Loff, count: Size) -> Result:
    """Have a part of a file read in advance. EBADF not open for reading; EINVAL no regular file."""
    file = task.files.get(fd)
    if not file.mode & 1:
        raise LinuxError(EBADF)
    if file.inode.mode & S_IFMT != S_IFREG:
        raise LinuxError(EINVAL)
    return 0
