"""Pipes and fifos: order, atomicity, blocking, ends that close, packets, sizes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from errno import EAGAIN, EBUSY, EFAULT, EINVAL, EMFILE, ENXIO, EPERM, EPIPE
from types import SimpleNamespace

import pytest
from harness import BASE, Harness
from hypothesis import given
from hypothesis import strategies as st
from pysandbox_core.abi.signal import SIGPIPE
from pysandbox_core.errors import ERESTARTSYS, LinuxError
from pysandbox_core.fs.anonymous import AnonymousInode
from pysandbox_core.fs.pipe import DEFAULT_CAPACITY, PIPE_BUF, Pipe, PipeFile, open_fifo, open_pipe
from pysandbox_core.mm.io_buffer import BytesSink, BytesSource
from pysandbox_core.syscalls.pipe import TWO_FDS, pipe, pipe2
from pysandbox_core.task import WORK_SIGNAL, Task
from pysandbox_core.waiting import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM

READABLE, WRITABLE = POLLIN | POLLRDNORM, POLLOUT | POLLWRNORM


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


@pytest.fixture
def ends(harness: Harness) -> tuple[PipeFile, PipeFile]:
    return open_pipe(harness.kernel, 0)


def read(task: Task, file: PipeFile, count: int = 1 << 20) -> bytes:
    sink = BytesSink(count)
    file.read(task, sink)
    return sink.data


def write(task: Task, file: PipeFile, data: bytes) -> int:
    return file.write(task, BytesSource(data))


def test_reader_waits_for_writer(harness: Harness, ends: tuple[PipeFile, PipeFile]) -> None:
    reader, writer = ends
    results = harness.run(
        lambda task: read(task, reader), lambda task: write(task, writer, b"hello")
    )
    assert results == [b"hello", 5]


def test_large_write_goes_through_in_order(
    harness: Harness, ends: tuple[PipeFile, PipeFile]
) -> None:
    reader, writer = ends
    data = os.urandom(3 * DEFAULT_CAPACITY + 17)

    def read_all(task: Task) -> bytes:
        parts = []
        while part := read(task, reader, 5000):
            parts.append(part)
        return b"".join(parts)

    def write_all(task: Task) -> int:
        done = write(task, writer, data)
        writer.decref()
        return done

    assert harness.run(write_all, read_all) == [len(data), data]


def test_end_of_file_and_broken_pipe(harness: Harness, ends: tuple[PipeFile, PipeFile]) -> None:
    reader, writer = ends
    assert reader.poll() == 0
    assert writer.poll() == WRITABLE
    reader.decref()
    assert writer.poll() == WRITABLE | POLLERR
    task = harness.task()
    assert harness.call(lambda task: write(task, writer, b"x"), task) == -EPIPE
    assert task.pending.mask == 1 << (SIGPIPE - 1)
    assert harness.call(lambda task: write(task, writer, b"")) == 0
    reader, writer = open_pipe(harness.kernel, 0)
    harness.call(lambda task: write(task, writer, b"rest"))
    writer.decref()
    assert reader.poll() == READABLE | POLLHUP
    assert harness.call(lambda task: read(task, reader)) == b"rest"
    assert reader.poll() == POLLHUP
    assert harness.call(lambda task: read(task, reader)) == b""


def test_closing_wakes_the_other_end(harness: Harness) -> None:
    reader, writer = open_pipe(harness.kernel, 0)
    assert harness.run(lambda task: read(task, reader), lambda task: writer.decref()) == [b"", None]
    reader, writer = open_pipe(harness.kernel, 0)
    results = harness.run(
        lambda task: write(task, writer, bytes(DEFAULT_CAPACITY + 1)),
        lambda task: reader.decref(),
    )
    assert results == [DEFAULT_CAPACITY, None]


def test_without_blocking(harness: Harness) -> None:
    reader, writer = open_pipe(harness.kernel, os.O_NONBLOCK)

    def scenario(task: Task) -> None:
        with pytest.raises(LinuxError) as error:
            read(task, reader)
        assert error.value.errno == EAGAIN
        assert write(task, writer, bytes(DEFAULT_CAPACITY - PIPE_BUF + 1)) == 61441
        with pytest.raises(LinuxError) as error:
            write(task, writer, bytes(PIPE_BUF))
        assert error.value.errno == EAGAIN  # in one piece or not at all
        assert writer.poll() == 0
        assert write(task, writer, bytes(PIPE_BUF - 1)) == PIPE_BUF - 1
        read(task, reader, 1)
        assert writer.poll() == 0
        read(task, reader, PIPE_BUF)
        assert writer.poll() == WRITABLE

    assert harness.call(scenario) is None


def test_atomic_writes_do_not_mix(harness: Harness, ends: tuple[PipeFile, PipeFile]) -> None:
    reader, writer = ends
    seen = []

    def drain(task: Task) -> None:
        for _ in range(8):
            block = b""
            while len(block) < PIPE_BUF:
                block += read(task, reader, PIPE_BUF - len(block))
            seen.append(set(block))

    harness.run(
        lambda task: write(task, writer, bytes(DEFAULT_CAPACITY - 100)),
        lambda task: write(task, writer, b"a" * PIPE_BUF),
        lambda task: write(task, writer, b"b" * PIPE_BUF),
        lambda task: read(task, reader, DEFAULT_CAPACITY - 100) and None,
    )
    data = harness.call(lambda task: read(task, reader))
    assert data in (b"a" * PIPE_BUF + b"b" * PIPE_BUF, b"b" * PIPE_BUF + b"a" * PIPE_BUF)


def test_signal_after_a_part_was_written(harness: Harness, ends: tuple[PipeFile, PipeFile]) -> None:
    _, writer = ends
    tasks = [harness.task() for _ in range(4)]
    results = harness.run(
        lambda task: write(task, writer, bytes(DEFAULT_CAPACITY + 1)),
        lambda task: write(task, writer, b"x"),
        lambda task: tasks[0].notice(WORK_SIGNAL),
        lambda task: tasks[1].notice(WORK_SIGNAL),
        tasks=tasks,
    )
    assert results == [DEFAULT_CAPACITY, -ERESTARTSYS, None, None]


def test_packets(harness: Harness) -> None:
    reader, writer = open_pipe(harness.kernel, os.O_DIRECT)

    def scenario(task: Task) -> None:
        write(task, writer, b"one")
        write(task, writer, b"two")
        write(task, writer, b"x" * (PIPE_BUF + 1))
        assert read(task, reader, 2) == b"on"
        assert read(task, reader) == b"two"
        assert len(read(task, reader)) == PIPE_BUF
        assert read(task, reader) == b"x"
        for _ in range(DEFAULT_CAPACITY // PIPE_BUF):
            write(task, writer, b"p")
        assert not writer.poll()

    assert harness.call(scenario) is None


@given(st.lists(st.one_of(st.binary(max_size=9000), st.integers(1, 9000)), max_size=40))
def test_bytes_come_out_as_they_went_in(steps: list[bytes | int]) -> None:
    pipe, model = Pipe(), b""
    for step in steps:
        if isinstance(step, bytes):
            if step and len(step) <= pipe.capacity - pipe.used:
                pipe.put(step)
                model += step
        else:
            sink = BytesSink(step)
            pipe.take(sink)
            assert sink.data == model[:step]
            model = model[step:]
        assert pipe.used == pipe.readable_bytes() == len(model)
        assert pipe.peek(5000) == model[:5000]


def test_bad_addresses(harness: Harness, ends: tuple[PipeFile, PipeFile]) -> None:
    reader, writer = ends
    end = BASE + 0x40000

    def scenario(task: Task) -> None:
        mm = task.mm
        with pytest.raises(LinuxError) as error:
            writer.write(task, mm.source(0x10, 5))
        assert error.value.errno == EFAULT
        assert writer.write(task, mm.source(end - 3, 5)) == 3
        with pytest.raises(LinuxError) as error:
            reader.read(task, mm.sink(0x10, 5))
        assert error.value.errno == EFAULT
        assert reader.read(task, mm.sink(end - 1, 5)) == 1
        assert reader.read(task, mm.sink(BASE, 5)) == 2

    assert harness.call(scenario) is None


def test_sizes(harness: Harness, ends: tuple[PipeFile, PipeFile]) -> None:
    reader, writer = ends
    pipe = reader.pipe
    user, root = harness.task(), harness.task(uid=0)
    assert harness.call(lambda task: pipe.resize(task, 1)) == PIPE_BUF
    assert harness.call(lambda task: pipe.resize(task, PIPE_BUF + 1)) == 2 * PIPE_BUF
    assert harness.call(lambda task: pipe.resize(task, 1 << 20)) == 1 << 20
    assert harness.call(lambda task: pipe.resize(task, (1 << 20) + 1), user) == -EPERM
    assert harness.call(lambda task: pipe.resize(task, 1 << 21), root) == 1 << 21
    assert harness.call(lambda task: pipe.resize(task, (1 << 31) + 1)) == -EINVAL
    harness.call(lambda task: write(task, writer, bytes(PIPE_BUF + 1)))
    assert harness.call(lambda task: pipe.resize(task, PIPE_BUF)) == -EBUSY


def test_pipe_calls(harness: Harness) -> None:
    task = harness.task()
    assert harness.call(lambda task: pipe(task, BASE), task) == 0
    assert harness.mm.unpack(BASE, TWO_FDS) == (0, 1)
    assert harness.call(lambda task: pipe2(task, BASE, os.O_CLOEXEC | os.O_NONBLOCK), task) == 0
    assert task.files.cloexec == {2, 3}
    assert task.files.get(3).flags & os.O_NONBLOCK
    assert harness.call(lambda task: pipe2(task, BASE, os.O_APPEND), task) == -EINVAL
    assert harness.call(lambda task: pipe(task, 0x10), task) == -EFAULT
    task.group.limits.nofile = 5
    assert harness.call(lambda task: pipe(task, BASE), task) == -EMFILE
    assert [fd for fd, _ in task.files.open_fds()] == [0, 1, 2, 3]


class FakePath(SimpleNamespace):
    def incref(self) -> None:
        pass

    def decref(self) -> None:
        pass


def test_fifo_opens_wait_for_each_other(harness: Harness) -> None:
    inode = AnonymousInode(harness.kernel, stat.S_IFIFO | 0o600)
    files = []

    def opener(flags: int) -> None:
        def run(task: Task) -> int:
            file = open_fifo(task, inode, FakePath(), flags)
            files.append((flags, file))
            return 0

        return run

    assert harness.call(opener(os.O_WRONLY | os.O_NONBLOCK)) == -ENXIO
    assert harness.run(opener(os.O_RDONLY), opener(os.O_WRONLY)) == [0, 0]
    assert harness.run(opener(os.O_WRONLY), opener(os.O_RDONLY)) == [0, 0]
    pipes = {file.pipe for _, file in files}
    assert len(pipes) == 1
    for _, file in files:
        file.decref()
    assert harness.run(opener(os.O_WRONLY), opener(os.O_RDWR)) == [0, 0]
    files.clear()


def test_fifo_opened_early_does_not_hang_up(harness: Harness) -> None:
    inode = AnonymousInode(harness.kernel, stat.S_IFIFO | 0o600)
    nonblock = os.O_RDONLY | os.O_NONBLOCK
    reader = harness.call(lambda task: open_fifo(task, inode, FakePath(), nonblock))
    assert reader.poll() == 0
    assert harness.call(lambda task: read(task, reader)) == b""
    writer = harness.call(lambda task: open_fifo(task, inode, FakePath(), os.O_WRONLY))
    assert harness.call(lambda task: read(task, reader)) == -EAGAIN
    writer.decref()
    assert reader.poll() == POLLHUP


def test_interrupted_open_leaves_nothing(harness: Harness) -> None:
    inode = AnonymousInode(harness.kernel, stat.S_IFIFO | 0o600)
    tasks = [harness.task(), harness.task()]
    results = harness.run(
        lambda task: open_fifo(task, inode, FakePath(), os.O_RDONLY),
        lambda task: tasks[0].notice(WORK_SIGNAL),
        tasks=tasks,
    )
    assert results[0] == -ERESTARTSYS
    assert (
        harness.call(lambda task: open_fifo(task, inode, FakePath(), os.O_WRONLY | os.O_NONBLOCK))
        == -ENXIO
    )


def test_closed_fifo_keeps_nothing(harness: Harness) -> None:
    inode = AnonymousInode(harness.kernel, stat.S_IFIFO | 0o600)
    file = harness.call(lambda task: open_fifo(task, inode, FakePath(), os.O_RDWR))
    harness.call(lambda task: write(task, file, b"x"))
    file.decref()
    assert not file.pipe.chunks
    assert not file.pipe.used


def test_both_ways_fifo_is_told_of_both_events(harness: Harness) -> None:
    inode = AnonymousInode(harness.kernel, stat.S_IFIFO | 0o600)
    both = harness.call(lambda task: open_fifo(task, inode, FakePath(), os.O_RDWR))
    results = harness.run(
        lambda task: task.block(both.queue) and both.poll(),
        lambda task: write(task, both, b"x"),
    )
    assert results == [READABLE | WRITABLE, 1]
