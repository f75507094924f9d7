"""timer_create(2) and its family, setitimer(2), getitimer(2), alarm(2)."""

from __future__ import annotations

from errno import EAGAIN, EINVAL, EOPNOTSUPP, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.abi.signal import NSIG, SIGALRM
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
    ITIMERSPEC,
    NSEC_PER_SEC,
    NSEC_PER_USEC,
    TIMER_ABSTIME,
    USEC_PER_SEC,
    pack_itimerspec,
    read_itimerspec_ns,
    timeval_ns,
)
from pysandbox_core.credentials import CAP_WAKE_ALARM
from pysandbox_core.declare import ClockId, Int, Result, UInt, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.kernel_memory import SMALL
from pysandbox_core.task import Task, ThreadGroup
from pysandbox_core.time.cpu_clocks import cpu_clock

if TYPE_CHECKING:
    from pysandbox_core.time.process_timers import PosixTimer, ProcessTimers

SIGEVENT = Struct("<Qiii44x")
"""struct sigevent: sigev_value, sigev_signo, sigev_notify, sigev_notify_thread_id."""
SIGEV_SIGNAL = 0
SIGEV_NONE = 1
SIGEV_THREAD = 2
SIGEV_THREAD_ID = 4

WALL_CLOCKS = (CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI)
ALARM_CLOCKS = (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM)
CLOCKS_WITHOUT_TIMERS = (CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE)
ITIMER_REAL = 0
ITIMER_PROF = 2


def timers_of(group: ThreadGroup) -> ProcessTimers:
    from pysandbox_core.time import process_timers

    return process_timers.of(group)


@syscall("timer_create")
def timer_create(task: Task, clockid: ClockId, sevp: UserAddr, timerid: UserAddr) -> Result:
    """A new timer of a clock, and how it tells that it has expired. timer_create(2)

    Errors: EFAULT; EINVAL no such clock; EOPNOTSUPP no timers on it; EAGAIN RLIMIT_SIGPENDING;
    EINVAL notification; EPERM an alarm clock without CAP_WAKE_ALARM.
    """
    from pysandbox_core.time.process_timers import PosixTimer

    event = task.mm.unpack(sevp, SIGEVENT) if sevp else None
    clock = None
    if clockid in CLOCKS_WITHOUT_TIMERS:
        raise LinuxError(EOPNOTSUPP)
    if clockid not in WALL_CLOCKS and clockid not in ALARM_CLOCKS:
        clock = cpu_clock(clockid, task)
    group = task.group
    timers = timers_of(group)
    if len(timers.posix) >= group.limits.sigpending:
        raise LinuxError(EAGAIN)
    task.kernel.memory.grow(2 * SMALL)
    timer_id = timers.new_id()
    value, signo, notify, tid = event or (timer_id, SIGALRM, SIGEV_SIGNAL, 0)
    target = notified(task, notify, signo, tid)
    if clockid in ALARM_CLOCKS and not task.creds.capable(CAP_WAKE_ALARM):
        raise LinuxError(EPERM)
    task.mm.write(timerid, timer_id.to_bytes(4, "little"))
    signo = 0 if notify == SIGEV_NONE else signo
    timers.posix[timer_id] = PosixTimer(
        timer_id, group, clockid, clock, notify, signo, target, value
    )
    return 0


def notified(task: Task, notify: int, signo: int, tid: int) -> Task | ThreadGroup:
    """Who gets the signal. EINVAL"""
    target: Task | ThreadGroup = task.group
    if notify == SIGEV_THREAD_ID:
        thread = task.kernel.tasks.get(tid)
        if thread is None or thread.group is not task.group:
            raise LinuxError(EINVAL)
        target = thread
    elif notify not in (SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD):
        raise LinuxError(EINVAL)
    if notify != SIGEV_NONE and not 0 < signo <= NSIG:
        raise LinuxError(EINVAL)
    return target


def find(task: Task, timer_id: int) -> PosixTimer:
    """EINVAL no such timer"""
    timers = task.group.timers
    timer = None if timers is None else timers.posix.get(timer_id)
    if timer is None:
        raise LinuxError(EINVAL)
    return timer


