"""statfs(2), fstatfs(2), ustat(2)."""

from __future__ import annotations

from errno import EINVAL
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.declare import Fd, Result, UInt, UserAddr, UserPath, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.anonymous import AnonymousInode
from pysandbox_core.fs.mount import (
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_RDONLY,
    MS_RELATIME,
    Mount,
)
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from pysandbox_core.fs.inode import FileSystem

STATFS = Struct("<qqQQQQQiiqqq32x")
"""struct statfs: type, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen, frsize, flags."""
USTAT = Struct("<i4xQ6s6s4x")
"""struct ustat: tfree, tinode, fname, fpack."""
ST_VALID = 0x20
S_IFMT, S_IFIFO, S_IFSOCK = 0o170000, 0o010000, 0o140000
_NAMELESS = {S_IFIFO: 0x50495045, S_IFSOCK: 0x534F434B}
"""PIPEFS_MAGIC and SOCKFS_MAGIC: what Linux keeps pipes and sockets in."""
_ST_FLAGS = (
    (MS_RDONLY, 1), (MS_NOSUID, 2), (MS_NODEV, 4), (MS_NOEXEC, 8), (MS_NOATIME, 0x400),
    (MS_NODIRATIME, 0x800), (MS_RELATIME, 0x1000), (MS_NOSYMFOLLOW, 0x2000),
)  # fmt: skip


@syscall("statfs")
def statfs(task: Task, path: UserPath, buf: UserAddr) -> Result:
    """What is known of the file system that holds `path`. statfs(2)"""
    place = resolve(task, AT_FDCWD, task.mm.read_path(path))
    task.mm.write(buf, pack_statfs(place.inode.fs, place.mount))
    return 0


@syscall("fstatfs")
def fstatfs(task: Task, fd: Fd, buf: UserAddr) -> Result:
    """statfs(2) of an open file."""
    file = task.files.get_any(fd)
    mount = None if file.path is None else file.path.mount
    data = pack_statfs(file.inode.fs, mount)
    if isinstance(file.inode, AnonymousInode):
        magic = _NAMELESS.get(file.inode.mode & S_IFMT)
        if magic is not None:
            data = STATFS.pack(magic, *STATFS.unpack(data)[1:])
    task.mm.write(buf, data)
    return 0


@syscall("ustat")
def ustat(task: Task, dev: UInt, ubuf: UserAddr) -> Result:
    """statfs(2) by device number, as it was long ago. EINVAL no mounted file system has it.
    ustat(2)"""
    for mount in task.kernel.mounts.all():
        if mount.fs.dev == dev:
            status = mount.fs.statfs()
            task.mm.write(ubuf, USTAT.pack(status.bfree & 0x7FFFFFFF, status.ffree, b"", b""))
            return 0
    raise LinuxError(EINVAL)


def pack_statfs(fs: FileSystem, mount: Mount | None) -> bytes:
    """The struct statfs of a file system as seen through `mount`."""
    status = fs.statfs()
    flags = ST_VALID | status.flags
    if mount is not None:
        for ms_flag, st_flag in _ST_FLAGS:
            if mount.flags & ms_flag:
                flags |= st_flag
    return STATFS.pack(
        status.type, status.bsize, status.blocks, status.bfree, status.bavail, status.files,
        status.ffree, fs.dev & 0x7FFFFFFF, 0, status.namelen, status.bsize, flags,
    )  # fmt: skip
