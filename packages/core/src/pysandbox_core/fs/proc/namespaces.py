"""/proc/PID/ns: the namespaces of a process. There is one of each kind. namespaces(7)

Linux: fs/proc/namespaces.c, fs/nsfs.c.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOTTY
from stat import S_IFLNK, S_IFREG
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_description import FileDescription
from pysandbox_core.fs.inode import DirEntry, Inode
from pysandbox_core.fs.proc.access import may_access, owner, require_access
from pysandbox_core.fs.pseudo import PseudoDirectory, PseudoInode

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.proc.filesystem import ProcFs
    from pysandbox_core.mm.io_buffer import Sink
    from pysandbox_core.task import Task

NAMESPACES = (b"cgroup", b"ipc", b"mnt", b"net", b"pid", b"pid_for_children", b"time",
              b"time_for_children", b"user", b"uts")  # fmt: skip
FIRST_NAMESPACE_INO = 0xEFFFFFF0
"""Inode numbers of the initial namespaces count down from 2^32-1 on Linux; here there is one of
each."""


class NamespaceDirectory(PseudoDirectory):
    """/proc/PID/ns. There is one namespace of each kind, and setns(2) into it changes nothing."""

    def __init__(self, fs: ProcFs, target: Task, ino: int) -> None:
        super().__init__(fs, 0o511, *owner(target), ino)
        self.proc = fs
        self.target = target

    def lookup(self, task: Task, name: bytes) -> Inode | None:
        if name not in NAMESPACES:
            return None
        inode = self.children.get(name)
        if inode is None:
            ino = self.ino + 100 + NAMESPACES.index(name)
            inode = self.children[name] = NamespaceLink(self.proc, self.target, name, ino)
        return inode

    def entries(self, task: Task) -> list[DirEntry]:
        if not may_access(task, self.target):
            raise LinuxError(EACCES)
        return [
            DirEntry(name, self.ino + 100 + place, S_IFLNK) for place, name in enumerate(NAMESPACES)
        ]


class NamespaceLink(PseudoInode):
    """/proc/PID/ns/NAME"""

    def __init__(self, fs: ProcFs, target: Task, name: bytes, ino: int) -> None:
        super().__init__(fs, S_IFLNK | 0o777, *owner(target), ino)
        self.proc = fs
        self.target = target
        self.kind = name.removesuffix(b"_for_children")

    def _text(self) -> bytes:
        return b"%s:[%d]" % (self.kind, FIRST_NAMESPACE_INO + NAMESPACES.index(self.kind))

    def readlink(self, task: Task) -> bytes:
        require_access(task, self.target)
        return self._text()

    def follow(self, task: Task) -> Path:
        require_access(task, self.target)
        return self.proc.nameless_path(self._text(), self.proc.namespace_inode(self.kind))


class NamespaceInode(PseudoInode):
    """The one namespace of a kind, to be opened and compared."""

    def __init__(self, fs: ProcFs, kind: bytes) -> None:
        super().__init__(fs, S_IFREG | 0o444, ino=FIRST_NAMESPACE_INO + NAMESPACES.index(kind))
        self.kind = kind

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        return NamespaceFile(flags, self, path)


class NamespaceFile(FileDescription):
    """An open namespace. ioctl_nsfs(2) has nothing to tell about the only one there is."""

    __slots__ = ()

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        raise LinuxError(EINVAL)

    def ioctl(self, task: Task, request: int, argument: int) -> int:
        raise LinuxError(ENOTTY)
