"""poll, ppoll, select, pselect6 on pipes."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EBADF, EFAULT, EINVAL
from struct import Struct

import pytest
from harness import BASE, Harness
from pysandbox_core.abi.time import TIMESPEC, TIMEVAL
from pysandbox_core.errors import ERESTART_RESTARTBLOCK, ERESTARTNOHAND
from pysandbox_core.fs.pipe import open_pipe
from pysandbox_core.mm.io_buffer import BytesSource
from pysandbox_core.syscalls.poll import (
    POLLFD,
    SIGMASK_ARGUMENT,
    _members,
    poll,
    ppoll,
    pselect6,
    select,
)
from pysandbox_core.task import WORK_RESTORE_SIGMASK, WORK_SIGNAL, Task
from pysandbox_core.waiting import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT

TIME = BASE + 0x800
SET = BASE + 0x900
OTHER_SET = BASE + 0xA00
FOREVER = -1


class Ends:
    """A task with a pipe at descriptors 0 (read) and 1 (write)."""

    def __init__(self, harness: Harness) -> None:
        self.task = harness.task()
        self.reader, self.writer = open_pipe(harness.kernel, 0)
        self.task.files.install(self.task, self.reader)
        self.task.files.install(self.task, self.writer)

    def write(self, task: Task) -> int:
        return self.writer.write(task, BytesSource(b"x"))


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


@pytest.fixture
def ends(harness: Harness) -> Ends:
    return Ends(harness)


def pollfds(harness: Harness, *entries: tuple[int, int]) -> int:
    harness.mm.write(BASE, b"".join(POLLFD.pack(fd, events, 0x7777) for fd, events in entries))
    return BASE


def revents(harness: Harness, count: int) -> list[int]:
    data = harness.mm.read(BASE, count * POLLFD.size)
    return [revents for _, _, revents in POLLFD.iter_unpack(data)]


def test_members_of_sets() -> None:
    sets = [b"\x01\x80\x00", b"\x00\x80\x04", b"\x00\x00\xff"]
    assert [(fd, [bool(bit) for bit in bits]) for fd, bits in _members(sets, 19)] == [
        (0, [True, False, False]),
        (15, [True, True, False]),
        (16, [False, False, True]),
        (17, [False, False, True]),
        (18, [False, True, True]),
    ]


def test_poll_at_once(harness: Harness, ends: Ends) -> None:
    fds = pollfds(harness, (0, POLLIN), (1, POLLOUT), (-1, POLLIN), (9, POLLIN), (1, POLLIN))
    assert harness.call(lambda task: poll(task, fds, 5, 0), ends.task) == 2
    assert revents(harness, 5) == [0, POLLOUT, 0, POLLNVAL, 0]


def test_poll_waits_for_data(harness: Harness, ends: Ends) -> None:
    fds = pollfds(harness, (0, POLLIN))
    results = harness.run(
        lambda task: poll(task, fds, 1, FOREVER), ends.write, tasks=[ends.task, harness.task()]
    )
    assert results == [1, 1]
    assert revents(harness, 1) == [POLLIN]


def test_poll_is_told_of_hang_up_and_error(harness: Harness, ends: Ends) -> None:
    fds = pollfds(harness, (0, 0))
    results = harness.run(
        lambda task: poll(task, fds, 1, FOREVER),
        lambda task: ends.task.files.close(task, 1),
        tasks=[ends.task, harness.task()],
    )
    assert results == [1, None]
    assert revents(harness, 1) == [POLLHUP]
    other = Ends(harness)
    other.task.files.close(other.task, 0)
    fds = pollfds(harness, (1, 0))
    assert harness.call(lambda task: poll(task, fds, 1, 0), other.task) == 1
    assert revents(harness, 1) == [POLLERR]


def test_poll_times_out(harness: Harness, ends: Ends) -> None:
    fds = pollfds(harness, (0, POLLIN))
    assert harness.call(lambda task: poll(task, fds, 1, 1), ends.task) == 0
    assert harness.call(lambda task: poll(task, 0, 0, 1), ends.task) == 0
    assert revents(harness, 1) == [0]


def test_poll_errors(harness: Harness, ends: Ends) -> None:
    assert harness.call(lambda task: poll(task, BASE, 1025, 0), ends.task) == -EINVAL
    assert harness.call(lambda task: poll(task, 0x10, 1, 0), ends.task) == -EFAULT


def test_a_file_closed_meanwhile_is_still_waited_for(harness: Harness, ends: Ends) -> None:
    """poll holds its files: the descriptor may go, its file does not."""
    fds = pollfds(harness, (0, POLLIN))

    def close_and_write(task: Task) -> int:
        ends.task.files.close(task, 0)
        return ends.write(task)

    results = harness.run(
        lambda task: poll(task, fds, 1, FOREVER), close_and_write, tasks=[ends.task, harness.task()]
    )
    assert results == [1, 1]


def test_interrupted_poll_continues_until_its_old_end(harness: Harness, ends: Ends) -> None:
    fds = pollfds(harness, (0, POLLIN))
    results = harness.run(
        lambda task: poll(task, fds, 1, 2),
        lambda task: ends.task.notice(WORK_SIGNAL),
        tasks=[ends.task, harness.task()],
    )
    assert results[0] == -ERESTART_RESTARTBLOCK
    assert harness.call(ends.task.restart_block, ends.task) == 0


def test_ppoll_swaps_the_mask_and_writes_what_is_left(harness: Harness, ends: Ends) -> None:
    fds = pollfds(harness, (0, POLLIN))
    harness.mm.pack(TIME, TIMESPEC, 100, 0)
    harness.mm.write_u64(SET, 0b1000)
    masks = []

    def call(task: Task) -> int:
        try:
            return ppoll(task, fds, 1, TIME, SET, 8)
        finally:
            masks.append((task.sigmask, task.saved_sigmask, task.work & WORK_RESTORE_SIGMASK))

    results = harness.run(
        call, lambda task: ends.task.notice(WORK_SIGNAL), tasks=[ends.task, harness.task()]
    )
    assert results[0] == -ERESTARTNOHAND
    assert masks == [(0b1000, 0, WORK_RESTORE_SIGMASK)]
    assert harness.mm.unpack(TIME, TIMESPEC)[0] == 99
    assert harness.call(lambda task: ppoll(task, fds, 1, TIME, SET, 9)) == -EINVAL
    harness.mm.pack(TIME, TIMESPEC, 0, 10**9)
    assert harness.call(lambda task: ppoll(task, fds, 1, TIME, 0, 0)) == -EINVAL


def test_select(harness: Harness, ends: Ends) -> None:
    mm = harness.mm
    mm.write_u64(SET, 0b11)
    mm.write_u64(OTHER_SET, 0b10)
    mm.pack(TIME, TIMEVAL, 0, 0)
    call = lambda task: select(task, 2, SET, OTHER_SET, 0, TIME)  # noqa: E731
    assert harness.call(call, ends.task) == 1
    assert (mm.read_u64(SET), mm.read_u64(OTHER_SET)) == (0, 0b10)
    mm.write_u64(SET, 0b01)
    results = harness.run(
        lambda task: select(task, 1, SET, 0, 0, 0), ends.write, tasks=[ends.task, harness.task()]
    )
    assert results == [1, 1]
    assert mm.read_u64(SET) == 1


def test_select_leaves_bits_beyond_nfds_out(harness: Harness, ends: Ends) -> None:
    harness.mm.write_u64(SET, 0b11111)
    harness.mm.pack(TIME, TIMEVAL, 0, 0)
    assert harness.call(lambda task: select(task, 2, 0, SET, 0, TIME), ends.task) == 1
    assert harness.mm.read_u64(SET) == 0b10


def test_select_errors(harness: Harness, ends: Ends) -> None:
    harness.mm.write_u64(SET, 0b100)
    harness.mm.pack(TIME, TIMEVAL, 0, -1)
    task = ends.task
    assert harness.call(lambda task: select(task, 3, SET, 0, 0, 0), task) == -EBADF
    assert harness.call(lambda task: select(task, -1, SET, 0, 0, 0), task) == -EINVAL
    assert harness.call(lambda task: select(task, 3, 0x10, 0, 0, 0), task) == -EFAULT
    assert harness.call(lambda task: select(task, 0, 0, 0, 0, TIME), task) == -EINVAL


def test_pselect_takes_a_mask_by_reference(harness: Harness, ends: Ends) -> None:
    mm = harness.mm
    mm.pack(TIME, TIMESPEC, 0, 1000)
    mm.pack(OTHER_SET, SIGMASK_ARGUMENT, SET, 8)
    mm.write_u64(SET, 0b100)
    masks = []

    def call(task: Task) -> int:
        result = pselect6(task, 0, 0, 0, 0, TIME, OTHER_SET)
        masks.append(task.sigmask)
        return result

    assert harness.call(call, ends.task) == 0
    assert masks == [0b100]
    assert mm.unpack(TIME, Struct("<qq")) == (0, 0)
    mm.pack(OTHER_SET, SIGMASK_ARGUMENT, SET, 4)
    assert harness.call(call) == -EINVAL
