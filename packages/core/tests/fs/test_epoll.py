"""epoll: level and edge, one-shot, nesting, what closing means; eventfd."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EAGAIN, EBADF, EEXIST, EFAULT, EINTR, EINVAL, ELOOP, ENOENT, EPERM
from itertools import pairwise
from types import SimpleNamespace

import pytest
from harness import BASE, SIZE, Harness
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.epoll import EPOLL_EVENT, EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT, EpollFile
from pysandbox_core.fs.eventfd import EventFile
from pysandbox_core.fs.pipe import open_pipe
from pysandbox_core.mm.io_buffer import BytesSink, BytesSource
from pysandbox_core.syscalls import epoll as calls
from pysandbox_core.syscalls.eventfd import eventfd, eventfd2
from pysandbox_core.task import WORK_EXIT, WORK_SIGNAL, Task
from pysandbox_core.waiting import POLLERR, POLLHUP, POLLIN, POLLOUT

EVENT = BASE + 0x100
OUT = BASE + 0x200
ADD, DEL, MOD = 1, 2, 3


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


class Setup:
    """A task with a pipe at 0 and 1, and an epoll instance at 2."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.task = harness.task()
        self.reader, self.writer = open_pipe(harness.kernel, 0)
        self.epoll = EpollFile(harness.kernel)
        for file in (self.reader, self.writer, self.epoll):
            self.task.files.install(self.task, file)

    def ctl(self, op: int, fd: int, events: int = 0, data: int = 0, epfd: int = 2) -> int:
        self.harness.mm.pack(EVENT, EPOLL_EVENT, events, data)
        return self.harness.call(lambda task: calls.epoll_ctl(task, epfd, op, fd, EVENT), self.task)

    def wait(self, max_events: int = 8, timeout_ms: int = 0) -> list[tuple[int, int]] | int:
        """(events, data) of each"""
        count = self.harness.call(
            lambda task: calls.epoll_wait(task, 2, OUT, max_events, timeout_ms), self.task
        )
        return self.events(count) if count >= 0 else count

    def events(self, count: int) -> list[tuple[int, int]]:
        data = self.harness.mm.read(OUT, count * EPOLL_EVENT.size)
        return list(EPOLL_EVENT.iter_unpack(data))

    def write(self, data: bytes = b"x") -> None:
        self.harness.call(lambda task: self.writer.write(task, BytesSource(data)))

    def read(self, count: int = 1) -> None:
        self.harness.call(lambda task: self.reader.read(task, BytesSink(count)))


@pytest.fixture
def setup(harness: Harness) -> Setup:
    return Setup(harness)


def test_level_triggered(setup: Setup) -> None:
    assert setup.ctl(ADD, 0, POLLIN, 42) == 0
    assert setup.wait() == []
    setup.write(b"xy")
    assert setup.wait() == [(POLLIN, 42)]
    setup.read()
    assert setup.wait() == [(POLLIN, 42)]
    setup.read()
    assert setup.wait() == []
    assert not setup.epoll.ready


def test_edge_triggered(setup: Setup) -> None:
    setup.write()
    setup.ctl(ADD, 0, POLLIN | EPOLLET, 1)
    assert setup.wait() == [(POLLIN, 1)]
    assert setup.wait() == []
    setup.write()
    assert setup.wait() == [(POLLIN, 1)]
    setup.ctl(MOD, 0, POLLIN | EPOLLET, 2)
    assert setup.wait() == [(POLLIN, 2)]


def test_one_shot(setup: Setup) -> None:
    setup.ctl(ADD, 0, POLLIN | EPOLLONESHOT, 1)
    setup.write()
    assert setup.wait() == [(POLLIN, 1)]
    setup.write()
    assert setup.wait() == []
    setup.ctl(MOD, 0, POLLIN | EPOLLONESHOT, 1)
    assert setup.wait() == [(POLLIN, 1)]


def test_hang_up_and_error_are_always_told(setup: Setup) -> None:
    setup.ctl(ADD, 0, 0, 1)
    setup.ctl(ADD, 1, 0, 2)
    setup.task.files.close(setup.task, 1)
    assert setup.wait() == [(POLLHUP, 1)]
    other = Setup(setup.harness)
    other.ctl(ADD, 1, 0, 3)
    other.task.files.close(other.task, 0)
    assert other.wait() == [(POLLERR, 3)]


