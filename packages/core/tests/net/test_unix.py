"""AF_UNIX sockets: connections, names, messages, files and credentials that are passed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import (
    EADDRINUSE,
    EAGAIN,
    EBADF,
    ECONNREFUSED,
    ECONNRESET,
    EDOM,
    EINVAL,
    EISCONN,
    EMSGSIZE,
    ENOPROTOOPT,
    ENOTCONN,
    ENOTSOCK,
    EOPNOTSUPP,
    EPERM,
    EPIPE,
    ETOOMANYREFS,
)
from struct import Struct

import pytest
from harness import BASE, Harness
from pysandbox_core.abi import socket as abi
from pysandbox_core.abi.signal import SIGPIPE
from pysandbox_core.abi.time import TIMEVAL
from pysandbox_core.fs.eventfd import EventFile
from pysandbox_core.fs.pipe import open_pipe
from pysandbox_core.net import unix_passing
from pysandbox_core.net.network import Network, network
from pysandbox_core.syscalls import sockets as calls
from pysandbox_core.task import Task
from pysandbox_core.waiting import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP
from socket_user import (
    ADDR,
    BUFFER,
    CLOEXEC,
    DGRAM,
    LENGTH,
    NONBLOCK,
    SEQPACKET,
    STREAM,
    VALUE,
    User,
)


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


@pytest.fixture
def user(harness: Harness) -> User:
    return User(harness)


def test_stream_pair(user: User) -> None:
    a, b = user.pair(STREAM)
    assert user.recv(b) == -EAGAIN
    assert user.poll(b) == POLLOUT
    assert user.send(a, b"hello ") == 6
    assert user.send(a, b"world") == 5
    assert user.poll(b) == POLLIN | POLLOUT
    assert user.recv(b, 4, abi.MSG_DONTWAIT | abi.MSG_PEEK) == b"hell"
    assert user.recv(b, 8) == b"hello wo"
    assert user.recv(b) == b"rld"
    assert user.name(calls.getpeername, a) == b"\1\0"


def test_flags_of_new_sockets(user: User) -> None:
    a, b = user.pair(STREAM | NONBLOCK | CLOEXEC)
    assert user.task.files.cloexec == {a, b}
    assert user.task.files.get(a).flags & os.O_NONBLOCK
    assert user.recv(a, flags=0) == -EAGAIN
    assert user.socket(STREAM | 0x10000) == -EINVAL
    assert user.socket(7) < 0
    assert user.call(calls.socket, 45, STREAM, 0) < 0


def test_stream_hang_up(user: User) -> None:
    a, b = user.pair(STREAM)
    user.send(a, b"rest")
    user.close(a)
    assert user.poll(b) == POLLIN | POLLOUT | POLLHUP | POLLRDHUP
    assert user.recv(b) == b"rest"
    assert user.recv(b) == b""
    assert user.send(b, b"x") == -EPIPE
    assert user.task.pending.mask == 1 << (SIGPIPE - 1)
    user.task.pending.take(SIGPIPE)
    assert user.send(b, b"x", abi.MSG_NOSIGNAL) == -EPIPE
    assert not user.task.pending.mask


def test_closing_with_unread_data_resets(user: User) -> None:
    a, b = user.pair(STREAM)
    user.send(a, b"unread")
    user.close(b)
    assert user.poll(a) & POLLERR
    assert user.recv(a) == -ECONNRESET
    assert user.recv(a) == b""


def test_stream_blocks_and_fills(harness: Harness, user: User) -> None:
    a, b = user.pair(STREAM)
    data = os.urandom(200_000)
    harness.mm.write(BUFFER, data[:200_000])
    other = harness.task(user.task.group)
    received = []

    def reader(task: Task) -> int:
        total = 0
        while total < 400_000:
            total += calls.recvfrom(task, b, BASE + 0x3A000, 0x5000, 0, 0, 0)
            received.append(total)
        return total

    def writer(task: Task) -> int:
        return sum(calls.sendto(task, a, BUFFER, 200_000, 0, 0, 0) for _ in range(2))

    assert harness.run(writer, reader, tasks=[user.task, other]) == [400_000, 400_000]
    while (sent := user.send(a, bytes(50_000))) > 0:
        last = sent
    assert sent == -EAGAIN
    assert last <= 50_000
    assert not user.poll(a) & POLLOUT


def test_waitall_and_timeouts(harness: Harness, user: User) -> None:
    a, b = user.pair(STREAM)
    other = harness.task(user.task.group)
    harness.mm.write(BUFFER, b"abcd")
    results = harness.run(
        lambda task: calls.recvfrom(task, b, VALUE, 4, abi.MSG_WAITALL, 0, 0),
        lambda task: [calls.sendto(task, a, BUFFER + i, 1, 0, 0, 0) for i in range(4)],
        tasks=[user.task, other],
    )
    assert results == [4, [1, 1, 1, 1]]
    assert user.set(b, abi.SO_RCVTIMEO, TIMEVAL.pack(0, 1000)) == 0
    assert user.option(b, abi.SO_RCVTIMEO, 16) == TIMEVAL.pack(0, 1000)
    assert user.recv(b, flags=0) == -EAGAIN
    assert user.set(b, abi.SO_RCVTIMEO, TIMEVAL.pack(0, 10**6)) == -EDOM


def test_shutdown(user: User) -> None:
    a, b = user.pair(STREAM)
    assert user.call(calls.shutdown, a, 3) == -EINVAL
    user.send(a, b"last")
    assert user.call(calls.shutdown, a, abi.SHUT_WR) == 0
    assert user.poll(b) == POLLIN | POLLOUT | POLLRDHUP
    assert user.recv(b) == b"last"
    assert user.recv(b) == b""
    assert user.send(a, b"x", abi.MSG_NOSIGNAL) == -EPIPE
    assert user.send(b, b"back") == 4
    assert user.recv(a) == b"back"
    assert user.call(calls.shutdown, a, abi.SHUT_RD) == 0
    assert user.poll(a) & POLLHUP
    assert user.send(b, b"x", abi.MSG_NOSIGNAL) == -EPIPE


def test_listen_connect_accept(harness: Harness, user: User) -> None:
    server, client = user.socket(STREAM), user.socket(STREAM)
    assert user.call(calls.listen, server, 5) == -EINVAL
    assert user.connect(client, b"\0name") == -ECONNREFUSED
    assert user.bind(server, b"\0name") == 0
    assert user.bind(server, b"\0other") == -EINVAL
    assert user.bind(client, b"\0name") == -EADDRINUSE
    assert user.connect(client, b"\0name") == -ECONNREFUSED
    assert user.accept(server) == -EINVAL
    assert user.call(calls.listen, server, 5) == 0
    assert user.number(server, abi.SO_ACCEPTCONN) == 1
    assert user.poll(client) & POLLHUP
    assert user.recv(client) == -EINVAL
    assert user.send(client, b"x") == -ENOTCONN
    assert user.connect(user.socket(DGRAM), b"\0name") == -ECONNREFUSED
    assert user.connect(client, b"\0name") == 0
    assert user.connect(client, b"\0name") == -EISCONN
    assert user.poll(server) == POLLIN
    assert user.send(client, b"early") == 5
    connection = user.accept(server)
    assert user.recv(connection) == b"early"
    assert user.name(calls.getsockname, connection) == b"\1\0\0name"
    assert user.name(calls.getpeername, client) == b"\1\0\0name"
    assert user.name(calls.getpeername, connection) == b"\1\0"
    assert user.name(calls.getpeername, server) == -ENOTCONN
    user.close(server)
    assert user.connect(user.socket(STREAM), b"\0name") == -ECONNREFUSED


def test_accept_waits_and_backlog_holds_back(harness: Harness, user: User) -> None:
    server = user.socket(STREAM)
    user.bind(server, b"\0name")
    user.call(calls.listen, server, 0)
    clients = [user.socket(STREAM | NONBLOCK) for _ in range(3)]
    assert user.connect(clients[0], b"\0name") == 0
    assert user.connect(clients[1], b"\0name") == -EAGAIN
    blocking = user.socket(STREAM)
    other = harness.task(user.task.group)
    results = harness.run(
        lambda task: calls.connect(task, blocking, ADDR, 7),
        lambda task: [calls.accept(task, server, 0, 0) > 0 for _ in range(2)],
        tasks=[user.task, other],
    )
    assert results == [0, [True, True]]


def test_a_closed_listener_resets_who_waits(user: User) -> None:
    server, client = user.socket(STREAM), user.socket(STREAM)
    user.bind(server, b"\0name")
    user.call(calls.listen, server, 5)
    user.connect(client, b"\0name")
    user.close(server)
    assert user.recv(client) == -ECONNRESET
    assert user.send(client, b"x", abi.MSG_NOSIGNAL) == -EPIPE
    assert list(network(user.harness.kernel).unix_sockets) == [user.task.files.get(client)]


def test_autobind(user: User) -> None:
    fd = user.socket(DGRAM)
    assert user.bind(fd, b"") == 0
    name = user.name(calls.getsockname, fd)
    assert name[:3] == b"\1\0\0"
    assert len(name) == 8
    other = user.socket(DGRAM)
    assert user.send_to(other, b"x", name[2:]) == 1
    assert user.recv(fd) == b"x"


def test_datagrams(user: User) -> None:
    a, b = user.pair(DGRAM)
    assert user.send(a, b"one") == 3
    assert user.send(a, b"") == 0
    assert user.send(a, b"three") == 5
    assert user.recv(b, 2) == b"on"
    assert user.recv(b) == b""
    assert user.call(calls.recvfrom, b, BUFFER, 2, abi.MSG_TRUNC | abi.MSG_PEEK, 0, 0) == 5
    data, _, flags = user.recvmsg(b, size=2)
    assert (data, flags) == (b"th", abi.MSG_TRUNC)
    assert user.send(a, bytes(212992)) == -EMSGSIZE
    user.close(b)
    assert user.send(a, b"x") == -ECONNREFUSED
    assert user.send(a, b"x") == -ENOTCONN


def test_datagrams_by_address(user: User) -> None:
    server, client, third = (user.socket(DGRAM) for _ in range(3))
    user.bind(server, b"\0server")
    user.bind(client, b"\0client")
    assert user.send(client, b"x") == -ENOTCONN
    assert user.send_to(client, b"hi", b"\0server") == 2
    user.mm.write_u32(LENGTH, 110)
    assert user.call(calls.recvfrom, server, BUFFER, 10, 0, ADDR, LENGTH) == 2
    assert user.mm.read(ADDR, user.mm.read_u32(LENGTH)) == b"\1\0\0client"
    assert user.connect(server, b"\0client") == 0
    assert user.send_to(third, b"no", b"\0server") == -EPERM
    assert user.send_to(client, b"yes", b"\0server") == 3
    user.mm.write(ADDR, b"\0\0")
    assert user.call(calls.connect, server, ADDR, 2) == 0
    assert user.send_to(third, b"now", b"\0server") == 3
    assert user.call(calls.listen, server, 1) == -EOPNOTSUPP


def test_datagram_queue_is_limited(user: User) -> None:
    server, client = user.socket(DGRAM), user.socket(DGRAM)
    user.bind(server, b"\0server")
    user.set(client, abi.SO_SNDBUF, 212992)
    count = 0
    while (result := user.send_to(client, b"x", b"\0server")) == 1:
        count += 1
    assert result == -EAGAIN
    assert 200 < count < 1000
    assert user.recv(server) == b"x"
    assert user.send_to(client, b"x", b"\0server") in (1, -EAGAIN)


def test_seqpacket(user: User) -> None:
    a, b = user.pair(SEQPACKET)
    user.send(a, b"one")
    user.send(a, b"two")
    assert user.recv(b, 100) == b"one"
    assert user.recv(b, 1) == b"t"
    user.close(a)
    assert user.recv(b) == b""
    assert user.send(b, b"x") == -EPIPE
    assert not user.task.pending.mask
    server, client = user.socket(SEQPACKET), user.socket(SEQPACKET)
    assert user.recv(client) == -ENOTCONN
    user.bind(server, b"\0seq")
    user.call(calls.listen, server, 1)
    assert user.connect(client, b"\0seq") == 0
    assert user.send(client, b"hi") == 2
    assert user.recv(user.accept(server)) == b"hi"


def test_files_are_passed(user: User) -> None:
    a, b = user.pair(STREAM)
    event = EventFile(user.harness.kernel, 0, 0, False)
    fd = user.task.files.install(user.task, event)
    assert user.send_fds(a, fd, fd) == 1
    user.close(fd)
    assert event.refs == 2
    data, control, flags = user.recvmsg(b, flags=abi.MSG_CMSG_CLOEXEC)
    assert (data, flags) == (b"f", 0)
    [(type_, body)] = control
    fds = Struct("<2i").unpack(body)
    assert type_ == abi.SCM_RIGHTS
    assert [user.task.files.get(fd) for fd in fds] == [event, event]
    assert user.task.files.cloexec == set(fds)
    assert not network(user.harness.kernel).in_flight
    assert user.send_fds(a, 99) == -EBADF


def test_files_break_the_stream_and_peeking_duplicates(user: User) -> None:
    a, b = user.pair(STREAM)
    event = EventFile(user.harness.kernel, 0, 0, False)
    fd = user.task.files.install(user.task, event)
    user.send(a, b"before")
    user.send_fds(a, fd)
    user.send(a, b"after")
    assert user.recvmsg(b)[:2] == (b"before", [])
    assert len(user.recvmsg(b, flags=abi.MSG_PEEK)[1]) == 1
    data, control, _ = user.recvmsg(b)
    assert (data, len(control)) == (b"f", 1)
    assert event.refs == 3
    assert user.recv(b) == b"after"


def test_files_that_do_not_fit_are_closed(user: User) -> None:
    a, b = user.pair(DGRAM)
    event = EventFile(user.harness.kernel, 0, 0, False)
    fd = user.task.files.install(user.task, event)
    user.send_fds(a, fd, fd, fd)
    _, control, flags = user.recvmsg(b, control=20)
    assert flags == abi.MSG_CTRUNC
    assert len(control) == 1
    assert event.refs == 2
    user.send_fds(a, fd)
    assert user.recv(b) == b"f"
    assert event.refs == 2
    user.send_fds(a, fd)
    user.close(b)
    assert event.refs == 2
    assert not network(user.harness.kernel).in_flight


def test_files_in_flight_are_limited(user: User) -> None:
    a, _ = user.pair(STREAM)
    user.task.group.limits.nofile = 10
    results = [user.send_fds(a, a) for _ in range(13)]
    assert results[:11] == [1] * 11
    assert results[-1] == -ETOOMANYREFS


def test_circles_of_passed_sockets_are_collected(user: User) -> None:
    net = network(user.harness.kernel)
    a, b = user.pair(STREAM)
    event = EventFile(user.harness.kernel, 0, 0, False)
    fd = user.task.files.install(user.task, event)
    user.send_fds(a, b, fd)  # b is in its own inbox, and will only be there
    user.send_fds(b, a)
    for each in (a, b, fd):
        user.close(each)
    assert event.refs == 1
    for each in user.pair(STREAM):
        user.close(each)
    assert not net.unix_sockets
    assert event.refs == 0
    assert not net.in_flight


def test_circles_among_many_sockets_are_collected_later(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_passing, "_DELAY_MIN_NS", 0)
    kernel = user.harness.kernel
    others = [user.pair(STREAM) for _ in range(50)]
    a, b = user.pair(STREAM)
    event = EventFile(kernel, 0, 0, False)
    fd = user.task.files.install(user.task, event)
    user.send_fds(a, b, fd)
    user.send_fds(b, a)
    for each in (a, b, fd):
        user.close(each)
    user.close(others[0][0])
    assert event.refs == 1
    kernel.timers.run_due()
    assert event.refs == 0
    assert not network(kernel).in_flight


def test_a_circle_is_collected_although_no_socket_is_closed_after_it(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_passing, "_DELAY_MIN_NS", 0)
    monkeypatch.setattr(unix_passing, "_PAUSE_FACTOR", 0)
    kernel = user.harness.kernel
    a, b = user.pair(STREAM)
    event = EventFile(kernel, 0, 0, False)
    fd = user.task.files.install(user.task, event)
    user.send_fds(b, a, fd)  # a is in its own inbox
    for each in (fd, b, a):
        user.close(each)
    assert event.refs == 1
    kernel.timers.run_due()
    assert event.refs == 0
    assert not network(kernel).unix_sockets


def test_circles_are_not_looked_for_at_every_close(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends closes all that it has."""
    others = [user.pair(STREAM) for _ in range(50)]
    a, b = user.pair(STREAM)
    user.send_fds(a, a)
    looks: list[Network] = []
    monkeypatch.setattr(unix_passing, "_drop_circles", looks.append)
    for pair in others:
        for each in pair:
            user.close(each)
    assert 0 < len(looks) < 40
    assert user.recv(b) == b"f"


