"""VdsoPage: the parameters from which a program's vDSO tells the time without a system call.

Linux: kernel/time/vsyscall.c, struct vdso_data. The reader is vdso/vdso_amd64.S.

Interface: `now_ns` is the monotonic time that the vDSO would tell now, or None when the vDSO would
ask the kernel; then `synchronize` compares the processor's time-stamp counter (TSC) with the host's
clocks and publishes a new estimate. Nothing here happens by itself: a program that reads the time
after the estimate has aged falls back to clock_gettime(2), and that call brings the page up to
date.

How far it can be trusted:
- Time never steps back. A new estimate begins no earlier than where the old one had come to; if
  that is ahead of the host, the slope is lowered until the host has caught up (slewing).
- An estimate is valid for as long as the stretch it was made over, at most MAX_AGE_NS, so that it
  is wrong by no more than the two readings it rests on, each by at most MAX_WINDOW_NS, and by what
  the host changes of its own rate meanwhile: 3 * MAX_WINDOW_NS + 1 microsecond per ppm of rate
  change.
- A step of the host's real-time clock shows within MAX_AGE_NS.

Layout, 8-byte words; the offsets are those of vdso_amd64.S:

    0x00 SEQUENCE         odd while the kernel writes; even and unchanged around a good reading
    0x08 BASE_TSC         where the estimate begins
    0x10 MAX_DELTA        ticks after BASE_TSC for which it is valid, 0 for never
    0x18 MONOTONIC_BASE   nanoseconds at BASE_TSC
    0x20 MONOTONIC_MULT   nanoseconds per tick, times 2**32
    0x28 RAW_BASE         the same for CLOCK_MONOTONIC_RAW
    0x30 RAW_MULT
    0x38 REALTIME_OFFSET  to be added to CLOCK_MONOTONIC, nanoseconds
    0x40 BOOTTIME_OFFSET
    0x48 TAI_OFFSET
    0x50 COARSE_RES       resolution of the coarse clocks, nanoseconds
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

SEQUENCE = 0x00 // 8
BASE_TSC = 0x08 // 8
MAX_DELTA = 0x10 // 8
MONOTONIC_BASE = 0x18 // 8
MONOTONIC_MULT = 0x20 // 8
RAW_BASE = 0x28 // 8
RAW_MULT = 0x30 // 8
REALTIME_OFFSET = 0x38 // 8
BOOTTIME_OFFSET = 0x40 // 8
TAI_OFFSET = 0x48 // 8
COARSE_RES = 0x50 // 8

SHIFT = 32
"""Binary places of the multipliers."""
MIN_SPAN_NS = 5_000_000
"""No estimate is made over a shorter stretch."""
MAX_AGE_NS = 1_000_000_000
REBASE_NS = 16_000_000_000
"""Stretch after which the older half of the readings is forgotten: the host's rate changes."""
MAX_WINDOW_NS = 5_000
"""A reading that took longer says nothing."""
TRIES = 4
"""Readings made for one sample; the quickest counts."""
STEP_NS = 20_000
"""Less than this is noise in the distance between two clocks, more is a step."""

_U64 = 0xFFFFFFFFFFFFFFFF


class Sample(NamedTuple):
    """The TSC and the host's clocks at the same moment, give or take `window_ns`; nanoseconds."""

    window_ns: int
    tsc: int
    monotonic: int
    raw: int
    realtime: int
    boottime: int
    tai: int


