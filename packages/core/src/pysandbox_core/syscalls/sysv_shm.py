"""shmget(2), shmat(2), shmdt(2), shmctl(2)"""

from __future__ import annotations

from errno import EINVAL, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE

from pysandbox_core.credentials import CAP_IPC_LOCK
from pysandbox_core.declare import Int, Result, Size, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.ipc.objects import IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, PERM, READ
from pysandbox_core.ipc.shared_memory import (
    SHM_LOCKED,
    SHM_REMAP,
    SHM_RND,
    SHMMAX,
    SHMMNI,
    Segment,
    detach,
    make_segment,
    segments,
)
from pysandbox_core.mm.mappable import page_up

if TYPE_CHECKING:
    from pysandbox_core.task import Task

SHM_LOCK, SHM_UNLOCK, SHM_STAT, SHM_INFO, SHM_STAT_ANY = 11, 12, 13, 14, 15
SHMALL = (1 << 64) - 1 - (1 << 24)

SHMID_DS = Struct("<QqqqiiQ16x")
"""struct shmid64_ds after its perm: segsz, atime, dtime, ctime, cpid, lpid, nattch."""
SHMINFO = Struct("<QQQQQ32x")
"""struct shminfo64: shmmax, shmmin, shmmni, shmseg, shmall."""
SHM_INFO_DATA = Struct("<i4xQQ24x")
"""struct shm_info: used_ids, shm_tot, shm_rss, and of swap nothing; in pages."""


def seconds(task: Task) -> int:
    """Now, as the times of System V objects are kept."""
    return int(task.kernel.clocks.realtime_ns() // 10**9)


@syscall("shmget")
def shmget(task: Task, key: Int, size: Size, shmflg: Int) -> Result:
    """The id of the segment of `key`, made if need be. shmget(2)

    Errors: ENOENT, EEXIST; EINVAL size; EACCES; ENOSPC.
    """

    def check(found: Segment) -> None:
        if size > found.size:
            raise LinuxError(EINVAL)

    return segments(task.kernel).get(
        task, key, shmflg, lambda: make_segment(task, key, size, shmflg, seconds(task)), check
    )


@syscall("shmat")
def shmat(task: Task, shmid: Int, shmaddr: UserAddr, shmflg: Int) -> Result:
    """Map a segment; the address. shmat(2)

    Errors: EINVAL id, address; EACCES; ENOMEM.
    """
    if shmaddr % PAGE_SIZE:
        if not shmflg & SHM_RND:
            raise LinuxError(EINVAL)
        shmaddr -= shmaddr % PAGE_SIZE
    if not shmaddr and shmflg & SHM_REMAP:
        raise LinuxError(EINVAL)
    return segments(task.kernel).find(shmid).attach(task, shmaddr, shmflg)


@syscall("shmdt")
def shmdt(task: Task, shmaddr: UserAddr) -> Result:
    """Unmap the segment attached at `shmaddr`. EINVAL. shmdt(2)"""
    detach(task, shmaddr)
    return 0


@syscall("shmctl")
def shmctl(task: Task, shmid: Int, cmd: Int, buf: UserAddr) -> Result:
    """Ask or tell about segments. shmctl(2)

    Errors: EINVAL id, command; EACCES; EPERM not the owner; EFAULT.
    """
    if shmid < 0 or cmd < 0:
        raise LinuxError(EINVAL)
    table = segments(task.kernel)
    if cmd == IPC_INFO:
        task.mm.write(buf, SHMINFO.pack(SHMMAX, 1, SHMMNI, SHMMNI, SHMALL))
        return table.max_index()
    if cmd == SHM_INFO:
        present = list(table.by_index.values())
        total = sum(page_up(segment.size) for segment in present) // PAGE_SIZE
        resident = sum(segment.inode.blocks * 512 for segment in present) // PAGE_SIZE
        task.mm.write(buf, SHM_INFO_DATA.pack(len(present), total, resident))
        return table.max_index()
    if cmd in (SHM_STAT, SHM_STAT_ANY, IPC_STAT):
        segment = table.find(shmid) if cmd == IPC_STAT else table.at(shmid)
        if cmd != SHM_STAT_ANY:
            segment.require(task.creds, READ)
        task.mm.write(buf, _describe(segment))
        return 0 if cmd == IPC_STAT else segment.id
    if cmd in (IPC_SET, IPC_RMID):
        data = task.mm.read(buf, PERM.size) if cmd == IPC_SET else b""
        segment = table.find(shmid)
        segment.require_owner(task.creds)
        if cmd == IPC_SET:
            segment.set_perm(data, seconds(task))
        else:
            segment.mark()
        return 0
    if cmd in (SHM_LOCK, SHM_UNLOCK):
        return _lock(task, table.find(shmid), lock=cmd == SHM_LOCK)
    raise LinuxError(EINVAL)


def _describe(segment: Segment) -> bytes:
    return segment.perm() + SHMID_DS.pack(
        segment.size, segment.atime, segment.dtime, segment.ctime, segment.cpid, segment.lpid,
        segment.attached(),
    )  # fmt: skip


def _lock(task: Task, segment: Segment, *, lock: bool) -> int:
    """Memory here is never swapped by us; the flag is kept for who asks."""
    creds = task.creds
    if not creds.capable(CAP_IPC_LOCK):
        if creds.euid not in (segment.uid, segment.cuid):
            raise LinuxError(EPERM)
        if lock and not task.group.limits.memlock:
            raise LinuxError(EPERM)
    segment.mode = segment.mode | SHM_LOCKED if lock else segment.mode & ~SHM_LOCKED
    return 0
