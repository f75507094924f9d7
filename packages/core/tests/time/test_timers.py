"""timerfd, POSIX timers, interval timers, alarm."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from errno import EAGAIN, EINVAL, EOPNOTSUPP, EPERM

import pytest
from harness import BASE, Harness
from pysandbox_core import task_signals
from pysandbox_core.abi.signal import SIG_IGN, SIGALRM, SIGRTMIN, SIGUSR1, SIGVTALRM
from pysandbox_core.abi.time import CLOCK_MONOTONIC, CLOCK_REALTIME, ITIMERSPEC
from pysandbox_core.mm.io_buffer import BytesSink
from pysandbox_core.signals import TIMER_FIELDS, SignalAction
from pysandbox_core.syscalls import timerfd as fd_calls
from pysandbox_core.syscalls import timers as calls
from pysandbox_core.task import Task
from pysandbox_core.time import process_timers
from pysandbox_core.waiting import POLLIN

SPEC = BASE + 0x100
OLD = BASE + 0x200
EVENT = BASE + 0x300
ID = BASE + 0x400
MS = 1_000_000


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


def spec(harness: Harness, interval_ns: int, value_ns: int) -> None:
    harness.mm.pack(SPEC, ITIMERSPEC, *divmod(interval_ns, 10**9), *divmod(value_ns, 10**9))


def read_ticks(task: Task, fd: int = 0) -> int:
    sink = BytesSink(8)
    task.files.get(fd).read(task, sink)
    return int.from_bytes(sink.data, "little")


def wait_until(harness: Harness, past_ns: int) -> None:
    """Let the kernel's timers run until the monotonic clock has passed `past_ns`."""

    def sleep(task: Task) -> None:
        while task.block((), past_ns):
            pass

    harness.call(sleep)


# timerfd


@pytest.fixture
def timer(harness: Harness) -> Task:
    """A task with a timerfd at descriptor 0."""
    task = harness.task()
    create = lambda task: fd_calls.timerfd_create(task, CLOCK_MONOTONIC, 0)  # noqa: E731
    assert harness.call(create, task) == 0
    return task


def test_timerfd_expires_once(harness: Harness, timer: Task) -> None:
    spec(harness, 0, MS)
    settime = lambda task: fd_calls.timerfd_settime(task, 0, 0, SPEC, OLD)  # noqa: E731
    assert harness.call(settime, timer) == 0
    assert harness.mm.unpack(OLD, ITIMERSPEC) == (0, 0, 0, 0)
    assert harness.call(read_ticks, timer) == 1
    timer.files.get(0).flags |= os.O_NONBLOCK
    assert harness.call(read_ticks, timer) == -EAGAIN
    assert harness.kernel.timers.next_deadline_ns() is None


def test_timerfd_counts_periods_without_waking(harness: Harness, timer: Task) -> None:
    spec(harness, MS, MS)
    start_ns = time.monotonic_ns()
    harness.call(lambda task: fd_calls.timerfd_settime(task, 0, 0, SPEC, 0), timer)
    wait_until(harness, start_ns + 5 * MS)
    assert harness.kernel.timers.next_deadline_ns() is None  # it fired once and waits to be read
    assert harness.call(read_ticks, timer) >= 5
    assert harness.kernel.timers.next_deadline_ns() is not None
    timer.files.close(timer, 0)
    assert harness.kernel.timers.next_deadline_ns() is None


def test_timerfd_absolute_and_gettime(harness: Harness, timer: Task) -> None:
    spec(harness, 0, time.monotonic_ns() + 3600 * 10**9)
    harness.call(lambda task: fd_calls.timerfd_settime(task, 0, 1, SPEC, 0), timer)
    harness.call(lambda task: fd_calls.timerfd_gettime(task, 0, OLD), timer)
    assert harness.mm.unpack(OLD, ITIMERSPEC)[2] in (3599, 3600)
    spec(harness, 0, 1)
    harness.call(lambda task: fd_calls.timerfd_settime(task, 0, 1, SPEC, 0), timer)
    assert timer.files.get(0).poll() == POLLIN
    assert harness.call(read_ticks, timer) == 1


