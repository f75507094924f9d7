"""The lock commands of fcntl(2): struct flock to ranges and back.

Interface: the functions have the signature of fcntl's commands (syscalls/fcntl.py); the locks
themselves are in `locks`.
"""

from __future__ import annotations

import os
from errno import EBADF, EINVAL, EOVERFLOW
from fcntl import F_RDLCK, F_UNLCK, F_WRLCK
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_description import FMODE_READ, FMODE_WRITE
from pysandbox_core.fs.locks import OFFSET_MAX, FileLocks, lock_record

if TYPE_CHECKING:
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.task import Task

FLOCK = Struct("<hh4xqqi4x")
"""struct flock: l_type, l_whence, l_start, l_len, l_pid."""


def get_posix(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    """F_GETLK: what would be in the way of a lock."""
    return _get(task, file, argument, task.files, ofd=False)


def get_ofd(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    """F_OFD_GETLK"""
    return _get(task, file, argument, file, ofd=True)


def set_posix(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    """F_SETLK"""
    return _set(task, file, argument, task.files, task.group.pid, False)


def wait_posix(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    """F_SETLKW. EBADF if another thread has closed `fd` meanwhile"""
    _set(task, file, argument, task.files, task.group.pid, True)
    if task.files.find(fd) is not file:
        # closing it had nothing to give up yet, and nothing will close it again
        FileLocks.of(file.inode).closed(task.files)
        raise LinuxError(EBADF)
    return 0


def set_ofd(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    """F_OFD_SETLK"""
    return _set(task, file, argument, file, -1, False)


def wait_ofd(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    """F_OFD_SETLKW"""
    return _set(task, file, argument, file, -1, True)


def _get(task: Task, file: FileDescription, argument: int, owner: object, *, ofd: bool) -> int:
    kind, whence, l_start, l_len, l_pid = task.mm.unpack(argument, FLOCK)
    if kind not in (F_RDLCK, F_WRLCK):
        raise LinuxError(EINVAL)
    start, end = _range(task, file, whence, l_start, l_len)
    if ofd and l_pid:
        raise LinuxError(EINVAL)
    locks = file.inode.locks
    lock = None if locks is None else locks.blocking(owner, kind, start, end)
    if lock is None:
        task.mm.pack(argument, FLOCK, F_UNLCK, whence, l_start, l_len, l_pid)
    else:
        length = 0 if lock.end == OFFSET_MAX else lock.end - lock.start + 1
        task.mm.pack(argument, FLOCK, lock.type, os.SEEK_SET, lock.start, length, lock.pid)
    return 0


def _set(
    task: Task, file: FileDescription, argument: int, owner: object, pid: int, wait: bool
) -> int:
    kind, whence, l_start, l_len, l_pid = task.mm.unpack(argument, FLOCK)
    start, end = _range(task, file, whence, l_start, l_len)
    if kind not in (F_RDLCK, F_WRLCK, F_UNLCK):
        raise LinuxError(EINVAL)
    if pid < 0 and l_pid:
        raise LinuxError(EINVAL)
    if (kind == F_RDLCK and not file.mode & FMODE_READ) or (
        kind == F_WRLCK and not file.mode & FMODE_WRITE
    ):
        raise LinuxError(EBADF)
    if kind == F_UNLCK and file.inode.locks is None:
        return 0
    lock_record(task, FileLocks.of(file.inode), owner, kind, start, end, pid, wait)
    return 0


def _range(
    task: Task, file: FileDescription, whence: int, l_start: int, l_len: int
) -> tuple[int, int]:
    """First and last byte. flock64_to_posix_lock()"""
    if whence == os.SEEK_SET:
        base = 0
    elif whence == os.SEEK_CUR:
        base = file.seek(task, 0, os.SEEK_CUR) if file.seekable else 0
    elif whence == os.SEEK_END:
        base = file.stat().size
    else:
        raise LinuxError(EINVAL)
    start = base + l_start
    if start > OFFSET_MAX:
        raise LinuxError(EOVERFLOW)
    if start < 0:
        raise LinuxError(EINVAL)
    if l_len > 0:
        if start + l_len - 1 > OFFSET_MAX:
            raise LinuxError(EOVERFLOW)
        return start, start + l_len - 1
    if l_len < 0:
        if start + l_len < 0:
            raise LinuxError(EINVAL)
        return start + l_len, start - 1
    return start, OFFSET_MAX
