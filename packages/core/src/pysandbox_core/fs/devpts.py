"""devpts: /dev/ptmx and /dev/pts, the names of pseudoterminals. pty(7)

Interface: `DevPts(kernel)` is mounted on /dev/pts and becomes `kernel.devpts`. Opening /dev/ptmx
makes a `Pty` (pty.py), whose slave side is /dev/pts/N once it is unlocked, until its master is
closed.

Linux: fs/devpts/inode.c. What most programs never open is not even imported for them.
"""

from __future__ import annotations

import os
import time
from errno import EIO, ENOSPC
from stat import S_IFCHR
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.dev import PTMX, PTS_MAJOR
from pysandbox_core.fs.inode import DirEntry, Inode, Stat
from pysandbox_core.fs.pseudo import PseudoDirectory, PseudoFs, PseudoInode

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.fs.pty import Pty
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

DEVPTS_SUPER_MAGIC = 0x1CD1


class DevPts(PseudoFs):
    """devpts: a directory of the ptys there are."""

    type_name = b"devpts"

    MAX = 4096
    """How many there may be, /proc/sys/kernel/pty/max."""
    TTY_GID = 5

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel, DEVPTS_SUPER_MAGIC)
        self.ptys: dict[int, Pty] = {}
        self.root = DevPtsDirectory(self)
        kernel.devpts = self

    def options(self) -> bytes:
        return b"gid=%d,mode=620,ptmxmode=666" % self.TTY_GID

    @property
    def count(self) -> int:
        return len(self.ptys)

    def open_master(self, task: Task, path: Path, inode: Inode, flags: int) -> FileDescription:
        """Open /dev/ptmx: make another pty, locked. ENOSPC"""
        from pysandbox_core.fs.pty import MasterFile, Pty

        index = 0
        while index in self.ptys:
            index += 1
        if index >= self.MAX:
            raise LinuxError(ENOSPC)
        node = SlaveInode(self, task, index)
        pty = self.ptys[index] = Pty(self, index, node)
        return MasterFile(flags, inode, path, pty)

    def open_slave(
        self, task: Task, path: Path, inode: Inode, flags: int, index: int
    ) -> FileDescription:
        """Open /dev/pts/N. EIO if there is no such pty, or it is locked"""
        pty = self.ptys.get(index)
        if pty is None or pty.locked:
            raise LinuxError(EIO)
        return pty.open(task, path, inode, flags)


class DevPtsDirectory(PseudoDirectory):
    """/dev/pts"""

    fs: DevPts

    def __init__(self, fs: DevPts) -> None:
        super().__init__(fs, 0o755)
        self._ptys = fs.ptys
        self.add(b"ptmx", PtmxInode(fs))

    def lookup(self, task: Task, name: bytes) -> Inode | None:
        if name.isdigit() and len(name) <= 5 and (name == b"0" or name[:1] != b"0"):
            pty = self._ptys.get(int(name))
            return None if pty is None else pty.node
        return super().lookup(task, name)

    def entries(self, task: Task) -> list[DirEntry]:
        nodes = [
            DirEntry(b"%d" % index, pty.node.ino, S_IFCHR) for index, pty in self._ptys.items()
        ]
        return super().entries(task) + nodes


class PtmxInode(PseudoInode):
    """/dev/pts/ptmx"""

    fs: DevPts
    rdev = PTMX

    def __init__(self, fs: DevPts) -> None:
        super().__init__(fs, S_IFCHR | 0o666, ino=2)

    def truncate(self, length: int) -> None:
        """Without effect."""

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        return self.fs.kernel.devpts.open_master(task, path, self, flags)


class SlaveInode(PseudoInode):
    """/dev/pts/N: belongs to who opened the master, and can be given to somebody else."""

    fs: DevPts

    def __init__(self, fs: DevPts, task: Task, index: int) -> None:
        super().__init__(fs, S_IFCHR | 0o620, task.creds.fsuid, fs.TTY_GID, index + 3)
        self.index = index
        self.rdev = os.makedev(PTS_MAJOR, index)
        self.times = [time.time_ns()] * 3

    def stat(self) -> Stat:
        atime, mtime, ctime = self.times
        return super().stat()._replace(blksize=1024, atime_ns=atime, mtime_ns=mtime, ctime_ns=ctime)

    def set_mode(self, mode: int) -> None:
        self.mode = S_IFCHR | mode
        self.times[2] = time.time_ns()

    def set_owner(self, uid: int, gid: int, mode: int) -> None:
        self.uid, self.gid, self.mode = uid, gid, S_IFCHR | mode
        self.times[2] = time.time_ns()

    def set_times(self, atime_ns: int | None, mtime_ns: int | None) -> None:
        if atime_ns is not None:
            self.times[0] = atime_ns
        if mtime_ns is not None:
            self.times[1] = mtime_ns
        self.times[2] = time.time_ns()

    def truncate(self, length: int) -> None:
        """Without effect."""

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        return self.fs.kernel.devpts.open_slave(task, path, self, flags, self.index)
