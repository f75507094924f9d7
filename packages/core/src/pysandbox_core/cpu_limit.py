"""Limits of CPU time: RLIMIT_CPU of a process, and that of the whole sandbox.

A process that has used up its RLIMIT_CPU gets SIGXCPU every second, then SIGKILL. When the sandbox
has used up its time, every process gets SIGXCPU, a second of CPU time later SIGKILL, and so does
what is started after that. The kernel's own work is part of the sandbox's time, for a program that
does nothing but system calls has it done for nothing else.

Interface: `watch(group)` after the limit was set or inherited; `watch_sandbox` once, at boot. Where
there is no limit, it costs nothing.

Linux: kernel/time/posix-cpu-timers.c (check_process_timers).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from pysandbox_core import accounting, task_signals
from pysandbox_core.abi.signal import SIGKILL, SIGXCPU
from pysandbox_core.limits import INFINITY, RLIMIT_CPU

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import ThreadGroup

_NS = 1_000_000_000
_PAUSE_MIN_NS = 2_000_000
_PAUSE_MAX_NS = 100_000_000


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


class SandboxBudget:
    """The CPU time that a sandbox may use. It is looked at when it could be used up at the
    earliest, were every processor working for it; while nothing runs, ever more rarely."""

    __slots__ = ("_base_ns", "_kernel", "_limit_ns", "_pause_ns", "_seen_ns", "_warned")

    def __init__(self, kernel: Kernel, limit_ns: int) -> None:
        self._kernel = kernel
        self._limit_ns = limit_ns
        self._base_ns = time.process_time_ns()
        """What this process had used when the sandbox started."""
        self._seen_ns = -1
        self._pause_ns = _PAUSE_MIN_NS
        self._warned = False
        self._look_later(0)

    def used_ns(self) -> int:
        kernel = self._kernel
        own_ns = time.process_time_ns() - self._base_ns
        contexts_ns = kernel.account.cpu_time_ns + sum(
            accounting.task_cpu_time_ns(task) for task in kernel.tasks.values()
        )
        if kernel.platform.runs_in_process:
            return max(own_ns, contexts_ns)  # theirs is part of ours
        return own_ns + contexts_ns

    def _look_later(self, used_ns: int) -> None:
        if used_ns - self._seen_ns < _PAUSE_MIN_NS:
            self._pause_ns = min(self._pause_ns * 2, _PAUSE_MAX_NS)
        else:
            self._pause_ns = _PAUSE_MIN_NS
        self._seen_ns = used_ns
        until_ns = self._limit_ns + (_NS if self._warned else 0)
        earliest_ns = (until_ns - used_ns) // (os.cpu_count() or 1)
        deadline_ns = time.monotonic_ns() + max(earliest_ns, self._pause_ns)
        self._kernel.timers.add(deadline_ns, self._look)

    def _look(self) -> None:
        used_ns = self.used_ns()
        if used_ns >= self._limit_ns + _NS:
            self._end(SIGKILL)
        elif used_ns >= self._limit_ns and not self._warned:
            self._warned = True
            self._end(SIGXCPU)
        self._look_later(used_ns)

    def _end(self, signo: int) -> None:
        consequence = f"{self._limit_ns / _NS:g} s are used up"
        for group in tuple(self._kernel.groups.values()):
            if group.tasks:
                group.account.reach("cpu_time", consequence)
                task_signals.send(group, signo)


def watch_sandbox(kernel: Kernel) -> None:
    """See that everything ends when the sandbox has used the CPU time that it may use."""
    if kernel.config.cpu_time_ns is not None:
        SandboxBudget(kernel, kernel.config.cpu_time_ns)


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