def test_ready_files_take_turns(setup: Setup) -> None:
    setup.write()
    setup.ctl(ADD, 0, POLLIN, 1)
    setup.ctl(ADD, 1, POLLOUT, 2)
    assert setup.wait(1) == [(POLLIN, 1)]
    assert setup.wait(1) == [(POLLOUT, 2)]
    assert setup.wait(1) == [(POLLIN, 1)]


def test_cost_is_by_what_is_ready(setup: Setup) -> None:
    polled = []

    class Counting(EventFile):
        __slots__ = ()

        def poll(self) -> int:
            polled.append(self)
            return super().poll()

    files = [Counting(setup.harness.kernel, 0, 0, False) for _ in range(100)]
    for fd, file in enumerate(files, 10):
        setup.epoll.add(file, fd, POLLIN, fd)
    polled.clear()
    files[50].add(1)
    assert setup.wait() == [(POLLIN, 60)]
    assert polled == [files[50]]


def test_waits_for_news(setup: Setup) -> None:
    setup.ctl(ADD, 0, POLLIN, 7)
    results = setup.harness.run(
        lambda task: calls.epoll_wait(task, 2, OUT, 8, -1),
        lambda task: setup.writer.write(task, BytesSource(b"x")),
        tasks=[setup.task, setup.harness.task()],
    )
    assert results == [1, 1]
    assert setup.events(1) == [(POLLIN, 7)]
    setup.read()
    assert setup.wait(timeout_ms=1) == []


def test_one_waiter_is_woken_for_one_piece_of_news(setup: Setup) -> None:
    files = [EventFile(setup.harness.kernel, 0, 0, False) for _ in range(3)]
    for fd, file in enumerate(files, 10):
        setup.epoll.add(file, fd, POLLIN | EPOLLET, fd)
    threads = [setup.task, *(setup.harness.task(setup.task.group) for _ in range(2))]
    woken = []

    def wait(task: Task) -> int:
        count = calls.epoll_wait(task, 2, OUT, 8, -1)
        woken.append(count)
        return count

    def feeder(file: EventFile) -> int:
        def feed(task: Task) -> int:
            file.add(1)
            return len(woken)

        return feed

    results = setup.harness.run(
        wait, wait, wait, *map(feeder, files),
        tasks=[*threads, *(setup.harness.task() for _ in files)],
    )  # fmt: skip
    assert results == [1, 1, 1, 0, 1, 2]


def test_who_is_killed_takes_no_news_from_others(setup: Setup) -> None:
    """One that is woken for it and killed at once, and one that waits in another process."""
    setup.ctl(ADD, 0, POLLIN | EPOLLET)
    victim, other, writer = [setup.harness.task() for _ in range(3)]
    for task in (victim, other, writer):
        task.files = setup.task.files

    def wait(task: Task) -> int:
        return calls.epoll_wait(task, 2, OUT, 8, -1)

    def write_and_kill(task: Task) -> int:
        setup.writer.write(task, BytesSource(b"x"))
        victim.notice(WORK_EXIT)
        return 0

    results = setup.harness.run(wait, wait, write_and_kill, tasks=[victim, other, writer])
    assert results == [-EINTR, 1, 0]


def test_signal_ends_it_with_eintr(setup: Setup) -> None:
    results = setup.harness.run(
        lambda task: calls.epoll_wait(task, 2, OUT, 8, -1),
        lambda task: setup.task.notice(WORK_SIGNAL),
        tasks=[setup.task, setup.harness.task()],
    )
    assert results[0] == -EINTR


def test_closing_a_descriptor_keeps_the_file_watched(setup: Setup) -> None:
    task = setup.task
    setup.ctl(ADD, 0, POLLIN, 1)
    task.files.install(task, setup.reader.incref())
    task.files.close(task, 0)
    setup.write()
    assert setup.wait() == [(POLLIN, 1)]
    task.files.close(task, 3)
    assert not setup.epoll.items
    assert setup.wait() == []


def test_closing_the_instance_leaves_the_files_alone(setup: Setup) -> None:
    setup.ctl(ADD, 0, POLLIN, 1)
    setup.task.files.close(setup.task, 2)
    assert not setup.reader.queue.waiters


