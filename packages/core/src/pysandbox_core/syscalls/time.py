"""What time is it, and sleeping: clock_gettime(2), clock_getres(2), clock_settime(2),
gettimeofday(2), time(2), nanosleep(2), clock_nanosleep(2), adjtimex(2).

Linux: kernel/time/posix-timers.c, time.c, hrtimer.c.
"""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP, EPERM
from struct import Struct

from pysandbox_core.abi.time import (
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_MONOTONIC_COARSE,
    CLOCK_MONOTONIC_RAW,
    CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM,
    CLOCK_REALTIME_COARSE,
    CLOCK_TAI,
    CLOCK_THREAD_CPUTIME_ID,
    KTIME_MAX,
    NSEC_PER_SEC,
    TIMER_ABSTIME,
    TIMESPEC,
    TIMEVAL,
    USEC_PER_SEC,
    read_timespec_ns,
    timespec_ns,
    write_timespec_ns,
)
from pysandbox_core.declare import ClockId, Int, Result, TimespecPtr, TimevalPtr, UserAddr, syscall
from pysandbox_core.errors import (
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    Interrupted,
    LinuxError,
)
from pysandbox_core.task import Task
from pysandbox_core.time.cpu_clocks import CpuClock, cpu_clock

WALL_CLOCKS = (
    CLOCK_REALTIME,
    CLOCK_MONOTONIC,
    CLOCK_BOOTTIME,
    CLOCK_TAI,
    CLOCK_REALTIME_ALARM,
    CLOCK_BOOTTIME_ALARM,
)
"""Clocks that one can sleep by."""
NO_SLEEP_CLOCKS = (
    CLOCK_THREAD_CPUTIME_ID,
    CLOCK_MONOTONIC_RAW,
    CLOCK_REALTIME_COARSE,
    CLOCK_MONOTONIC_COARSE,
)
"""Clocks without a nsleep operation."""

TIMEX = Struct("<I4xqqqqi4xqqqqqqqqi4xqqqqqi44x")
"""struct timex, adjtimex(2)."""
STA_UNSYNC = 0x40
TIME_ERROR = 5
MAXERROR_USEC = 16_000_000
"""NTP_PHASE_LIMIT, what Linux reports while unsynchronised."""
TICK_USEC = 10_000


@syscall("clock_gettime")
def clock_gettime(task: Task, clock_id: ClockId, tp: TimespecPtr) -> Result:
    """What the clock shows. clock_gettime(2)

    Errors: EINVAL no such clock; EFAULT.
    """
    clocks = task.kernel.clocks
    now_ns = clocks.monotonic_ns() if clock_id == CLOCK_MONOTONIC else clocks.now(clock_id, task)
    task.mm.write(tp, TIMESPEC.pack(*divmod(now_ns, NSEC_PER_SEC)))
    return 0


@syscall("clock_getres")
def clock_getres(task: Task, clock_id: ClockId, res: TimespecPtr) -> Result:
    """The resolution of the clock. clock_getres(2)"""
    resolution_ns = task.kernel.clocks.resolution(clock_id, task)
    if res:
        write_timespec_ns(task.mm, res, resolution_ns)
    return 0


@syscall("clock_settime", note="the clocks are the host's: EPERM, whatever the privileges")
def clock_settime(task: Task, clock_id: ClockId, tp: TimespecPtr) -> Result:
    """Errors: EINVAL a clock that can't be set; EFAULT; EPERM."""
    if clock_id > CLOCK_REALTIME:
        raise LinuxError(EINVAL)
    sec, nsec = task.mm.unpack(tp, TIMESPEC)
    if clock_id < 0:
        cpu_clock(clock_id, task)
    else:
        timespec_ns(sec, nsec)
    raise LinuxError(EPERM)