def test_timerfd_notices_that_the_clock_was_set(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = harness.task()
    harness.call(lambda task: fd_calls.timerfd_create(task, CLOCK_REALTIME, 0), task)
    spec(harness, 0, time.time_ns() + 3600 * 10**9)
    harness.call(lambda task: fd_calls.timerfd_settime(task, 0, 3, SPEC, 0), task)
    assert task.files.get(0).poll() == 0
    clocks = type(harness.kernel.clocks)
    monkeypatch.setattr(clocks, "realtime_ns", lambda self: time.time_ns() + 5 * 10**9)
    assert task.files.get(0).poll() == POLLIN
    assert harness.call(read_ticks, task) < 0


def test_timerfd_errors(harness: Harness, timer: Task) -> None:
    call = harness.call
    assert call(lambda task: fd_calls.timerfd_create(task, 2, 0)) == -EINVAL
    assert call(lambda task: fd_calls.timerfd_create(task, 1, 1)) == -EINVAL
    assert call(lambda task: fd_calls.timerfd_create(task, 8, 0)) == -EPERM
    spec(harness, 0, MS)
    assert call(lambda task: fd_calls.timerfd_settime(task, 0, 4, SPEC, 0), timer) == -EINVAL
    harness.mm.pack(SPEC, ITIMERSPEC, 0, 0, 0, 10**9)
    assert call(lambda task: fd_calls.timerfd_settime(task, 0, 0, SPEC, 0), timer) == -EINVAL
    assert call(lambda task: timer.files.get(0).read(task, BytesSink(4)), timer) == -EINVAL


# timer_create


def create(harness: Harness, task: Task, notify: int, signo: int = SIGRTMIN, tid: int = 0) -> int:
    harness.mm.pack(EVENT, calls.SIGEVENT, 0xABCD, signo, notify, tid)
    return harness.call(lambda task: calls.timer_create(task, CLOCK_MONOTONIC, EVENT, ID), task)


def arm(harness: Harness, task: Task, interval_ns: int, value_ns: int) -> int:
    spec(harness, interval_ns, value_ns)
    timer_id = harness.mm.read_u32(ID)
    return harness.call(lambda task: calls.timer_settime(task, timer_id, 0, SPEC, OLD), task)


def test_timer_signals_with_overruns(harness: Harness) -> None:
    task = harness.task()
    task.sigmask = 1 << (SIGRTMIN - 1)
    assert create(harness, task, calls.SIGEV_SIGNAL) == 0
    start_ns = time.monotonic_ns()
    assert arm(harness, task, MS, MS) == 0
    wait_until(harness, start_ns + 5 * MS)
    assert task.group.pending.mask == 1 << (SIGRTMIN - 1)
    assert harness.kernel.timers.next_deadline_ns() is None  # nothing more until it is taken
    info = task_signals.dequeue(task, 0)
    timer_id, overrun, value = TIMER_FIELDS.unpack(info.fields)
    assert (timer_id, value) == (0, 0xABCD)
    assert overrun >= 4
    assert harness.call(lambda task: calls.timer_getoverrun(task, 0), task) == overrun
    assert harness.kernel.timers.next_deadline_ns() is not None
    assert harness.call(lambda task: calls.timer_delete(task, 0), task) == 0
    assert harness.kernel.timers.next_deadline_ns() is None
    assert harness.call(lambda task: calls.timer_delete(task, 0), task) == -EINVAL


@pytest.mark.parametrize("of_process", [False, True], ids=["posix", "interval"])
def test_timer_whose_signal_is_ignored_pauses(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, of_process: bool
) -> None:
    """It would expire a million times a second."""
    task = harness.task()
    task.sighand.actions[SIGALRM] = SignalAction(SIG_IGN, 0, 0, 0)
    sent = []
    send = task_signals.send
    monkeypatch.setattr(task_signals, "send", lambda *args: sent.append(args) or send(*args))
    if of_process:
        harness.mm.pack(SPEC, ITIMERSPEC, 0, 1, 0, 1)
        assert harness.call(lambda task: calls.setitimer(task, 0, SPEC, 0), task) == 0
    else:
        create(harness, task, calls.SIGEV_SIGNAL, SIGALRM)
        assert arm(harness, task, 1, 1) == 0
    wait_until(harness, time.monotonic_ns() + 40 * MS)
    assert 1 <= len(sent) <= 6
    task.sighand.actions[SIGALRM] = SignalAction(BASE, 0, 0, 0)
    deadline_ns = harness.kernel.timers.next_deadline_ns()
    wait_until(harness, deadline_ns)
    assert task.group.pending.mask == 1 << (SIGALRM - 1)
    assert harness.kernel.timers.next_deadline_ns() is None
    task_signals.dequeue(task, 0)  # it is heard again
    assert harness.kernel.timers.next_deadline_ns() < time.monotonic_ns() + MS


def test_many_timers_of_a_process_that_sleeps(harness: Harness) -> None:
    """They are not looked at more often for being many."""
    task = harness.task()
    looks = []
    before = process_timers._watched.count

    def clock() -> int:
        looks.append(1)
        return 1

    ours = [process_timers.Countdown(task.group, clock, list) for _ in range(400)]
    for countdown in ours:
        countdown.arm(2)
    wait_until(harness, time.monotonic_ns() + 600 * MS)
    looks.clear()
    wait_until(harness, time.monotonic_ns() + 800 * MS)
    assert len(looks) <= 800
    for countdown in ours:
        countdown.disarm()
    assert process_timers._watched.count == before


def test_timer_goes_on_whose_signal_has_no_room(harness: Harness) -> None:
    task = harness.task()
    task.sigmask = 1 << (SIGUSR1 - 1)
    assert create(harness, task, calls.SIGEV_SIGNAL, SIGUSR1) == 0
    task.group.limits.sigpending = 0
    start_ns = time.monotonic_ns()
    assert arm(harness, task, MS, MS) == 0
    wait_until(harness, start_ns + 2 * MS)
    assert task.group.pending.mask == 1 << (SIGUSR1 - 1)
    task_signals.dequeue(task, 0)
    assert harness.kernel.timers.next_deadline_ns() is not None


def test_timer_for_a_thread(harness: Harness) -> None:
    task = harness.task()
    thread = harness.task(task.group)
    thread.sigmask = -1
    create(harness, task, calls.SIGEV_THREAD_ID, SIGUSR1, thread.tid)
    arm(harness, task, 0, 1)
    wait_until(harness, time.monotonic_ns() + 1)
    assert thread.pending.mask == 1 << (SIGUSR1 - 1)
    assert create(harness, task, calls.SIGEV_THREAD_ID, SIGUSR1, 12345) == -EINVAL


def test_timer_without_signal(harness: Harness) -> None:
    task = harness.task()
    create(harness, task, calls.SIGEV_NONE)
    arm(harness, task, 10 * 10**9, 3600 * 10**9)
    harness.call(lambda task: calls.timer_gettime(task, 0, OLD), task)
    assert harness.mm.unpack(OLD, ITIMERSPEC)[:3] == (10, 0, 3599)
    arm(harness, task, 0, 0)
    assert harness.mm.unpack(OLD, ITIMERSPEC)[2] == 3599
    harness.call(lambda task: calls.timer_gettime(task, 0, OLD), task)
    assert harness.mm.unpack(OLD, ITIMERSPEC) == (0, 0, 0, 0)


def test_timer_errors(harness: Harness) -> None:
    task = harness.task()
    call = harness.call
    assert call(lambda task: calls.timer_create(task, 99, 0, ID)) == -EINVAL
    assert call(lambda task: calls.timer_create(task, 5, 0, ID)) == -EOPNOTSUPP
    assert call(lambda task: calls.timer_create(task, 8, 0, ID)) == -EPERM
    assert create(harness, task, 3) == -EINVAL
    assert create(harness, task, calls.SIGEV_SIGNAL, 65) == -EINVAL
    assert call(lambda task: calls.timer_settime(task, 7, 0, SPEC, 0)) == -EINVAL
    assert call(lambda task: calls.timer_settime(task, 7, 0, 0, 0)) == -EINVAL


def test_timers_end_with_exec_and_exit(harness: Harness) -> None:
    task = harness.task()
    create(harness, task, calls.SIGEV_SIGNAL)
    arm(harness, task, 0, 3600 * 10**9)
    harness.call(lambda task: calls.alarm(task, 3600), task)
    task.group.timers.delete_posix()
    assert not task.group.timers.posix
    assert harness.kernel.timers.next_deadline_ns() is not None
    for callback in task.group.exit_callbacks:
        callback(task.group)
    assert harness.kernel.timers.next_deadline_ns() is None


# setitimer, alarm


def test_alarm(harness: Harness) -> None:
    task = harness.task()
    assert harness.call(lambda task: calls.alarm(task, 100), task) == 0
    assert harness.call(lambda task: calls.alarm(task, 0), task) == 100
    assert harness.call(lambda task: calls.alarm(task, 0), task) == 0


def test_interval_timer_repeats_when_its_signal_is_taken(harness: Harness) -> None:
    task = harness.task()
    task.sigmask = 1 << (SIGALRM - 1)
    harness.mm.pack(SPEC, ITIMERSPEC, 0, 1000, 0, 1000)
    start_ns = time.monotonic_ns()
    assert harness.call(lambda task: calls.setitimer(task, 0, SPEC, OLD), task) == 0
    wait_until(harness, start_ns + 3 * MS)
    assert task.group.pending.mask == 1 << (SIGALRM - 1)
    assert harness.kernel.timers.next_deadline_ns() is None
    assert task_signals.dequeue(task, 0).signo == SIGALRM
    assert harness.kernel.timers.next_deadline_ns() is not None
    assert harness.call(lambda task: calls.setitimer(task, 0, 0, OLD), task) == 0
    assert harness.mm.unpack(OLD, ITIMERSPEC)[:2] == (0, 1000)


def test_cpu_interval_timer(harness: Harness) -> None:
    task = harness.task()
    task.sigmask = -1
    used = [0]
    task.context.cpu_time_ns = lambda: used[0]
    harness.mm.pack(SPEC, ITIMERSPEC, 0, 0, 0, 2000)
    assert harness.call(lambda task: calls.setitimer(task, 1, SPEC, 0), task) == 0
    harness.call(lambda task: calls.getitimer(task, 1, OLD), task)
    assert harness.mm.unpack(OLD, ITIMERSPEC) == (0, 0, 0, 2000)
    wait_until(harness, time.monotonic_ns() + 3 * MS)
    assert not task.group.pending.mask
    used[0] = 2 * MS
    wait_until(harness, time.monotonic_ns() + 20 * MS)
    assert task.group.pending.mask == 1 << (SIGVTALRM - 1)


def test_itimer_errors(harness: Harness) -> None:
    harness.mm.pack(SPEC, ITIMERSPEC, 0, 0, 0, 10**6)
    assert harness.call(lambda task: calls.setitimer(task, 0, SPEC, 0)) == -EINVAL
    assert harness.call(lambda task: calls.getitimer(task, 3, OLD)) == -EINVAL
    assert harness.call(lambda task: calls.setitimer(task, -1, 0, 0)) == -EINVAL
