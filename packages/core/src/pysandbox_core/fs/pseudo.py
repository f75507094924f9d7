"""Files that are made up on reading: what proc, sys and dev are built of.

Interface:
- A `PseudoFs` numbers its inodes; `PseudoDirectory`, `TextInode` and `PseudoSymlink` are its files.
  A file system with directories that come and go by themselves derives from `PseudoDirectory`.
- The text of a `TextInode` is made when it is read at offset 0, and that same text serves the reads
  that follow, as a seq_file does; so a reader with a small buffer sees one moment.
- What `store` is given is at most a page, copied from the program.

Linux: fs/seq_file.c, fs/kernfs, fs/proc/generic.c.
"""

from __future__ import annotations

import stat
import time
from errno import EACCES, EINVAL, EIO, EPERM
from os import O_ACCMODE, O_RDONLY, SEEK_CUR, SEEK_SET
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_description import FileDescription
from pysandbox_core.fs.inode import DirEntry, FileSystem, Inode, Stat, StatFs

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.task import Task

MAX_OFFSET = (1 << 63) - 1
STORE_LIMIT = 4096
"""Bytes that one write hands to a `store` function."""


class PseudoFs(FileSystem):
    """A file system without storage, of one kernel. `magic` is its statfs(2) type."""

    cacheable = False
    text_size = 0
    """What stat(2) says of the size of a `TextInode`."""

    def __init__(self, kernel: Kernel, magic: int, blksize: int = 4096) -> None:
        self.kernel = kernel
        self.dev = kernel.new_device()
        self.magic = magic
        self.blksize = blksize
        self.made_ns = time.time_ns()
        self._last_ino = 0

    def new_ino(self) -> int:
        """The number of another inode that lives as long as the file system."""
        self._last_ino += 1
        return self._last_ino

    def statfs(self) -> StatFs:
        return StatFs(type=self.magic, bsize=self.blksize)


class PseudoInode(Inode):
    """What all of them share: attributes that nobody changes, times of the mount."""

    fs: PseudoFs
    size = 0

    def __init__(
        self, fs: PseudoFs, mode: int, uid: int = 0, gid: int = 0, ino: int | None = None
    ) -> None:
        self.fs = fs
        self.ino = fs.new_ino() if ino is None else ino
        self.mode = mode
        self.uid = uid
        self.gid = gid

    def stat(self) -> Stat:
        fs = self.fs
        now = fs.made_ns
        return Stat(
            fs.dev, self.ino, self.mode, self.nlink, self.uid, self.gid, self.rdev, self.size,
            fs.blksize, 0, now, now, now,
        )  # fmt: skip


