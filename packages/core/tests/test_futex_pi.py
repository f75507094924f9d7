"""Priority-inheritance futexes and robust lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import EAGAIN, EDEADLK, EINVAL, EPERM, ESRCH, ETIMEDOUT

import pytest
from harness import BASE, SIZE, Harness
from pysandbox_core import futex as futexes
from pysandbox_core import futex_pi
from pysandbox_core.abi import futex as abi
from pysandbox_core.abi.time import TIMESPEC
from pysandbox_core.futex_robust import ROBUST_LIST_HEAD
from pysandbox_core.syscalls.futex import futex
from pysandbox_core.task import Task

WORD = BASE + 0x100
OTHER = BASE + 0x200
TIME = BASE + 0x300
WAITERS, DIED = abi.FUTEX_WAITERS, abi.FUTEX_OWNER_DIED


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()
    assert not futexes._queues
    assert not futex_pi._locks
    assert not futex_pi._blocked


def op(command: int, addr: int = WORD) -> Callable[[Task], int]:
    return lambda task: futex(task, addr, command, 0, 0, 0, 0)


def test_lock_goes_to_waiters_in_order(harness: Harness) -> None:
    tasks = [harness.task() for _ in range(3)]
    first, second, third = tasks

    def own_and_unlock(task: Task) -> int:
        assert futex(task, WORD, abi.FUTEX_LOCK_PI, 0, 0, 0, 0) == 0
        assert task.mm.read_u32(WORD) & abi.FUTEX_TID_MASK == task.tid
        return futex(task, WORD, abi.FUTEX_UNLOCK_PI, 0, 0, 0, 0)

    assert harness.call(op(abi.FUTEX_LOCK_PI), first) == 0
    assert harness.mm.read_u32(WORD) == first.tid
    results = harness.run(
        own_and_unlock, own_and_unlock, op(abi.FUTEX_UNLOCK_PI), tasks=[second, third, first]
    )
    assert results == [0, 0, 0]
    assert harness.mm.read_u32(WORD) == 0


def test_errors(harness: Harness) -> None:
    task = harness.task()
    assert harness.call(op(abi.FUTEX_UNLOCK_PI), task) == -EPERM
    assert harness.call(op(abi.FUTEX_LOCK_PI), task) == 0
    assert harness.call(op(abi.FUTEX_LOCK_PI), task) == -EDEADLK
    assert harness.call(op(abi.FUTEX_TRYLOCK_PI)) == -EAGAIN
    harness.mm.write_u32(WORD, 0x3000000)
    assert harness.call(op(abi.FUTEX_LOCK_PI)) == -ESRCH
    assert harness.call(op(abi.FUTEX_LOCK_PI, WORD + 1)) == -EINVAL


def test_a_cycle_is_refused(harness: Harness) -> None:
    first, second = harness.task(), harness.task()
    harness.call(op(abi.FUTEX_LOCK_PI, WORD), first)
    harness.call(op(abi.FUTEX_LOCK_PI, OTHER), second)

    def both(task: Task) -> int:
        with pytest.raises(Exception, match="deadlock"):
            futex(task, WORD, abi.FUTEX_LOCK_PI, 0, 0, 0, 0)
        return futex(task, OTHER, abi.FUTEX_UNLOCK_PI, 0, 0, 0, 0)

    assert harness.run(op(abi.FUTEX_LOCK_PI, OTHER), both, tasks=[first, second]) == [0, 0]
    assert harness.mm.read_u32(OTHER) == first.tid | WAITERS


def test_timeout(harness: Harness) -> None:
    harness.mm.pack(TIME, TIMESPEC, 1, 0)
    harness.call(op(abi.FUTEX_LOCK_PI))
    for command in (abi.FUTEX_LOCK_PI, abi.FUTEX_LOCK_PI2):
        result = harness.call(lambda task, c=command: futex(task, WORD, c, 0, TIME, 0, 0))
        assert result == -ETIMEDOUT


def test_requeue_to_a_lock(harness: Harness) -> None:
    order = []

    def wait(task: Task) -> int:
        any_bit = abi.FUTEX_BITSET_MATCH_ANY
        result = futex(task, WORD, abi.FUTEX_WAIT_REQUEUE_PI, 0, 0, OTHER, any_bit)
        order.append(harness.mm.read_u32(OTHER) & abi.FUTEX_TID_MASK == task.tid)
        futex(task, OTHER, abi.FUTEX_UNLOCK_PI, 0, 0, 0, 0)
        return result

    results = harness.run(
        wait,
        wait,
        wait,
        lambda task: futex(task, WORD, abi.FUTEX_CMP_REQUEUE_PI, 1, 2, OTHER, 0),
    )
    assert results == [0, 0, 0, 3]
    assert order == [True, True, True]


def test_requeue_to_a_lock_of_nobody_leaves_who_waits(harness: Harness) -> None:
    harness.mm.write_u32(OTHER, 4000)  # no thread has this tid

    def wait(task: Task) -> int:
        any_bit = abi.FUTEX_BITSET_MATCH_ANY
        return futex(task, WORD, abi.FUTEX_WAIT_REQUEUE_PI, 0, 0, OTHER, any_bit)

    def requeue(task: Task) -> int:
        return futex(task, WORD, abi.FUTEX_CMP_REQUEUE_PI, 1, 2, OTHER, 0)

    def free(task: Task) -> int:
        harness.mm.write_u32(OTHER, 0)
        return requeue(task)

    assert harness.run(wait, requeue, free) == [0, -ESRCH, 1]


def test_wake_of_a_lock_is_refused(harness: Harness) -> None:
    owner = harness.task()
    harness.call(op(abi.FUTEX_LOCK_PI), owner)

    def wake_and_unlock(task: Task) -> int:
        with pytest.raises(Exception, match="EINVAL"):
            futex(task, WORD, abi.FUTEX_WAKE, 1, 0, 0, 0)
        return futex(task, WORD, abi.FUTEX_UNLOCK_PI, 0, 0, 0, 0)

    waiter = harness.task()
    results = harness.run(op(abi.FUTEX_LOCK_PI), wake_and_unlock, tasks=[waiter, owner])
    assert results == [0, 0]


def test_owner_dies_with_waiters(harness: Harness) -> None:
    owner, waiter = harness.task(), harness.task()
    harness.call(op(abi.FUTEX_LOCK_PI), owner)
    results = harness.run(op(abi.FUTEX_LOCK_PI), futexes.exit_robust_list, tasks=[waiter, owner])
    assert results == [0, None]
    assert harness.mm.read_u32(WORD) == waiter.tid | WAITERS | DIED


def test_owner_dies_where_the_waiter_has_lost_the_word(harness: Harness) -> None:
    owner, waiter = harness.task(), harness.task()
    harness.call(op(abi.FUTEX_LOCK_PI), owner)

    def lose_and_die(task: Task) -> None:
        (held,) = futex_pi._locks.values()
        futex_pi._waiters(held.key)[0].addr = 0
        futexes.exit_robust_list(task)

    results = harness.run(op(abi.FUTEX_LOCK_PI), lose_and_die, tasks=[waiter, owner])
    assert results == [0, None]


HEAD = BASE + 0x1000


def robust_task(harness: Harness, words: list[int], pending: int = 0) -> Task:
    """A task whose robust list has an entry for each word, 16 bytes before it."""
    task = harness.task()
    task.robust_list = HEAD
    entries = [word - 16 for word in words]
    harness.mm.pack(HEAD, ROBUST_LIST_HEAD, (*entries, HEAD)[0], 16, pending and pending - 16)
    for entry, following in zip(entries, (*entries[1:], HEAD), strict=False):
        harness.mm.write_u64(entry, following)
    return task


def test_robust_list_marks_and_wakes(harness: Harness) -> None:
    task = robust_task(harness, [WORD, OTHER])
    harness.mm.write_u32(WORD, task.tid | WAITERS)
    harness.mm.write_u32(OTHER, task.tid + 1)

    def wait(task: Task) -> int:
        return futex(task, WORD, abi.FUTEX_WAIT, task.mm.read_u32(WORD), 0, 0, 0)

    results = harness.run(wait, futexes.exit_robust_list, tasks=[harness.task(), task])
    assert results == [0, None]
    assert harness.mm.read_u32(WORD) == WAITERS | DIED
    assert harness.mm.read_u32(OTHER) == task.tid + 1
    assert task.robust_list == 0


def test_pending_lock_is_marked_and_a_released_one_wakes(harness: Harness) -> None:
    task = robust_task(harness, [], pending=WORD)
    harness.mm.write_u32(WORD, task.tid)
    harness.call(futexes.exit_robust_list, task)
    assert harness.mm.read_u32(WORD) == DIED
    harness.mm.write_u32(WORD, 0)
    task = robust_task(harness, [], pending=WORD)
    wait = lambda task: futex(task, WORD, abi.FUTEX_WAIT, 0, 0, 0, 0)  # noqa: E731
    assert harness.run(wait, futexes.exit_robust_list, tasks=[harness.task(), task]) == [0, None]


@pytest.mark.parametrize(
    "first", [0, 1, HEAD + 8, BASE + SIZE - 4, 0xFFFF_FFFF_FFFF_FFF0, BASE + 0x2001]
)
def test_hostile_lists(harness: Harness, first: int) -> None:
    task = harness.task()
    task.robust_list = HEAD
    harness.mm.pack(HEAD, ROBUST_LIST_HEAD, first, -8, first)
    assert harness.call(futexes.exit_robust_list, task) is None


def test_circular_list_ends(harness: Harness) -> None:
    task = robust_task(harness, [WORD])
    harness.mm.write_u64(WORD - 16, WORD - 16)
    assert harness.call(futexes.exit_robust_list, task) is None
    task.robust_list = BASE + SIZE
    assert harness.call(futexes.exit_robust_list, task) is None
