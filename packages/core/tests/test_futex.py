"""Futexes: waking, filtering, requeueing, timeouts and what a signal leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EAGAIN, EFAULT, EINVAL, ENOSYS, ETIMEDOUT

import pytest
from harness import BASE, Harness
from pysandbox_core import futex as futexes
from pysandbox_core.abi import futex as abi
from pysandbox_core.abi.time import TIMESPEC
from pysandbox_core.errors import ERESTART_RESTARTBLOCK, ERESTARTSYS
from pysandbox_core.syscalls.futex import WAITV, futex, futex_waitv
from pysandbox_core.task import WORK_SIGNAL, Task

WORD = BASE + 0x100
OTHER = BASE + 0x200
TIME = BASE + 0x300
PRIVATE = abi.FUTEX_PRIVATE_FLAG
WAIT = abi.FUTEX_WAIT | PRIVATE
WAKE = abi.FUTEX_WAKE | PRIVATE


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()
    assert not futexes._queues


def test_wake_without_waiters(harness: Harness) -> None:
    assert harness.call(lambda task: futex(task, WORD, WAKE, 1, 0, 0, 0)) == 0


@pytest.mark.parametrize("flag", [0, PRIVATE])
def test_wait_and_wake_in_order(harness: Harness, flag: int) -> None:
    woken = []

    def waiter(number: int) -> int:
        def wait(task: Task) -> int:
            result = futex(task, WORD, abi.FUTEX_WAIT | flag, 0, 0, 0, 0)
            woken.append(number)
            return result

        return wait

    results = harness.run(
        waiter(0),
        waiter(1),
        waiter(2),
        lambda task: futex(task, WORD, abi.FUTEX_WAKE | flag, 2, 0, 0, 0),
        lambda task: futex(task, WORD, abi.FUTEX_WAKE | flag, 2, 0, 0, 0),
    )
    assert results == [0, 0, 0, 2, 1]
    assert woken == [0, 1, 2]


@pytest.mark.parametrize(
    ("word", "op", "value", "expected"),
    [
        (WORD, WAIT, 1, -EAGAIN),
        (WORD + 1, WAIT, 0, -EINVAL),
        (WORD + 2, WAKE, 0, -EINVAL),
        (0x1000, WAIT, 0, -EFAULT),
        (WORD, 99, 0, -ENOSYS),
        (WORD, abi.FUTEX_FD, 0, -ENOSYS),
        (WORD, abi.FUTEX_WAIT | abi.FUTEX_CLOCK_REALTIME, 0, -ENOSYS),
        (WORD, abi.FUTEX_WAIT_BITSET, 0, -EINVAL),
        (WORD, abi.FUTEX_WAKE_BITSET, 0, -EINVAL),
    ],
)
def test_errors(harness: Harness, word: int, op: int, value: int, expected: int) -> None:
    assert harness.call(lambda task: futex(task, word, op, value, 0, 0, 0)) == expected


def test_timeout(harness: Harness) -> None:
    harness.mm.pack(TIME, TIMESPEC, 0, 1000)
    assert harness.call(lambda task: futex(task, WORD, WAIT, 0, TIME, 0, 0)) == -ETIMEDOUT
    harness.mm.pack(TIME, TIMESPEC, 0, 1_000_000_000)
    assert harness.call(lambda task: futex(task, WORD, WAIT, 0, TIME, 0, 0)) == -EINVAL


def test_absolute_timeouts_in_the_past(harness: Harness) -> None:
    harness.mm.pack(TIME, TIMESPEC, 1, 0)
    for op in (abi.FUTEX_WAIT_BITSET, abi.FUTEX_WAIT_BITSET | abi.FUTEX_CLOCK_REALTIME):
        result = harness.call(lambda task, op=op: futex(task, WORD, op, 0, TIME, 0, 1))
        assert result == -ETIMEDOUT


def test_bitset_selects(harness: Harness) -> None:
    def waiter(bitset: int) -> int:
        return lambda task: futex(task, WORD, abi.FUTEX_WAIT_BITSET, 0, 0, 0, bitset)

    results = harness.run(
        waiter(1),
        waiter(2),
        lambda task: futex(task, WORD, abi.FUTEX_WAKE_BITSET, 9, 0, 0, 2),
        lambda task: futex(task, WORD, abi.FUTEX_WAKE_BITSET, 9, 0, 0, 4),
        lambda task: futex(task, WORD, abi.FUTEX_WAKE_BITSET, 9, 0, 0, 3),
    )
    assert results == [0, 0, 1, 0, 1]


def test_requeue_moves_waiters(harness: Harness) -> None:
    wait = lambda task: futex(task, WORD, WAIT, 0, 0, 0, 0)  # noqa: E731
    results = harness.run(
        wait,
        wait,
        wait,
        lambda task: futex(task, WORD, abi.FUTEX_CMP_REQUEUE | PRIVATE, 1, 1, OTHER, 0),
        lambda task: futex(task, OTHER, WAKE, 9, 0, 0, 0),
        lambda task: futex(task, WORD, WAKE, 9, 0, 0, 0),
        lambda task: futex(task, WORD, abi.FUTEX_CMP_REQUEUE | PRIVATE, 1, 1, OTHER, 7),
        lambda task: futex(task, WORD, abi.FUTEX_REQUEUE | PRIVATE, 0xFFFFFFFF, 1, OTHER, 7),
    )
    assert results == [0, 0, 0, 2, 1, 1, -EAGAIN, -EINVAL]


@pytest.mark.parametrize(
    ("encoded", "old", "new", "woken"),
    [
        ((abi.FUTEX_OP_SET << 28) | (abi.FUTEX_OP_CMP_EQ << 24) | (7 << 12) | 5, 5, 7, 2),
        ((abi.FUTEX_OP_ADD << 28) | (abi.FUTEX_OP_CMP_GT << 24) | (0xFFF << 12) | 9, 5, 4, 1),
        ((abi.FUTEX_OP_OR << 28) | (8 << 28) | (4 << 12), 1, 17, 1),
        (
            (abi.FUTEX_OP_ANDN << 28) | (abi.FUTEX_OP_CMP_LT << 24) | (1 << 12),
            0x80000001,
            0x80000000,
            2,
        ),
        ((abi.FUTEX_OP_XOR << 28) | (abi.FUTEX_OP_CMP_NE << 24) | (3 << 12) | 1, 1, 2, 1),
    ],
)
def test_wake_op(harness: Harness, encoded: int, old: int, new: int, woken: int) -> None:
    def waiter(addr: int) -> int:
        return lambda task: futex(task, addr, WAIT, task.mm.read_u32(addr), 0, 0, 0)

    harness.mm.write_u32(OTHER, old)
    results = harness.run(
        waiter(WORD),
        waiter(OTHER),
        lambda task: futex(task, WORD, abi.FUTEX_WAKE_OP | PRIVATE, 1, 1, OTHER, encoded),
        lambda task: futex(task, OTHER, WAKE, 9, 0, 0, 0),
    )
    assert results == [0, 0, woken, 2 - woken]
    assert harness.mm.read_u32(OTHER) == new


def test_signal_ends_the_wait_but_loses_no_wake(harness: Harness) -> None:
    tasks = [harness.task() for _ in range(3)]

    def interrupt_and_wake(task: Task) -> int:
        tasks[0].notice(WORK_SIGNAL)
        tasks[1].notice(WORK_SIGNAL)
        return futex(task, WORD, WAKE, 1, 0, 0, 0)

    wait = lambda task: futex(task, WORD, WAIT, 0, 0, 0, 0)  # noqa: E731
    assert harness.run(wait, wait, interrupt_and_wake, tasks=tasks) == [0, -ERESTARTSYS, 1]


def test_interrupted_timed_wait_leaves_a_restart_block(harness: Harness) -> None:
    harness.mm.pack(TIME, TIMESPEC, 0, 2_000_000)
    tasks = [harness.task(), harness.task()]
    results = harness.run(
        lambda task: futex(task, WORD, WAIT, 0, TIME, 0, 0),
        lambda task: tasks[0].notice(WORK_SIGNAL),
        tasks=tasks,
    )
    assert results[0] == -ERESTART_RESTARTBLOCK
    assert harness.call(tasks[0].restart_block) == -ETIMEDOUT


def test_waitv(harness: Harness) -> None:
    flags = abi.FUTEX_32 | abi.FUTEX2_PRIVATE
    entries = WAITV.pack(0, WORD, flags, 0) + WAITV.pack(0, OTHER, flags, 0)
    harness.mm.write(TIME, entries)
    results = harness.run(
        lambda task: futex_waitv(task, TIME, 2, 0, 0, 1),
        lambda task: futex(task, OTHER, WAKE, 1, 0, 0, 0),
        lambda task: futex(task, WORD, WAKE, 1, 0, 0, 0),
    )
    assert results in ([1, 1, 0], [1, 1, 1])
    assert harness.call(lambda task: futex_waitv(task, TIME, 129, 0, 0, 1)) == -EINVAL
    assert harness.call(lambda task: futex_waitv(task, TIME, 2, 1, 0, 1)) == -EINVAL
    harness.mm.write(TIME, WAITV.pack(1, WORD, flags, 0))
    assert harness.call(lambda task: futex_waitv(task, TIME, 2, 0, 0, 1)) == -EAGAIN
    harness.mm.write(TIME, WAITV.pack(0, WORD, flags, 1))
    assert harness.call(lambda task: futex_waitv(task, TIME, 2, 0, 0, 1)) == -EINVAL
