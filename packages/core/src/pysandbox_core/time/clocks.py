"""Clocks: what time it is in the sandbox.

Linux: kernel/time/posix-timers.c (clock ids), timekeeping.c. The sandbox's clocks are the host's;
they can't be set.

Interface: `kernel.clocks`, made once `kernel.memory_file` is there. Times are nanoseconds. Programs
read most clocks in the vDSO (vdso_page.py) and some through system calls; both must tell one story,
so whatever a program gets to see comes from here, not from the host. Deadlines for `task.block` are
`monotonic_ns() + duration`; once one has passed, call `catch_up(deadline_ns)` before the program
goes on, so that it finds the time to be at least what it waited for.
"""

from __future__ import annotations

import time
from time import clock_gettime_ns
from typing import TYPE_CHECKING

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
)
from pysandbox_core.time.cpu_clocks import cpu_clock
from pysandbox_core.time.vdso_page import VdsoPage

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

COARSE_CLOCKS = (CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE)
FINE_CLOCKS = (
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CLOCK_BOOTTIME,
    CLOCK_MONOTONIC_RAW,
    CLOCK_TAI,
    CLOCK_REALTIME_ALARM,
    CLOCK_BOOTTIME_ALARM,
)


def _read_others() -> tuple[int, int, int, int]:
    return (
        clock_gettime_ns(CLOCK_MONOTONIC_RAW),
        clock_gettime_ns(CLOCK_REALTIME),
        clock_gettime_ns(CLOCK_BOOTTIME),
        clock_gettime_ns(CLOCK_TAI),
    )


class Clocks:
    """The clocks of one sandbox."""

    __slots__ = ("_coarse_resolution_ns", "_page", "vvar_offset")

    def __init__(self, kernel: Kernel) -> None:
        self._coarse_resolution_ns = int(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9 + 0.5)
        memory_file = kernel.memory_file
        self.vvar_offset: int = memory_file.allocate(1)
        """Where in the memory file the vDSO's parameter page is, for [vvar]."""
        page = memory_file.view[self.vvar_offset : self.vvar_offset + 4096].cast("Q")
        self._page = VdsoPage(
            page,
            kernel.platform.read_tsc,
            time.monotonic_ns,
            _read_others,
            self._coarse_resolution_ns,
        )

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC. Never steps back, whoever asks, in the vDSO or here."""
        now_ns = self._page.now_ns()
        return self._page.synchronize() if now_ns is None else now_ns

    def realtime_ns(self) -> int:
        """CLOCK_REALTIME, since 1970-01-01 UTC."""
        return self._since(0, CLOCK_REALTIME)

    def boottime_ns(self) -> int:
        """CLOCK_BOOTTIME: as CLOCK_MONOTONIC, the host's suspended times included."""
        return self._since(1, CLOCK_BOOTTIME)

    def tai_ns(self) -> int:
        """CLOCK_TAI: as CLOCK_REALTIME without leap seconds."""
        return self._since(2, CLOCK_TAI)

    def _since(self, index: int, clock_id: int) -> int:
        now_ns = self._page.now_ns()
        if now_ns is None:
            self._page.synchronize()
            now_ns = self._page.now_ns()
            if now_ns is None:
                return clock_gettime_ns(clock_id)
        return now_ns + self._page.offsets[index]

    def catch_up(self, deadline_ns: int) -> None:
        """The host's monotonic clock has passed `deadline_ns`: see that the sandbox's has, too."""
        now_ns = self._page.now_ns()
        if now_ns is not None and now_ns < deadline_ns:
            self._page.synchronize()

    def now(self, clock_id: int, task: Task) -> int:
        """What clock_gettime(2) tells `task` for any clock id. EINVAL for one that is none."""
        if clock_id in (CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE):
            return self.monotonic_ns()
        if clock_id in (CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_REALTIME_ALARM):
            return self.realtime_ns()
        if clock_id in (CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM):
            return self.boottime_ns()
        if clock_id == CLOCK_TAI:
            return self.tai_ns()
        if clock_id == CLOCK_MONOTONIC_RAW:
            self.monotonic_ns()  # sees to the page
            now_ns = self._page.raw_ns()
            return clock_gettime_ns(CLOCK_MONOTONIC_RAW) if now_ns is None else now_ns
        return cpu_clock(clock_id, task)()

    def resolution(self, clock_id: int, task: Task) -> int:
        """What clock_getres(2) tells. EINVAL"""
        if clock_id in COARSE_CLOCKS:
            return self._coarse_resolution_ns
        if clock_id not in FINE_CLOCKS:
            cpu_clock(clock_id, task)
        return 1

    def monotonic_deadline(self, clock_id: int, until_ns: int) -> int:
        """When, on the monotonic clock, the wall clock `clock_id` will show `until_ns`, as things
        are now. A later step of the real-time clock is not taken into account."""
        if clock_id == CLOCK_MONOTONIC:
            return until_ns
        if clock_id in (CLOCK_REALTIME, CLOCK_REALTIME_ALARM):
            ahead_ns = self.realtime_ns() - self.monotonic_ns()
        elif clock_id in (CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM):
            ahead_ns = self.boottime_ns() - self.monotonic_ns()
        else:
            ahead_ns = self.tai_ns() - self.monotonic_ns()
        return until_ns - ahead_ns
