"""Clocks and sleeping."""

from __future__ import annotations

import time
from collections.abc import Iterator
from errno import EFAULT, EINVAL, EOPNOTSUPP, EPERM

import pytest
from harness import BASE, Harness
from pysandbox_core.abi.time import (
    CLOCK_MONOTONIC,
    CLOCK_MONOTONIC_COARSE,
    CLOCK_MONOTONIC_RAW,
    CLOCK_PROCESS_CPUTIME_ID,
    CLOCK_REALTIME,
    CLOCK_TAI,
    CLOCK_THREAD_CPUTIME_ID,
    TIMER_ABSTIME,
    TIMESPEC,
    TIMEVAL,
)
from pysandbox_core.errors import ERESTART_RESTARTBLOCK, ERESTARTNOHAND
from pysandbox_core.syscalls import time as calls
from pysandbox_core.task import WORK_SIGNAL, Task

TIME = BASE + 0x100
LEFT = BASE + 0x200


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


@pytest.mark.parametrize("clock_id", [0, 1, 4, 5, 6, 7, 8, 9, 11])
def test_wall_clocks_are_the_hosts(harness: Harness, clock_id: int) -> None:
    host_id = {8: 0, 9: 7}.get(clock_id, clock_id)
    before = time.clock_gettime_ns(host_id)
    assert harness.call(lambda task: calls.clock_gettime(task, clock_id, TIME)) == 0
    sec, nsec = harness.mm.unpack(TIME, TIMESPEC)
    assert before <= sec * 10**9 + nsec
    fine_id = {5: 0, 6: 1}.get(host_id, host_id)
    assert sec * 10**9 + nsec <= time.clock_gettime_ns(fine_id)


@pytest.mark.parametrize(
    "clock_id", [CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, ~0 << 3 | 2, ~0 << 3 | 6]
)
def test_cpu_clocks(harness: Harness, clock_id: int) -> None:
    task = harness.task()
    task.context.cpu_time_ns = lambda: 3 * 10**9 + 7
    assert harness.call(lambda task: calls.clock_gettime(task, clock_id, TIME), task) == 0
    assert harness.mm.unpack(TIME, TIMESPEC) == (3, 7)


@pytest.mark.parametrize("clock_id", [10, 12, 99, ~0 << 3 | 3, ~12345 << 3 | 2, ~1 << 3 | 6])
def test_no_such_clock(harness: Harness, clock_id: int) -> None:
    assert harness.call(lambda task: calls.clock_gettime(task, clock_id, TIME)) == -EINVAL
    assert harness.call(lambda task: calls.clock_getres(task, clock_id, 0)) == -EINVAL


def test_resolutions(harness: Harness) -> None:
    for clock_id, expected in (
        (CLOCK_REALTIME, 1),
        (CLOCK_MONOTONIC_COARSE, int(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9)),
        (CLOCK_THREAD_CPUTIME_ID, 1),
    ):
        assert harness.call(lambda task, c=clock_id: calls.clock_getres(task, c, TIME)) == 0
        assert harness.mm.unpack(TIME, TIMESPEC) == (0, expected)


def test_clocks_cannot_be_set(harness: Harness) -> None:
    harness.mm.pack(TIME, TIMESPEC, 1, 0)
    root = harness.task(uid=0)
    assert (
        harness.call(lambda task: calls.clock_settime(task, CLOCK_REALTIME, TIME), root) == -EPERM
    )
    assert harness.call(lambda task: calls.clock_settime(task, CLOCK_MONOTONIC, TIME)) == -EINVAL
    assert harness.call(lambda task: calls.clock_settime(task, CLOCK_REALTIME, 1)) == -EFAULT
    assert harness.call(lambda task: calls.settimeofday(task, TIME, 0)) == -EPERM


