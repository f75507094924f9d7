"""The vDSO's estimate of the time against simulated host clocks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from pysandbox_core.time import vdso_page
from pysandbox_core.time.vdso_page import MAX_AGE_NS, MAX_WINDOW_NS, MIN_SPAN_NS, VdsoPage


class Host:
    """A counter of 2.5 GHz and clocks that run by it, `ppm` too fast; reading one takes time."""

    def __init__(self) -> None:
        self.tsc = 10**12
        self.monotonic_ns = 5e9
        self.raw_ns = 7e9
        self.offset_ns = 10**18
        self.ppm = 0.0
        self.read_ns = 50

    def pass_ns(self, ns: float) -> None:
        self.tsc += int(ns * 2.5)
        self.raw_ns += ns
        self.monotonic_ns += ns * (1 + self.ppm / 1e6)

    def read_tsc(self) -> int:
        self.pass_ns(self.read_ns)
        return self.tsc

    def read_monotonic(self) -> int:
        self.pass_ns(self.read_ns)
        return int(self.monotonic_ns)

    def read_others(self) -> tuple[int, int, int, int]:
        self.pass_ns(self.read_ns)
        now = int(self.monotonic_ns)
        return int(self.raw_ns), now + self.offset_ns, now + 1000, now + self.offset_ns + 37 * 10**9

    def page(self) -> VdsoPage:
        words = memoryview(bytearray(4096)).cast("Q")
        return VdsoPage(words, self.read_tsc, self.read_monotonic, self.read_others, 4_000_000)


def test_nothing_is_told_before_the_rate_is_known() -> None:
    host = Host()
    page = host.page()
    assert page.now_ns() is None
    host.pass_ns(MIN_SPAN_NS / 2)
    page.synchronize()
    assert page.now_ns() is None
    host.pass_ns(MIN_SPAN_NS)
    assert abs(page.synchronize() - host.monotonic_ns) < MAX_WINDOW_NS
    assert page.now_ns() is not None


def test_an_estimate_ages() -> None:
    host = Host()
    page = host.page()
    host.pass_ns(MIN_SPAN_NS * 2)
    page.synchronize()
    host.pass_ns(MIN_SPAN_NS)
    assert page.now_ns() is not None
    host.pass_ns(MIN_SPAN_NS * 2)
    assert page.now_ns() is None  # trusted as long as the stretch it was made over
    for _ in range(4):
        host.pass_ns(MAX_AGE_NS)
        page.synchronize()
    host.pass_ns(MAX_AGE_NS * 0.99)
    assert page.now_ns() is not None
    host.pass_ns(MAX_AGE_NS * 0.02)
    assert page.now_ns() is None


def test_without_a_counter_the_host_is_asked() -> None:
    host = Host()
    host.read_tsc = lambda: 0
    page = host.page()
    host.pass_ns(MAX_AGE_NS)
    assert abs(page.synchronize() - host.monotonic_ns) < 1000
    assert page.now_ns() is None


def test_slow_readings_say_nothing() -> None:
    host = Host()
    page = host.page()
    host.read_ns = MAX_WINDOW_NS * 10
    host.pass_ns(MAX_AGE_NS)
    page.synchronize()
    assert page.now_ns() is None


def test_a_counter_that_starts_again() -> None:
    host = Host()
    page = host.page()
    host.pass_ns(MAX_AGE_NS)
    told = page.synchronize()
    host.tsc = 1000
    assert page.now_ns() is None
    assert page.synchronize() >= told
    assert page.now_ns() is None
    host.pass_ns(MAX_AGE_NS)
    assert abs(page.synchronize() - host.monotonic_ns) < MAX_WINDOW_NS
    assert page.now_ns() is not None


def test_a_step_of_the_real_time_clock_shows_and_noise_does_not() -> None:
    host = Host()
    page = host.page()
    host.pass_ns(MAX_AGE_NS)
    page.synchronize()
    before = list(page.offsets)
    host.offset_ns += vdso_page.STEP_NS // 2
    host.pass_ns(MAX_AGE_NS)
    page.synchronize()
    assert page.offsets == before
    host.offset_ns += 10**9
    host.pass_ns(MAX_AGE_NS)
    page.synchronize()
    assert abs(page.offsets[0] - before[0] - 10**9) < vdso_page.STEP_NS
    assert page.offsets[1] == before[1]


step = st.one_of(
    st.tuples(st.just("pass"), st.floats(0, 3e9)),
    st.tuples(st.just("ppm"), st.floats(-500, 500)),
    st.tuples(st.just("read"), st.integers(0, 3000)),
    st.tuples(st.just("sync"), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(step, max_size=60))
def test_time_never_steps_back_and_stays_near_the_host(steps: list[tuple[str, float]]) -> None:
    """The bound of the module docstring, with 1000 ppm between the rates of two stretches."""
    host = Host()
    page = host.page()
    host.pass_ns(MAX_AGE_NS)
    last = page.synchronize()
    last_raw = 0
    bound_ns = 3 * MAX_WINDOW_NS + 2 * 1000 * 1000
    for what, value in steps:
        if what == "pass":
            host.pass_ns(value)
        elif what == "ppm":
            host.ppm = value
        elif what == "read":
            host.read_ns = int(value)
        now = page.synchronize() if what == "sync" else page.now_ns()
        if now is not None:
            assert now >= last
            assert abs(now - host.monotonic_ns) < bound_ns
            last = now
        raw = page.raw_ns()
        if raw is not None:
            assert raw >= last_raw
            last_raw = raw


def test_being_ahead_is_made_good_by_slewing() -> None:
    host = Host()
    host.ppm = 400
    page = host.page()
    for _ in range(8):
        host.pass_ns(MAX_AGE_NS)
        page.synchronize()
    host.ppm = -400
    last = 0
    for _ in range(40):
        host.pass_ns(MAX_AGE_NS * 0.9)
        now = page.now_ns()
        assert now is not None
        assert now >= last
        last = page.synchronize()
    assert abs(last - host.monotonic_ns) < 2 * MAX_WINDOW_NS
