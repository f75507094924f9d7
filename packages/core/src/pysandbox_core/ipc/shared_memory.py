"""Shared memory segments. shmget(2), sysvipc(7)

Interface: a `Segment` is a file in memory without a name; attaching is mapping it. Who has it
attached is not counted but looked up in the address spaces, so that fork, exit and munmap need to
know nothing of it. Linux: ipc/shm.c.
"""

from __future__ import annotations

import os
from errno import EINVAL, ENOSPC
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pysandbox_platform import PAGE_SIZE, PROT_EXEC, PROT_READ, PROT_WRITE

from pysandbox_core.abi.fcntl import F_SEAL_SEAL
from pysandbox_core.abi.mman import MAP_FIXED, MAP_SHARED
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.dentry import Dentry, Path
from pysandbox_core.fs.memfd import MemfdFile, open_memfd
from pysandbox_core.fs.tmpfs import TmpFile
from pysandbox_core.ipc.objects import IpcObject, IpcTable
from pysandbox_core.mm.mappable import page_up

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.mappable import Mappable
    from pysandbox_core.task import Task

SHMMNI = 4096
SHMMAX = (1 << 64) - 1 - (1 << 24)
SHM_RDONLY, SHM_RND, SHM_REMAP, SHM_EXEC = 0o10000, 0o20000, 0o40000, 0o100000
SHM_DEST, SHM_LOCKED, SHM_NORESERVE = 0o1000, 0o2000, 0o10000


class Segment(IpcObject):
    """One segment. Marked by `SHM_DEST` in `mode` it goes with its last attachment."""

    def __init__(self, task: Task, key: int, size: int, flags: int, now: int) -> None:
        super().__init__(task.creds, key, flags, now)
        self.table = segments(task.kernel)
        self.size = size
        self.atime = self.dtime = 0
        self.cpid = task.group.pid
        self.lpid = 0
        file = open_memfd(task, b"", F_SEAL_SEAL)
        assert isinstance(file.inode, TmpFile) and file.path is not None
        file.inode.truncate(size)
        self.inode = file.inode
        dentry = Dentry(b"SYSV%08x" % (key & 0xFFFFFFFF), file.path.mount.root, self.inode)
        dentry.unlinked = True
        self.path = Path(file.path.mount, dentry)
        file.decref()

    @property
    def pages(self) -> Mappable:
        return self.inode.pages

    def attached(self) -> int:
        """How often it is attached, in all processes together: shm_nattch."""
        pages = self.pages
        return sum(
            backing.mappable is pages for mm in pages.mappings for backing in mm.backing_bytes
        )

    def mark(self) -> None:
        """IPC_RMID: it goes now, or with its last attachment."""
        self.mode |= SHM_DEST
        if self.attached():
            self.table.hide(self)
        else:
            self.table.remove(self)

    def detached(self, now: int) -> None:
        """An attachment has gone."""
        self.dtime = now
        if self.mode & SHM_DEST and not self.removed and not self.attached():
            self.table.remove(self)

    def attach(self, task: Task, addr: int, flags: int) -> int:
        """Map it; the address. `addr` 0 leaves the choice to the kernel. shmat(2)

        Errors: EINVAL `addr` does not fit or is taken; EACCES; ENOMEM.
        """
        prot, wanted, mode = PROT_READ | PROT_WRITE, 0o666, os.O_RDWR
        if flags & SHM_RDONLY:
            prot, wanted, mode = PROT_READ, 0o444, os.O_RDONLY
        if flags & SHM_EXEC:
            prot |= PROT_EXEC
            wanted |= 0o111
        length = page_up(self.size)
        if addr and not flags & SHM_REMAP and task.mm.vmas.overlaps(addr, addr + length):
            raise LinuxError(EINVAL)
        self.require(task.creds, wanted)
        file = ShmFile(mode, self, task.kernel)
        try:
            how = MAP_SHARED | MAP_FIXED if addr else MAP_SHARED
            start = task.mm.mmap(task, addr, length, prot, how, file)
        finally:
            file.decref()
        self.atime = int(task.kernel.clocks.realtime_ns() // 10**9)
        self.lpid = task.group.pid
        return start


class ShmFile(MemfdFile):
    """One attachment: its mappings keep it open, and a child's copies of them."""

    __slots__ = ("kernel", "segment")

    def __init__(self, flags: int, segment: Segment, kernel: Kernel) -> None:
        super().__init__(flags, segment.inode, segment.path)
        self.segment = segment
        self.kernel = kernel

    def release(self) -> None:
        super().release()
        self.segment.detached(int(self.kernel.clocks.realtime_ns() // 10**9))


def detach(task: Task, addr: int) -> None:
    """Take the attachment away that was made at `addr`. EINVAL. shmdt(2)"""
    mm = task.mm
    vma = mm.vmas.get(addr)
    file = None if vma is None or vma.backing is None else vma.backing.file
    if vma is None or not isinstance(file, ShmFile) or addr % PAGE_SIZE or vma.delta != -addr:
        raise LinuxError(EINVAL)
    end = addr + page_up(file.segment.size)
    backing = vma.backing
    for start, stop, other in list(mm.vmas.within(addr, end)):
        if other.backing is backing and other.delta == -addr:
            mm.munmap(start, stop - start)
    file.segment.lpid = task.group.pid


def shm_all(kernel: Kernel) -> int:
    """SHMALL, in bytes: of all segments together. They outlive their processes, so that a limit of
    the sandbox's memory leaves half of it to others."""
    limit = kernel.memory_file.limit
    return 1 << 47 if limit is None else limit // 2


def make_segment(task: Task, key: int, size: int, flags: int, now: int) -> Segment:
    """A new one. EINVAL the size; ENOSPC"""
    if not 1 <= size <= SHMMAX:
        raise LinuxError(EINVAL)
    present = sum(page_up(other.size) for other in segments(task.kernel).by_index.values())
    if present + page_up(size) > shm_all(task.kernel):
        raise LinuxError(ENOSPC)
    return Segment(task, key, size, flags, now)


_tables: WeakKeyDictionary[Kernel, IpcTable[Segment]] = WeakKeyDictionary()


def segments(kernel: Kernel) -> IpcTable[Segment]:
    """All of `kernel`."""
    table = _tables.get(kernel)
    if table is None:
        table = _tables[kernel] = IpcTable(SHMMNI)
    return table
