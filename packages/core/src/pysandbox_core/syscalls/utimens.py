"""utime(2), utimes(2), futimesat(2), utimensat(2)."""

from __future__ import annotations

import time
from errno import EBADF, EINVAL, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from pysandbox_core.declare import AtFlags, DirFd, Result, UserAddr, UserPath, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs import notify
from pysandbox_core.fs.permissions import MAY_WRITE, check_access, check_writable_mount, is_owner
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.inode import Inode

UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
TWO_TIMES = Struct("<qqqq")
UTIMBUF = Struct("<qq")
SECOND_NS = 10**9
TIME_MAX = (1 << 63) - 1


@syscall("utime")
def utime(task: Task, path: UserPath, times: UserAddr) -> Result:
    """Set the times of a file, in seconds; a null pointer is now. utime(2)"""
    values: tuple[int, int] | None = None
    if times:
        atime, mtime = task.mm.unpack(times, UTIMBUF)
        values = (atime * SECOND_NS, mtime * SECOND_NS)
    return _change_at(task, AT_FDCWD, path, values, 0)


@syscall("utimes")
def utimes(task: Task, path: UserPath, times: UserAddr) -> Result:
    """Set the times of a file, to the microsecond. utimes(2)"""
    return _change_at(task, AT_FDCWD, path, _timevals(task, times), 0)


@syscall("futimesat")
def futimesat(task: Task, dirfd: DirFd, path: UserPath, times: UserAddr) -> Result:
    """utimes(2) from `dirfd`; a null path is `dirfd` itself."""
    values = _timevals(task, times)
    if not path:
        return _change_fd(task, dirfd, values)
    return _change_at(task, dirfd, path, values, 0)


@syscall("utimensat")
def utimensat(task: Task, dirfd: DirFd, path: UserPath, times: UserAddr, flags: AtFlags) -> Result:
    """Set the times of a file, to the nanosecond; UTIME_NOW, UTIME_OMIT. utimensat(2)

    Errors: EFAULT; EINVAL; those of path resolution; EROFS; EACCES setting to now; EPERM otherwise.
    """
    values: tuple[int | None, int | None] | None = None
    if times:
        atime, atime_nsec, mtime, mtime_nsec = task.mm.unpack(times, TWO_TIMES)
        for nsec in (atime_nsec, mtime_nsec):
            if not 0 <= nsec < SECOND_NS and nsec not in (UTIME_NOW, UTIME_OMIT):
                raise LinuxError(EINVAL)
        if atime_nsec == mtime_nsec == UTIME_OMIT:
            return 0  # nothing is even looked up
        if not atime_nsec == mtime_nsec == UTIME_NOW:
            values = (_nanoseconds(atime, atime_nsec), _nanoseconds(mtime, mtime_nsec))
    if not path and dirfd != AT_FDCWD:
        if flags:
            raise LinuxError(EINVAL)
        return _change_fd(task, dirfd, values)
    return _change_at(task, dirfd, path, values, flags)


def _nanoseconds(seconds: int, nsec: int) -> int | None:
    if nsec == UTIME_OMIT:
        return None
    return time.time_ns() if nsec == UTIME_NOW else seconds * SECOND_NS + nsec


def _timevals(task: Task, times: int) -> tuple[int, int] | None:
    if not times:
        return None
    atime, atime_usec, mtime, mtime_usec = task.mm.unpack(times, TWO_TIMES)
    if not 0 <= atime_usec < 10**6 or not 0 <= mtime_usec < 10**6:
        raise LinuxError(EINVAL)
    return atime * SECOND_NS + atime_usec * 1000, mtime * SECOND_NS + mtime_usec * 1000


def _change_fd(task: Task, fd: int, values: tuple[int | None, int | None] | None) -> int:
    file = task.files.get(fd) if fd >= 0 else None
    if file is None:
        raise LinuxError(EBADF)
    _change(task, file.path, file.inode, values)
    return 0


def _change_at(
    task: Task, dirfd: int, path: int, values: tuple[int | None, int | None] | None, flags: int
) -> int:
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise LinuxError(EINVAL)
    follow = not flags & AT_SYMLINK_NOFOLLOW
    place = resolve(
        task, dirfd, task.mm.read_path(path), follow=follow, empty=flags & AT_EMPTY_PATH != 0
    )
    _change(task, place, place.inode, values)
    return 0


def _change(
    task: Task, place: Path | None, inode: Inode, values: tuple[int | None, int | None] | None
) -> None:
    """vfs_utimes(): None for both times is now, which whoever may write the file may do too."""
    if place is not None:
        check_writable_mount(place.mount)
    if not is_owner(task.creds, inode):
        if values is not None:
            raise LinuxError(EPERM)
        check_access(task.creds, inode, MAY_WRITE)
    if values is None:
        now = time.time_ns()
        values = (now, now)
    inode.set_times(*(_clamp(value) for value in values))
    if notify.watching and place is not None:
        notify.dentry_event(place.dentry, notify.IN_ATTRIB)


def _clamp(value: int | None) -> int | None:
    """Within what struct stat can say."""
    if value is None:
        return None
    limit = TIME_MAX * SECOND_NS
    return max(-limit, min(value, limit))
