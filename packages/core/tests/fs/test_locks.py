"""File locks against fcntl(2) and flock(2)."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from fcntl import F_RDLCK, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_SH
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.fd_table import FdTable
from pysandbox_core.fs.locks import OFFSET_MAX, FileLocks, lock_file, lock_record
from pysandbox_core.fs.open_file import open_path
from vfs_harness import new_task

RANGE = 24
step = st.tuples(
    st.integers(0, 2),
    st.sampled_from((F_RDLCK, F_WRLCK, F_UNLCK)),
    st.integers(0, RANGE - 1),
    st.integers(0, RANGE - 1),
)


@given(st.lists(step, max_size=20))
def test_ranges_like_a_table_of_bytes(steps: list[tuple[int, int, int, int]]) -> None:
    locks = FileLocks()
    owners = [object(), object(), object()]
    table: list[dict[int, int]] = [{} for _ in range(RANGE)]
    for who, kind, first, second in steps:
        start, end = min(first, second), max(first, second)
        blocked = any(
            other != who and F_WRLCK in (kind, held)
            for byte in range(start, end + 1)
            for other, held in table[byte].items()
        )
        if kind != F_UNLCK:
            assert (locks.blocking(owners[who], kind, start, end) is not None) == blocked
            if blocked:
                continue
        locks.set(owners[who], kind, start, end, who)
        for byte in range(start, end + 1):
            table[byte].pop(who, None)
            if kind != F_UNLCK:
                table[byte][who] = kind
        for byte in range(RANGE):
            found = {
                owners.index(lock.owner): lock.type
                for lock in locks.records
                if lock.start <= byte <= lock.end
            }
            assert found == table[byte]
        assert locks.owned == Counter(lock.owner for lock in locks.records)


class Unread(list[Any]):
    """Nobody may go through it."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError


def test_who_has_no_lock_closes_without_looking_at_the_others() -> None:
    """Closing a file by ten thousand descriptors goes ten thousand times through here."""

    locks = FileLocks()
    locks.set(object(), F_WRLCK, 0, 5, 1)
    locks._records = unread = Unread(locks.records)
    locks.closed(FdTable())
    assert locks.records is unread


def test_many_owners_go_one_after_the_other() -> None:
    locks = FileLocks()
    owners = [FdTable() for _ in range(100)]
    for start, owner in enumerate(owners):
        locks.set(owner, F_WRLCK, start * 2, start * 2, 1)
    times_read = 0
    for owner in owners[:-1]:
        before = locks._records
        locks.closed(owner)
        times_read += locks._records is not before
    assert times_read < 10
    assert [lock.owner for lock in locks.records] == owners[-1:]
    locks.set(owners[0], F_WRLCK, 500, 500, 1)  # who gave all up may take some again
    assert [lock.start for lock in locks.records] == [198, 500]


def test_neighbours_become_one_range() -> None:
    locks = FileLocks()
    owner = object()
    locks.set(owner, F_WRLCK, 0, 9, 1)
    locks.set(owner, F_WRLCK, 10, OFFSET_MAX, 1)
    assert [(lock.start, lock.end) for lock in locks.records] == [(0, OFFSET_MAX)]


def test_waiting_for_each_other_is_a_deadlock(kernel: Any) -> None:
    locks = FileLocks()
    first, second = new_task(kernel, pid=1), new_task(kernel, pid=2)
    lock_record(first, locks, first.files, F_WRLCK, 0, 0, 1, wait=True)
    lock_record(second, locks, second.files, F_WRLCK, 1, 1, 2, wait=True)

    def second_waits_for_first() -> None:
        with pytest.raises(LinuxError) as info:
            lock_record(second, locks, second.files, F_WRLCK, 0, 0, 2, wait=True)
        assert info.value.errno == errno.EDEADLK
        locks.closed(second.files)

    first.on_block = second_waits_for_first
    lock_record(first, locks, first.files, F_WRLCK, 1, 1, 1, wait=True)
    assert [lock.owner for lock in locks.records] == [first.files]


def test_closing_any_descriptor_gives_up_the_processs_locks(kernel: Any, task: Any) -> None:
    one = task.files.install(task, open_path(task, AT_FDCWD, b"/file", os.O_RDWR))
    two = task.files.install(task, open_path(task, AT_FDCWD, b"/file", os.O_RDONLY))
    inode = task.files.get(one).inode
    locks = FileLocks.of(inode)
    lock_record(task, locks, task.files, F_WRLCK, 0, 9, 1, wait=False)
    lock_record(task, locks, task.files.get(one), F_WRLCK, 20, 29, -1, wait=False)
    task.files.close(task, two)
    assert [lock.start for lock in locks.records] == [20]
    task.files.close(task, one)
    assert locks.records == []


def test_flock(kernel: Any, task: Any) -> None:
    one = open_path(task, AT_FDCWD, b"/file", os.O_RDONLY)
    two = open_path(task, AT_FDCWD, b"/file", os.O_RDONLY)
    lock_file(task, one, LOCK_SH, wait=False)
    lock_file(task, two, LOCK_SH, wait=False)
    with pytest.raises(LinuxError) as info:
        lock_file(task, two, LOCK_EX, wait=False)
    assert info.value.errno == errno.EAGAIN
    assert FileLocks.of(one.inode).flocks == {one: LOCK_SH}  # a failed upgrade loses the lock
    one.decref()
    lock_file(task, two, LOCK_EX, wait=False)
