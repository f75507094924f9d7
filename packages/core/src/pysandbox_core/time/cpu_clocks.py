"""CPU-time clocks: how long threads and processes have run.

Linux: kernel/time/posix-cpu-timers.c. What is counted is accounting.py's business.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL
from typing import TYPE_CHECKING

from pysandbox_core import accounting
from pysandbox_core.abi.time import CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID
from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.task import Task, ThreadGroup

# include/linux/posix-timers.h: CPU clocks of other tasks have negative ids.
CPUCLOCK_PERTHREAD_MASK = 4
CPUCLOCK_CLOCK_MASK = 3
CLOCKFD = 3

CpuClock = Callable[[], int]
"""Nanoseconds of CPU time now."""


def cpu_clock(clock_id: int, task: Task) -> CpuClock:
    """The CPU clock that `task` names by `clock_id`. EINVAL if it is none, or its owner does not
    exist."""
    if clock_id == CLOCK_THREAD_CPUTIME_ID:
        return thread_clock(task)
    if clock_id == CLOCK_PROCESS_CPUTIME_ID:
        return process_clock(task.group)
    which = clock_id & CPUCLOCK_CLOCK_MASK
    if clock_id >= 0 or which == CLOCKFD:  # no clock device (/dev/ptp0) exists here
        raise LinuxError(EINVAL)
    pid = ~(clock_id >> 3)
    if clock_id & CPUCLOCK_PERTHREAD_MASK:
        owner = task if pid == 0 else task.kernel.tasks.get(pid)
        if owner is None or owner.group is not task.group:
            raise LinuxError(EINVAL)
        return thread_clock(owner)
    group = task.group if pid == 0 else task.kernel.groups.get(pid)
    if group is None:
        raise LinuxError(EINVAL)
    return process_clock(group)


def thread_clock(task: Task) -> CpuClock:
    """The CPU clock of a thread; user and total time are one (see accounting)."""
    return lambda: accounting.task_cpu_time_ns(task)


def process_clock(group: ThreadGroup) -> CpuClock:
    """The CPU clock of all threads of a process together."""
    return lambda: accounting.group_cpu_time_ns(group)
