"""RLIMIT_CPU: a process that has used up its CPU time gets SIGXCPU every second, then SIGKILL.

Interface: `watch(group)` after the limit was set or inherited; where there is none, it costs
nothing.

Linux: kernel/time/posix-cpu-timers.c (check_process_timers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_core import accounting, task_signals
from pysandbox_core.abi.signal import SIGKILL, SIGXCPU
from pysandbox_core.limits import INFINITY, RLIMIT_CPU

if TYPE_CHECKING:
    from pysandbox_core.task import ThreadGroup

_NS = 1_000_000_000


def watch(group: ThreadGroup) -> None:
    """See that `group` is told when it reaches its present limit."""
    if group.limits.cpu == INFINITY or not group.tasks:
        return
    from pysandbox_core.time.cpu_clocks import process_clock
    from pysandbox_core.time.process_timers import Countdown

    if group.cpu_limit is None:
        countdown = Countdown(group, process_clock(group), lambda: _reached(group))
        group.cpu_limit = countdown
        group.exit_callbacks.append(lambda group: countdown.disarm())
    group.cpu_limit.arm(group.limits.cpu * _NS)


def _reached(group: ThreadGroup) -> None:
    soft, hard = group.limits.get(RLIMIT_CPU)
    used_ns = accounting.group_cpu_time_ns(group)
    if used_ns >= hard * _NS:
        task_signals.send(group, SIGKILL)
        return
    if used_ns >= soft * _NS:
        task_signals.send(group, SIGXCPU)
        group.limits.set(RLIMIT_CPU, soft + 1, hard)  # Linux moves the soft limit, too
    watch(group)