def test_sockets_still_to_be_received_are_kept(user: User) -> None:
    net = network(user.harness.kernel)
    keep, carrier = user.pair(STREAM)
    a, b = user.pair(STREAM)
    user.send_fds(keep, a, b)
    user.send_fds(a, b)
    user.close(a)
    user.close(b)
    for each in user.pair(STREAM):
        user.close(each)
    assert len(net.unix_sockets) == 4
    _, control, _ = user.recvmsg(carrier)
    assert len(control[0][1]) == 8


def test_a_circle_through_an_unaccepted_connection(user: User) -> None:
    net = network(user.harness.kernel)
    server, client = user.socket(STREAM), user.socket(STREAM)
    user.bind(server, b"\0name")
    user.call(calls.listen, server, 5)
    user.connect(client, b"\0name")
    user.send_fds(client, server)
    user.close(server)
    user.close(client)
    for each in user.pair(STREAM):
        user.close(each)
    assert not net.unix_sockets


def test_credentials(harness: Harness, user: User) -> None:
    a, b = user.pair(STREAM)
    pid = user.task.group.pid
    assert user.option(a, abi.SO_PEERCRED, 12) == abi.UCRED.pack(pid, 1000, 1000)
    assert user.set(b, abi.SO_PASSCRED, 1) == 0
    user.send(a, b"x")
    _, control, _ = user.recvmsg(b)
    assert control == [(abi.SCM_CREDENTIALS, abi.UCRED.pack(pid, 1000, 1000))]
    assert user.sendmsg(a, b"x", (abi.SCM_CREDENTIALS, abi.UCRED.pack(pid, 1000, 1000))) == 1
    assert user.sendmsg(a, b"x", (abi.SCM_CREDENTIALS, abi.UCRED.pack(pid, 0, 1000))) == -EPERM
    assert user.sendmsg(a, b"x", (abi.SCM_CREDENTIALS, b"short")) == -EINVAL
    assert user.sendmsg(a, b"x", (77, b"")) == -EINVAL
    root = User(harness, uid=0)
    c, d = root.pair(STREAM)
    root.set(d, abi.SO_PASSCRED, 1)
    assert root.sendmsg(c, b"x", (abi.SCM_CREDENTIALS, abi.UCRED.pack(pid, 5, 6))) == 1
    assert root.recvmsg(d)[1] == [(abi.SCM_CREDENTIALS, abi.UCRED.pack(pid, 5, 6))]


