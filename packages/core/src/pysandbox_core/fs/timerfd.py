"""timerfd: timers that are waited for as files. timerfd_create(2)

Linux: fs/timerfd.c.

A timer is armed in the kernel only until it first expires; what passes after that is counted when
the program looks. So a timer that nobody reads causes one wake-up, whatever its interval.
"""

from __future__ import annotations

import os
from errno import EAGAIN, ECANCELED, EINVAL, ENOTTY
from typing import TYPE_CHECKING

from pysandbox_core.abi.time import CLOCK_REALTIME, CLOCK_REALTIME_ALARM, NSEC_PER_SEC
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.anonymous import AnonymousFile
from pysandbox_core.waiting import POLLIN

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink
    from pysandbox_core.task import Task
    from pysandbox_core.timers import Timer

TFD_TIMER_ABSTIME = 1
TFD_TIMER_CANCEL_ON_SET = 2
TFD_IOC_SET_TICKS = 0x40085400
CLOCK_STEP_NS = 1_000_000
"""A real-time clock that has moved by more against the monotonic one was set."""


class TimerFile(AnonymousFile):
    """One timerfd. Times are of the kernel's monotonic clock, nanoseconds."""

    __slots__ = (
        "_offset_ns", "_set_flags", "_timer", "cancelled", "clock_id", "deadline_ns",
        "interval_ns", "kernel", "ticks",
    )  # fmt: skip

    KIND = b"timerfd"

    def __init__(self, kernel: Kernel, clock_id: int, flags: int) -> None:
        super().__init__(kernel, os.O_RDWR | flags)
        self.kernel = kernel
        self.clock_id = clock_id
        self.deadline_ns = 0
        """The next expiration, 0 while disarmed."""
        self.interval_ns = 0
        self.ticks = 0
        """Expirations that have not been read."""
        self.cancelled = False
        """The clock was set under a timer with TFD_TIMER_CANCEL_ON_SET."""
        self._timer: Timer | None = None
        self._set_flags = 0
        self._offset_ns = 0
        """CLOCK_REALTIME minus CLOCK_MONOTONIC when it was set."""

    def release(self) -> None:
        self._disarm()

    def settime(self, flags: int, interval_ns: int, value_ns: int) -> None:
        """Arm it, or disarm it with `value_ns` 0. timerfd_settime(2)"""
        self._disarm()
        self.ticks = 0
        self.cancelled = False
        self.interval_ns = interval_ns
        self._set_flags = flags
        clocks = self.kernel.clocks
        if self._cancels_on_set():
            self._offset_ns = clocks.realtime_ns() - clocks.monotonic_ns()
        if not value_ns:
            self.deadline_ns = 0
            return
        if flags & TFD_TIMER_ABSTIME:
            deadline_ns = clocks.monotonic_deadline(self.clock_id, value_ns)
        else:
            deadline_ns = clocks.monotonic_ns() + value_ns
        self.deadline_ns = max(deadline_ns, 1)
        self._arm()

    def gettime(self) -> tuple[int, int]:
        """(interval, time left): what timerfd_gettime(2) tells."""
        now_ns = self._count()
        if self.deadline_ns and not self.ticks and self._timer is None:
            self._arm()
        return self.interval_ns, max(self.deadline_ns - now_ns, 1) if self.deadline_ns else 0

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        """How often it has expired since the last read; blocks while that is 0.

        Errors: EINVAL less than 8 bytes; ECANCELED the clock was set; EAGAIN.
        """
        if sink.remaining < 8:
            raise LinuxError(EINVAL)
        while True:
            self._count()
            if self.cancelled:
                self.cancelled = False
                self.ticks = 0
                raise LinuxError(ECANCELED)
            if self.ticks:
                break
            if self.flags & os.O_NONBLOCK:
                raise LinuxError(EAGAIN)
            task.block(self.queue)
        ticks = self.ticks
        self.ticks = 0
        if self.deadline_ns:
            self._arm()
        return sink.write(ticks.to_bytes(8, "little"))

    def poll(self) -> int:
        self._count()
        return POLLIN if self.ticks or self.cancelled else 0

    def ioctl(self, task: Task, request: int, argument: int) -> int:
        """TFD_IOC_SET_TICKS: pretend that it has expired so often. EINVAL for 0."""
        if request != TFD_IOC_SET_TICKS:
            raise LinuxError(ENOTTY)
        ticks = task.mm.read_u64(argument)
        if not ticks:
            raise LinuxError(EINVAL)
        self.ticks = ticks
        self.queue.wake(POLLIN)
        return 0

    def fdinfo(self) -> bytes:
        interval_ns, value_ns = self.gettime()
        return (
            b"clockid: %d\nticks: %d\nsettime flags: 0%o\n"
            % (self.clock_id, self.ticks, self._set_flags)
            + b"it_value: (%d, %d)\n" % divmod(value_ns, NSEC_PER_SEC)
            + b"it_interval: (%d, %d)\n" % divmod(interval_ns, NSEC_PER_SEC)
        )

    def _count(self) -> int:
        """Add the expirations that have passed to `ticks`; the time it is."""
        clocks = self.kernel.clocks
        now_ns = clocks.monotonic_ns()
        if self._cancels_on_set():
            offset_ns = clocks.realtime_ns() - now_ns
            if abs(offset_ns - self._offset_ns) > CLOCK_STEP_NS:
                self._offset_ns = offset_ns
                self.cancelled = True
        deadline_ns = self.deadline_ns
        if deadline_ns and now_ns >= deadline_ns:
            if self.interval_ns:
                passed = (now_ns - deadline_ns) // self.interval_ns + 1
                self.deadline_ns = deadline_ns + passed * self.interval_ns
            else:
                passed = 1
                self.deadline_ns = 0
                self._disarm()
            self.ticks += passed
        return now_ns

    def _cancels_on_set(self) -> bool:
        both = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET
        realtime = self.clock_id in (CLOCK_REALTIME, CLOCK_REALTIME_ALARM)
        return realtime and self._set_flags & both == both

    def _arm(self) -> None:
        self._disarm()
        self._timer = self.kernel.timers.add(self.deadline_ns, self._expired)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expired(self) -> None:
        self._timer = None
        self.kernel.clocks.catch_up(self.deadline_ns)
        self._count()
        self.queue.wake(POLLIN)
