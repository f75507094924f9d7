"""The overlay: a host directory as it is, and whatever the program makes of it, in memory.

Interface: a `FileSystem` like tmpfs, whose files may have a *lower* file on the host, read-only.
Nothing is ever written below. The host's tree is taken not to change while the sandbox runs: what
was looked up there, found or not, is remembered.

How it differs from Linux's overlayfs, which it otherwise resembles: there is no second tree above.
An inode that came from the host is made from a stat of it and forgotten again when nobody refers to
it; once anything about it has changed it is *settled*, which means that it stays: a file in the
file system's table by its host identity, a directory in the `names` of the directory above. So
- a copy-up costs nothing but the pages that are changed, and inode numbers, hard links, locks and
  watches are the same before and after;
- a renamed directory keeps its lower one, wherever that is (Linux: redirect_dir);
- a whiteout is a name that means None, a directory made anew has no lower one (Linux: opaque).
As there, a mapping made before a file is first opened for writing shows the host's file for ever.

Inode numbers: the host's for its first device; for others, and for new files, with an index above
bit 48, so that they are unique within one st_dev, which is what find -xdev and tar expect of one
mount.
"""

from __future__ import annotations

import os
from errno import EIO, ENODATA
from stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from pysandbox_core.errors import LinuxError, linux_errors
from pysandbox_core.fs.file_pages import FilePages
from pysandbox_core.fs.inode import DirEntry, Inode, StatFs
from pysandbox_core.fs.tmpfs import (
    TmpDirectory,
    TmpFile,
    TmpFileDescription,
    TmpFs,
    TmpInode,
    TmpSpecial,
    TmpSymlink,
)
from pysandbox_core.mm.mappable import HostFileMappable

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.fs.host_tree import HostDirectory, HostTree
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.mm.mappable import Mappable
    from pysandbox_core.task import Task

OVERLAYFS_SUPER_MAGIC = 0x794C7630
_INO_SHIFT = 48
_INO_MASK = (1 << _INO_SHIFT) - 1
_DIRECT_READ = 1 << 15
"""Bytes from which a read goes straight to the program's memory."""
_MISSING = object()


class OverlayFs(TmpFs):
    """A writable view of a host tree that stays as it is. Owns the tree."""

    type_name = b"overlay"

    def __init__(self, kernel: Kernel, tree: HostTree) -> None:
        self.tree = tree
        self.settled: dict[tuple[int, int], TmpInode] = {}
        """Files, no directories, that differ from the host's, by (st_dev, st_ino) of those."""
        self.linked: WeakValueDictionary[tuple[int, int], TmpInode] = WeakValueDictionary()
        """Files with several names on the host, while they are in use."""
        self._devices: dict[int, int] = {tree.root_stat.st_dev: 0}
        """Host st_dev -> index in the upper bits of inode numbers. Index 1 is for new files."""
        super().__init__(kernel)
        self.root = OverlayDirectory(self, tree.root_stat, tree.root, None, b"")

    def new_ino(self) -> int:
        return 1 << _INO_SHIFT | super().new_ino()

    def ino_of(self, dev: int, ino: int) -> int:
        """The inode number of a host file."""
        index = self._devices.get(dev)
        if index is None:
            index = self._devices[dev] = len(self._devices) + 1
        return ino if not index and ino <= _INO_MASK else index << _INO_SHIFT | ino & _INO_MASK

    def new_directory(self, mode: int, uid: int, gid: int) -> TmpDirectory:
        return NewDirectory(self, mode, uid, gid)

    def statfs(self) -> StatFs:
        return super().statfs()._replace(type=OVERLAYFS_SUPER_MAGIC)

    def options(self) -> bytes:
        return b""

    def unmounted(self) -> None:
        self.settled.clear()
        self.tree.close()