def test_options(user: User) -> None:
    a, _ = user.pair(STREAM)
    assert user.number(a, abi.SO_TYPE) == STREAM
    assert user.number(a, abi.SO_DOMAIN) == abi.AF_UNIX
    assert user.number(a, abi.SO_ERROR) == 0
    assert user.number(a, abi.SO_SNDBUF) == 212992
    user.set(a, abi.SO_SNDBUF, 1)
    assert user.number(a, abi.SO_SNDBUF) == 4608
    user.set(a, abi.SO_RCVBUF, 10_000)
    assert user.number(a, abi.SO_RCVBUF) == 20_000
    assert user.set(a, abi.SO_REUSEADDR, 1) == 0
    assert user.number(a, abi.SO_REUSEADDR) == 1
    assert user.number(a, 999) == -ENOPROTOOPT
    assert user.set(a, 999, 1) == -ENOPROTOOPT
    assert user.set(a, abi.SO_MARK, 1) == -EPERM
    assert user.set(a, abi.SO_REUSEADDR, b"12") == -EINVAL
    reader, _ = open_pipe(user.harness.kernel, 0)
    pipe = user.task.files.install(user.task, reader)
    assert user.call(calls.getsockname, pipe, ADDR, LENGTH) == -ENOTSOCK
    assert user.call(calls.listen, 99, 1) == -EBADF


def test_bad_addresses(user: User) -> None:
    fd = user.socket(STREAM)
    user.mm.write(ADDR, b"\2\0abc")
    assert user.call(calls.bind, fd, ADDR, 5) == -EINVAL
    assert user.call(calls.bind, fd, ADDR, 1) == -EINVAL
    assert user.call(calls.bind, fd, ADDR, 129) == -EINVAL
    assert user.call(calls.bind, fd, ADDR, -1) == -EINVAL
    user.mm.write(ADDR, b"\1\0" + b"x" * 110)
    assert user.call(calls.bind, fd, ADDR, 112) == -EINVAL
