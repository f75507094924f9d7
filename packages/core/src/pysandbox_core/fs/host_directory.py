"""A directory of the host as a file system: what `--bind` mounts, read-only or read-write.

Interface: every operation is the host's own, done beneath the tree's root descriptor (host_tree.py)
and with the host's errors; what a writable bind changes, the caller sees. The host may change the
tree at any moment, so nothing is remembered: each lookup asks the host, and `cacheable` is False.

- An inode stands for (st_dev, st_ino) of the host. It remembers the name under which it was seen
  last and goes back to the host through that; a file that is open is reached through its
  descriptor.
- Attributes are changed through an O_PATH descriptor of the very file, by /proc/self/fd of this
  process, so no symbolic link put in its place is ever followed.
- New files belong to the program's user where this process may do that on the host, else to its
  own.
- Fifos and sockets are this kernel's: they have a name on the host, but nobody there is reached
  through it. Devices can be seen and never opened.

Linux's analogue: a bind mount; gVisor's: the gofer file system.
"""

from __future__ import annotations

import os
from errno import EPERM, ESTALE
from stat import S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from pysandbox_core.abi.fcntl import RENAME_EXCHANGE
from pysandbox_core.errors import LinuxError, linux_errors
from pysandbox_core.fs import host_ids
from pysandbox_core.fs.host_file import HostFileInode
from pysandbox_core.fs.host_inode import HostInode
from pysandbox_core.fs.inode import DirEntry, FileSystem, Inode, StatFs
from pysandbox_core.fs.regular_file import (
    DirectoryFile,
)
from pysandbox_core.mm.mappable import HostFileMappable

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.fs.host_tree import HostDirectory, HostTree
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

V9FS_MAGIC = 0x01021997
"""statfs(2) type: like other file systems whose files are somebody else's, 9p."""


class HostFs(FileSystem):
    """One bound directory. Owns the tree."""

    type_name = b"9p"
    cacheable = False

    def __init__(self, kernel: Kernel, tree: HostTree, *, writable: bool) -> None:
        self.kernel = kernel
        self.tree = tree
        self.writable = writable
        self.dev = kernel.new_device()
        self.inodes: WeakValueDictionary[tuple[int, int], HostInode] = WeakValueDictionary()
        self.may_chown = writable and _may_chown()
        """Files get the owners that the program gives them; otherwise they are the caller's, as
        those of an ordinary user, and of the jailed sentry, are."""
        self.proc_fd = tree.descriptors_fd
        self._devices: dict[int, int] = {tree.root_stat.st_dev: self.dev}
        self.root = HostDirectoryInode(self, tree.root_stat, None, b"", tree.root)

    def device_of(self, host_dev: int) -> int:
        """st_dev of what lies on `host_dev` of the host: a host's mount inside has one of its
        own."""
        dev = self._devices.get(host_dev)
        if dev is None:
            dev = self._devices[host_dev] = self.kernel.new_device()
        return dev

    def lookup_host(self, parent: Inode, name: bytes) -> Inode | None:
        """What is called `name` in `parent`, a directory of this file system."""
        assert isinstance(parent, HostDirectoryInode)
        with linux_errors():
            status = parent.host.stat(name)
        return None if status is None else self.inode(parent.host, name, status)

    def inode(self, directory: HostDirectory, name: bytes, status: os.stat_result) -> HostInode:
        """The inode of a host file that was just seen as `name` in `directory`."""
        key = (status.st_dev, status.st_ino)
        known = self.inodes.get(key)
        if known is not None and S_IFMT(known.mode) == S_IFMT(status.st_mode):
            known.seen(directory, name, status)
            return known
        kind = S_IFMT(status.st_mode)
        inode: HostInode
        if kind == S_IFDIR:
            inode = HostDirectoryInode(self, status, directory, name, directory.child(name, status))
        elif kind == S_IFREG:
            inode = HostFileInode(self, status, directory, name)
        else:
            inode = HostInode(self, status, directory, name)
        self.inodes[key] = inode
        return inode

    def statfs(self) -> StatFs:
        with linux_errors():
            host = os.fstatvfs(self.tree.root_fd)
        scale = host.f_frsize / host.f_bsize
        return StatFs(
            type=V9FS_MAGIC,
            bsize=host.f_bsize,
            blocks=int(host.f_blocks * scale),
            bfree=int(host.f_bfree * scale),
            bavail=int(host.f_bavail * scale),
            files=host.f_files,
            ffree=host.f_ffree,
            namelen=host.f_namemax,
        )

    def unmounted(self) -> None:
        self.tree.close()