class NewDirectory(TmpDirectory):
    """A directory that the program made: with a size like one on a disk."""

    entry_size = 0

    def __init__(self, fs: TmpFs, mode: int, uid: int, gid: int) -> None:
        super().__init__(fs, mode, uid, gid)
        self.size = 4096


class LowerInode(TmpInode):
    """An inode that began as a file of the host."""

    fs: OverlayFs
    is_settled = False

    def __init__(self, fs: OverlayFs, status: os.stat_result) -> None:
        self.fs = fs
        self.key = (status.st_dev, status.st_ino)
        self.ino = fs.ino_of(status.st_dev, status.st_ino)
        self.mode = status.st_mode
        self.uid = status.st_uid
        self.gid = status.st_gid
        self.nlink = status.st_nlink
        self.rdev = status.st_rdev
        self.atime_ns = status.st_atime_ns
        self.mtime_ns = status.st_mtime_ns
        self.ctime_ns = status.st_ctime_ns
        self.btime_ns = 0
        self.xattrs: dict[bytes, bytes] | None = None

    def settle(self) -> None:
        if not self.is_settled:
            self.charge(1)
            self.is_settled = True
            self.fs.settled[self.key] = self

    def changed(self) -> None:
        super().changed()
        self.settle()

    def modified(self) -> None:
        super().modified()
        self.settle()

    def accessed(self) -> None:
        """Reading does not make a file differ from the host's."""
        if self.is_settled:
            super().accessed()

    def named(self, by: int) -> None:
        super().named(by)
        if not self.nlink:
            self.fs.settled.pop(self.key, None)
            self.fs.linked.pop(self.key, None)

    # Extended attributes: of the host's, `user.*` shows through.

    def host_descriptor(self) -> int:
        """A readable host descriptor of the lower file, to be closed; -1 for none."""
        return -1

    def load_xattrs(self) -> dict[bytes, bytes]:
        """The attributes; from the first call on they are the inode's own."""
        if self.xattrs is None:
            self.xattrs = {}
            try:
                fd = self.host_descriptor()
            except OSError:
                return self.xattrs
            if fd >= 0:
                try:
                    for name in os.listxattr(fd):
                        if name.startswith("user."):
                            self.xattrs[os.fsencode(name)] = os.getxattr(fd, name)
                except OSError:
                    pass  # this host file system has none, or one has just gone
                finally:
                    os.close(fd)
        return self.xattrs

    def get_xattr(self, name: bytes) -> bytes:
        if self.xattrs is None and name.startswith(b"security."):
            raise LinuxError(ENODATA)  # asked for by every `ls -l`
        if name.startswith(b"user."):
            self.load_xattrs()
        return super().get_xattr(name)

    def set_xattr(self, name: bytes, value: bytes, flags: int) -> None:
        self.load_xattrs()
        super().set_xattr(name, value, flags)

    def list_xattrs(self) -> list[bytes]:
        return list(self.load_xattrs())

    def remove_xattr(self, name: bytes) -> None:
        self.load_xattrs()
        super().remove_xattr(name)


