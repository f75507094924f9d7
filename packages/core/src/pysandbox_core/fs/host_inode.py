"""HostInode: a file of the host as the VFS has it; the base of what host_directory.py is made of.

Interface: see host_directory.py for the rules. The class itself stands for symbolic links, fifos,
sockets and devices.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from errno import EACCES, EINVAL, ENODATA, ENOTSUP, EPERM, ESTALE
from stat import S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError, linux_errors
from pysandbox_core.fs import host_ids
from pysandbox_core.fs.host_stdio import stat_of
from pysandbox_core.fs.inode import Inode, Stat
from pysandbox_core.fs.special import open_special

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.fs.host_directory import HostFs
    from pysandbox_core.fs.host_tree import HostDirectory
    from pysandbox_core.task import Task


class HostInode(Inode):
    """Any file; those without a class of their own are symbolic links, fifos, sockets and
    devices."""

    fs: HostFs
    fd = -1
    """A descriptor of the file, while one is open."""

    def __init__(
        self, fs: HostFs, status: os.stat_result, directory: HostDirectory | None, name: bytes
    ) -> None:
        self.fs = fs
        self.key = (status.st_dev, status.st_ino)
        self.ino = status.st_ino
        self.dev = fs.device_of(status.st_dev)
        self.rdev = status.st_rdev
        self.seen(directory, name, status)

    def seen(self, directory: HostDirectory | None, name: bytes, status: os.stat_result) -> None:
        """The host has it as `name` in `directory` now, with these attributes."""
        self.directory = directory
        self.name = name
        self.mode = status.st_mode
        self.uid = status.st_uid
        self.gid = status.st_gid
        self.nlink = status.st_nlink

    def moved(self, directory: HostDirectory, name: bytes) -> None:
        """It should be `name` in `directory` now; if the host says otherwise, it is not."""
        with linux_errors():
            status = directory.stat(name)
        if status is not None and self.is_same(status):
            self.seen(directory, name, status)

    def is_same(self, status: os.stat_result) -> bool:
        """Is it this file? Inode numbers are used again, so the type is looked at too."""
        return (status.st_dev, status.st_ino) == self.key and not (
            S_IFMT(status.st_mode) ^ S_IFMT(self.mode)
        )

    def host_stat(self) -> os.stat_result:
        """As of now. Raises OSError."""
        if self.fd >= 0:
            status = host_ids.fstat(self.fd)
        elif self.directory is None:
            status = host_ids.fstat(self.fs.tree.root_fd)
        else:
            found = self.directory.stat(self.name)
            if found is None or not self.is_same(found):
                raise OSError(ESTALE, os.strerror(ESTALE))
            status = found
        self.mode, self.uid, self.gid = status.st_mode, status.st_uid, status.st_gid
        self.nlink = status.st_nlink
        return status

    def stat(self) -> Stat:
        with linux_errors():
            status = stat_of(self.host_stat())
        return status._replace(dev=self.dev)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """An O_PATH descriptor of exactly this file. Host errors become the program's."""
        with linux_errors():
            if self.fd >= 0:
                yield self.fd
                return
            if self.directory is None:
                yield self.fs.tree.root_fd
                return
            fd = self.directory.pin(self.name)
            try:
                if not self.is_same(os.fstat(fd)):
                    raise OSError(ESTALE, os.strerror(ESTALE))
                yield fd
            finally:
                os.close(fd)

    def reopen(self, flags: int) -> int:
        """A new descriptor of this regular file or directory, with the access that `flags` asks
        for. LinuxError"""
        assert S_IFMT(self.mode) in (S_IFREG, S_IFDIR)
        with self.opened() as fd:
            return self.fs.tree.reopen(fd, flags)

    def _refresh(self) -> None:
        with linux_errors():
            self.host_stat()

    def set_mode(self, mode: int) -> None:
        with self.opened() as fd:
            os.chmod(str(fd), mode, dir_fd=self.fs.proc_fd)
        self._refresh()

    def set_owner(self, uid: int, gid: int, mode: int) -> None:
        with self.opened() as fd:
            if (uid, gid) != (self.uid, self.gid):
                owner = host_ids.host_owner(uid, gid, (self.uid, self.gid))
                os.chown(str(fd), *owner, dir_fd=self.fs.proc_fd)
            if mode != self.mode & 0o7777 and S_IFMT(self.mode) != S_IFLNK:
                os.chmod(str(fd), mode, dir_fd=self.fs.proc_fd)
        self._refresh()

    def set_times(self, atime_ns: int | None, mtime_ns: int | None) -> None:
        with self.opened() as fd:
            status = os.fstat(fd)
            times = (
                status.st_atime_ns if atime_ns is None else atime_ns,
                status.st_mtime_ns if mtime_ns is None else mtime_ns,
            )
            os.utime(str(fd), ns=times, dir_fd=self.fs.proc_fd)

    def truncate(self, length: int) -> None:
        if S_IFMT(self.mode) == S_IFIFO:
            raise LinuxError(EINVAL)

    def readlink(self, task: Task) -> bytes:
        if S_IFMT(self.mode) != S_IFLNK or self.directory is None:
            raise LinuxError(EINVAL)
        with linux_errors():
            return self.directory.readlink(self.name)

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        if S_IFMT(self.mode) not in (S_IFIFO, S_IFSOCK):
            raise LinuxError(EACCES)  # a device of the host
        return open_special(task, self, path, flags)

    # Extended attributes: the host's `user.*`.

    def get_xattr(self, name: bytes) -> bytes:
        with self._xattr_fd(name) as fd:
            return os.getxattr(fd, name)

    def set_xattr(self, name: bytes, value: bytes, flags: int) -> None:
        with self._xattr_fd(name) as fd:
            os.setxattr(fd, name, value, flags)

    def list_xattrs(self) -> list[bytes]:
        if S_IFMT(self.mode) not in (S_IFREG, S_IFDIR):
            return []
        with self._xattr_fd(b"user.") as fd:
            names = [os.fsencode(name) for name in os.listxattr(fd)]
        return [name for name in names if name.startswith(b"user.")]

    def remove_xattr(self, name: bytes) -> None:
        with self._xattr_fd(name) as fd:
            os.removexattr(fd, name)

    @contextmanager
    def _xattr_fd(self, name: bytes) -> Iterator[int]:
        if not name.startswith(b"user."):
            raise LinuxError(ENODATA if name.startswith(b"security.") else ENOTSUP)
        if S_IFMT(self.mode) not in (S_IFREG, S_IFDIR):
            raise LinuxError(EPERM)
        fd = self.reopen(os.O_RDONLY)
        try:
            with linux_errors():
                yield fd
        finally:
            os.close(fd)
