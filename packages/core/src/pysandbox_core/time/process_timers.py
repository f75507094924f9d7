"""A process's timers: timer_create(2), setitimer(2), alarm(2).

Linux: kernel/time/posix-timers.c, itimer.c, posix-cpu-timers.c.

A periodic timer is armed anew only when its signal has been taken, and the periods that passed
meanwhile count as overruns: a process that blocks the signal causes no further wake-up. One whose
signal comes to nothing (it is ignored, pending from elsewhere, its thread has gone) goes on by
itself, ever more rarely, up to MAX_UNHEARD_NS apart: it would keep the kernel busy for nobody.

Timers of CPU clocks are looked at when they could have expired at the earliest, were all threads
running; while nobody runs, ever more rarely, up to MAX_CPU_CHECK_NS apart, and where they are
many not more than one of them every CPU_CHECKS_APART_NS.

Interface: `of(group)` has them; they end with the process, and the POSIX ones with execve
(`delete_posix`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pysandbox_core import task_signals
from pysandbox_core.abi.signal import SIGALRM, SIGPROF, SIGVTALRM
from pysandbox_core.errors import LinuxError
from pysandbox_core.signals import TIMER_FIELDS, SigInfo
from pysandbox_core.time.cpu_clocks import CpuClock, process_clock

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task, ThreadGroup
    from pysandbox_core.timers import Timer

MIN_CPU_CHECK_NS = 1_000_000
MAX_CPU_CHECK_NS = 100_000_000
CPU_CHECKS_APART_NS = 2_000_000
MIN_UNHEARD_NS = 1_000_000
MAX_UNHEARD_NS = 100_000_000
OVERRUN_MAX = 0x7FFFFFFF
"""DELAYTIMER_MAX"""


class _Watched:
    """How many countdowns of CPU clocks are armed in this process, which has one kernel."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


_watched = _Watched()


class Countdown:
    """Calls back once when a clock reaches a time: the monotonic one, or a CPU clock."""

    __slots__ = (
        "_callback",
        "_checked_ns",
        "_group",
        "_pause_ns",
        "_timer",
        "clock",
        "reached_ns",
        "until_ns",
    )

    def __init__(
        self, group: ThreadGroup, clock: CpuClock | None, callback: Callable[[], None]
    ) -> None:
        self._group = group
        self.clock = clock
        """None for the monotonic clock."""
        self._callback = callback
        self._timer: Timer | None = None
        self.until_ns = 0
        """On its clock; 0 while it is not armed."""
        self.reached_ns = 0
        """What it was armed for when it last called."""
        self._pause_ns = MIN_CPU_CHECK_NS
        self._checked_ns = -1

    def now_ns(self) -> int:
        if self.clock is None:
            return self._group.kernel.clocks.monotonic_ns()
        return self.clock()

    def arm(self, until_ns: int) -> None:
        self.disarm()
        self.until_ns = max(until_ns, 1)
        kernel = self._group.kernel
        if self.clock is None:
            self._timer = kernel.timers.add(self.until_ns, self._expired)
        else:
            _watched.count += 1
            self._check_later(kernel, self.clock())

    def disarm(self) -> None:
        self._stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop(self) -> None:
        if self.until_ns and self.clock is not None:
            _watched.count -= 1
        self.until_ns = 0

    def left_ns(self) -> int:
        """Time until it calls, at least 1; 0 while it is not armed."""
        return max(self.until_ns - self.now_ns(), 1) if self.until_ns else 0

    def _check_later(self, kernel: Kernel, now_ns: int) -> None:
        if now_ns == self._checked_ns:
            longest_ns = max(MAX_CPU_CHECK_NS, _watched.count * CPU_CHECKS_APART_NS)
            self._pause_ns = min(self._pause_ns * 2, longest_ns)
        else:
            self._pause_ns = MIN_CPU_CHECK_NS
        self._checked_ns = now_ns
        earliest_ns = (self.until_ns - now_ns) // max(len(self._group.tasks), 1)
        pause_ns = max(earliest_ns, self._pause_ns)
        deadline_ns = kernel.clocks.monotonic_ns() + pause_ns
        self._timer = kernel.timers.add(deadline_ns, self._expired)

    def _expired(self) -> None:
        self._timer = None
        kernel = self._group.kernel
        if self.clock is None:
            kernel.clocks.catch_up(self.until_ns)
        else:
            now_ns = self.clock()
            if now_ns < self.until_ns:
                self._check_later(kernel, now_ns)
                return
        self.reached_ns = self.until_ns
        self._stop()
        self._callback()