class OverlayDirectory(LowerInode, TmpDirectory):
    """A directory of the host and what has changed in it: in `names`, a name that is not there
    means what it means on the host."""

    def __init__(
        self,
        fs: OverlayFs,
        status: os.stat_result,
        lower: HostDirectory,
        above: OverlayDirectory | None,
        name: bytes,
    ) -> None:
        LowerInode.__init__(self, fs, status)
        self.lower = lower
        self.above = above
        """The directory that this one was found in; what it is called there. Of no use once
        settled."""
        self.name = name
        self.names: dict[bytes, TmpInode | None] = {}
        self.size = status.st_size
        self._blocks = status.st_blocks
        self._listing: list[DirEntry] | None = None

    @property
    def blocks(self) -> int:
        return self._blocks

    def settle(self) -> None:
        """Every directory above has to remember the way here."""
        directory = self
        while not directory.is_settled:
            directory.charge(1)
            directory.is_settled = True
            above = directory.above
            if above is None:
                break
            above.names[directory.name] = directory
            directory = above

    def lookup(self, task: Task, name: bytes) -> Inode | None:
        inode = self.names.get(name, _MISSING)
        if inode is not _MISSING:
            return inode  # type: ignore[return-value]  # not the marker
        try:
            status = self.lower.stat(name)
        except OSError as error:
            raise LinuxError(error.errno or EIO) from None
        return None if status is None else self._from_host(name, status)

    def _from_host(self, name: bytes, status: os.stat_result) -> TmpInode:
        fs = self.fs
        kind = S_IFMT(status.st_mode)
        if kind == S_IFDIR:
            return OverlayDirectory(fs, status, self.lower.child(name, status), self, name)
        key = (status.st_dev, status.st_ino)
        known = fs.settled.get(key)
        if known is None and status.st_nlink > 1:
            known = fs.linked.get(key)
        if known is not None:
            return known
        inode: TmpInode
        if kind == S_IFREG:
            inode = OverlayFile(fs, status, self.lower, name)
        elif kind == S_IFLNK:
            inode = OverlaySymlink(fs, status, self.lower, name)
        else:
            inode = OverlaySpecial(fs, status)
        if status.st_nlink > 1:
            fs.linked[key] = inode
        return inode

    def entries(self, task: Task) -> list[DirEntry]:
        self.accessed()
        fs, dev = self.fs, self.lower.dev
        if self._listing is None:
            with linux_errors():
                listing = self.lower.list()
            self._listing = [
                DirEntry(name, fs.ino_of(dev, ino), kind) for name, ino, kind in listing
            ]
        names = self.names
        if not names:
            return self._listing
        found = [entry for entry in self._listing if entry.name not in names]
        found += [
            DirEntry(name, inode.ino, S_IFMT(inode.mode))
            for name, inode in names.items()
            if inode is not None
        ]
        return found

    def is_empty(self, task: Task) -> bool:
        if any(inode is not None for inode in self.names.values()):
            return False
        return not self.entries(task)

    def put(self, name: bytes, inode: TmpInode) -> None:
        self.settle()
        inode.settle()
        self.names[name] = inode

    def drop(self, name: bytes) -> None:
        self.settle()
        with linux_errors():
            below = self.lower.stat(name)
        if below is None:
            del self.names[name]
        else:
            self.names[name] = None

    def adjust_nlink(self, by: int) -> None:
        if self.nlink > 1:  # 1: the host's file system does not count
            self.nlink += by

    def host_descriptor(self) -> int:
        return self.lower.open_itself()