@syscall("timer_settime")
def timer_settime(
    task: Task, timerid: Int, flags: Int, new_value: UserAddr, old_value: UserAddr
) -> Result:
    """Arm or disarm a timer. timer_settime(2)

    Errors: EINVAL no `new_value`; EFAULT; EINVAL times; EINVAL no such timer.
    """
    if not new_value:
        raise LinuxError(EINVAL)
    interval_ns, value_ns = read_itimerspec_ns(task.mm, new_value)
    timer = find(task, timerid)
    old = timer.gettime()
    until_ns = 0
    if value_ns:
        if not flags & TIMER_ABSTIME:
            until_ns = timer.now_ns() + value_ns
        elif timer.clock_id in WALL_CLOCKS or timer.clock_id in ALARM_CLOCKS:
            clocks = task.kernel.clocks
            until_ns = max(clocks.monotonic_deadline(timer.clock_id, value_ns), 1)
        else:
            until_ns = value_ns
    timer.settime(until_ns, interval_ns)
    if old_value:
        task.mm.write(old_value, pack_itimerspec(*old))
    return 0


@syscall("timer_gettime")
def timer_gettime(task: Task, timerid: Int, curr_value: UserAddr) -> Result:
    """Interval and time left. timer_gettime(2)"""
    task.mm.write(curr_value, pack_itimerspec(*find(task, timerid).gettime()))
    return 0


@syscall("timer_getoverrun")
def timer_getoverrun(task: Task, timerid: Int) -> Result:
    """Periods that passed while the last signal was pending. timer_getoverrun(2)"""
    return find(task, timerid).overrun


@syscall("timer_delete")
def timer_delete(task: Task, timerid: Int) -> Result:
    """timer_delete(2)"""
    timer = find(task, timerid)
    timer.delete()
    del timers_of(task.group).posix[timerid]
    return 0


@syscall("getitimer")
def getitimer(task: Task, which: Int, curr_value: UserAddr) -> Result:
    """Interval and time left of ITIMER_REAL, _VIRTUAL or _PROF. EINVAL; EFAULT. getitimer(2)"""
    if not ITIMER_REAL <= which <= ITIMER_PROF:
        raise LinuxError(EINVAL)
    task.mm.write(curr_value, pack_itimerval(*timers_of(task.group).intervals[which].get()))
    return 0


@syscall("setitimer")
def setitimer(task: Task, which: Int, new_value: UserAddr, old_value: UserAddr) -> Result:
    """Arm or disarm an interval timer; without `new_value` disarm it. setitimer(2)

    Errors: EFAULT; EINVAL.
    """
    interval_ns = value_ns = 0
    if new_value:
        fields = task.mm.unpack(new_value, ITIMERSPEC)
        value_ns = timeval_ns(*fields[2:])
        interval_ns = timeval_ns(*fields[:2])
    if not ITIMER_REAL <= which <= ITIMER_PROF:
        raise LinuxError(EINVAL)
    timer = timers_of(task.group).intervals[which]
    old = timer.get()
    timer.set(interval_ns, value_ns)
    if old_value:
        task.mm.write(old_value, pack_itimerval(*old))
    return 0


def pack_itimerval(interval_ns: int, value_ns: int) -> bytes:
    """struct itimerval; time that is left is at least a microsecond."""
    usec = -(-value_ns // NSEC_PER_USEC)
    return ITIMERSPEC.pack(
        *divmod(interval_ns // NSEC_PER_USEC, USEC_PER_SEC), *divmod(usec, USEC_PER_SEC)
    )


@syscall("alarm")
def alarm(task: Task, seconds: UInt) -> Result:
    """Send SIGALRM in so many seconds, 0 for never; how many were left of the last one. alarm(2)"""
    timer = timers_of(task.group).intervals[ITIMER_REAL]
    _, left_ns = timer.get()
    timer.set(0, seconds * NSEC_PER_SEC)
    left, rest_ns = divmod(left_ns, NSEC_PER_SEC)
    if (rest_ns and not left) or rest_ns >= NSEC_PER_SEC // 2:
        left += 1
    return left
