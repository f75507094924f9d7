"""Limits: the sandbox's by name, and ResourceLimits, what a process may use. getrlimit(2)

Interface: the soft limits, which are enforced, are attributes by name (`limits.nofile`); the hard
ones are only there to be read and set. Shared by the threads of a process, copied by fork. INFINITY
is a number greater than all others, so comparing needs no special case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LIMITS = ("timeout", "cpu_time", "memory", "pids", "files", "tmpfs", "output")
"""The sandbox's own limits, by the names that a caller is told: those that end programs, then those
that make calls fail, then what the caller itself does not keep."""


def deciding(reached: Iterable[str]) -> str | None:
    """Which of the limits that were reached a caller is told first, None for none."""
    return next((name for name in LIMITS if name in reached), None)


INFINITY = (1 << 64) - 1
"""RLIM_INFINITY"""

NAMES = (
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as_", "locks",
    "sigpending", "msgqueue", "nice", "rtprio", "rttime",
)  # fmt: skip
"""By resource number, include/uapi/asm-generic/resource.h."""

RLIMIT_CPU = 0
RLIMIT_NOFILE = 7

NR_OPEN = 1 << 20
"""The highest RLIMIT_NOFILE, /proc/sys/fs/nr_open."""

_KIB = 1024

_INITIAL = {
    "stack": (8192 * _KIB, INFINITY),
    "core": (0, INFINITY),
    "nproc": (63432, 63432),
    "nofile": (1024, NR_OPEN),
    "memlock": (8192 * _KIB, 8192 * _KIB),
    "sigpending": (63432, 63432),
    "msgqueue": (819200, 819200),
    "nice": (0, 0),
    "rtprio": (0, 0),
}
"""(soft, hard) where it is not INFINITY: as a login on a common system has them. The host's own are
not taken over, so that a program behaves the same on every host."""


class ResourceLimits:
    """The limits of one process. Units: bytes, but `cpu` in seconds, `rttime` in microseconds."""

    __slots__ = ("_hard", *NAMES)

    cpu: int
    fsize: int
    data: int
    stack: int
    core: int
    rss: int
    nproc: int
    nofile: int
    memlock: int
    as_: int
    locks: int
    sigpending: int
    msgqueue: int
    nice: int
    rtprio: int
    rttime: int

    def __init__(self) -> None:
        self._hard: list[int] = []
        for name in NAMES:
            soft, hard = _INITIAL.get(name, (INFINITY, INFINITY))
            setattr(self, name, soft)
            self._hard.append(hard)

    def get(self, resource: int) -> tuple[int, int]:
        """(soft, hard) of RLIMIT number `resource`."""
        return getattr(self, NAMES[resource]), self._hard[resource]

    def set(self, resource: int, soft: int, hard: int) -> None:
        setattr(self, NAMES[resource], soft)
        self._hard[resource] = hard

    def copy(self) -> ResourceLimits:
        limits = ResourceLimits.__new__(ResourceLimits)
        for name in NAMES:
            setattr(limits, name, getattr(self, name))
        limits._hard = self._hard[:]
        return limits
