"""Locks on files: flock(2), record locks of processes (POSIX) and of open files (OFD). fcntl(2)

Interface: a `FileLocks` hangs on an inode from its first lock on. Owners are objects: the FdTable
for POSIX locks (Linux: files_struct), the FileDescription for the two others. Who gives an owner up
calls `closed` or `released`; the descriptor table and the file description do.

Ranges are inclusive and end at OFFSET_MAX at the most.

Linux: fs/locks.c.
"""

from __future__ import annotations

from bisect import insort
from errno import EAGAIN, EDEADLK, ENOLCK
from fcntl import F_UNLCK, F_WRLCK, LOCK_EX
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_core.errors import LinuxError
from pysandbox_core.kernel_memory import SMALL
from pysandbox_core.waiting import WaitQueue

if TYPE_CHECKING:
    from pysandbox_core.fs.fd_table import FdTable
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.task import Task

OFFSET_MAX = (1 << 63) - 1
MAX_RECORDS = 16384
"""Ranges that may be locked on one inode; more are ENOLCK, though Linux knows no such limit."""
_DEADLOCK_STEPS = 10
"""How long a chain of waiting owners is followed: MAX_DEADLK_ITERATIONS."""


class RecordLock(NamedTuple):
    """One range that `owner` holds, F_RDLCK or F_WRLCK."""

    owner: object
    type: int
    start: int
    end: int
    pid: int
    """Who F_GETLK names; -1 for OFD locks."""


def _start(lock: RecordLock) -> int:
    return lock.start


class FileLocks:
    """Every lock on one inode."""

    __slots__ = ("_gone", "_records", "_stale", "flocks", "owned", "queue")

    def __init__(self) -> None:
        self._records: list[RecordLock] = []
        self._gone: set[object] = set()
        """Owners that gave up all they have in `_records`, `_stale` locks, which are still there:
        many owners may go one after the other, when a process ends."""
        self._stale = 0
        self.owned: dict[object, int] = {}
        """How many locks each owner has: most who close a file have none."""
        self.flocks: dict[FileDescription, int] = {}
        """LOCK_SH or LOCK_EX."""
        self.queue = WaitQueue()
        """Woken when a lock was given up."""

    @classmethod
    def of(cls, inode: Inode) -> FileLocks:
        """Those of `inode`."""
        if inode.locks is None:
            inode.locks = cls()
        return inode.locks

    @property
    def records(self) -> list[RecordLock]:
        """All that are held, by start."""
        if self._stale:
            self._drop_stale()
        return self._records

    def _drop_stale(self) -> None:
        self._records = [lock for lock in self._records if lock.owner not in self._gone]
        self._gone.clear()
        self._stale = 0

    def blocking(self, owner: object, kind: int, start: int, end: int) -> RecordLock | None:
        """The first lock of another owner that is in the way."""
        writes = kind == F_WRLCK
        for lock in self.records:
            holder, held, first, last, _ = lock
            if first > end:
                break
            if last >= start and holder is not owner and (writes or held == F_WRLCK):
                return lock
        return None

    def set(self, owner: object, kind: int, start: int, end: int, pid: int) -> None:
        """Give `owner` the range, or take it from it (F_UNLCK); nobody is in the way."""
        before, after = start - 1, end + 1
        records = self.records
        touched = [
            lock for lock in records if lock[0] is owner and lock[3] >= before and lock[2] <= after
        ]
        added = []
        for lock in touched:
            if lock.type == kind:  # touches or overlaps: one range from now on
                start, end = min(start, lock.start), max(end, lock.end)
            else:
                if lock.start < start:
                    added.append(lock._replace(end=min(lock.end, start - 1)))
                if lock.end > end:
                    added.append(lock._replace(start=max(lock.start, end + 1)))
        if kind != F_UNLCK:
            added.append(RecordLock(owner, kind, start, end, pid))
        if len(records) - len(touched) + len(added) > MAX_RECORDS:
            raise LinuxError(ENOLCK)
        if touched:
            gone = set(map(id, touched))
            self._records = records = [lock for lock in records if id(lock) not in gone]
        for lock in added:
            insort(records, lock, key=_start)
        self.owned[owner] = self.owned.get(owner, 0) + len(added) - len(touched)
        if not self.owned[owner]:
            del self.owned[owner]
        self.queue.wake()

    def closed(self, files: FdTable) -> None:
        """A descriptor of this file was closed in `files`: all of its POSIX locks go. fcntl(2)"""
        self._forget(files)

    def released(self, file: FileDescription) -> None:
        """The last descriptor of `file` is gone, and its flock and OFD locks with it."""
        self.flocks.pop(file, None)
        self._forget(file)
        self.queue.wake()

    def _forget(self, owner: object) -> None:
        count = self.owned.pop(owner, 0)
        if count:
            self._gone.add(owner)
            self._stale += count
            if self._stale * 2 > len(self._records):
                self._drop_stale()
            self.queue.wake()


_waiting: dict[object, object] = {}
"""POSIX lock owner that waits -> owner of the lock it waits for."""


def lock_record(
    task: Task,
    locks: FileLocks,
    owner: object,
    kind: int,
    start: int,
    end: int,
    pid: int,
    wait: bool,
) -> None:
    """Take or give up a range. EAGAIN if somebody is in the way; with `wait` it blocks instead, and
    raises EDEADLK where POSIX owners would wait for each other."""
    while kind != F_UNLCK:
        lock = locks.blocking(owner, kind, start, end)
        if lock is None:
            break
        if not wait:
            raise LinuxError(EAGAIN)
        if pid >= 0 and lock.pid >= 0:
            _check_deadlock(owner, lock.owner)
            _waiting[owner] = lock.owner
        try:
            task.block(locks.queue)
        finally:
            _waiting.pop(owner, None)
    if kind != F_UNLCK:
        task.kernel.memory.grow(SMALL)
    locks.set(owner, kind, start, end, pid)


def _check_deadlock(owner: object, blocker: object) -> None:
    for _ in range(_DEADLOCK_STEPS):
        if blocker is owner:
            raise LinuxError(EDEADLK)
        following = _waiting.get(blocker)
        if following is None:
            return
        blocker = following


def lock_file(task: Task, file: FileDescription, kind: int, wait: bool) -> None:
    """flock(2): LOCK_SH or LOCK_EX for `file`, or 0 to give it up. A lock of another kind is given
    up first, so that nothing may be left when the wait is interrupted, as in Linux."""
    locks = FileLocks.of(file.inode)
    held = locks.flocks.get(file, 0)
    if held == kind:
        return
    if held:
        del locks.flocks[file]
        locks.queue.wake()
    while kind and _flock_blocked(locks, kind):
        if not wait:
            raise LinuxError(EAGAIN)
        task.block(locks.queue)
    if kind:
        locks.flocks[file] = kind


def _flock_blocked(locks: FileLocks, kind: int) -> bool:
    return bool(locks.flocks) and (kind == LOCK_EX or LOCK_EX in locks.flocks.values())