class HostDirectoryInode(HostInode):
    """A directory."""

    def __init__(
        self,
        fs: HostFs,
        status: os.stat_result,
        directory: HostDirectory | None,
        name: bytes,
        host: HostDirectory,
    ) -> None:
        self.host = host
        super().__init__(fs, status, directory, name)

    def seen(self, directory: HostDirectory | None, name: bytes, status: os.stat_result) -> None:
        super().seen(directory, name, status)
        self.host.parent, self.host.name = directory, name

    def host_stat(self) -> os.stat_result:
        status = host_ids.fstat(self.host.fd)
        self.mode, self.uid, self.gid = status.st_mode, status.st_uid, status.st_gid
        self.nlink = status.st_nlink
        return status

    def lookup(self, task: Task, name: bytes) -> Inode | None:
        return self.fs.lookup_host(self, name)

    def entries(self, task: Task) -> list[DirEntry]:
        with linux_errors():
            return self.host.list()

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        return DirectoryFile(flags, self, path)

    def create(self, task: Task, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        with linux_errors():
            fd = self.host.create(name, 0o600)
            try:
                if self.fs.may_chown:
                    os.fchown(fd, uid, gid)
                os.fchmod(fd, mode & 0o7777)
                status = host_ids.fstat(fd)
            except OSError:
                os.close(fd)
                raise
        inode = self.fs.inode(self.host, name, status)
        if mode & 0o600 == 0o600:
            os.close(fd)
        else:  # whom its mode keeps from opening it may still open it as he makes it
            self._keep_open(inode, fd)
        return inode

    def tmpfile(self, task: Task, mode: int, uid: int, gid: int) -> Inode:
        with linux_errors():
            fd = self.host.create_unnamed(mode & 0o7777)
            status = host_ids.fstat(fd)
        inode = self.fs.inode(self.host, b"", status)
        self._keep_open(inode, fd)
        return inode

    @staticmethod
    def _keep_open(inode: Inode, fd: int) -> None:
        assert isinstance(inode, HostFileInode)
        inode.file = HostFileMappable(fd, can_write=True)
        inode.created = True

    def mkdir(self, task: Task, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        with linux_errors():
            os.mkdir(name, 0o700, dir_fd=self.host.fd)
        return self._made(name, mode, uid, gid)

    def mknod(self, task: Task, name: bytes, mode: int, rdev: int, uid: int, gid: int) -> Inode:
        if S_IFMT(mode) not in (S_IFIFO, S_IFSOCK):
            raise LinuxError(EPERM)  # no devices on the host, whoever asks
        with linux_errors():
            os.mknod(name, S_IFMT(mode) | 0o600, 0, dir_fd=self.host.fd)
        return self._made(name, mode, uid, gid)

    def symlink(self, task: Task, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
        with linux_errors():
            os.symlink(target, name, dir_fd=self.host.fd)
        return self._made(name, S_IFLNK | 0o777, uid, gid)

    def _made(self, name: bytes, mode: int, uid: int, gid: int) -> HostInode:
        """Give what was just made its owner and its mode."""
        inode = self.lookup(None, name)  # type: ignore[arg-type]  # the host does not ask for whom
        if not isinstance(inode, HostInode) or S_IFMT(inode.mode) != S_IFMT(mode):
            raise LinuxError(ESTALE)  # somebody has put another file in its place
        if self.fs.may_chown:
            with inode.opened() as fd:
                os.chown(str(fd), uid, gid, dir_fd=self.fs.proc_fd)
        if S_IFMT(mode) != S_IFLNK:
            inode.set_mode(mode & 0o7777)
        return inode

    def link(self, task: Task, name: bytes, inode: Inode) -> None:
        assert isinstance(inode, HostInode)
        with inode.opened() as fd:  # by descriptor, as open(2) tells for O_TMPFILE
            os.link(
                str(fd), name, src_dir_fd=self.fs.proc_fd, dst_dir_fd=self.host.fd,
                follow_symlinks=True,
            )  # fmt: skip
        inode.moved(self.host, name)

    def unlink(self, task: Task, name: bytes, inode: Inode) -> None:
        with linux_errors():
            os.unlink(name, dir_fd=self.host.fd)
        inode.nlink -= 1

    def rmdir(self, task: Task, name: bytes, inode: Inode) -> None:
        with linux_errors():
            os.rmdir(name, dir_fd=self.host.fd)
        inode.nlink = 0

    def rename(
        self,
        task: Task,
        old_name: bytes,
        inode: Inode,
        new_dir: Inode,
        new_name: bytes,
        replaced: Inode | None,
        exchange: bool,
    ) -> None:
        assert isinstance(inode, HostInode)
        assert isinstance(new_dir, HostDirectoryInode)
        fds = self.fs.tree.two_fds(self.host, new_dir.host)
        with linux_errors(), fds as (source, target):
            if exchange:
                from pysandbox_core.host_calls import renameat2

                renameat2(source, old_name, target, new_name, RENAME_EXCHANGE)
            else:
                os.rename(old_name, new_name, src_dir_fd=source, dst_dir_fd=target)
        inode.moved(new_dir.host, new_name)
        if isinstance(replaced, HostInode):
            if exchange:
                replaced.moved(self.host, old_name)
            else:
                replaced.nlink -= 1


def _may_chown() -> bool:
    """Has this process CAP_CHOWN, and ids to use it with? capabilities(7)"""
    if host_ids.in_effect() is not None:
        return False
    from pysandbox_core.host_calls import effective_capabilities

    return bool(effective_capabilities() & 1)