def test_time_and_gettimeofday(harness: Harness) -> None:
    before = int(time.time())
    assert before <= harness.call(lambda task: calls.time(task, TIME)) <= before + 60
    assert before <= harness.mm.read_u64(TIME) <= before + 60
    assert harness.call(lambda task: calls.gettimeofday(task, TIME, LEFT)) == 0
    assert before <= harness.mm.unpack(TIME, TIMEVAL)[0] <= before + 60
    assert harness.call(lambda task: calls.gettimeofday(task, 0, 0)) == 0


def test_sleep_takes_its_time(harness: Harness) -> None:
    harness.mm.pack(TIME, TIMESPEC, 0, 2_000_000)
    for sleep in (
        lambda task: calls.nanosleep(task, TIME, 0),
        lambda task: calls.clock_nanosleep(task, CLOCK_REALTIME, 0, TIME, 0),
        lambda task: calls.clock_nanosleep(task, CLOCK_TAI, 0, TIME, 0),
    ):
        before = time.monotonic_ns()
        assert harness.call(sleep) == 0
        assert time.monotonic_ns() - before >= 2_000_000


def test_absolute_sleep(harness: Harness) -> None:
    until = time.time_ns() + 2_000_000
    harness.mm.pack(TIME, TIMESPEC, *divmod(until, 10**9))

    def sleep(task: Task) -> int:
        return calls.clock_nanosleep(task, CLOCK_REALTIME, TIMER_ABSTIME, TIME, 0)

    assert harness.call(sleep) == 0
    assert time.time_ns() >= until
    assert harness.call(sleep) == 0


def test_interrupted_sleep(harness: Harness) -> None:
    harness.mm.pack(TIME, TIMESPEC, 100, 0)
    harness.mm.pack(LEFT + 64, TIMESPEC, 1 << 40, 0)
    tasks = [harness.task(), harness.task(), harness.task()]

    def interrupt(task: Task) -> None:
        tasks[0].notice(WORK_SIGNAL)
        tasks[1].notice(WORK_SIGNAL)

    results = harness.run(
        lambda task: calls.nanosleep(task, TIME, LEFT),
        lambda task: calls.clock_nanosleep(task, CLOCK_MONOTONIC, TIMER_ABSTIME, LEFT + 64, 0),
        interrupt,
        tasks=tasks,
    )
    assert results[:2] == [-ERESTART_RESTARTBLOCK, -ERESTARTNOHAND]
    assert harness.mm.unpack(LEFT, TIMESPEC)[0] == 99
    assert tasks[0].restart_block is not None
    assert tasks[1].restart_block is None


@pytest.mark.parametrize(
    ("clock_id", "seconds", "nanoseconds", "expected"),
    [
        (CLOCK_MONOTONIC, -1, 0, -EINVAL),
        (CLOCK_MONOTONIC, 0, 10**9, -EINVAL),
        (CLOCK_MONOTONIC, 0, -1, -EINVAL),
        (CLOCK_THREAD_CPUTIME_ID, 0, 0, -EOPNOTSUPP),
        (CLOCK_MONOTONIC_RAW, 0, 0, -EOPNOTSUPP),
        (99, 0, 0, -EINVAL),
    ],
)
def test_bad_sleeps(
    harness: Harness, clock_id: int, seconds: int, nanoseconds: int, expected: int
) -> None:
    harness.mm.pack(TIME, TIMESPEC, seconds, nanoseconds)
    result = harness.call(lambda task: calls.clock_nanosleep(task, clock_id, 0, TIME, 0))
    assert result == expected
    assert harness.call(lambda task: calls.nanosleep(task, 0x10, 0)) == -EFAULT


def test_adjtimex_reads_only(harness: Harness) -> None:
    assert harness.call(lambda task: calls.adjtimex(task, TIME)) == calls.TIME_ERROR
    assert abs(harness.mm.unpack(TIME, calls.TIMEX)[9] - time.time()) < 60
    assert harness.call(lambda task: calls.clock_adjtime(task, 1, TIME)) == -EOPNOTSUPP
    harness.mm.write_u32(TIME, 1)
    assert harness.call(lambda task: calls.adjtimex(task, TIME)) == -EPERM