class Line:
    """An estimate of one clock: `base_ns` at the base TSC, `mult` from there on."""

    __slots__ = ("base_ns", "mult")

    def __init__(self) -> None:
        self.base_ns = 0
        self.mult = 0

    def at(self, delta: int) -> int:
        """The time `delta` ticks after the base."""
        return self.base_ns + (delta * self.mult >> SHIFT)

    def go_on(self, delta: int, host_ns: int, mult: int, horizon_ns: int) -> None:
        """Start anew `delta` ticks later, where the host's clock says `host_ns` and has slope
        `mult`.

        Being ahead of the host is made good over `horizon_ns`, at no less than half speed.
        """
        ahead_ns = self.at(delta) - host_ns if self.mult else 0
        if ahead_ns > 0:
            slower = min(mult // 2, mult * ahead_ns // horizon_ns + 1)
            self.base_ns = host_ns + ahead_ns
            self.mult = mult - slower
        else:
            self.base_ns = host_ns
            self.mult = mult


class VdsoPage:
    """The parameter page of one sandbox, mapped read-only by every process as [vvar]."""

    __slots__ = (
        "_base_tsc", "_max_delta", "_monotonic", "_origin", "_raw", "_read_monotonic",
        "_read_others", "_read_tsc", "_recent", "_words", "offsets",
    )  # fmt: skip

    def __init__(
        self,
        words: memoryview,
        read_tsc: Callable[[], int],
        read_monotonic: Callable[[], int],
        read_others: Callable[[], tuple[int, int, int, int]],
        coarse_resolution_ns: int,
    ) -> None:
        """`words` is the page as 64-bit words, all zero. `read_others` gives the host's
        CLOCK_MONOTONIC_RAW, CLOCK_REALTIME, CLOCK_BOOTTIME and CLOCK_TAI."""
        self._words = words
        self._read_tsc = read_tsc
        self._read_monotonic = read_monotonic
        self._read_others = read_others
        self.offsets = [0, 0, 0]
        """What CLOCK_REALTIME, CLOCK_BOOTTIME and CLOCK_TAI are ahead of CLOCK_MONOTONIC."""
        self._base_tsc = 0
        self._max_delta = 0
        self._monotonic = Line()
        self._raw = Line()
        self._origin: Sample | None = None
        """The reading from which the rates are measured."""
        self._recent: Sample | None = None
        """The reading that becomes the origin after REBASE_NS."""
        words[COARSE_RES] = coarse_resolution_ns
        if read_tsc():
            self.synchronize()

    def now_ns(self) -> int | None:
        """CLOCK_MONOTONIC as the vDSO tells it, None if it would ask the kernel."""
        if not self._max_delta:
            return None
        delta = self._read_tsc() - self._base_tsc
        if 0 <= delta < self._max_delta:
            return self._monotonic.at(delta)
        return None

    def raw_ns(self) -> int | None:
        """The same for CLOCK_MONOTONIC_RAW."""
        if not self._max_delta:
            return None
        delta = self._read_tsc() - self._base_tsc
        return self._raw.at(delta) if 0 <= delta < self._max_delta else None

    def synchronize(self) -> int:
        """Compare with the host, publish what follows, and return CLOCK_MONOTONIC: no earlier than
        the vDSO has ever told it, nor than the host has it."""
        if not self._max_delta and not self._read_tsc():
            return self._read_monotonic()
        sample = self._sample()
        told_ns = sample.monotonic
        if self._max_delta:
            # programs have read the time up to the end of the estimate's life at most
            delta = min(max(sample.tsc - self._base_tsc, 0), self._max_delta)
            told_ns = max(told_ns, self._monotonic.at(delta))
        origin = self._origin
        if not sample.tsc or sample.window_ns > MAX_WINDOW_NS:
            return told_ns
        if (
            origin is None or sample.tsc <= origin.tsc
        ):  # the counter was reset under us: start again
            self._origin = self._recent = sample
            if self._max_delta and sample.tsc < self._base_tsc:
                self._retire(told_ns)
            return told_ns
        span_ns = sample.monotonic - origin.monotonic
        if span_ns >= MIN_SPAN_NS:
            self._publish(origin, sample, min(span_ns, MAX_AGE_NS))
            told_ns = self._monotonic.base_ns
            recent = self._recent
            if recent is not None and sample.monotonic - recent.monotonic >= REBASE_NS:
                self._origin, self._recent = recent, sample
        return told_ns

    def _sample(self) -> Sample:
        """Read the TSC and the host's clocks together; the quickest of a few tries."""
        best: Sample | None = None
        read_tsc = self._read_tsc
        for _ in range(TRIES):
            before = read_tsc()
            monotonic_ns = self._read_monotonic()
            after = read_tsc()
            others = self._read_others()
            window_ns = (read_tsc() - before) * self._mult_guess() >> SHIFT
            if best is None or window_ns < best.window_ns:
                best = Sample(window_ns, (before + after) // 2, monotonic_ns, *others)
        assert best is not None
        return best

    def _mult_guess(self) -> int:
        """Slope to judge windows by before one is known: a counter of 1 GHz, slower than any."""
        return self._monotonic.mult or 1 << SHIFT

    def _publish(self, origin: Sample, sample: Sample, age_ns: int) -> None:
        ticks = sample.tsc - origin.tsc
        mult = (sample.monotonic - origin.monotonic << SHIFT) // ticks
        raw_mult = (sample.raw - origin.raw << SHIFT) // ticks
        delta = min(max(sample.tsc - self._base_tsc, 0), self._max_delta)
        self._monotonic.go_on(delta, sample.monotonic, mult, age_ns)
        self._raw.go_on(delta, sample.raw, raw_mult, age_ns)
        self._base_tsc = sample.tsc
        self._max_delta = (age_ns << SHIFT) // max(mult, 1)
        self._find_steps(sample)
        words = self._words
        words[SEQUENCE] += 1  # x86 keeps stores in order, so does the interpreter
        words[BASE_TSC] = sample.tsc & _U64
        words[MAX_DELTA] = self._max_delta
        words[MONOTONIC_BASE] = self._monotonic.base_ns
        words[MONOTONIC_MULT] = self._monotonic.mult
        words[RAW_BASE] = self._raw.base_ns
        words[RAW_MULT] = self._raw.mult
        words[REALTIME_OFFSET], words[BOOTTIME_OFFSET], words[TAI_OFFSET] = (
            offset & _U64 for offset in self.offsets
        )
        words[SEQUENCE] += 1

    def _find_steps(self, sample: Sample) -> None:
        """Take over the distances to the other clocks where they have really changed. The clocks
        run at one rate, so that a small change is the noise of two readings, and would make them
        jitter."""
        for index, other_ns in enumerate((sample.realtime, sample.boottime, sample.tai)):
            offset = other_ns - sample.monotonic
            if abs(offset - self.offsets[index]) > STEP_NS:
                self.offsets[index] = offset

    def _retire(self, told_ns: int) -> None:
        """Make the vDSO ask the kernel until a new estimate stands."""
        words = self._words
        words[SEQUENCE] += 1
        words[MAX_DELTA] = 0
        words[SEQUENCE] += 1
        self._monotonic.base_ns = told_ns
        self._base_tsc = 0
        self._max_delta = 0
