"""POSIX message queues."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import (
    EACCES,
    EAGAIN,
    EBADF,
    EBUSY,
    EEXIST,
    EINVAL,
    EMFILE,
    EMSGSIZE,
    ENOENT,
    ETIMEDOUT,
)
from types import SimpleNamespace

import pytest
from harness import BASE, Harness
from pysandbox_core.abi.signal import SIGRTMIN, SIGUSR1
from pysandbox_core.abi.time import TIMESPEC
from pysandbox_core.ipc.posix_queues import queues
from pysandbox_core.net import netlink
from pysandbox_core.syscalls import posix_mq as calls
from pysandbox_core.task import Task
from pysandbox_core.waiting import POLLIN, POLLOUT

NAME, ATTR, BUFFER, PRIORITY = BASE, BASE + 0x100, BASE + 0x1000, BASE + 0x200
EVENT, TIME = BASE + 0x300, BASE + 0x400
CREATE = os.O_RDWR | os.O_CREAT


class User:
    """One task with a queue open at 0."""

    def __init__(self, harness: Harness, uid: int = 1000) -> None:
        self.harness, self.mm = harness, harness.mm
        self.task = harness.task(uid=uid)
        self.task.fs = SimpleNamespace(umask=0o022)

    def call(self, function: object, *arguments: int) -> int:
        return self.harness.call(lambda task: function(task, *arguments), self.task)

    def open(
        self, name: bytes = b"q", flags: int = CREATE, maxmsg: int = 2, msgsize: int = 8
    ) -> int:
        self.mm.write(NAME, name + b"\0")
        self.mm.pack(ATTR, calls.MQ_ATTR, 0, maxmsg, msgsize, 0)
        return self.call(calls.mq_open, NAME, flags, 0o600, ATTR)

    def send(self, data: bytes, priority: int = 0, fd: int = 0, timeout: int = 0) -> int:
        self.mm.write(BUFFER, data)
        return self.call(calls.mq_timedsend, fd, BUFFER, len(data), priority, timeout)

    def receive(self, size: int = 8, timeout: int = 0) -> tuple[bytes, int] | int:
        result = self.call(calls.mq_timedreceive, 0, BUFFER, size, PRIORITY, timeout)
        return result if result < 0 else (self.mm.read(BUFFER, result), self.mm.read_u32(PRIORITY))

    def notify(self, notify: int, signo: int, value: int = 0) -> int:
        self.mm.pack(EVENT, calls.SIGEVENT, value, signo, notify, 0)
        return self.call(calls.mq_notify, 0, EVENT)


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


@pytest.fixture
def user(harness: Harness) -> User:
    user = User(harness)
    assert user.open() == 0
    return user


def test_order_is_by_priority_then_age(user: User) -> None:
    assert user.open(b"big", maxmsg=10) == 1
    user.task.files.set(0, user.task.files.take(1), True).decref()
    for data, priority in ((b"a", 1), (b"b", 5), (b"c", 5), (b"", 0)):
        assert user.send(data, priority) == 0
    assert [user.receive() for _ in range(4)] == [(b"b", 5), (b"c", 5), (b"a", 1), (b"", 0)]


def test_blocking_and_timeouts(harness: Harness, user: User) -> None:
    other = harness.task(user.task.group)
    harness.mm.write(BUFFER, b"x")
    results = harness.run(
        lambda task: calls.mq_timedreceive(task, 0, BUFFER + 8, 8, 0, 0),
        lambda task: calls.mq_timedsend(task, 0, BUFFER, 1, 0, 0),
        tasks=[user.task, other],
    )
    assert results == [1, 0]
    harness.mm.pack(TIME, TIMESPEC, 1, 0)
    assert user.receive(timeout=TIME) == -ETIMEDOUT
    assert [user.send(b"x", timeout=TIME) for _ in range(3)] == [0, 0, -ETIMEDOUT]
    harness.mm.pack(TIME, TIMESPEC, 0, 10**9)
    assert user.receive(timeout=TIME) == -EINVAL
    harness.mm.pack(ATTR, calls.MQ_ATTR, os.O_NONBLOCK, 0, 0, 0)
    assert user.call(calls.mq_getsetattr, 0, ATTR, ATTR) == 0
    assert harness.mm.unpack(ATTR, calls.MQ_ATTR) == (0, 2, 8, 2)
    assert user.send(b"x") == -EAGAIN
    assert user.task.files.get(0).poll() & (POLLIN | POLLOUT) == POLLIN
    user.receive()
    user.receive()
    assert user.receive() == -EAGAIN
    assert user.task.files.get(0).poll() & (POLLIN | POLLOUT) == POLLOUT


def test_errors(harness: Harness, user: User) -> None:
    assert user.open(flags=CREATE | os.O_EXCL) == -EEXIST
    assert user.open(b"other", flags=os.O_RDWR) == -ENOENT
    assert user.open(b"a/b") == -EACCES
    assert user.open(b"") == -ENOENT
    assert user.open(b"other", maxmsg=11) == -EINVAL
    assert user.open(b"other", msgsize=0) == -EINVAL
    assert user.send(b"123456789") == -EMSGSIZE
    assert user.send(b"", 32768) == -EINVAL
    assert user.receive(7) == -EMSGSIZE
    assert user.send(b"", fd=9) == -EBADF
    reader = user.open(flags=os.O_RDONLY)
    assert user.send(b"", fd=reader) == -EBADF
    stranger = User(harness, uid=2000)
    assert stranger.open() == -EACCES
    assert stranger.call(calls.mq_unlink, NAME) == -EACCES
    user.task.group.limits.msgqueue = 2000
    assert user.open(b"huge", maxmsg=10, msgsize=100) == 2
    assert user.open(b"huge too", maxmsg=10, msgsize=100) == -EMFILE


def test_unlinked_queues_live_until_closed(user: User) -> None:
    names = queues(user.harness.kernel)
    assert user.call(calls.mq_unlink, NAME) == 0
    assert user.call(calls.mq_unlink, NAME) == -ENOENT
    assert user.send(b"x") == 0
    assert names.charged[1000] > 0
    user.task.files.close(user.task, 0)
    assert names.charged[1000] == 0


def test_notification_by_signal(user: User) -> None:
    user.task.sigmask = -1
    assert user.notify(calls.SIGEV_SIGNAL, SIGUSR1, 77) == 0
    assert user.notify(calls.SIGEV_SIGNAL, SIGUSR1) == -EBUSY
    user.send(b"x")
    assert user.task.group.pending.mask == 1 << (SIGUSR1 - 1)
    assert user.notify(calls.SIGEV_NONE, 0) == 0
    assert user.call(calls.mq_notify, 0, 0) == 0
    assert user.notify(calls.SIGEV_SIGNAL, 0) == -EINVAL
    assert user.notify(9, 0) == -EINVAL


def test_message_whose_signal_has_no_room_is_sent(user: User) -> None:
    user.task.sigmask = -1
    user.task.group.limits.sigpending = 0
    assert user.notify(calls.SIGEV_SIGNAL, SIGRTMIN) == 0
    assert user.send(b"x") == 0
    assert not user.task.group.pending.mask
    assert user.receive() == (b"x", 0)


def test_notification_of_a_thread_is_a_cookie(harness: Harness, user: User) -> None:
    socket = harness.call(lambda task: netlink.new_socket(task, 3, 0, 0), user.task)
    fd = user.task.files.install(user.task, socket)
    harness.mm.write(BUFFER + 64, bytes(range(32)))
    assert user.notify(calls.SIGEV_THREAD, fd, BUFFER + 64) == 0
    user.send(b"x")
    assert socket.inbox.popleft() == bytes(range(31)) + b"\1"
    assert socket.refs == 1
    assert user.notify(calls.SIGEV_THREAD, fd, BUFFER + 64) == 0
    user.task.files.close(user.task, 0)
    assert socket.inbox.popleft()[-1] == 2
    assert socket.refs == 1


def test_nobody_is_told_while_somebody_waits(harness: Harness, user: User) -> None:
    user.task.sigmask = -1
    user.notify(calls.SIGEV_SIGNAL, SIGUSR1)
    other = harness.task(user.task.group)

    def send(task: Task) -> int:
        return calls.mq_timedsend(task, 0, BUFFER, 1, 0, 0)

    harness.run(
        lambda task: calls.mq_timedreceive(task, 0, BUFFER + 8, 8, 0, 0), send,
        tasks=[user.task, other],
    )  # fmt: skip
    assert not user.task.group.pending.mask