class PosixTimer:
    """One timer of timer_create(2). `signo` is 0 for SIGEV_NONE."""

    __slots__ = (
        "_countdown", "_epoch", "_expired_ns", "_pause_ns", "clock_id", "interval_ns", "notify",
        "overrun", "signo", "target", "timer_id", "value",
    )  # fmt: skip

    def __init__(
        self,
        timer_id: int,
        group: ThreadGroup,
        clock_id: int,
        clock: CpuClock | None,
        notify: int,
        signo: int,
        target: Task | ThreadGroup,
        value: int,
    ) -> None:
        self.timer_id = timer_id
        self.clock_id = clock_id
        self.notify = notify
        self.signo = signo
        self.target = target
        self.value = value
        """sigev_value"""
        self.interval_ns = 0
        self.overrun = 0
        """Periods missed when the signal was last taken: timer_getoverrun(2)."""
        self._countdown = Countdown(group, clock, self._fire)
        self._expired_ns = 0
        """When it expired, while its signal is pending."""
        self._pause_ns = 0
        """Before it expires again; not 0 while its signals come to nothing."""
        self._epoch = 0
        """Counts settings: a signal of an earlier one arms nothing."""

    def settime(self, until_ns: int, interval_ns: int) -> None:
        """Expire at `until_ns` of its clock (0: not at all) and then every `interval_ns`."""
        self._epoch += 1
        self._expired_ns = self._pause_ns = 0
        self.overrun = 0
        self.interval_ns = interval_ns
        if until_ns:
            self._countdown.arm(until_ns)
        else:
            self._countdown.disarm()

    def gettime(self) -> tuple[int, int]:
        """(interval, time left)"""
        if self._expired_ns and self.interval_ns:
            passed_ns = self._countdown.now_ns() - self._expired_ns
            return self.interval_ns, self.interval_ns - passed_ns % self.interval_ns
        return self.interval_ns, self._countdown.left_ns()

    def now_ns(self) -> int:
        """Its clock, the monotonic one if that is not a CPU clock."""
        return self._countdown.now_ns()

    def delete(self) -> None:
        self._epoch += 1
        self._countdown.disarm()

    def _fire(self) -> None:
        self._expired_ns = self._countdown.reached_ns
        if not self.signo:
            return
        info = SigInfo.timer(self.signo, self.timer_id, 0, self.value)
        epoch = self._epoch
        info.on_collect = lambda info: self._collected(info, epoch)
        try:
            queued = task_signals.send(self.target, self.signo, info)
        except LinuxError:
            queued = False
        self._pause_ns = _pause_after(queued, self._pause_ns)
        if not queued:
            self._go_on()

    def _collected(self, info: SigInfo, epoch: int) -> None:
        """Its signal has left the queue: go on with the period, and tell how many were missed."""
        if epoch != self._epoch:
            return
        self.overrun = self._go_on()
        info.fields = TIMER_FIELDS.pack(self.timer_id, self.overrun, self.value)

    def _go_on(self) -> int:
        """Arm for the next period that is still to come; how many have passed."""
        expired_ns = self._expired_ns
        if not self.interval_ns:
            self._expired_ns = 0
            return 0
        missed = (self._countdown.now_ns() + self._pause_ns - expired_ns) // self.interval_ns
        self._expired_ns = 0
        self._countdown.arm(expired_ns + (missed + 1) * self.interval_ns)
        return min(missed, OVERRUN_MAX)


def _pause_after(queued: bool, pause_ns: int) -> int:
    """How long a timer is to pause after its signal, if that came to nothing; it paused `pause_ns`
    before it."""
    return 0 if queued else min(max(pause_ns * 2, MIN_UNHEARD_NS), MAX_UNHEARD_NS)


class IntervalTimer:
    """One of the three timers of setitimer(2)."""

    __slots__ = ("_countdown", "_expired_ns", "_group", "_pause_ns", "_signo", "interval_ns")

    def __init__(self, group: ThreadGroup, clock: CpuClock | None, signo: int) -> None:
        self._group = group
        self._signo = signo
        self._countdown = Countdown(group, clock, self._fire)
        self._expired_ns = self._pause_ns = 0
        self.interval_ns = 0

    def set(self, interval_ns: int, value_ns: int) -> None:
        self.interval_ns = interval_ns
        self._expired_ns = self._pause_ns = 0
        if value_ns:
            self._countdown.arm(self._countdown.now_ns() + value_ns)
        else:
            self._countdown.disarm()

    def get(self) -> tuple[int, int]:
        """(interval, time left)"""
        return self.interval_ns, self._countdown.left_ns()

    def _fire(self) -> None:
        self._expired_ns = expired_ns = self._countdown.reached_ns
        info = SigInfo.kernel(self._signo)
        if self._countdown.clock is None:
            info.on_collect = lambda info: self._go_on(expired_ns)
        queued = task_signals.send(self._group, self._signo, info)
        if self._countdown.clock is not None:
            self._go_on(expired_ns)
            return
        self._pause_ns = _pause_after(queued, self._pause_ns)
        if not queued:
            self._go_on(expired_ns)

    def _go_on(self, expired_ns: int) -> None:
        if self.interval_ns and expired_ns == self._expired_ns:
            self._expired_ns = 0
            missed = (self._countdown.now_ns() + self._pause_ns - expired_ns) // self.interval_ns
            self._countdown.arm(expired_ns + (missed + 1) * self.interval_ns)


class ProcessTimers:
    """All timers of one process."""

    __slots__ = ("_next_id", "intervals", "posix")

    def __init__(self, group: ThreadGroup) -> None:
        cpu = process_clock(group)
        self.intervals = (
            IntervalTimer(group, None, SIGALRM),
            IntervalTimer(group, cpu, SIGVTALRM),
            IntervalTimer(group, cpu, SIGPROF),
        )
        """By ITIMER_* number."""
        self.posix: dict[int, PosixTimer] = {}
        self._next_id = 0

    def new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def delete_posix(self) -> None:
        """execve(2) keeps none of them."""
        for timer in self.posix.values():
            timer.delete()
        self.posix.clear()

    def delete_all(self) -> None:
        self.delete_posix()
        for timer in self.intervals:
            timer.set(0, 0)


def of(group: ThreadGroup) -> ProcessTimers:
    """The timers of `group`, made when they are first asked for."""
    timers = group.timers
    if timers is None:
        timers = group.timers = ProcessTimers(group)
        group.exit_callbacks.append(lambda group: timers.delete_all())
    return timers
