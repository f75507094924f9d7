"""Clocks and time structures: `include/uapi/linux/time.h`, `time_types.h`, `timerfd.h`, `timex.h`.

Interface: the readers take an address of the program, read it once, and raise EFAULT or EINVAL.
Durations and points in time are nanoseconds, clipped at KTIME_MAX as Linux does (292 years).
"""

from __future__ import annotations

from errno import EINVAL
from struct import Struct
from typing import TYPE_CHECKING, Final

from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.mm.memory_manager import MemoryManager

CLOCK_REALTIME: Final = 0
CLOCK_MONOTONIC: Final = 1
CLOCK_PROCESS_CPUTIME_ID: Final = 2
CLOCK_THREAD_CPUTIME_ID: Final = 3
CLOCK_MONOTONIC_RAW: Final = 4
CLOCK_REALTIME_COARSE: Final = 5
CLOCK_MONOTONIC_COARSE: Final = 6
CLOCK_BOOTTIME: Final = 7
CLOCK_REALTIME_ALARM: Final = 8
CLOCK_BOOTTIME_ALARM: Final = 9
CLOCK_TAI: Final = 11

TIMER_ABSTIME: Final = 1

NSEC_PER_SEC: Final = 1_000_000_000
NSEC_PER_USEC: Final = 1_000
USEC_PER_SEC: Final = 1_000_000
KTIME_MAX: Final = (1 << 63) - 1

TIMESPEC: Final = Struct("<qq")
TIMEVAL: Final = Struct("<qq")
ITIMERSPEC: Final = Struct("<qqqq")
"""Interval, then value: struct itimerspec and struct itimerval alike."""


def read_timespec_ns(mm: MemoryManager, addr: int) -> int:
    """The struct timespec at `addr` in nanoseconds. EINVAL unless tv_sec >= 0 and tv_nsec < 1e9."""
    return timespec_ns(*mm.unpack(addr, TIMESPEC))


def timespec_ns(sec: int, nsec: int) -> int:
    """timespec64_valid() and timespec64_to_ktime()."""
    if sec < 0 or not 0 <= nsec < NSEC_PER_SEC:
        raise LinuxError(EINVAL)
    return min(sec * NSEC_PER_SEC + nsec, KTIME_MAX)


def timeval_ns(sec: int, usec: int) -> int:
    """As `timespec_ns`, for a struct timeval."""
    if sec < 0 or not 0 <= usec < USEC_PER_SEC:
        raise LinuxError(EINVAL)
    return min((sec * USEC_PER_SEC + usec) * NSEC_PER_USEC, KTIME_MAX)


def write_timespec_ns(mm: MemoryManager, addr: int, time_ns: int) -> None:
    """Write `time_ns` as a struct timespec."""
    mm.write(addr, TIMESPEC.pack(*divmod(time_ns, NSEC_PER_SEC)))


def write_timeval_ns(mm: MemoryManager, addr: int, time_ns: int) -> None:
    """Write `time_ns` as a struct timeval, rounded down."""
    mm.write(addr, TIMEVAL.pack(*divmod(time_ns // NSEC_PER_USEC, USEC_PER_SEC)))


def pack_itimerspec(interval_ns: int, value_ns: int) -> bytes:
    """struct itimerspec."""
    return ITIMERSPEC.pack(*divmod(interval_ns, NSEC_PER_SEC), *divmod(value_ns, NSEC_PER_SEC))


def read_itimerspec_ns(mm: MemoryManager, addr: int) -> tuple[int, int]:
    """(interval, value) of the struct itimerspec at `addr`. EINVAL"""
    interval_sec, interval_nsec, value_sec, value_nsec = mm.unpack(addr, ITIMERSPEC)
    value_ns = timespec_ns(value_sec, value_nsec)
    return timespec_ns(interval_sec, interval_nsec), value_ns
