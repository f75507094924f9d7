"""tmpfs: files, directories and everything else in memory. tmpfs(5)

Interface: see `inode`. Names are in the `names` of a `TmpDirectory`; a file's content is a
`FilePages` in the sandbox's memory file, given back when nothing refers to the inode any more. The
overlay's files are made of the same classes, over what the host has (overlay.py).

Access times are kept as relatime does. Extended attributes: `user.*` on regular files and
directories, `trusted.*` and `security.*` for those whom the VFS lets.

Linux: mm/shmem.c.
"""

from __future__ import annotations

import os
import time
from errno import EEXIST, EINVAL, ENODATA, ENOSPC, ENOTEMPTY, ENOTSUP, EPERM
from stat import S_IFDIR, S_IFIFO, S_IFLNK
from typing import TYPE_CHECKING

from pysandbox_core.abi.fcntl import (
    F_SEAL_FUTURE_WRITE,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    FALLOC_FL_COLLAPSE_RANGE,
    FALLOC_FL_INSERT_RANGE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_pages import FilePages, SpaceLimit
from pysandbox_core.fs.inode import DirEntry, FileSystem, Inode, Stat, StatFs
from pysandbox_core.fs.regular_file import (
    DirectoryFile,
    RegularFile,
    RegularInode,
    check_size_limit,
)
from pysandbox_core.fs.special import open_special
from pysandbox_core.kernel_memory import INODE

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.mm.mappable import Mappable
    from pysandbox_core.task import Task

TMPFS_MAGIC = 0x01021994
PAGE_SIZE = 4096
DEFAULT_INODES = 1 << 20
UNLIMITED = 0
"""As in tmpfs(5): size=0, nr_inodes=0."""
XATTR_TOTAL_MAX = 1 << 16
"""Bytes of extended attributes that one file may have."""
_DAY_NS = 86_400 * 10**9


class TmpFs(FileSystem):
    """One file system in memory."""

    type_name = b"tmpfs"

    def __init__(
        self,
        kernel: Kernel,
        *,
        mode: int = 0o1777,
        uid: int = 0,
        gid: int = 0,
        max_bytes: int | None = None,
        max_inodes: int | None = None,
    ) -> None:
        """`max_bytes` and `max_inodes`: None for as many as tmpfs takes, UNLIMITED for no limit."""
        self.kernel = kernel
        pages = _memory_pages(kernel) if max_bytes is None else -(-max_bytes // PAGE_SIZE)
        inodes = default_inodes(kernel) if max_inodes is None else max_inodes
        self.dev = kernel.new_device()
        self.space = SpaceLimit(
            None if max_bytes == UNLIMITED else pages, None if inodes == UNLIMITED else inodes
        )
        self._last_ino = 0
        self.root = self.new_directory(S_IFDIR | mode, uid, gid)

    def new_ino(self) -> int:
        self._last_ino += 1
        return self._last_ino

    def new_pages(self) -> FilePages:
        return FilePages(self.kernel.memory_file, self.space)

    # What the directories make; the overlay has classes of its own.

    def new_file(self, mode: int, uid: int, gid: int) -> TmpFile:
        return TmpFile(self, mode, uid, gid)

    def new_directory(self, mode: int, uid: int, gid: int) -> TmpDirectory:
        return TmpDirectory(self, mode, uid, gid)

    def statfs(self) -> StatFs:
        space = self.space
        total = space.max_pages or _memory_pages(self.kernel)
        inodes = space.max_inodes or total
        free = max(0, total - space.pages)
        return StatFs(
            type=TMPFS_MAGIC, bsize=PAGE_SIZE, blocks=total, bfree=free, bavail=free, files=inodes,
            ffree=max(0, inodes - space.inodes),
        )  # fmt: skip

    def options(self) -> bytes:
        parts = []
        if self.space.max_pages not in (None, _memory_pages(self.kernel)):
            parts.append(b"size=%dk" % (self.space.max_pages * PAGE_SIZE >> 10))
        if self.space.max_inodes not in (None, default_inodes(self.kernel)):
            parts.append(b"nr_inodes=%d" % (self.space.max_inodes or 0))
        return b",".join(parts)


class TmpInode(Inode):
    """What all of them have: attributes, times, extended attributes."""

    fs: TmpFs
    size: int = 0
    charges = 0
    """How many inodes of the file system's limit it counts as."""

    def __init__(self, fs: TmpFs, mode: int, uid: int, gid: int) -> None:
        self.fs = fs
        self.charge(1)
        self.ino = fs.new_ino()
        self.mode = mode
        self.uid = uid
        self.gid = gid
        now = time.time_ns()
        self.atime_ns = self.mtime_ns = self.ctime_ns = self.btime_ns = now
        self.xattrs: dict[bytes, bytes] | None = None

    def __del__(self) -> None:
        if self.charges:
            self.fs.space.inodes -= self.charges

    def charge(self, count: int) -> None:
        """It counts as `count` inodes more. ENOSPC, ENOMEM"""
        if count > 0:
            self.fs.kernel.memory.grow(count * INODE, kill=False)
        self.fs.space.take_inodes(count)
        self.charges += count

    @property
    def blocks(self) -> int:
        return 0

    def stat(self) -> Stat:
        return Stat(
            self.fs.dev, self.ino, self.mode, self.nlink, self.uid, self.gid, self.rdev, self.size,
            PAGE_SIZE, self.blocks, self.atime_ns, self.mtime_ns, self.ctime_ns, self.btime_ns,
        )  # fmt: skip

    def settle(self) -> None:
        """From now on the inode differs from what the host has, if it came from there. Whoever
        changes anything calls it first: there may be no room for that. ENOSPC, ENOMEM"""

    def changed(self) -> None:
        """An attribute has changed: ctime."""
        self.ctime_ns = time.time_ns()

    def modified(self) -> None:
        """The content has changed: mtime and ctime."""
        self.mtime_ns = self.ctime_ns = time.time_ns()

    def accessed(self) -> None:
        """The content was read: atime, if relatime(8) says so."""
        if self.atime_ns <= self.mtime_ns or self.atime_ns <= self.ctime_ns:
            self.atime_ns = time.time_ns()
        else:
            now = time.time_ns()
            if now - self.atime_ns > _DAY_NS:
                self.atime_ns = now

    def set_mode(self, mode: int) -> None:
        self.settle()
        self.mode = self.mode & ~0o7777 | mode
        self.changed()

    def set_owner(self, uid: int, gid: int, mode: int) -> None:
        self.settle()
        self.uid = uid
        self.gid = gid
        self.mode = self.mode & ~0o7777 | mode
        self.changed()

    def set_times(self, atime_ns: int | None, mtime_ns: int | None) -> None:
        self.settle()
        if atime_ns is not None:
            self.atime_ns = atime_ns
        if mtime_ns is not None:
            self.mtime_ns = mtime_ns
        self.changed()

    def named(self, by: int) -> None:
        """It has `by` names more; without any, it goes when nobody has it open."""
        self.nlink += by
        self.changed()

    # Extended attributes.

    def get_xattr(self, name: bytes) -> bytes:
        value = None if self.xattrs is None else self.xattrs.get(name)
        if value is None:
            _check_xattr_name(name)
            raise LinuxError(ENODATA)
        return value

    def set_xattr(self, name: bytes, value: bytes, flags: int) -> None:
        _check_xattr_name(name)
        known = self.xattrs if self.xattrs is not None else {}
        if flags & os.XATTR_CREATE and name in known:
            raise LinuxError(EEXIST)
        if flags & os.XATTR_REPLACE and name not in known:
            raise LinuxError(ENODATA)
        used = sum(len(key) + len(data) for key, data in known.items() if key != name)
        if used + len(name) + len(value) > XATTR_TOTAL_MAX:
            raise LinuxError(ENOSPC)
        self.settle()
        self.charge(_units(used + len(name) + len(value)) - _xattr_units(known))
        known[name] = value
        self.xattrs = known
        self.changed()

    def list_xattrs(self) -> list[bytes]:
        return list(self.xattrs or ())

    def remove_xattr(self, name: bytes) -> None:
        _check_xattr_name(name)
        if not self.xattrs or name not in self.xattrs:
            raise LinuxError(ENODATA)
        self.settle()
        before = _xattr_units(self.xattrs)
        del self.xattrs[name]
        self.charge(_xattr_units(self.xattrs) - before)
        self.changed()


class TmpDirectory(TmpInode):
    """A directory. `names` maps each name to its inode; in the overlay, None marks a whiteout."""

    nlink = 2
    entry_size = 20
    """What an entry adds to the directory's size: BOGO_DIRENT_SIZE."""

    def __init__(self, fs: TmpFs, mode: int, uid: int, gid: int) -> None:
        super().__init__(fs, mode, uid, gid)
        self.names: dict[bytes, TmpInode | None] = {}
        self.size = 2 * self.entry_size

    def lookup(self, task: Task, name: bytes) -> Inode | None:
        return self.names.get(name)

    def entries(self, task: Task) -> list[DirEntry]:
        self.accessed()
        return [
            DirEntry(name, inode.ino, inode.mode & 0o170000)
            for name, inode in self.names.items()
            if inode is not None
        ]

    def is_empty(self, task: Task) -> bool:
        return not self.names

    def create(self, task: Task, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        return self.add(name, self.fs.new_file(mode, uid, gid))

    def tmpfile(self, task: Task, mode: int, uid: int, gid: int) -> Inode:
        inode = self.fs.new_file(mode, uid, gid)
        inode.nlink = 0
        return inode

    def mkdir(self, task: Task, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        return self.add(name, self.fs.new_directory(mode, uid, gid))

    def mknod(self, task: Task, name: bytes, mode: int, rdev: int, uid: int, gid: int) -> Inode:
        return self.add(name, TmpSpecial(self.fs, mode, uid, gid, rdev))

    def symlink(self, task: Task, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
        return self.add(name, TmpSymlink(self.fs, target, uid, gid))

    def link(self, task: Task, name: bytes, inode: Inode) -> None:
        assert isinstance(inode, TmpInode)
        self.settle()
        inode.settle()
        inode.charge(1)
        inode.named(1)
        self.put(name, inode)
        self.modified()

    def unlink(self, task: Task, name: bytes, inode: Inode) -> None:
        assert isinstance(inode, TmpInode)
        inode.settle()
        self.drop(name)
        if inode.charges > 1 and inode.nlink > 1:
            inode.charge(-1)
        inode.named(-1)
        self.modified()

    def rmdir(self, task: Task, name: bytes, inode: Inode) -> None:
        assert isinstance(inode, TmpDirectory)
        if not inode.is_empty(task):
            raise LinuxError(ENOTEMPTY)
        inode.settle()
        inode.nlink = 0
        inode.changed()  # while it has its name: one from a lower tree settles under it
        self.drop(name)
        self.adjust_nlink(-1)
        self.modified()

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
        assert isinstance(inode, TmpInode)
        assert isinstance(new_dir, TmpDirectory)
        for changed in (inode, self, new_dir):
            changed.settle()
        if exchange:
            assert isinstance(replaced, TmpInode)
            replaced.settle()
            self.put(old_name, replaced)
            new_dir.put(new_name, inode)
            change = inode.is_dir - replaced.is_dir
            self.adjust_nlink(-change)
            new_dir.adjust_nlink(change)
            replaced.changed()
        else:
            if replaced is not None:
                if replaced.is_dir:
                    new_dir.rmdir(task, new_name, replaced)
                else:
                    new_dir.unlink(task, new_name, replaced)
            self.drop(old_name)
            new_dir.put(new_name, inode)
            if inode.is_dir:
                self.adjust_nlink(-1)
                new_dir.adjust_nlink(1)
        inode.changed()
        self.modified()
        new_dir.modified()

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        return DirectoryFile(flags, self, path)

    # Names.

    def add(self, name: bytes, inode: TmpInode) -> TmpInode:
        """A new file gets its first name."""
        self.put(name, inode)
        if inode.is_dir:
            self.adjust_nlink(1)
        self.modified()
        return inode

    def put(self, name: bytes, inode: TmpInode) -> None:
        """`name` means `inode` from now on."""
        if self.names.get(name) is None:
            self.size += self.entry_size
        self.names[name] = inode

    def drop(self, name: bytes) -> None:
        """`name` means nothing from now on."""
        if self.names.pop(name, None) is not None:
            self.size -= self.entry_size

    def adjust_nlink(self, by: int) -> None:
        """There are `by` subdirectories more."""
        self.nlink += by


class TmpFile(TmpInode, RegularInode):
    """A regular file."""

    seals = F_SEAL_SEAL
    """F_SEAL_* bits; only a memfd may have others. fcntl(2)"""

    def __init__(self, fs: TmpFs, mode: int, uid: int, gid: int) -> None:
        self.pages = fs.new_pages()
        super().__init__(fs, mode, uid, gid)

    def __del__(self) -> None:
        super().__del__()
        pages = getattr(self, "pages", None)
        if pages is not None:
            pages.decref()

    @property
    def size(self) -> int:  # type: ignore[override]  # where the others have an attribute
        return self.pages._size

    @property
    def blocks(self) -> int:
        return self.pages.blocks

    def read_at(self, sink: Sink, offset: int, limit: int) -> int:
        self.accessed()
        return self.pages.read(sink, offset, limit)

    def write_at(self, source: Source, offset: int, limit: int) -> int:
        seals = self.seals
        if seals & ~F_SEAL_SEAL:
            if seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
                raise LinuxError(EPERM)
            if seals & F_SEAL_GROW and offset + limit > self.size:
                if offset >= self.size:
                    raise LinuxError(EPERM)
                limit = self.size - offset
        done = self.pages.write(source, offset, limit)
        self.modified()
        return done

    @property
    def mapped(self) -> Mappable | None:
        return self.pages

    def truncate(self, length: int) -> None:
        size = self.size
        if (length < size and self.seals & F_SEAL_SHRINK) or (
            length > size and self.seals & F_SEAL_GROW
        ):
            raise LinuxError(EPERM)
        self.pages.resize(length)
        self.modified()

    def mappable(self, task: Task, writable: bool) -> Mappable:
        """The pages, with a reference for the caller."""
        self.pages.incref()
        return self.pages

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        return TmpFileDescription(flags, self, path)


class TmpFileDescription(RegularFile):
    """An open file in memory."""

    __slots__ = ()
    inode: TmpFile

    def seek_data(self, offset: int, data: bool) -> int:
        return self.inode.pages.seek(offset, data)

    def allocate(self, task: Task, mode: int, offset: int, length: int) -> None:
        inode = self.inode
        pages = inode.pages
        size = inode.size
        end = offset + length
        if mode & FALLOC_FL_PUNCH_HOLE:
            if inode.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
                raise LinuxError(EPERM)
            pages.zero_range(offset, end)
        elif mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE):
            _shift(task, pages, mode, offset, length)
        else:
            grows = end > size and not mode & FALLOC_FL_KEEP_SIZE
            if grows:
                check_size_limit(task, end, size)
                if inode.seals & F_SEAL_GROW:
                    raise LinuxError(EPERM)
            if mode & FALLOC_FL_ZERO_RANGE:
                pages.zero_range(offset, end)
            pages.allocate_range(offset, end)
            if grows:
                pages.resize(end)
        inode.modified()


def _shift(task: Task, pages: FilePages, mode: int, offset: int, length: int) -> None:
    """FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE"""
    if offset % PAGE_SIZE or length % PAGE_SIZE:
        raise LinuxError(EINVAL)
    if mode & FALLOC_FL_COLLAPSE_RANGE:
        pages.collapse(offset, offset + length)
    else:
        if offset >= pages.size:
            raise LinuxError(EINVAL)
        check_size_limit(task, pages.size + length, pages.size)
        pages.insert(offset, length)


class TmpSymlink(TmpInode):
    """A symbolic link."""

    def __init__(self, fs: TmpFs, target: bytes, uid: int, gid: int) -> None:
        super().__init__(fs, S_IFLNK | 0o777, uid, gid)
        self.charge(_units(len(target)))
        self.target = target
        self.size = len(target)

    def readlink(self, task: Task) -> bytes:
        self.accessed()
        return self.target


class TmpSpecial(TmpInode):
    """A fifo, a socket or a device node."""

    def __init__(self, fs: TmpFs, mode: int, uid: int, gid: int, rdev: int) -> None:
        super().__init__(fs, mode, uid, gid)
        self.rdev = rdev

    def truncate(self, length: int) -> None:
        if self.mode & 0o170000 == S_IFIFO:
            raise LinuxError(EINVAL)

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        return open_special(task, self, path, flags)


def _check_xattr_name(name: bytes) -> None:
    """tmpfs has these classes of attributes; access control lists are not supported here."""
    if name in (b"user.", b"trusted.", b"security."):
        raise LinuxError(EINVAL)
    if not name.startswith((b"user.", b"trusted.", b"security.")):
        raise LinuxError(ENOTSUP)


def _units(size: int) -> int:
    """How many inodes `size` bytes count as."""
    return -(-size // SpaceLimit.INODE_BYTES)


def _xattr_units(xattrs: dict[bytes, bytes]) -> int:
    return _units(sum(len(name) + len(value) for name, value in xattrs.items()))


def default_inodes(kernel: Kernel) -> int:
    """One for each page it may have, as tmpfs takes; each costs this process about as much."""
    return min(DEFAULT_INODES, _memory_pages(kernel))


def _memory_pages(kernel: Kernel) -> int:
    """Half of the memory there is, as tmpfs takes where no size was asked for."""
    limit = kernel.memory_file.limit
    if limit is not None:
        return limit // PAGE_SIZE // 2
    return os.sysconf("SC_PHYS_PAGES") // 2
