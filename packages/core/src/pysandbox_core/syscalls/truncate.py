"""truncate(2), ftruncate(2), fallocate(2)."""

from __future__ import annotations

from errno import EBADF, EFBIG, EINVAL, EISDIR, ENODEV, ENOTSUP, EPERM, ESPIPE, ETXTBSY
from os import O_APPEND

from pysandbox_core.abi.fcntl import (
    AT_FDCWD,
    FALLOC_FL_COLLAPSE_RANGE,
    FALLOC_FL_INSERT_RANGE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_UNSHARE_RANGE,
    FALLOC_FL_ZERO_RANGE,
)
from pysandbox_core.declare import Fd, Int, Loff, Result, UserPath, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs import notify
from pysandbox_core.fs.permissions import (
    MAY_WRITE,
    check_access,
    check_writable_mount,
    drop_privileges_on_write,
)
from pysandbox_core.fs.regular_file import (
    MAX_FILE_SIZE,
    check_size_limit,
    unmap_first,
    wait_until_free,
)
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.task import Task

S_IFMT, S_IFREG, S_IFDIR, S_IFIFO = 0o170000, 0o100000, 0o040000, 0o010000
FALLOC_FL_SUPPORTED = (
    FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_ZERO_RANGE
    | FALLOC_FL_INSERT_RANGE | FALLOC_FL_UNSHARE_RANGE
)  # fmt: skip

_KEEP_SIZE = {
    0: (0, FALLOC_FL_KEEP_SIZE),
    FALLOC_FL_UNSHARE_RANGE: (0, FALLOC_FL_KEEP_SIZE),
    FALLOC_FL_ZERO_RANGE: (0, FALLOC_FL_KEEP_SIZE),
    FALLOC_FL_PUNCH_HOLE: (FALLOC_FL_KEEP_SIZE,),
    FALLOC_FL_COLLAPSE_RANGE: (0,),
    FALLOC_FL_INSERT_RANGE: (0,),
}
"""One operation at a time, each with or without FALLOC_FL_KEEP_SIZE."""


@syscall("truncate")
def truncate(task: Task, path: UserPath, length: Loff) -> Result:
    """Make a file exactly `length` bytes long. truncate(2)

    Errors: EINVAL length < 0; those of path resolution; EISDIR; EINVAL no regular file; EROFS;
    EACCES; ETXTBSY; EFBIG.
    """
    if length < 0:
        raise LinuxError(EINVAL)
    place = resolve(task, AT_FDCWD, task.mm.read_path(path))
    inode = place.inode
    kind = inode.mode & S_IFMT
    if kind == S_IFDIR:
        raise LinuxError(EISDIR)
    if kind != S_IFREG:
        raise LinuxError(EINVAL)
    check_writable_mount(place.mount)
    check_access(task.creds, inode, MAY_WRITE)
    if inode.executions:
        raise LinuxError(ETXTBSY)
    check_size_limit(task, length, inode.stat().size)
    drop_privileges_on_write(task.creds, inode)
    unmap_first(task, inode, length)
    wait_until_free(task, inode)
    inode.truncate(length)
    if notify.watching:
        notify.dentry_event(place.dentry, notify.IN_MODIFY)
    return 0


@syscall("ftruncate")
def ftruncate(task: Task, fd: Fd, length: Loff) -> Result:
    """truncate(2) of an open file. EINVAL also if it is not open for writing, or no regular
    file."""
    if length < 0:
        raise LinuxError(EINVAL)
    file = task.files.get(fd)
    if file.inode.mode & S_IFMT != S_IFREG or not file.mode & 2:
        raise LinuxError(EINVAL)
    file.truncate(task, length)
    return 0


@syscall("fallocate")
def fallocate(task: Task, fd: Fd, mode: Int, offset: Loff, length: Loff) -> Result:
    """Have space for a range of a file, or take it away. fallocate(2)

    Errors: EBADF; EINVAL offset < 0 or length <= 0; EOPNOTSUPP unknown mode; EPERM O_APPEND; ESPIPE
    fifo; EISDIR; ENODEV; EFBIG; ENOSPC.
    """
    file = task.files.get(fd)
    if offset < 0 or length <= 0:
        raise LinuxError(EINVAL)
    if mode & ~FALLOC_FL_SUPPORTED:
        raise LinuxError(ENOTSUP)
    operation = mode & ~FALLOC_FL_KEEP_SIZE
    if operation not in _KEEP_SIZE or mode & FALLOC_FL_KEEP_SIZE not in _KEEP_SIZE[operation]:
        raise LinuxError(ENOTSUP)
    if not file.mode & 2:
        raise LinuxError(EBADF)
    if operation and file.flags & O_APPEND:
        raise LinuxError(EPERM)
    kind = file.inode.mode & S_IFMT
    if kind == S_IFIFO:
        raise LinuxError(ESPIPE)
    if kind == S_IFDIR:
        raise LinuxError(EISDIR)
    if kind != S_IFREG:
        raise LinuxError(ENODEV)
    if offset + length > MAX_FILE_SIZE:
        raise LinuxError(EFBIG)
    if operation:
        shifts = operation & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)
        unmap_first(task, file.inode, offset, 1 << 63 if shifts else offset + length)
    wait_until_free(task, file.inode)
    file.allocate(task, mode, offset, length)
    if notify.watching:
        notify.file_event(file, notify.IN_MODIFY)
    return 0
