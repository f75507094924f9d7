"""stat(2), fstat(2), lstat(2), fstatat(2), statx(2)."""

from __future__ import annotations

import os
from errno import EINVAL
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.abi.fcntl import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_STATX_SYNC_TYPE,
    AT_SYMLINK_NOFOLLOW,
)
from pysandbox_core.declare import AtFlags, DirFd, Fd, Result, UInt, UserAddr, UserPath, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from pysandbox_core.fs.inode import Stat

STAT = Struct("<QQQIII4xQqqqqqqqqq24x")
"""struct stat of x86-64: dev, ino, nlink, mode, uid, gid, rdev, size, blksize, blocks, atim, mtim,
ctim. arch/x86/include/uapi/asm/stat.h"""
STATX = Struct("<IIQIIIH2xQQQQqI4xqI4xqI4xqI4xIIIIQII96x")
"""struct statx: mask, blksize, attributes, nlink, uid, gid, mode, ino, size, blocks,
attributes_mask, atime, btime, ctime, mtime, rdev major and minor, dev major and minor, mnt_id,
dio_mem_align, dio_offset_align. include/uapi/linux/stat.h"""

STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800
STATX_MNT_ID = 0x1000
STATX__RESERVED = 0x80000000
STATX_ATTR_MOUNT_ROOT = 0x2000

_SECOND = 10**9


@syscall("stat")
def stat(task: Task, path: UserPath, statbuf: UserAddr) -> Result:
    """What is known of the file at `path`. stat(2)

    Errors: those of path resolution; EFAULT.
    """
    place = resolve(task, AT_FDCWD, task.mm.read_path(path))
    task.mm.write(statbuf, pack_stat(place.inode.stat()))
    return 0


@syscall("lstat")
def lstat(task: Task, path: UserPath, statbuf: UserAddr) -> Result:
    """stat(2) of a symbolic link itself."""
    place = resolve(task, AT_FDCWD, task.mm.read_path(path), follow=False)
    task.mm.write(statbuf, pack_stat(place.inode.stat()))
    return 0


@syscall("fstat")
def fstat(task: Task, fd: Fd, statbuf: UserAddr) -> Result:
    """stat(2) of an open file."""
    task.mm.write(statbuf, pack_stat(task.files.get_any(fd).stat()))
    return 0


@syscall("newfstatat")
def newfstatat(
    task: Task, dirfd: DirFd, path: UserPath, statbuf: UserAddr, flags: AtFlags
) -> Result:
    """stat(2) from `dirfd`. fstatat(2)

    Errors: EINVAL unknown flag; EBADF, ENOTDIR `dirfd`; ENOENT empty path without AT_EMPTY_PATH.
    """
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH):
        raise LinuxError(EINVAL)
    task.mm.write(statbuf, pack_stat(_stat_at(task, dirfd, path, flags)))
    return 0


@syscall(
    "statx", note="no direct I/O alignment, no change attribute; birth time only of files in memory"
)
def statx(
    task: Task, dirfd: DirFd, path: UserPath, flags: AtFlags, mask: UInt, statxbuf: UserAddr
) -> Result:
    """stat(2) with a choice of fields. statx(2)

    Errors: EINVAL reserved bit of `mask`, unknown flag, both AT_STATX_FORCE_SYNC and DONT_SYNC.
    """
    if mask & STATX__RESERVED or flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE:
        raise LinuxError(EINVAL)
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE):
        raise LinuxError(EINVAL)
    name = _path_or_empty(task, path, flags)
    mount_id = 0
    is_root = False
    if not name and flags & AT_EMPTY_PATH and dirfd != AT_FDCWD:
        file = task.files.get_any(dirfd)
        status = file.stat()
        place = file.path
    else:
        place = resolve(
            task,
            dirfd,
            name,
            follow=not flags & AT_SYMLINK_NOFOLLOW,
            empty=bool(flags & AT_EMPTY_PATH),
        )
        status = place.inode.stat()
    if place is not None:
        mount_id = place.mount.id
        is_root = place.dentry is place.mount.root
    task.mm.write(statxbuf, pack_statx(status, mount_id, is_root))
    return 0


def _path_or_empty(task: Task, path: int, flags: int) -> bytes:
    """The path; with AT_EMPTY_PATH a null pointer is an empty one (Linux 6.11)."""
    if not path and flags & AT_EMPTY_PATH:
        return b""
    return task.mm.read_path(path)


def _stat_at(task: Task, dirfd: int, path: int, flags: int) -> Stat:
    name = _path_or_empty(task, path, flags)
    if not name and flags & AT_EMPTY_PATH and dirfd != AT_FDCWD:
        return task.files.get_any(dirfd).stat()
    follow = not flags & AT_SYMLINK_NOFOLLOW
    place = resolve(task, dirfd, name, follow=follow, empty=bool(flags & AT_EMPTY_PATH))
    return place.inode.stat()


def pack_stat(status: Stat) -> bytes:
    """The struct stat of `status`."""
    dev, ino, mode, nlink, uid, gid, rdev, size, blksize, blocks, atime, mtime, ctime, _ = status
    return STAT.pack(
        dev, ino, nlink, mode, uid, gid, rdev, size, blksize, blocks,
        atime // _SECOND, atime % _SECOND, mtime // _SECOND, mtime % _SECOND,
        ctime // _SECOND, ctime % _SECOND,
    )  # fmt: skip


def pack_statx(status: Stat, mount_id: int, is_mount_root: bool) -> bytes:
    """The struct statx of `status`."""
    mask = STATX_BASIC_STATS
    if status.btime_ns:
        mask |= STATX_BTIME
    if mount_id:
        mask |= STATX_MNT_ID
    return STATX.pack(
        mask, status.blksize, STATX_ATTR_MOUNT_ROOT if is_mount_root else 0,
        status.nlink, status.uid, status.gid, status.mode,
        status.ino, status.size, status.blocks, STATX_ATTR_MOUNT_ROOT,
        *divmod(status.atime_ns, _SECOND), *divmod(status.btime_ns, _SECOND),
        *divmod(status.ctime_ns, _SECOND), *divmod(status.mtime_ns, _SECOND),
        os.major(status.rdev), os.minor(status.rdev), os.major(status.dev), os.minor(status.dev),
        mount_id, 0, 0,
    )  # fmt: skip
