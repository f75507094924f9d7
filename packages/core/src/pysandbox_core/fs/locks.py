"""Locks on files: flock(2), record locks of processes (POSIX) and of open files (OFD). fcntl(2)

Interface: a `FileLocks` hangs on an inode from its first lock on. Owners are objects: the FdTable
for POSIX locks (Linux: files_struct), the FileDescription for the two others. Who gives an owner up
calls `closed` or `released`; the descriptor table and the file description do.

Ranges are inclusive and end at OFFSET_MAX at the most.

Linux: fs/locks.c.
"""

from __future__ import annotations

from errno import EAGAIN, EDEADLK, ENOLCK
from fcntl import F_UNLCK, F_WRLCK, LOCK_EX
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_core.errors import LinuxError
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

    def conflicts(self, owner: object, kind: int, start: int, end: int) -> bool:
        return (
            self.owner is not owner
            and self.start <= end
            and self.end >= start
            and F_WRLCK in (self.type, kind)
        )


class FileLocks:
    """Every lock on one inode."""

    __slots__ = ("flocks", "queue", "records")

    def __init__(self) -> None:
        self.records: list[RecordLock] = []
        """By start."""
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

    def blocking(self, owner: object, kind: int, start: int, end: int) -> RecordLock | None:
        """The first lock of another owner that is in the way."""
        for lock in self.records:
            if lock.conflicts(owner, kind, start, end):
                return lock
        return None

    def set(self, owner: object, kind: int, start: int, end: int, pid: int) -> None:
        """Give `owner` the range, or take it from it (F_UNLCK); nobody is in the way."""
        kept = []
        for lock in self.records:
            if lock.owner is not owner or lock.end < start - 1 or lock.start > end + 1:
                kept.append(lock)
            elif lock.type == kind:  # touches or overlaps: one range from now on
                start, end = min(start, lock.start), max(end, lock.end)
            else:
                if lock.start < start:
                    kept.append(lock._replace(end=min(lock.end, start - 1)))
                if lock.end > end:
                    kept.append(lock._replace(start=max(lock.start, end + 1)))
        if len(kept) > MAX_RECORDS:
            raise LinuxError(ENOLCK)
        if kind != F_UNLCK:
            kept.append(RecordLock(owner, kind, start, end, pid))
        kept.sort(key=lambda lock: lock.start)
        self.records = kept
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
        left = [lock for lock in self.records if lock.owner is not owner]
        if len(left) != len(self.records):
            self.records = left
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
