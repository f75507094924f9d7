"""The kernel's timers: callbacks at times of the host's monotonic clock.

Interface: callbacks run on the kernel thread, between stops, and may not block. A timer fires once.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from time import monotonic_ns


class Timer:
    """One armed timer, made by `Timers.add`; `cancel` is idempotent and allowed after it fired."""

    __slots__ = ("callback", "deadline_ns")

    def __init__(self, deadline_ns: int, callback: Callable[[], None]) -> None:
        self.deadline_ns = deadline_ns
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.deadline_ns < other.deadline_ns


class Timers:
    """All armed timers of a kernel. Cancelled ones stay in the heap until they come up, or until
    they are the majority of it."""

    __slots__ = ("armed", "heap")

    SWEEP_AT = 512
    """Heap length from which `add` looks for cancelled timers."""

    def __init__(self, armed: Callable[[int], None]) -> None:
        self.heap: list[Timer] = []
        self.armed = armed
        """Told of every deadline that has become the earliest one."""

    def add(self, deadline_ns: int, callback: Callable[[], None]) -> Timer:
        """Call `callback` once `deadline_ns` (CLOCK_MONOTONIC, nanoseconds) has passed."""
        timer = Timer(deadline_ns, callback)
        if len(self.heap) >= self.SWEEP_AT:
            self._sweep()
        heapq.heappush(self.heap, timer)
        if self.heap[0] is timer:
            self.armed(deadline_ns)
        return timer

    def next_deadline_ns(self) -> int | None:
        """When the next timer is due, None if there is none."""
        heap = self.heap
        while heap:
            if heap[0].callback is not None:
                return heap[0].deadline_ns
            heapq.heappop(heap)
        return None

    def run_due(self) -> None:
        """Fire every timer whose time has come."""
        heap = self.heap
        now_ns = monotonic_ns()
        while heap and heap[0].deadline_ns <= now_ns:
            callback = heapq.heappop(heap).callback
            if callback is not None:
                callback()

    def _sweep(self) -> None:
        live = [timer for timer in self.heap if timer.callback is not None]
        if len(live) * 2 < len(self.heap):
            heapq.heapify(live)
            self.heap[:] = live
