"""/proc/PID/fd and /proc/PID/fdinfo: descriptors as magic links, and what is known of them.

Interface: `describe` names any open file, `path_of` gives a path to it that can be opened again. A
link does not lead to a name but to the file itself: a removed file, a pipe and a terminal are
reached through it too, with access rights of the new open's own.

Linux: fs/proc/fd.c.
"""

from __future__ import annotations

from errno import ENOENT
from stat import S_IFLNK, S_IFREG
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.dentry import Dentry, Path
from pysandbox_core.fs.file_description import FMODE_READ, FMODE_WRITE, FileDescription
from pysandbox_core.fs.inode import DirEntry, Inode
from pysandbox_core.fs.proc.access import owner, require_access
from pysandbox_core.fs.pseudo import PseudoDirectory, PseudoInode, TextInode

if TYPE_CHECKING:
    from pysandbox_core.fs.proc.filesystem import ProcFs
    from pysandbox_core.task import Task

O_CLOEXEC = 0o2000000


def is_nameless(path: Path) -> bool:
    """A path that `nameless_path` made: its dentry is its own parent and yet has a name."""
    dentry = path.dentry
    return dentry.parent is dentry and dentry.name != b""


LINK_MAX = 4095
"""Bytes of a magic link's text: with a NUL it has to fit in a page. proc_pid_fd(5),
do_proc_readlink()"""


def describe(reader: Task, file: FileDescription, longest: int | None = None) -> bytes:
    """The name of an open file as `reader` sees it: its path, or b"pipe:[12]" and the like.
    ENAMETOOLONG: a path of more than `longest` bytes."""
    path = file.path
    if path is None:
        return file.describe()
    if is_nameless(path):
        return path.dentry.name
    return path.absolute(reader.fs.root, longest)


def path_of(fs: ProcFs, file: FileDescription) -> Path:
    """Where `file` can be opened anew."""
    if file.path is not None:
        return file.path
    return fs.nameless_path(file.describe(), file.inode)


def parse_fd(name: bytes) -> int:
    """The descriptor that `name` stands for, -1 if it is not a number in its shortest form."""
    if not name.isdigit() or len(name) > 10 or (name[0] == 0x30 and len(name) > 1):
        return -1
    return int(name)


class FdDirectory(PseudoDirectory):
    """/proc/PID/fd"""

    def __init__(self, fs: ProcFs, target: Task, ino: int) -> None:
        super().__init__(fs, 0o500, *owner(target), ino)
        self.target = target
        self.proc = fs

    def lookup(self, task: Task, name: bytes) -> Inode | None:
        fd = parse_fd(name)
        if fd < 0 or self.target.exited:
            return None
        require_access(task, self.target)
        file = self.target.files.find(fd)
        return None if file is None else self._inode(fd, file)

    def _inode(self, fd: int, file: FileDescription) -> Inode:
        return FdLink(self.proc, self.target, fd, file.mode, self.ino + 2 * fd + 2)

    def entries(self, task: Task) -> list[DirEntry]:
        if self.target.exited:
            return []
        require_access(task, self.target)
        return [
            DirEntry(b"%d" % fd, self.ino + 2 * fd + 2, S_IFLNK)
            for fd, _ in self.target.files.open_fds()
        ]


class FdLink(PseudoInode):
    """/proc/PID/fd/N. The permission bits of the owner show what the descriptor is open for."""

    size = 64

    def __init__(self, fs: ProcFs, target: Task, fd: int, file_mode: int, ino: int) -> None:
        bits = 0o100 | bool(file_mode & FMODE_READ) * 0o400 | bool(file_mode & FMODE_WRITE) * 0o200
        super().__init__(fs, S_IFLNK | bits, *owner(target), ino)
        self.proc = fs
        self.target = target
        self.fd = fd

    def _file(self, task: Task) -> FileDescription:
        if self.target.exited:
            raise LinuxError(ENOENT)
        require_access(task, self.target)
        file = self.target.files.find(self.fd)
        if file is None:
            raise LinuxError(ENOENT)
        return file

    def readlink(self, task: Task) -> bytes:
        return describe(task, self._file(task), LINK_MAX)

    def follow(self, task: Task) -> Path:
        return path_of(self.proc, self._file(task))


class FdInfoDirectory(FdDirectory):
    """/proc/PID/fdinfo"""

    def __init__(self, fs: ProcFs, target: Task, ino: int) -> None:
        super().__init__(fs, target, ino)
        self.mode |= 0o055

    def _inode(self, fd: int, file: FileDescription) -> Inode:
        target = self.target
        return TextInode(
            self.proc, lambda task: fdinfo(target, fd), 0o444, None, *owner(target),
            self.ino + 2 * fd + 3,
        )  # fmt: skip

    def entries(self, task: Task) -> list[DirEntry]:
        return [DirEntry(name, ino + 1, S_IFREG) for name, ino, _ in super().entries(task)]


def fdinfo(target: Task, fd: int) -> bytes:
    """/proc/PID/fdinfo/N: position, flags, mount, inode, and what the kind of file adds."""
    file = None if target.exited else target.files.find(fd)
    if file is None:
        raise LinuxError(ENOENT)
    flags = file.flags | (O_CLOEXEC if fd in target.files.cloexec else 0)
    mount_id = 15 if file.path is None else file.path.mount.id
    head = b"pos:\t%d\nflags:\t0%o\nmnt_id:\t%d\nino:\t%d\n" % (
        file.offset, flags, mount_id, file.stat().ino,
    )  # fmt: skip
    return head + file.fdinfo()


def make_nameless_dentry(name: bytes, inode: Inode) -> Dentry:
    """A dentry outside of every directory."""
    return Dentry(name, None, inode)
