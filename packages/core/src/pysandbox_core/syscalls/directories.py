"""getdents(2), getdents64(2), mkdir(2), mkdirat(2), rmdir(2)."""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOENT, ENOTDIR
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.declare import DirFd, Fd, Mode, Result, UInt, UserAddr, UserPath, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.names import create_name, remove_directory
from pysandbox_core.kernel_memory import SMALL
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.fs.inode import DirEntry

DIRENT64 = Struct("<QqHB")
"""struct linux_dirent64 without its name: d_ino, d_off, d_reclen, d_type."""
DIRENT = Struct("<QQH")
"""struct linux_dirent without its name: d_ino, d_off, d_reclen; d_type is the record's last
byte."""
S_IFDIR = 0o040000
INT_MAX = (1 << 31) - 1


@syscall("getdents64")
def getdents64(task: Task, fd: Fd, dirp: UserAddr, count: UInt) -> Result:
    """The next entries of an open directory; how many bytes of them, 0 at the end. getdents64(2)

    Errors: EBADF; ENOTDIR; ENOENT the directory was removed; EINVAL not even one entry has room.
    """
    return _list(task, fd, dirp, count, _record64)


@syscall("getdents")
def getdents(task: Task, fd: Fd, dirp: UserAddr, count: UInt) -> Result:
    """getdents64(2) with the old records."""
    return _list(task, fd, dirp, count, _record)


def _record64(entry: DirEntry, position: int) -> bytes:
    name = entry.name
    length = DIRENT64.size + len(name) + 8 & -8
    return DIRENT64.pack(entry.ino, position, length, entry.mode >> 12) + name.ljust(
        length - DIRENT64.size, b"\0"
    )


def _record(entry: DirEntry, position: int) -> bytes:
    name = entry.name
    length = DIRENT.size + len(name) + 9 & -8
    return (
        DIRENT.pack(entry.ino, position, length)
        + name.ljust(length - DIRENT.size - 1, b"\0")
        + bytes((entry.mode >> 12,))
    )


def _list(
    task: Task, fd: int, dirp: int, count: int, record: Callable[[DirEntry, int], bytes]
) -> int:
    file = task.files.get(fd)
    entries = listing(task, file)
    position = file.offset
    size = 0
    parts: list[bytes] = []
    count = min(count, INT_MAX)
    while position < len(entries):
        data = record(entries[position], position + 1)
        if size + len(data) > count:
            if not parts:
                raise LinuxError(EINVAL)
            break
        parts.append(data)
        size += len(data)
        position += 1
    if size:
        written = task.mm.sink(dirp, size).write(b"".join(parts))
        if written < size:
            raise LinuxError(EFAULT)
    file.offset = position
    return size


def listing(task: Task, file: FileDescription) -> list[DirEntry]:
    """The entries of an open directory, kept from the first read until a rewind. ENOMEM"""
    if file.inode.mode & 0o170000 != S_IFDIR:
        raise LinuxError(ENOTDIR)
    if file.path is not None and file.path.dentry.unlinked:
        raise LinuxError(ENOENT)
    kept = file.listing
    if kept is None or file.offset == 0:
        kept = file.entries(task)
        task.kernel.memory.grow(len(kept) * SMALL)
        file.listing = kept
    return kept


@syscall("mkdir")
def mkdir(task: Task, path: UserPath, mode: Mode) -> Result:
    """Make a directory. mkdir(2)

    Errors: those of path resolution; EEXIST; EROFS; EACCES; ENOENT in a removed directory; ENOSPC.
    """
    return _mkdir(task, AT_FDCWD, path, mode)


@syscall("mkdirat")
def mkdirat(task: Task, dirfd: DirFd, path: UserPath, mode: Mode) -> Result:
    """mkdir(2) from `dirfd`."""
    return _mkdir(task, dirfd, path, mode)


def _mkdir(task: Task, dirfd: int, path: int, mode: int) -> int:
    mode = S_IFDIR | mode & 0o1777 & ~task.fs.umask
    create_name(task, dirfd, task.mm.read_path(path), mode)
    return 0


@syscall("rmdir")
def rmdir(task: Task, path: UserPath) -> Result:
    """Remove an empty directory. rmdir(2)

    Errors: those of path resolution; EINVAL `.` last; ENOTEMPTY, also for `..` last; EBUSY the root
    or a mount point; ENOTDIR; EPERM sticky.
    """
    remove_directory(task, AT_FDCWD, task.mm.read_path(path))
    return 0