def test_errors(setup: Setup) -> None:
    task = setup.task
    assert setup.ctl(ADD, 9) == -EBADF
    assert setup.ctl(ADD, 0, epfd=9) == -EBADF
    assert setup.ctl(ADD, 0, epfd=1) == -EINVAL
    assert setup.ctl(ADD, 2) == -EINVAL
    assert setup.ctl(MOD, 0) == -ENOENT
    assert setup.ctl(DEL, 0) == -ENOENT
    assert setup.ctl(77, 0) == -EINVAL
    assert setup.ctl(ADD, 0, POLLIN) == 0
    assert setup.ctl(ADD, 0, POLLIN) == -EEXIST
    assert setup.ctl(MOD, 0, POLLIN | EPOLLEXCLUSIVE) == -EINVAL
    assert setup.ctl(DEL, 0) == 0
    assert setup.ctl(ADD, 0, POLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT) == -EINVAL
    assert setup.ctl(ADD, 0, POLLIN | EPOLLEXCLUSIVE) == 0
    assert setup.ctl(MOD, 0, POLLIN) == -EINVAL
    call = setup.harness.call
    assert call(lambda task: calls.epoll_ctl(task, 2, ADD, 0, 0x10), task) == -EFAULT
    assert setup.wait(0) == -EINVAL
    assert setup.wait(1 << 30) == -EINVAL
    assert call(lambda task: calls.epoll_create(task, 0)) == -EINVAL
    assert call(lambda task: calls.epoll_create1(task, 1)) == -EINVAL


def test_regular_files_are_refused(setup: Setup) -> None:
    regular = EventFile(setup.harness.kernel, 0, 0, False)
    regular.inode = SimpleNamespace(is_regular=True, is_dir=False)
    setup.task.files.install(setup.task, regular)
    assert setup.ctl(ADD, 3, POLLIN) == -EPERM


def test_a_bad_address_loses_no_event(setup: Setup) -> None:
    setup.write()
    setup.ctl(ADD, 0, POLLIN | EPOLLET | EPOLLONESHOT, 1)
    task, end = setup.task, BASE + SIZE
    bad = setup.harness.call(lambda task: calls.epoll_wait(task, 2, end - 4, 8, 0), task)
    assert bad == -EFAULT
    assert setup.wait() == [(POLLIN, 1)]


def test_nesting(setup: Setup) -> None:
    kernel, task = setup.harness.kernel, setup.task
    chain = [EpollFile(kernel) for _ in range(6)]
    for outer, inner in pairwise(chain[:5]):
        outer.add(inner, 0, POLLIN, 0)
    with pytest.raises(LinuxError) as error:
        chain[4].add(chain[5], 0, POLLIN, 0)
    assert error.value.errno == ELOOP
    with pytest.raises(LinuxError) as error:
        chain[4].add(chain[0], 0, POLLIN, 0)
    assert error.value.errno == ELOOP
    chain[4].add(setup.reader, 0, POLLIN, 0)
    assert not chain[0].poll()
    setup.write()
    assert chain[0].poll() & POLLIN
    setup.read()
    assert not chain[0].poll()
    for epoll in chain:
        epoll.decref()
    assert task is setup.task


def test_eventfd(harness: Harness) -> None:
    kernel = harness.kernel
    event = EventFile(kernel, 3, os.O_NONBLOCK, False)
    one_by_one = EventFile(kernel, 2, os.O_NONBLOCK, True)

    def read(file: EventFile) -> int:
        sink = BytesSink(8)
        result = harness.call(lambda task: file.read(task, sink))
        return int.from_bytes(sink.data, "little") if result == 8 else result

    def write(file: EventFile, value: int) -> int:
        data = value.to_bytes(8, "little")
        return harness.call(lambda task: file.write(task, BytesSource(data)))

    assert [read(event), read(event)] == [3, -EAGAIN]
    assert [read(one_by_one) for _ in range(3)] == [1, 1, -EAGAIN]
    assert write(event, 2**64 - 1) == -EINVAL
    assert write(event, 2**64 - 2) == 8
    assert event.poll() == POLLIN
    assert write(event, 1) == -EAGAIN
    assert write(event, 0) == 8
    assert harness.call(lambda task: event.read(task, BytesSink(7))) == -EINVAL
    assert harness.call(lambda task: event.write(task, BytesSource(b"1234567"))) == -EINVAL
    blocking = EventFile(kernel, 0, 0, False)
    results = harness.run(
        lambda task: blocking.read(task, BytesSink(8)),
        lambda task: blocking.write(task, BytesSource(bytes([1] + [0] * 7))),
    )
    assert results == [8, 8]


def test_eventfd_calls(harness: Harness) -> None:
    task = harness.task()
    assert harness.call(lambda task: eventfd(task, 5), task) == 0
    assert harness.call(lambda task: eventfd2(task, 5, os.O_CLOEXEC | os.O_NONBLOCK | 1), task) == 1
    assert task.files.cloexec == {1}
    assert harness.call(lambda task: eventfd2(task, 5, 2), task) == -EINVAL
