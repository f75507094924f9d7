"""sync(2), syncfs(2), fsync(2), fdatasync(2), sync_file_range(2)."""

from __future__ import annotations

from errno import EINVAL, ESPIPE

from pysandbox_core.declare import Fd, Loff, Result, UInt, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.task import Task

SYNC_FILE_RANGE_ALL = 7
S_IFMT = 0o170000
S_SYNCABLE = (0o100000, 0o060000, 0o040000, 0o120000)


@syscall("sync")
def sync(task: Task) -> Result:
    """Bring everything to where it belongs. sync(2)"""
    for mount in task.kernel.mounts.all():
        mount.fs.sync()
    return 0


@syscall("syncfs")
def syncfs(task: Task, fd: Fd) -> Result:
    """sync(2) of the file system of an open file."""
    task.files.get(fd).inode.fs.sync()
    return 0


@syscall("fsync")
def fsync(task: Task, fd: Fd) -> Result:
    """Bring a file to where it belongs. EBADF; EINVAL it can't be. fsync(2)"""
    task.files.get(fd).sync(task, False)
    return 0


@syscall("fdatasync")
def fdatasync(task: Task, fd: Fd) -> Result:
    """fsync(2) without the attributes that do not matter for reading it."""
    task.files.get(fd).sync(task, True)
    return 0


@syscall("sync_file_range")
def sync_file_range(task: Task, fd: Fd, offset: Loff, nbytes: Loff, flags: UInt) -> Result:
    """fdatasync(2) of a part; here of the whole. EBADF, EINVAL, ESPIPE. sync_file_range(2)"""
    file = task.files.get(fd)
    if flags & ~SYNC_FILE_RANGE_ALL or offset < 0 or nbytes < 0 or offset + nbytes >= 1 << 63:
        raise LinuxError(EINVAL)
    if file.inode.mode & S_IFMT not in S_SYNCABLE:
        raise LinuxError(ESPIPE)
    if flags:
        file.sync(task, True)
    return 0
