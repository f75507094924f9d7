"""TCP and UDP on the sandbox's loopback, IPv4 and IPv6, and what rtnetlink tells of it."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from errno import (
    EACCES,
    EADDRINUSE,
    EADDRNOTAVAIL,
    EAFNOSUPPORT,
    EAGAIN,
    ECONNREFUSED,
    ECONNRESET,
    EDESTADDRREQ,
    EINPROGRESS,
    EINVAL,
    EISCONN,
    EMSGSIZE,
    ENETUNREACH,
    ENODEV,
    ENOPROTOOPT,
    ENOTCONN,
    EPERM,
    EPIPE,
    EPROTONOSUPPORT,
)
from struct import pack

import pytest
from harness import Harness
from pysandbox_core.abi import inet
from pysandbox_core.abi import socket as abi
from pysandbox_core.net import interface, netlink
from pysandbox_core.net.network import network
from pysandbox_core.syscalls import sockets as calls
from pysandbox_core.task import Task
from pysandbox_core.waiting import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP
from socket_user import ADDR, BUFFER, DGRAM, LENGTH, NONBLOCK, STREAM, VALUE, User

HOST = b"\x7f\0\0\1"
OTHER_HOST = b"\x7f\0\0\2"
ANY = bytes(4)
PORT = 5000
PLAIN = abi.MSG_DONTWAIT | abi.MSG_NOSIGNAL


class V4User(User):
    """Talks AF_INET; addresses are 4 bytes and a port."""

    FAMILY = abi.AF_INET

    def name_of(self, host: bytes, port: int) -> bytes:
        return port.to_bytes(2, "big") + host + bytes(8)

    def bind_to(self, fd: int, host: bytes = HOST, port: int = PORT) -> int:
        return self.bind(fd, self.name_of(host, port))

    def connect_to(self, fd: int, host: bytes = HOST, port: int = PORT) -> int:
        return self.connect(fd, self.name_of(host, port))

    def own_name(self, fd: int) -> tuple[bytes, int]:
        return self.split(self.name(calls.getsockname, fd))

    def peer_name(self, fd: int) -> tuple[bytes, int] | int:
        name = self.name(calls.getpeername, fd)
        return name if isinstance(name, int) else self.split(name)

    def split(self, name: bytes) -> tuple[bytes, int]:
        return name[4:8], int.from_bytes(name[2:4], "big")

    def server(self, host: bytes = HOST, backlog: int = 5) -> int:
        fd = self.socket(STREAM)
        assert self.bind_to(fd, host) == 0
        assert self.call(calls.listen, fd, backlog) == 0
        return fd

    def connection(self, server: int) -> tuple[int, int]:
        """(client, accepted)"""
        client = self.socket(STREAM)
        assert self.connect_to(client) == 0
        return client, self.accept(server)

    def set_ip(self, fd: int, level: int, name: int, value: int) -> int:
        self.mm.write(VALUE, value.to_bytes(4, "little", signed=True))
        return self.call(calls.setsockopt, fd, level, name, VALUE, 4)

    def get_ip(self, fd: int, level: int, name: int) -> int:
        self.mm.write_u32(LENGTH, 4)
        result = self.call(calls.getsockopt, fd, level, name, VALUE, LENGTH)
        return result or int.from_bytes(self.mm.read(VALUE, 4), "little", signed=True)


class V6User(V4User):
    """Talks AF_INET6; addresses are 16 bytes and a port."""

    FAMILY = abi.AF_INET6

    def name_of(self, host: bytes, port: int) -> bytes:
        return port.to_bytes(2, "big") + bytes(4) + host + bytes(4)

    def split(self, name: bytes) -> tuple[bytes, int]:
        return name[8:24], int.from_bytes(name[2:4], "big")


HOST6 = bytes(15) + b"\1"
ANY6 = bytes(16)
MAPPED = bytes(10) + b"\xff\xff" + HOST


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


@pytest.fixture
def user(harness: Harness) -> V4User:
    return V4User(harness)


# TCP


def test_connection(user: V4User) -> None:
    server = user.server()
    assert user.poll(server) == 0
    client, accepted = user.connection(server)
    assert user.peer_name(client) == (HOST, PORT)
    assert user.own_name(client) == user.peer_name(accepted)
    assert user.own_name(accepted) == (HOST, PORT)
    assert user.poll(client) == POLLOUT
    assert user.send(client, b"hello") == 5
    assert user.poll(accepted) == POLLIN | POLLOUT
    assert user.recv(accepted, 2, abi.MSG_PEEK) == b"he"
    assert user.recv(accepted, 3) == b"hel"
    assert user.recv(accepted) == b"lo"
    assert user.recv(accepted) == -EAGAIN
    assert user.connect_to(client) == -EISCONN


def test_half_close(user: V4User) -> None:
    client, accepted = user.connection(user.server())
    assert user.call(calls.shutdown, client, abi.SHUT_WR) == 0
    assert user.poll(accepted) == POLLIN | POLLOUT | POLLRDHUP
    assert user.recv(accepted) == b""
    assert user.send(client, b"x", PLAIN) == -EPIPE
    assert user.send(accepted, b"back") == 4
    user.close(accepted)
    assert user.poll(client) == POLLIN | POLLOUT | POLLRDHUP | POLLHUP
    assert user.recv(client) == b"back"
    assert user.recv(client) == b""


def test_resets(user: V4User) -> None:
    server = user.server()
    client, accepted = user.connection(server)
    user.send(client, b"unread")
    user.close(accepted)
    assert user.poll(client) & POLLERR
    assert user.recv(client) == -ECONNRESET
    assert user.recv(client) == b""
    assert user.send(client, b"x", PLAIN) == -EPIPE
    client, accepted = user.connection(server)
    user.close(accepted)
    assert user.send(client, b"into the void", PLAIN) == 13
    assert user.send(client, b"x", PLAIN) == -EPIPE
    assert user.recv(client) == b""
    client, accepted = user.connection(server)
    user.set(accepted, abi.SO_LINGER, pack("<ii", 1, 0))
    user.close(accepted)
    assert user.number(client, abi.SO_ERROR) == ECONNRESET
    assert user.number(client, abi.SO_ERROR) == 0


def test_refused_and_unreachable(user: V4User) -> None:
    fd = user.socket(STREAM)
    assert user.poll(fd) == POLLOUT | POLLHUP
    assert user.recv(fd) == -ENOTCONN
    assert user.send(fd, b"x", PLAIN) == -EPIPE
    assert user.connect_to(fd) == -ECONNREFUSED
    assert user.connect_to(fd, b"\x08\x08\x08\x08") == -ENETUNREACH
    assert user.call(calls.shutdown, fd, abi.SHUT_RDWR) == -ENOTCONN
    quiet = user.socket(STREAM)
    user.bind_to(quiet)
    assert user.connect_to(fd) == -ECONNREFUSED
    user.call(calls.listen, quiet, 1)
    assert user.connect_to(fd, ANY) == 0
    assert user.peer_name(fd) == (HOST, PORT)


def test_connecting_without_blocking(user: V4User) -> None:
    server = user.server()
    fd = user.socket(STREAM | NONBLOCK)
    assert user.connect_to(fd) == -EINPROGRESS
    assert user.poll(fd) == POLLOUT
    assert user.number(fd, abi.SO_ERROR) == 0
    assert user.connect_to(fd) == 0
    assert user.connect_to(fd) == -EISCONN
    user.close(server)
    fd = user.socket(STREAM | NONBLOCK)
    assert user.connect_to(fd) == -EINPROGRESS
    assert user.poll(fd) & (POLLERR | POLLHUP | POLLOUT) == POLLERR | POLLHUP | POLLOUT
    assert user.number(fd, abi.SO_ERROR) == ECONNREFUSED


def test_backlog(harness: Harness, user: V4User) -> None:
    server = user.server(backlog=0)
    first = user.socket(STREAM)
    assert user.connect_to(first) == 0
    second = user.socket(STREAM | NONBLOCK)
    assert user.connect_to(second) == -EINPROGRESS
    assert user.poll(second) == 0
    accepted = user.accept(server)
    assert user.poll(second) == POLLOUT
    assert accepted > 0
    third = user.socket(STREAM)
    other = harness.task(user.task.group)
    harness.mm.write(ADDR, b"\2\0" + user.name_of(HOST, PORT))
    results = harness.run(
        lambda task: calls.connect(task, third, ADDR, 16),
        lambda task: calls.accept(task, server, 0, 0) > 0,
        tasks=[user.task, other],
    )
    assert results == [0, True]


def test_closing_a_listener_resets_who_was_not_accepted(user: V4User) -> None:
    server = user.server()
    client = user.socket(STREAM)
    user.connect_to(client)
    user.close(server)
    assert user.number(client, abi.SO_ERROR) == ECONNRESET
    assert not network(user.harness.kernel).tcp.find(MAPPED, PORT, lambda socket: True)


def test_closed_connections_are_free_at_once(user: V4User) -> None:
    """Not when the garbage collector finds them: what lies in them counts until then."""
    server = user.server()
    gc.collect()
    gc.disable()
    try:
        client, accepted = user.connection(server)
        ends = [weakref.ref(user.task.files.get(fd)) for fd in (client, accepted)]
        user.send(client, b"unread")
        user.close(accepted)
        assert not user.task.files.get(client).peer.inbox
        user.close(client)
        assert [end() for end in ends] == [None, None]
    finally:
        gc.enable()


def test_who_closes_before_it_is_connected_is_forgotten(user: V4User) -> None:
    server = user.server(backlog=0)
    first, second = user.socket(STREAM), user.socket(STREAM | NONBLOCK)
    assert user.connect_to(first) == 0
    assert user.connect_to(second) == -EINPROGRESS
    user.close(second)
    assert not user.task.files.get(server).pending


def test_bulk_and_waitall(harness: Harness, user: V4User) -> None:
    client, accepted = user.connection(user.server())
    data = os.urandom(200_000)
    harness.mm.write(BUFFER, data)
    other = harness.task(user.task.group)

    def writer(task: Task) -> int:
        return sum(calls.sendto(task, client, BUFFER, 200_000, 0, 0, 0) for _ in range(5))

    def reader(task: Task) -> int:
        into = BUFFER + 200_000
        arguments = (into, 40_000, abi.MSG_WAITALL, 0, 0)
        counts = [calls.recvfrom(task, accepted, *arguments) for _ in range(25)]
        assert harness.mm.read(into, 40_000) == data[160_000:]
        return sum(counts)

    results = harness.run(writer, reader, tasks=[user.task, other])
    assert results == [1_000_000, 1_000_000]
    assert user.set(client, abi.SO_SNDBUF, 5000) == 0
    sent = 0
    while (result := user.send(client, bytes(50_000))) > 0:
        sent += result
    assert result == -EAGAIN
    assert not user.poll(client) & POLLOUT
    assert user.call(calls.recvfrom, accepted, 0, 1 << 20, abi.MSG_TRUNC, 0, 0) == sent
    assert user.poll(client) & POLLOUT


def test_ports(harness: Harness, user: V4User) -> None:
    first, second = user.socket(STREAM), user.socket(STREAM)
    assert user.bind_to(first) == 0
    assert user.bind_to(first) == -EINVAL
    assert user.bind_to(second) == -EADDRINUSE
    assert user.bind_to(second, ANY) == -EADDRINUSE
    assert user.bind_to(second, OTHER_HOST) == 0
    assert user.bind_to(user.socket(STREAM), b"\x08\x08\x08\x08") == -EADDRNOTAVAIL
    assert user.bind_to(user.socket(STREAM), port=80) == -EACCES
    assert V4User(harness, uid=0).bind_to(V4User(harness).socket(STREAM), port=80) < 0
    third = user.socket(STREAM)
    assert user.bind_to(third, ANY, 0) == 0
    low, high = inet.EPHEMERAL_PORTS
    assert low <= user.own_name(third)[1] <= high
    user.close(first)
    assert user.bind_to(user.socket(STREAM)) == 0


def test_sharing_ports(user: V4User) -> None:
    def with_option(name: int) -> int:
        fd = user.socket(STREAM)
        user.set(fd, name, 1)
        return fd

    first, second = with_option(abi.SO_REUSEADDR), with_option(abi.SO_REUSEADDR)
    assert user.bind_to(first) == 0
    assert user.bind_to(second) == 0
    assert user.call(calls.listen, first, 1) == 0
    assert user.call(calls.listen, second, 1) == -EADDRINUSE
    assert user.bind_to(with_option(abi.SO_REUSEADDR)) == -EADDRINUSE
    servers = [with_option(abi.SO_REUSEPORT) for _ in range(2)]
    for server in servers:
        assert user.bind_to(server, port=6000) == 0
        assert user.call(calls.listen, server, 5) == 0
    for _ in range(4):
        assert user.connect_to(user.socket(STREAM), port=6000) == 0
    assert all(user.poll(server) & POLLIN for server in servers)


def test_options(user: V4User) -> None:
    fd = user.socket(STREAM)
    assert user.get_ip(fd, inet.IPPROTO_TCP, inet.TCP_NODELAY) == 0
    assert user.set_ip(fd, inet.IPPROTO_TCP, inet.TCP_NODELAY, 5) == 0
    assert user.get_ip(fd, inet.IPPROTO_TCP, inet.TCP_NODELAY) == 1
    assert user.get_ip(fd, inet.IPPROTO_TCP, 999) == -ENOPROTOOPT
    assert user.set_ip(fd, inet.IPPROTO_IP, inet.IP_TTL, 300) == -EINVAL
    assert user.set_ip(fd, inet.IPPROTO_IP, inet.IP_TRANSPARENT, 1) == -EPERM
    assert user.set_ip(fd, inet.IPPROTO_IP, inet.IP_ADD_MEMBERSHIP, 1) == -ENODEV
    assert user.get_ip(fd, inet.IPPROTO_IP, inet.IP_MTU) == -ENOTCONN
    assert user.get_ip(fd, inet.IPPROTO_IPV6, inet.IPV6_V6ONLY) == -ENOPROTOOPT
    assert user.number(fd, abi.SO_PROTOCOL) == inet.IPPROTO_TCP
    assert user.call(calls.socket, abi.AF_INET, STREAM, inet.IPPROTO_UDP) == -EPROTONOSUPPORT
    assert user.call(calls.socket, abi.AF_INET, abi.SOCK_RAW, 1) == -EPERM


# IPv6


def test_both_families_meet_at_a_dual_stack_socket(harness: Harness, user: V4User) -> None:
    six = V6User(harness)
    server = six.socket(STREAM)
    assert six.bind_to(server, ANY6) == 0
    assert six.call(calls.listen, server, 5) == 0
    assert six.set_ip(server, inet.IPPROTO_IPV6, inet.IPV6_V6ONLY, 1) == -EINVAL
    assert user.bind_to(user.socket(STREAM), ANY) == -EADDRINUSE
    client = user.socket(STREAM)
    assert user.connect_to(client) == 0
    accepted = six.accept(server)
    assert six.peer_name(accepted) == (MAPPED, user.own_name(client)[1])
    for host in (HOST6, MAPPED):
        assert six.connect_to(six.socket(STREAM), host) == 0
    assert six.connect_to(six.socket(STREAM), ANY6) == 0


def test_v6_only(harness: Harness, user: V4User) -> None:
    six = V6User(harness)
    server = six.socket(STREAM)
    assert six.set_ip(server, inet.IPPROTO_IPV6, inet.IPV6_V6ONLY, 1) == 0
    assert six.bind_to(server, MAPPED) == -EINVAL
    assert six.bind_to(server, ANY6) == 0
    assert six.call(calls.listen, server, 5) == 0
    assert user.connect_to(user.socket(STREAM)) == -ECONNREFUSED
    assert user.bind_to(user.socket(STREAM), ANY) == 0
    alone = six.socket(STREAM)
    six.set_ip(alone, inet.IPPROTO_IPV6, inet.IPV6_V6ONLY, 1)
    assert six.connect_to(alone, MAPPED) == -ENETUNREACH
    six.mm.write(ADDR, b"\2\0" + bytes(26))
    assert six.call(calls.connect, six.socket(STREAM), ADDR, 28) == -EAFNOSUPPORT


# UDP


def test_datagrams(user: V4User) -> None:
    receiver, sender = user.socket(DGRAM), user.socket(DGRAM)
    assert user.send(sender, b"x") == -EDESTADDRREQ
    assert user.bind_to(receiver) == 0
    name = user.name_of(HOST, PORT)
    user.mm.write(BUFFER, b"hello")
    user.mm.write(ADDR, b"\2\0" + name)
    assert user.call(calls.sendto, sender, BUFFER, 5, 0, ADDR, 16) == 5
    assert user.call(calls.sendto, sender, BUFFER, 0, 0, ADDR, 16) == 0
    assert user.call(calls.sendto, sender, BUFFER, 65508, 0, ADDR, 16) == -EMSGSIZE
    user.mm.write_u32(LENGTH, 16)
    assert user.call(calls.recvfrom, receiver, BUFFER, 3, 0, ADDR, LENGTH) == 3
    assert user.split(user.mm.read(ADDR, 16)) == (HOST, user.own_name(sender)[1])
    assert user.recv(receiver) == b""
    assert user.recv(receiver) == -EAGAIN
    assert user.bind_to(user.socket(DGRAM)) == -EADDRINUSE


def test_connected_datagrams(user: V4User) -> None:
    receiver, sender, stranger = (user.socket(DGRAM) for _ in range(3))
    user.bind_to(receiver)
    assert user.connect_to(sender) == 0
    assert user.own_name(sender)[0] == HOST
    assert user.connect_to(receiver, HOST, user.own_name(sender)[1]) == 0
    user.connect_to(stranger)
    assert user.send(stranger, b"no") == 2
    assert user.send(sender, b"yes") == 3
    assert user.recv(receiver) == b"yes"
    assert user.recv(receiver) == -EAGAIN
    user.close(receiver)
    assert user.send(sender, b"x") == 1
    assert user.poll(sender) & POLLERR
    assert user.send(sender, b"x") == -ECONNREFUSED
    user.mm.write(ADDR, bytes(16))
    assert user.call(calls.connect, sender, ADDR, 16) == 0
    assert user.peer_name(sender) == -ENOTCONN


def test_a_full_inbox_loses_datagrams(user: V4User) -> None:
    receiver, sender = user.socket(DGRAM), user.socket(DGRAM)
    user.bind_to(receiver)
    user.connect_to(sender)
    for _ in range(1000):
        assert user.send(sender, bytes(1000)) == 1000
    count = 0
    while isinstance(user.recv(receiver), bytes):
        count += 1
    assert 100 < count < 300


def test_packet_info(user: V4User) -> None:
    receiver, sender = user.socket(DGRAM), user.socket(DGRAM)
    user.bind_to(receiver, ANY)
    assert user.set_ip(receiver, inet.IPPROTO_IP, inet.IP_PKTINFO, 1) == 0
    user.connect_to(sender, OTHER_HOST)
    user.send(sender, b"x")
    data, control, _ = user.recvmsg(receiver)
    assert data == b"x"
    assert control == [(inet.IP_PKTINFO, pack("<i", 1) + OTHER_HOST * 2)]


# The interface


def test_interface_requests(harness: Harness) -> None:
    task = harness.task()

    def ask(request: int, name: bytes = b"lo") -> bytes | int:
        harness.mm.write(ADDR, name.ljust(40, b"\0"))
        result = harness.call(lambda task: interface.ioctl(task, request, ADDR), task)
        return harness.mm.read(ADDR + 16, 8) if result == 0 else result

    assert ask(interface.SIOCGIFINDEX)[:4] == pack("<i", 1)
    assert ask(interface.SIOCGIFADDR)[4:8] == HOST
    assert ask(interface.SIOCGIFFLAGS, b"eth0") == -ENODEV
    assert ask(0x8914) == -EPERM


def netlink_dump(user: User, kind: int, family: int) -> list[tuple[int, bytes]]:
    """(type, body) of every message of the answer."""
    fd = user.call(calls.socket, abi.AF_NETLINK, abi.SOCK_RAW, 0)
    request = netlink.NLMSGHDR.pack(20, kind, 0x301, 7, 0) + bytes((family, 0, 0, 0))
    assert user.send(fd, request) == 20
    found = []
    while isinstance(answer := user.recv(fd), bytes):
        while answer:
            size, answer_kind, _, seq, _ = netlink.NLMSGHDR.unpack_from(answer)
            assert seq == 7
            found.append((answer_kind, answer[16:size]))
            answer = answer[(size + 3) & -4 :]
    return found


def test_rtnetlink(harness: Harness) -> None:
    user = User(harness)
    links = netlink_dump(user, netlink.RTM_GETLINK, 0)
    assert [kind for kind, _ in links] == [netlink.RTM_NEWLINK, netlink.NLMSG_DONE]
    assert b"lo\0" in links[0][1]
    addresses = netlink_dump(user, netlink.RTM_GETADDR, 0)
    assert [body[0] for _, body in addresses[:-1]] == [abi.AF_INET, abi.AF_INET6]
    assert len(netlink_dump(user, netlink.RTM_GETADDR, abi.AF_INET)) == 2
    assert len(netlink_dump(user, netlink.RTM_GETROUTE, 0)) == 3
    [(kind, body)] = netlink_dump(user, netlink.RTM_NEWLINK, 0)
    assert kind == netlink.NLMSG_ERROR
    assert body[:4] == pack("<i", -EPERM)
    assert user.call(calls.socket, abi.AF_NETLINK, abi.SOCK_RAW, 9) == -EPROTONOSUPPORT


def test_proc_lines(user: V4User) -> None:
    user.server()
    [line] = network(user.harness.kernel).proc_lines("tcp")
    assert b"0: 0100007F:1388 00000000:0000 0A" in line
    assert len(line) == 150
    assert network(user.harness.kernel).proc_lines("tcp6") == []
