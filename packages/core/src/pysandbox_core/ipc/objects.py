"""What the three kinds of System V objects have in common: keys, identifiers, permissions.

Interface: an `IpcObject` is made by `IpcTable.get` and lives until its table's `remove`, whatever
still uses it; who finds an object again after having waited looks at `removed`. A kernel has one
table for each kind, made with the first use.

Linux: ipc/util.c. Identifiers are an index with a sequence number above it, so that one that was
removed is not soon mistaken for a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EACCES, EEXIST, EIDRM, EINVAL, ENOENT, ENOSPC, EPERM
from struct import Struct
from typing import TYPE_CHECKING, Generic, TypeVar

from pysandbox_core.credentials import CAP_IPC_OWNER, CAP_SYS_ADMIN
from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.credentials import Credentials
    from pysandbox_core.task import Task

IPC_PRIVATE = 0
IPC_CREAT, IPC_EXCL, IPC_NOWAIT = 0o1000, 0o2000, 0o4000
IPC_RMID, IPC_SET, IPC_STAT, IPC_INFO = 0, 1, 2, 3
READ, WRITE = 0o444, 0o222
"""Permissions an operation needs; which of the three digits counts depends on who asks."""

_INDEX_BITS = 15
_INDEXES = 1 << _INDEX_BITS
_SEQUENCES = 1 << 31 - _INDEX_BITS

PERM = Struct("<iIIIIIHxx4x16x")
"""struct ipc64_perm: key, uid, gid, cuid, cgid, mode, seq."""


class IpcObject:
    """One segment, set or queue."""

    def __init__(self, creds: Credentials, key: int, mode: int, now: int) -> None:
        self.id = -1
        self.key = key
        self.uid = self.cuid = creds.euid
        self.gid = self.cgid = creds.egid
        self.mode = mode & 0o777
        self.ctime = now
        """Seconds since the epoch of the last change."""
        self.removed = False

    def perm(self) -> bytes:
        """As a struct ipc64_perm."""
        sequence = self.id >> _INDEX_BITS
        return PERM.pack(
            self.key, self.uid, self.gid, self.cuid, self.cgid, self.mode, sequence & 0xFFFF
        )

    def require(self, creds: Credentials, wanted: int) -> None:
        """EACCES unless `wanted`, mode bits in any of the three digits, is granted. ipcperms()"""
        wanted = wanted >> 6 | wanted >> 3 | wanted
        granted = self.mode
        if creds.euid in (self.cuid, self.uid):
            granted >>= 6
        elif creds.in_group(self.cgid) or creds.in_group(self.gid):
            granted >>= 3
        if wanted & ~granted & 7 and not creds.capable(CAP_IPC_OWNER):
            raise LinuxError(EACCES)

    def require_owner(self, creds: Credentials) -> None:
        """EPERM unless it is the caller's to change and remove."""
        if creds.euid not in (self.cuid, self.uid) and not creds.capable(CAP_SYS_ADMIN):
            raise LinuxError(EPERM)

    def require_present(self) -> None:
        """EIDRM once it was removed: for who has waited."""
        if self.removed:
            raise LinuxError(EIDRM)

    def set_perm(self, data: bytes, now: int) -> None:
        """IPC_SET: owner and mode from a struct ipc64_perm. EINVAL"""
        _, uid, gid, _, _, mode, _ = PERM.unpack(data)
        if 0xFFFFFFFF in (uid, gid):
            raise LinuxError(EINVAL)
        self.uid, self.gid = uid, gid
        self.mode = self.mode & ~0o777 | mode & 0o777
        self.ctime = now


Kind = TypeVar("Kind", bound=IpcObject)


class IpcTable(Generic[Kind]):
    """The objects of one kind."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """How many there may be: SHMMNI and its like."""
        self.by_index: dict[int, Kind] = {}
        self._by_key: dict[int, Kind] = {}
        self._next = 0
        self._sequence = 0

    def get(
        self,
        task: Task,
        key: int,
        flags: int,
        make: Callable[[], Kind],
        check: Callable[[Kind], None],
    ) -> int:
        """The id of the object of `key`, made if need be. `check` looks at what the call asks of an
        object that was there. shmget(2), semget(2), msgget(2)

        Errors: ENOENT; EEXIST; those of `check` and `make`; EACCES; ENOSPC.
        """
        found = self._by_key.get(key) if key != IPC_PRIVATE else None
        if found is None:
            if key != IPC_PRIVATE and not flags & IPC_CREAT:
                raise LinuxError(ENOENT)
            return self._add(make())
        if flags & IPC_CREAT and flags & IPC_EXCL:
            raise LinuxError(EEXIST)
        check(found)
        found.require(task.creds, flags & 0o777)
        return found.id

    def _add(self, made: Kind) -> int:
        if len(self.by_index) >= self.limit:
            raise LinuxError(ENOSPC)
        while self._next in self.by_index:
            self._advance()
        made.id = self._sequence << _INDEX_BITS | self._next
        self.by_index[self._next] = made
        if made.key != IPC_PRIVATE:
            self._by_key[made.key] = made
        self._advance()
        return made.id

    def _advance(self) -> None:
        self._next += 1
        if self._next == _INDEXES:
            self._next = 0
            self._sequence = (self._sequence + 1) % _SEQUENCES

    def find(self, ident: int) -> Kind:
        """The object with this id. EINVAL"""
        found = self.by_index.get(ident & _INDEXES - 1) if ident >= 0 else None
        if found is None or found.id != ident:
            raise LinuxError(EINVAL)
        return found

    def at(self, index: int) -> Kind:
        """The object at an index of the table: SHM_STAT and its like. EINVAL"""
        found = self.by_index.get(index)
        if found is None:
            raise LinuxError(EINVAL)
        return found

    def max_index(self) -> int:
        """The highest index in use, 0 if there is none: what IPC_INFO returns."""
        return max(self.by_index, default=0)

    def hide(self, victim: Kind) -> None:
        """Let the key be given to another one. The id goes on."""
        if self._by_key.get(victim.key) is victim:
            del self._by_key[victim.key]
        victim.key = IPC_PRIVATE

    def remove(self, victim: Kind) -> None:
        """Forget the id and the key."""
        self.hide(victim)
        self.by_index.pop(victim.id & _INDEXES - 1, None)
        victim.removed = True