class OverlayFile(LowerInode, TmpFile):
    """A regular file of the host; `pages` is None until it is opened for writing or truncated."""

    pages: FilePages | None  # type: ignore[assignment]
    seals = 0

    def __init__(
        self, fs: OverlayFs, status: os.stat_result, directory: HostDirectory, name: bytes
    ) -> None:
        self.pages = None
        LowerInode.__init__(self, fs, status)
        self.lower_directory = directory
        self.lower_name = name
        self.lower_size = status.st_size
        self.lower_blocks = status.st_blocks
        self._lower_file: HostFileMappable | None = None

    @property
    def size(self) -> int:  # type: ignore[override]
        pages = self.pages
        return self.lower_size if pages is None else pages._size

    @property
    def blocks(self) -> int:
        return self.lower_blocks if self.pages is None else self.pages.blocks

    def lower_file(self) -> HostFileMappable:
        """The host's file, open; without a reference for the caller. Raises LinuxError"""
        file = self._lower_file
        if file is None or file.host_fd < 0:
            dev, ino = self.key
            try:
                fd = self.lower_directory.open_file(self.lower_name, os.O_RDONLY, dev, ino)
            except OSError as error:
                raise LinuxError(error.errno or EIO) from None
            file = self._lower_file = HostFileMappable(fd)
            self.fs.tree.keep(file)  # open for the next user, too
        return file

    def copy_up(self) -> FilePages:
        """Its content is the sandbox's own from now on."""
        pages = self.pages
        if pages is None:
            file = self.lower_file()
            self.settle()
            file.incref()
            pages = self.pages = FilePages(
                self.fs.kernel.memory_file, self.fs.space, file, self.lower_size
            )
        return pages

    def read_at(self, sink: Sink, offset: int, limit: int) -> int:
        if self.pages is not None:
            return super().read_at(sink, offset, limit)
        return read_host(sink, self.lower_file().host_fd, offset, limit)

    def write_at(self, source: Source, offset: int, limit: int) -> int:
        done = self.copy_up().write(source, offset, limit)
        self.modified()
        return done

    def truncate(self, length: int) -> None:
        if self.pages is None and not length:  # nothing of the host's file is needed
            self.settle()
            self.pages = self.fs.new_pages()
        else:
            self.copy_up().resize(length)
        self.modified()

    def mappable(self, task: Task, writable: bool) -> Mappable:
        if self.pages is None and writable:
            self.copy_up()
        mappable = self.lower_file() if self.pages is None else self.pages
        mappable.incref()
        return mappable

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            self.copy_up()
        elif self.pages is None:
            return LowerFileDescription(flags, self, path)
        return TmpFileDescription(flags, self, path)

    def host_descriptor(self) -> int:
        return os.dup(self.lower_file().host_fd)


class LowerFileDescription(TmpFileDescription):
    """A file opened for reading while it was still the host's: it stays open there."""

    __slots__ = ("lower",)
    inode: OverlayFile

    def __init__(self, flags: int, inode: OverlayFile, path: Path) -> None:
        self.lower = inode.lower_file()
        self.lower.incref()
        super().__init__(flags, inode, path)

    def release(self) -> None:
        self.lower.decref()
        super().release()

    def read_at(self, sink: Sink, offset: int, limit: int) -> int:
        inode = self.inode
        if inode.pages is not None:
            return inode.read_at(sink, offset, limit)
        if offset >= inode.lower_size:  # most files are read until the end shows
            return 0
        return read_host(sink, self.lower.host_fd, offset, limit)

    def seek_data(self, offset: int, data: bool) -> int:
        if self.inode.pages is not None:
            return super().seek_data(offset, data)
        with linux_errors():  # the descriptor's position is nobody's
            return os.lseek(self.lower.host_fd, offset, os.SEEK_DATA if data else os.SEEK_HOLE)


class OverlaySymlink(LowerInode, TmpSymlink):
    """A symbolic link of the host."""

    def __init__(
        self, fs: OverlayFs, status: os.stat_result, directory: HostDirectory, name: bytes
    ) -> None:
        LowerInode.__init__(self, fs, status)
        with linux_errors():
            self.target = directory.readlink(name)
        self.size = status.st_size


class OverlaySpecial(LowerInode, TmpSpecial):
    """A device, fifo or socket of the host: its number, name and attributes. What is opened is this
    kernel's own driver or pipe, never the host's."""

    def __init__(self, fs: OverlayFs, status: os.stat_result) -> None:
        LowerInode.__init__(self, fs, status)


def read_host(sink: Sink, host_fd: int, offset: int, wanted: int) -> int:
    """Move at most `wanted` bytes from `offset` of a regular host file to `sink`, which has room
    for them: a large read straight to the program's memory."""
    done = 0
    try:
        if wanted < _DIRECT_READ:
            data = os.pread(host_fd, wanted, offset)
            return sink.write(data) if data else 0
        while wanted:
            views = sink.views(wanted)
            if not views:
                break
            count = os.preadv(host_fd, views, offset + done)
            sink.advance(count)
            done += count
            wanted -= count
            if not count or count < sum(len(view) for view in views):
                break
    except OSError as error:
        raise LinuxError(error.errno or EIO) from None
    return done
