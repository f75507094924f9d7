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
from contextlib import contextmanager
from errno import EACCES, EINVAL, ENODATA, ENOTSUP, EPERM, ESTALE
from stat import S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from pysandbox_core.abi.fcntl import FALLOC_FL_PUNCH_HOLE, RENAME_EXCHANGE
from pysandbox_core.errors import LinuxError, linux_errors
from pysandbox_core.fs import notify
from pysandbox_core.fs.host_stdio import stat_of
from pysandbox_core.fs.inode import DirEntry, FileSystem, Inode, Stat, StatFs
from pysandbox_core.fs.overlay import read_host
from pysandbox_core.fs.permissions import drop_privileges_on_write
from pysandbox_core.fs.regular_file import (
    DirectoryFile,
    RegularFile,
    RegularInode,
    check_end,
    check_write,
)
from pysandbox_core.fs.special import open_special
from pysandbox_core.mm.mappable import HostFileMappable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.fs.host_tree import HostDirectory, HostTree
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.mm.mappable import Mappable
    from pysandbox_core.task import Task

CHUNK = 1 << 20
V9FS_MAGIC = 0x01021997
"""statfs(2) type: like other file systems whose files are somebody else's, 9p."""
_O_REOPEN = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


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
        self.may_chown = os.geteuid() == 0
        self.proc_fd = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        """Leads from the number of a descriptor to what it refers to, wherever the root is by
        then."""
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
        os.close(self.proc_fd)


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
            status = os.fstat(self.fd)
        elif self.directory is None:
            status = os.fstat(self.fs.tree.root_fd)
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
            flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self.name, flags, dir_fd=self.directory.fd)
            try:
                if not self.is_same(os.fstat(fd)):
                    raise OSError(ESTALE, os.strerror(ESTALE))
                yield fd
            finally:
                os.close(fd)

    def reopen(self, flags: int) -> int:
        """A new descriptor of this file with the access that `flags` asks for. LinuxError"""
        with self.opened() as fd:
            return os.open(str(fd), flags | _O_REOPEN, dir_fd=self.fs.proc_fd)

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
                os.chown(str(fd), uid, gid, dir_fd=self.fs.proc_fd)
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
            if S_IFMT(self.mode) == S_IFLNK and self.directory is not None:
                os.utime(self.name, ns=times, dir_fd=self.directory.fd, follow_symlinks=False)
            else:
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
        status = os.fstat(self.host.fd)
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
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        with linux_errors():
            fd = os.open(name, flags, 0o600, dir_fd=self.host.fd)
            try:
                if self.fs.may_chown:
                    os.fchown(fd, uid, gid)
                os.fchmod(fd, mode & 0o7777)
                status = os.fstat(fd)
            finally:
                os.close(fd)
        return self.fs.inode(self.host, name, status)

    def tmpfile(self, task: Task, mode: int, uid: int, gid: int) -> Inode:
        with linux_errors():
            fd = os.open(
                ".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode & 0o7777, dir_fd=self.host.fd
            )
            status = os.fstat(fd)
        inode = self.fs.inode(self.host, b"", status)
        assert isinstance(inode, HostFileInode)
        inode.file = HostFileMappable(fd, can_write=True)
        return inode

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
        if not isinstance(inode, HostInode):
            raise LinuxError(ESTALE)
        if self.fs.may_chown:
            with inode.opened() as fd:
                if S_IFMT(mode) != S_IFLNK:
                    os.chown(str(fd), uid, gid, dir_fd=self.fs.proc_fd)
                else:
                    os.chown(name, uid, gid, dir_fd=self.host.fd, follow_symlinks=False)
        if S_IFMT(mode) != S_IFLNK:
            inode.set_mode(mode & 0o7777)
        return inode

    def link(self, task: Task, name: bytes, inode: Inode) -> None:
        assert isinstance(inode, HostInode)
        with inode.opened() as fd:
            if inode.nlink and inode.directory is not None and inode.name:
                source, target = self.fs.tree.two_fds(inode.directory, self.host)
                os.link(
                    inode.name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False
                )
            else:  # O_TMPFILE: open(2) tells to link /proc/self/fd/N
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
        with linux_errors():
            source, target = self.fs.tree.two_fds(self.host, new_dir.host)
            if exchange:
                from pysandbox_core.fs.host_calls import renameat2

                renameat2(source, old_name, target, new_name, RENAME_EXCHANGE)
            else:
                os.rename(old_name, new_name, src_dir_fd=source, dst_dir_fd=target)
        inode.moved(new_dir.host, new_name)
        if isinstance(replaced, HostInode):
            if exchange:
                replaced.moved(self.host, old_name)
            else:
                replaced.nlink -= 1