class PseudoDirectory(PseudoInode):
    """A directory whose `children` stay; a subclass with others overrides `lookup` and
    `entries`."""

    nlink = 2

    def __init__(
        self, fs: PseudoFs, mode: int = 0o555, uid: int = 0, gid: int = 0, ino: int | None = None
    ) -> None:
        super().__init__(fs, stat.S_IFDIR | mode, uid, gid, ino)
        self.children: dict[bytes, Inode] = {}

    def add(self, name: bytes, inode: Inode) -> None:
        """Give `inode` the name `name`."""
        self.children[name] = inode
        if inode.is_dir:
            self.nlink += 1

    def add_text(
        self,
        name: bytes,
        generate: Callable[[Task], bytes],
        mode: int = 0o444,
        store: Callable[[Task, bytes], None] | None = None,
    ) -> None:
        """Add a file that reads as what `generate` returns."""
        self.add(name, TextInode(self.fs, generate, mode, store))

    def add_constant(self, name: bytes, text: bytes, mode: int = 0o444) -> None:
        """Add a file that always reads as `text`."""
        self.add(name, TextInode(self.fs, lambda task: text, mode))

    def add_directory(self, name: bytes, mode: int = 0o555) -> PseudoDirectory:
        """Add an empty directory and return it."""
        directory = PseudoDirectory(self.fs, mode)
        self.add(name, directory)
        return directory

    def add_symlink(self, name: bytes, target: bytes) -> None:
        self.add(name, PseudoSymlink(self.fs, target))

    def lookup(self, task: Task, name: bytes) -> Inode | None:
        return self.children.get(name)

    def entries(self, task: Task) -> list[DirEntry]:
        return [
            DirEntry(name, inode.ino, stat.S_IFMT(inode.mode))
            for name, inode in self.children.items()
        ]

    def create(self, task: Task, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        raise LinuxError(EACCES)  # what proc and sysfs answer, the superuser included

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        return PseudoDirectoryFile(flags, self, path)


class PseudoDirectoryFile(FileDescription):
    """An open directory; the entries are listed anew on each read."""

    __slots__ = ()
    inode: PseudoDirectory

    def entries(self, task: Task) -> list[DirEntry]:
        ino = self.inode.ino
        dots = [DirEntry(b".", ino, stat.S_IFDIR), DirEntry(b"..", ino, stat.S_IFDIR)]
        return dots + self.inode.entries(task)

    def seek(self, task: Task, offset: int, whence: int) -> int:
        return seek_without_size(self, offset, whence)

    @property
    def seekable(self) -> bool:
        return True

    def sync(self, task: Task, data_only: bool) -> None:
        raise LinuxError(EINVAL)


class PseudoSymlink(PseudoInode):
    """An ordinary symbolic link with a fixed target."""

    def __init__(self, fs: PseudoFs, target: bytes, ino: int | None = None) -> None:
        super().__init__(fs, stat.S_IFLNK | 0o777, ino=ino)
        self.target = target
        self.size = len(target)

    def readlink(self, task: Task) -> bytes:
        return self.target


class TextInode(PseudoInode):
    """A file whose content is a function of the moment; `store` takes what is written."""

    def __init__(
        self,
        fs: PseudoFs,
        generate: Callable[[Task], bytes],
        mode: int = 0o444,
        store: Callable[[Task, bytes], None] | None = None,
        uid: int = 0,
        gid: int = 0,
        ino: int | None = None,
    ) -> None:
        super().__init__(fs, stat.S_IFREG | mode, uid, gid, ino)
        self.size = fs.text_size
        self.generate = generate
        self.store = store

    def truncate(self, length: int) -> None:
        """Without effect, so that a shell's `>` works."""
        if self.store is None:
            raise LinuxError(EPERM)

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        if flags & O_ACCMODE != O_RDONLY and self.store is None:
            raise LinuxError(EACCES)
        return TextFile(flags, self, path)


class TextFile(FileDescription):
    """An open `TextInode`."""

    __slots__ = ("text",)
    inode: TextInode

    def __init__(self, flags: int, inode: TextInode, path: Path | None = None) -> None:
        super().__init__(flags, inode, path)
        self.text: bytes | None = None
        """What the reads since the last one at offset 0 see."""

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        position = self.offset if offset is None else offset
        if position == 0 or self.text is None:
            text = self.inode.generate(task)
            task.kernel.memory.grow(len(text))
            self.text = text
        count = sink.write(self.text[position : position + sink.remaining])
        if offset is None:
            self.offset = position + count
        return count

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        store = self.inode.store
        if store is None:
            raise LinuxError(EIO)
        data = source.read(min(source.remaining, STORE_LIMIT))
        store(task, data)
        if offset is None:
            self.offset += len(data)
        return len(data)

    def seek(self, task: Task, offset: int, whence: int) -> int:
        return seek_without_size(self, offset, whence)

    @property
    def seekable(self) -> bool:
        return True


def seek_without_size(file: FileDescription, offset: int, whence: int) -> int:
    """lseek(2) for files without a size: from the start or the position. seq_lseek()"""
    if whence == SEEK_CUR:
        offset += file.offset
    elif whence != SEEK_SET:
        raise LinuxError(EINVAL)
    if not 0 <= offset <= MAX_OFFSET:
        raise LinuxError(EINVAL)
    file.offset = offset
    return offset
