"""open(2), openat(2), creat(2), openat2(2), close(2), close_range(2)."""

from __future__ import annotations

import os
from errno import E2BIG, EAGAIN, EINVAL
from struct import Struct

from pysandbox_core.abi.fcntl import (
    AT_FDCWD,
    O_LARGEFILE,
    O_TMPFILE_BIT,
    RESOLVE_ALL,
    RESOLVE_BENEATH,
    RESOLVE_CACHED,
    RESOLVE_IN_ROOT,
)
from pysandbox_core.declare import (
    DirFd,
    Fd,
    Mode,
    OpenFlags,
    Result,
    Size,
    UInt,
    UserAddr,
    UserPath,
    syscall,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.open_file import open_path
from pysandbox_core.task import Task
from pysandbox_core.waiting import Turn

OPEN_HOW = Struct("<QQQ")
"""struct open_how: flags, mode, resolve. linux/openat2.h"""
PAGE_SIZE = 4096

O_CLOEXEC = os.O_CLOEXEC
VALID_OPEN_FLAGS = (
    os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_TRUNC | os.O_APPEND | os.O_NONBLOCK
    | os.O_SYNC | os.O_DSYNC | os.O_ASYNC | os.O_DIRECT | O_LARGEFILE | os.O_DIRECTORY
    | os.O_NOFOLLOW | os.O_NOATIME | O_CLOEXEC | os.O_PATH | O_TMPFILE_BIT
)  # fmt: skip
O_PATH_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_PATH | O_CLOEXEC

CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4


@syscall("open")
def open(task: Task, path: UserPath, flags: OpenFlags, mode: Mode) -> Result:
    """Open, or make, the file at `path` and return a descriptor of it. open(2)

    Errors: those of path resolution and permission; EEXIST, EISDIR, ENOTDIR, ELOOP, EROFS, ENXIO,
    ETXTBSY; EMFILE. Unknown flags are ignored.
    """
    return _open(task, AT_FDCWD, path, flags & VALID_OPEN_FLAGS, mode)


@syscall("openat")
def openat(task: Task, dirfd: DirFd, path: UserPath, flags: OpenFlags, mode: Mode) -> Result:
    """open(2) from `dirfd`."""
    return _open(task, dirfd, path, flags & VALID_OPEN_FLAGS, mode)


@syscall("creat")
def creat(task: Task, path: UserPath, mode: Mode) -> Result:
    """open(2) with O_CREAT, O_WRONLY and O_TRUNC."""
    return _open(task, AT_FDCWD, path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)


@syscall("openat2")
def openat2(task: Task, dirfd: DirFd, path: UserPath, how: UserAddr, size: Size) -> Result:
    """openat(2) with limits on how the path is resolved. openat2(2)

    Errors: EINVAL `size` too small, unknown flag or RESOLVE_* bit, `mode` without O_CREAT; E2BIG a
    larger struct with something in what is unknown here; EXDEV, ELOOP, EAGAIN as RESOLVE_* says.
    """
    if size < OPEN_HOW.size:
        raise LinuxError(EINVAL)
    if size > PAGE_SIZE:
        raise LinuxError(E2BIG)
    data = task.mm.read(how, size)
    if any(data[OPEN_HOW.size :]):
        raise LinuxError(E2BIG)
    flags, mode, resolve = OPEN_HOW.unpack_from(data)
    if flags & ~VALID_OPEN_FLAGS or resolve & ~RESOLVE_ALL:
        raise LinuxError(EINVAL)
    if resolve & RESOLVE_BENEATH and resolve & RESOLVE_IN_ROOT:
        raise LinuxError(EINVAL)
    if mode & ~0o7777 or (mode and not flags & (os.O_CREAT | O_TMPFILE_BIT)):
        raise LinuxError(EINVAL)
    if flags & os.O_PATH and flags & ~O_PATH_FLAGS:
        raise LinuxError(EINVAL)
    if resolve & RESOLVE_CACHED and flags & (os.O_TRUNC | os.O_CREAT | O_TMPFILE_BIT):
        raise LinuxError(EAGAIN)
    return _open(task, dirfd, path, flags, mode, resolve)


def _open(task: Task, dirfd: int, path: int, flags: int, mode: int, resolve: int = 0) -> int:
    """build_open_flags(), then the open itself."""
    if flags & (os.O_CREAT | O_TMPFILE_BIT | os.O_PATH):
        if flags & os.O_PATH:
            flags &= O_PATH_FLAGS
        elif flags & O_TMPFILE_BIT:
            if flags & os.O_TMPFILE != os.O_TMPFILE or flags & os.O_CREAT or not flags & 3:
                raise LinuxError(EINVAL)
        elif flags & os.O_DIRECTORY:
            raise LinuxError(EINVAL)
    name = task.mm.read_path(path)
    file = open_path(task, dirfd, name, flags, mode, resolve)
    return task.files.install(task, file, cloexec=bool(flags & O_CLOEXEC))


@syscall("close")
def close(task: Task, fd: Fd) -> Result:
    """Free the descriptor; the last one of a file description closes that. close(2)"""
    task.files.close(task, fd)
    return 0


@syscall("close_range")
def close_range(task: Task, first: UInt, last: UInt, flags: UInt) -> Result:
    """Close every descriptor of a range, or set close-on-exec for them. close_range(2)

    Errors: EINVAL first > last, unknown flag.
    """
    if flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) or first > last:
        raise LinuxError(EINVAL)
    files = task.files
    if flags & CLOSE_RANGE_UNSHARE and files.users > 1:
        files.users -= 1
        files = task.files = files.copy()
    fds = [fd for fd, _ in files.open_fds() if first <= fd <= last]
    if flags & CLOSE_RANGE_CLOEXEC:
        files.cloexec.update(fds)
        return 0
    turn = Turn(task)
    for fd in fds:
        if files.find(fd) is not None:  # another thread may have closed it meanwhile
            files.close(task, fd)
        turn.goes_on()  # a signal does not end it
    return 0