@syscall("gettimeofday")
def gettimeofday(task: Task, tv: TimevalPtr, tz: UserAddr) -> Result:
    """The time since the epoch in microseconds; the time zone is UTC. gettimeofday(2)"""
    if tv:
        sec, nsec = divmod(task.kernel.clocks.realtime_ns(), NSEC_PER_SEC)
        task.mm.write(tv, TIMEVAL.pack(sec, nsec // 1000))
    if tz:
        task.mm.write(tz, bytes(8))
    return 0


@syscall("settimeofday", note="the clocks are the host's: EPERM, whatever the privileges")
def settimeofday(task: Task, tv: TimevalPtr, tz: UserAddr) -> Result:
    """Errors: EFAULT; EINVAL; EPERM. settimeofday(2)"""
    if tv:
        _, usec = task.mm.unpack(tv, TIMEVAL)
        if not 0 <= usec <= USEC_PER_SEC:
            raise LinuxError(EINVAL)
    if tz:
        task.mm.read(tz, 8)
    raise LinuxError(EPERM)


@syscall("time")
def time(task: Task, tloc: UserAddr) -> Result:
    """Seconds since the epoch. time(2)"""
    now = task.kernel.clocks.realtime_ns() // NSEC_PER_SEC
    if tloc:
        task.mm.write(tloc, now.to_bytes(8, "little"))
    return now


@syscall("nanosleep")
def nanosleep(task: Task, req: TimespecPtr, rem: TimespecPtr) -> Result:
    """Sleep for at least the time in `req`. nanosleep(2)

    A signal handler ends it with EINTR and the time left in `rem`; any other stop continues it.
    """
    duration_ns = read_timespec_ns(task.mm, req)
    return sleep_until(task, task.kernel.clocks.monotonic_ns() + duration_ns, rem)


@syscall("clock_nanosleep")
def clock_nanosleep(
    task: Task, clock_id: ClockId, flags: Int, req: TimespecPtr, rem: TimespecPtr
) -> Result:
    """Sleep by a clock of one's choice, for a time or (TIMER_ABSTIME) until one. clock_nanosleep(2)

    Errors: EINVAL no such clock; EOPNOTSUPP no clock to sleep by; EFAULT; EINVAL `req`.
    """
    if clock_id in NO_SLEEP_CLOCKS:
        raise LinuxError(EOPNOTSUPP)
    clock = None if clock_id in WALL_CLOCKS else cpu_clock(clock_id, task)
    request_ns = read_timespec_ns(task.mm, req)
    absolute = bool(flags & TIMER_ABSTIME)
    if clock is not None:
        until_ns = request_ns if absolute else clock() + request_ns
        return cpu_sleep_until(task, clock, until_ns, 0 if absolute else rem, absolute)
    clocks = task.kernel.clocks
    if not absolute:
        return sleep_until(task, clocks.monotonic_ns() + request_ns, rem)
    deadline_ns = clocks.monotonic_deadline(clock_id, request_ns)
    while task.block((), deadline_ns, ERESTARTNOHAND):
        pass
    clocks.catch_up(deadline_ns)
    return 0


def sleep_until(task: Task, deadline_ns: int, rem: int) -> int:
    """Sleep until `deadline_ns` (monotonic); interrupted, write what is left to `rem` and leave a
    restart block."""
    deadline_ns = min(deadline_ns, KTIME_MAX)
    clocks = task.kernel.clocks
    try:
        while task.block((), deadline_ns, ERESTART_RESTARTBLOCK):
            pass
    except Interrupted:
        left_ns = deadline_ns - clocks.monotonic_ns()
        if left_ns <= 0:
            return 0
        if rem:
            write_timespec_ns(task.mm, rem, left_ns)
        task.restart_block = lambda task: sleep_until(task, deadline_ns, rem)
        raise
    clocks.catch_up(deadline_ns)
    return 0


def cpu_sleep_until(task: Task, clock: CpuClock, until_ns: int, rem: int, absolute: bool) -> int:
    """Sleep until a CPU clock, which runs no faster than all its threads together, shows
    `until_ns`."""
    try:
        while (left_ns := until_ns - clock()) > 0:
            deadline_ns = task.kernel.clocks.monotonic_ns() + max(left_ns, 1_000_000)
            task.block((), deadline_ns, ERESTARTNOHAND if absolute else ERESTART_RESTARTBLOCK)
    except Interrupted:
        left_ns = max(until_ns - clock(), 0)
        if not absolute:
            if rem:
                write_timespec_ns(task.mm, rem, left_ns)
            task.restart_block = lambda task: cpu_sleep_until(task, clock, until_ns, rem, False)
        raise
    return 0


@syscall("adjtimex", note="read-only: EPERM for a change")
def adjtimex(task: Task, buf: UserAddr) -> Result:
    """How the clock is disciplined: as far as the sandbox knows, not at all. adjtimex(2)"""
    return read_timex(task, buf)


@syscall("clock_adjtime", note="read-only: EPERM for a change")
def clock_adjtime(task: Task, clock_id: ClockId, buf: UserAddr) -> Result:
    """adjtimex(2) for CLOCK_REALTIME; EOPNOTSUPP for the others."""
    if clock_id != CLOCK_REALTIME:
        task.kernel.clocks.resolution(clock_id, task)
        raise LinuxError(EOPNOTSUPP)
    return read_timex(task, buf)


def read_timex(task: Task, buf: int) -> int:
    """Fill the struct timex at `buf`. EPERM unless its `modes` is 0."""
    modes = task.mm.unpack(buf, TIMEX)[0]
    if modes:
        raise LinuxError(EPERM)
    clocks = task.kernel.clocks
    realtime_ns = clocks.realtime_ns()
    sec, nsec = divmod(realtime_ns, NSEC_PER_SEC)
    tai = round((clocks.tai_ns() - realtime_ns) / NSEC_PER_SEC)
    task.mm.write(
        buf,
        TIMEX.pack(
            0, 0, 0, MAXERROR_USEC, MAXERROR_USEC, STA_UNSYNC, 2, 1, 32768000, sec, nsec // 1000,
            TICK_USEC, 0, 0, 0, 0, 0, 0, 0, 0, tai,
        ),
    )  # fmt: skip
    return TIME_ERROR
