"""Whose the host's files are, where the sentry's user namespace can't say it.

Who may not set ids can map only their own uid and gid into a user namespace (jail/namespaces.py).
Every other id then looks like one and the same there, the overflow id; user_namespaces(7). The
kernel shows instead

- the caller's own uid and gid as they are,
- every other uid as 0: mostly it is root's, and that it is not the caller's is what counts,
- every other gid as 0 too, unless the file's group is one of the caller's supplementary groups,
  which the host tells by what it lets the caller do; if the caller has several, the first of them
  stands for all, for which one it is can't be found out.

Where 0 is the caller's own, others are shown as the overflow id. Files can be given to the caller's
own uid and gid and to no others: EPERM.

Interface: `in_effect()` is the sentry's `HostIds`, None where the host's ids are shown as they are.
`assume` is called once, by whoever has made the namespace.
"""

from __future__ import annotations

import os
from errno import EPERM, EROFS
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNCHANGED = -1
"""chown(2)"""

_TIMES_AND_DEVICE = (
    "st_atime", "st_mtime", "st_ctime", "st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_blksize",
    "st_blocks", "st_rdev",
)  # fmt: skip
"""What os.stat_result has besides its ten items."""


class IdMap:
    """One kind of id, of which the namespace has a single one."""

    __slots__ = ("_shown", "inside", "outside", "overflow")

    def __init__(self, inside: int, outside: int, overflow: int, others: Iterable[int]) -> None:
        self.inside = inside
        """What the caller's own id is in the namespace."""
        self.outside = outside
        self.overflow = overflow
        self._shown = {inside: outside, overflow: overflow if 0 in (outside, *others) else 0}

    def shown(self, host_id: int) -> int:
        return self._shown.get(host_id, host_id)

    def settable(self, wanted: int, now: int) -> int:
        """What to tell chown(2) of an id that is `now` and shall be `wanted`. Raises OSError"""
        if wanted == now:
            return _UNCHANGED
        if wanted != self.outside:
            raise OSError(EPERM, os.strerror(EPERM))
        return self.inside


class HostIds:
    """The ids of a namespace that has one uid and one gid."""

    __slots__ = ("gids", "groups", "uids")

    def __init__(self, uids: IdMap, gids: IdMap, groups: tuple[int, ...]) -> None:
        self.uids = uids
        self.gids = gids
        self.groups = groups
        """The caller's groups but the one that is mapped."""

    def shown(self, status: os.stat_result, fd: int, name: bytes = b"") -> os.stat_result:
        """`status`, which stat(2) gave of `name` in the directory `fd`, or of `fd` itself, with the
        ids that the sandbox has for it."""
        uid, gid = self.uids.shown(status.st_uid), self.gids.shown(status.st_gid)
        if self.groups and status.st_gid == self.gids.overflow:
            if status.st_uid == self.uids.inside or _as_group(status.st_mode, fd, name):
                gid = self.groups[0]
        if uid == status.st_uid and gid == status.st_gid:
            return status
        more = {field: getattr(status, field) for field in _TIMES_AND_DEVICE}
        return os.stat_result((*status[:4], uid, gid, *status[6:10]), more)


def _as_group(mode: int, fd: int, name: bytes) -> bool:
    """Does the host give us, who are not the owner, the rights of the file's group? Seen by one
    right that the group has and others have not, or the other way round."""
    group, others = mode >> 3 & 7, mode & 7
    differ = group ^ others
    if not differ:
        return False  # it makes no difference
    wanted = next(right for right in (os.R_OK, os.X_OK, os.W_OK) if differ & right)
    from pysandbox_core.host_calls import faccessat2

    try:
        faccessat2(fd, name, wanted)
        granted = True
    except OSError as error:
        granted = error.errno == EROFS  # asked of the mount once the file's mode has said yes
    return granted == bool(group & wanted)


_ids: HostIds | None = None


def assume(ids: HostIds) -> None:
    """From now on this process is in the namespace that `ids` describes."""
    global _ids
    _ids = ids


def in_effect() -> HostIds | None:
    """How ids are to be shown; None: as they are."""
    return _ids


def fstat(fd: int) -> os.stat_result:
    """os.fstat with the ids that the sandbox has for the file."""
    status = os.fstat(fd)
    return status if _ids is None else _ids.shown(status, fd)


def host_owner(uid: int, gid: int, now: tuple[int, int]) -> tuple[int, int]:
    """What to tell chown(2) of a file that belongs to `now`, as the sandbox has it. OSError"""
    if _ids is None:
        return uid, gid
    return _ids.uids.settable(uid, now[0]), _ids.gids.settable(gid, now[1])
