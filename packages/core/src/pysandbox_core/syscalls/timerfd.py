"""timerfd_create(2), timerfd_settime(2), timerfd_gettime(2)."""

from __future__ import annotations

import os
from errno import EINVAL, EPERM
from typing import TYPE_CHECKING

from pysandbox_core.abi.time import (
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM,
    pack_itimerspec,
    read_itimerspec_ns,
)
from pysandbox_core.credentials import CAP_WAKE_ALARM
from pysandbox_core.declare import ClockId, Fd, Int, OpenFlags, Result, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from pysandbox_core.fs.timerfd import TimerFile

CLOCKS = (
    CLOCK_REALTIME,
    CLOCK_MONOTONIC,
    CLOCK_BOOTTIME,
    CLOCK_REALTIME_ALARM,
    CLOCK_BOOTTIME_ALARM,
)
ALARM_CLOCKS = (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM)


@syscall("timerfd_create")
def timerfd_create(task: Task, clockid: ClockId, flags: OpenFlags) -> Result:
    """A new, disarmed timer. timerfd_create(2)

    Errors: EINVAL any flag but TFD_CLOEXEC and TFD_NONBLOCK, or a clock without timers; EPERM an
    alarm clock without CAP_WAKE_ALARM; EMFILE.
    """
    if flags & ~(os.O_CLOEXEC | os.O_NONBLOCK) or clockid not in CLOCKS:
        raise LinuxError(EINVAL)
    if clockid in ALARM_CLOCKS and not task.creds.capable(CAP_WAKE_ALARM):
        raise LinuxError(EPERM)
    from pysandbox_core.fs.timerfd import TimerFile

    file = TimerFile(task.kernel, clockid, flags & os.O_NONBLOCK)
    return task.files.install(task, file, cloexec=bool(flags & os.O_CLOEXEC))


@syscall(
    "timerfd_settime",
    note="TFD_TIMER_CANCEL_ON_SET: a step of the clock is seen when the file is next looked at",
)
def timerfd_settime(
    task: Task, fd: Fd, flags: Int, new_value: UserAddr, old_value: UserAddr
) -> Result:
    """Arm or disarm a timer; what it was set to goes to `old_value`. timerfd_settime(2)

    Errors: EFAULT; EINVAL flags or times; EBADF; EINVAL no timerfd.
    """
    interval_ns, value_ns = read_itimerspec_ns(task.mm, new_value)
    if flags & ~3:
        raise LinuxError(EINVAL)
    timer = timer_file(task, fd)
    old = timer.gettime()
    timer.settime(flags, interval_ns, value_ns)
    if old_value:
        task.mm.write(old_value, pack_itimerspec(*old))
    return 0


@syscall("timerfd_gettime")
def timerfd_gettime(task: Task, fd: Fd, curr_value: UserAddr) -> Result:
    """The time left until a timer expires, and its interval. timerfd_gettime(2)"""
    task.mm.write(curr_value, pack_itimerspec(*timer_file(task, fd).gettime()))
    return 0


def timer_file(task: Task, fd: int) -> TimerFile:
    """EBADF not open, EINVAL something else."""
    from pysandbox_core.fs.timerfd import TimerFile

    file = task.files.get(fd)
    if not isinstance(file, TimerFile):
        raise LinuxError(EINVAL)
    return file