class HostFileInode(HostInode, RegularInode):
    """A regular file. Open ones share a descriptor for reading, and one for writing too."""

    def __init__(
        self, fs: HostFs, status: os.stat_result, directory: HostDirectory | None, name: bytes
    ) -> None:
        self.file: HostFileMappable | None = None
        """The host's file, open, while somebody has it open or mapped."""
        super().__init__(fs, status, directory, name)

    @property
    def fd(self) -> int:  # type: ignore[override]  # where the others have none
        return -1 if self.file is None else self.file.host_fd

    def acquire(self, writable: bool) -> HostFileMappable:
        """The host's file with a reference for the caller, opened for writing if asked."""
        file = self.file
        if file is not None and file.host_fd >= 0 and (file.can_write or not writable):
            file.incref()
            return file
        with linux_errors():
            if self.directory is None or self.fd >= 0:
                fd = self.reopen(os.O_RDWR if writable else os.O_RDONLY)
            else:
                flags = os.O_RDWR if writable else os.O_RDONLY
                try:
                    fd = self.directory.open_file(self.name, flags, *self.key)
                except PermissionError:
                    if not writable:
                        raise
                    fd = self.directory.open_file(self.name, os.O_WRONLY, *self.key)
        self.file = HostFileMappable(fd, can_write=writable)
        return self.file

    @property
    def size(self) -> int:
        with linux_errors():
            return self.host_stat().st_size

    def truncate(self, length: int) -> None:
        file = self.acquire(True)
        try:
            file.invalidate(length + 4095 & -4096, 1 << 62)
            with linux_errors():
                os.ftruncate(file.host_fd, length)
        finally:
            file.decref()

    def mappable(self, task: Task, writable: bool) -> Mappable:
        return self.acquire(writable)

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        return HostFile(flags, self, path)


class HostFile(RegularFile):
    """An open file of the host. The position is the sandbox's own: pread and pwrite."""

    __slots__ = ("file",)
    inode: HostFileInode

    def __init__(self, flags: int, inode: HostFileInode, path: Path) -> None:
        self.file = inode.acquire(flags & os.O_ACCMODE != os.O_RDONLY)
        super().__init__(flags, inode, path)

    def release(self) -> None:
        super().release()
        self.file.decref()

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        done = read_host(sink, self.file.host_fd, self.offset if offset is None else offset)
        if offset is None:
            self.offset += done
        if not done:
            check_end(self.offset if offset is None else offset, sink.remaining)
        elif notify.watching:
            notify.file_event(self, notify.IN_ACCESS)
        return done

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        if not source.remaining:
            return 0
        host_fd = self.file.host_fd
        if self.inode.mode & 0o6000:
            drop_privileges_on_write(task.creds, self.inode)
        append = self.flags & os.O_APPEND
        position = self.offset if offset is None else offset
        with linux_errors():
            if append:
                position = os.fstat(host_fd).st_size
            left = check_write(task, position, source.remaining)
            start = position
            while left:
                data = source.read(min(left, CHUNK))
                if append:
                    count = os.pwritev(host_fd, [data], 0, os.RWF_APPEND)
                else:
                    count = os.pwrite(host_fd, data, position)
                source.undo(len(data) - count)
                position += count
                left -= count
                if count < CHUNK:
                    break
        if offset is None:
            self.offset = position
        if notify.watching:
            notify.file_event(self, notify.IN_MODIFY)
        return position - start

    def stat(self) -> Stat:
        with linux_errors():
            return stat_of(os.fstat(self.file.host_fd))._replace(dev=self.inode.dev)

    def seek_data(self, offset: int, data: bool) -> int:
        with linux_errors():
            return os.lseek(self.file.host_fd, offset, os.SEEK_DATA if data else os.SEEK_HOLE)

    def allocate(self, task: Task, mode: int, offset: int, length: int) -> None:
        from pysandbox_core.fs.host_calls import fallocate

        if mode & FALLOC_FL_PUNCH_HOLE:
            self.file.invalidate(offset & -4096, offset + length + 4095 & -4096, copies=False)
        with linux_errors():
            fallocate(self.file.host_fd, mode, offset, length)

    def sync(self, task: Task, data_only: bool) -> None:
        with linux_errors():
            (os.fdatasync if data_only else os.fsync)(self.file.host_fd)

    def mappable(self, task: Task) -> Mappable:
        self.file.incref()
        return self.file
