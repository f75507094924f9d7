"""Inodes and open files without a name: what pipes, sockets, eventfds and their like hang on.

Interface: every file that is in no directory has an `AnonymousInode`, for fstat(2). `AnonymousFile`
is the base of those that have no file type either (eventfd, epoll, timerfd, ...): in Linux they
share one inode; here each has its own, which no program can tell but by st_ino.

Linux: fs/anon_inodes.c, fs/pipe.c, net/socket.c (sockfs).
"""

from __future__ import annotations

import time
from errno import ENXIO
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_description import FileDescription
from pysandbox_core.fs.inode import FileSystem, Inode, Stat, StatFs

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.mount import Mount
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

ANON_INODE_FS_MAGIC = 0x09041934
BLOCK_SIZE = 4096


class AnonymousFs(FileSystem):
    """Where such inodes live: never mounted where a path leads."""

    type_name = b"anon_inodefs"

    def __init__(self, kernel: Kernel) -> None:
        self.dev = kernel.new_device()
        self._last_ino = 0
        self.mount: Mount | None = None
        """For calls that want a Path: AT_EMPTY_PATH."""

    def new_ino(self) -> int:
        self._last_ino += 1
        return self._last_ino

    def statfs(self) -> StatFs:
        return StatFs(type=ANON_INODE_FS_MAGIC)


class AnonymousInode(Inode):
    """The inode of one file without a name. `mode` has the file type: S_IFIFO, S_IFSOCK, or
    none."""

    fs: AnonymousFs

    def __init__(self, kernel: Kernel, mode: int = 0o600, uid: int = 0, gid: int = 0) -> None:
        fs = anonymous_fs(kernel)
        self.fs = fs
        self.ino = fs.new_ino()
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.times = (time.time_ns(),) * 3

    def stat(self) -> Stat:
        return Stat(
            self.fs.dev, self.ino, self.mode, self.nlink, self.uid, self.gid, self.rdev, 0,
            BLOCK_SIZE, 0, *self.times,
        )  # fmt: skip

    def set_mode(self, mode: int) -> None:
        self.mode = self.mode & ~0o7777 | mode

    def set_owner(self, uid: int, gid: int, mode: int) -> None:
        self.uid, self.gid = uid, gid
        self.set_mode(mode)

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        """Through /proc/PID/fd: what is nothing but a descriptor can't be opened again."""
        raise LinuxError(ENXIO)

    def set_times(self, atime_ns: int | None, mtime_ns: int | None) -> None:
        atime, mtime, _ = self.times
        self.times = (
            atime if atime_ns is None else atime_ns,
            mtime if mtime_ns is None else mtime_ns,
            time.time_ns(),
        )


class AnonymousFile(FileDescription):
    """Base of files that are nothing but a descriptor."""

    __slots__ = ()

    KIND = b"unknown"
    """As in /proc/PID/fd: b"anon_inode:[KIND]"."""

    def __init__(self, kernel: Kernel, flags: int) -> None:
        super().__init__(flags, AnonymousInode(kernel))

    def describe(self) -> bytes:
        return b"anon_inode:[" + self.KIND + b"]"


_file_systems: WeakKeyDictionary[Kernel, AnonymousFs] = WeakKeyDictionary()


def anonymous_fs(kernel: Kernel) -> AnonymousFs:
    """The one of `kernel`."""
    fs = _file_systems.get(kernel)
    if fs is None:
        fs = _file_systems[kernel] = AnonymousFs(kernel)
    return fs


def anonymous_mount(kernel: Kernel) -> Mount:
    """A mount that no path leads to, for the Path of an anonymous inode."""
    from pysandbox_core.fs.dentry import Dentry
    from pysandbox_core.fs.mount import Mount

    fs = anonymous_fs(kernel)
    if fs.mount is None:
        fs.mount = Mount(0, fs, Dentry(b"", None, None), b"none", 0)
    return fs.mount
