"""AF_NETLINK, as much as programs need to look at the network: NETLINK_ROUTE dumps of the links,
addresses and routes there are. netlink(7), rtnetlink(7)

Linux: net/netlink/af_netlink.c, net/core/rtnetlink.c. Every other request is answered with an error
message; other protocols do not exist.
"""

from __future__ import annotations

from collections import deque
from errno import (
    EAGAIN,
    ECONNREFUSED,
    EINVAL,
    EMSGSIZE,
    ENOBUFS,
    EOPNOTSUPP,
    EPERM,
    EPROTONOSUPPORT,
    ESOCKTNOSUPPORT,
)
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.abi.inet import LOOPBACK_MTU
from pysandbox_core.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_UNSPEC,
    MSG_PEEK,
    MSG_TRUNC,
    SOCK_DGRAM,
    SOCK_RAW,
    SOL_SOCKET,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.net import interface
from pysandbox_core.net.inet_address import LOOPBACK6
from pysandbox_core.net.socket_file import SocketFile
from pysandbox_core.waiting import POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.net.socket_file import Ancillary, Received
    from pysandbox_core.task import Task

NETLINK_ROUTE = 0
SOL_NETLINK = 270
NLMSGHDR = Struct("<IHHII")
"""nlmsg_len, nlmsg_type, nlmsg_flags, nlmsg_seq, nlmsg_pid."""
SOCKADDR_NL = Struct("<HHII")
"""nl_family, nl_pad, nl_pid, nl_groups."""
RTATTR = Struct("<HH")
IFINFOMSG = Struct("<BxHiII")
IFADDRMSG = Struct("<BBBBI")
RTMSG = Struct("<BBBBBBBBI")
INT = Struct("<i")

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 1
NLM_F_MULTI = 2
NLM_F_ACK = 4
NLM_F_DUMP = 0x300
RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_BASE = 16
RTM_END = 128

IFLA_ADDRESS, IFLA_BROADCAST, IFLA_IFNAME, IFLA_MTU, IFLA_TXQLEN, IFLA_OPERSTATE = (
    1,
    2,
    3,
    4,
    13,
    16,
)
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_FLAGS = 1, 2, 3, 8
IFA_F_PERMANENT = 0x80
RT_SCOPE_HOST = 254
RT_TABLE_LOCAL = 255
RTPROT_KERNEL = 2
RTN_LOCAL = 2
RTA_DST, RTA_OIF, RTA_TABLE = 1, 4, 15

SEND_MAX = 65536
MAX_QUEUE = 64
"""Answers in an inbox; more are lost, and the next read says so."""


def attribute(kind: int, data: bytes) -> bytes:
    """struct rtattr, padded."""
    size = RTATTR.size + len(data)
    return (RTATTR.pack(size, kind) + data).ljust((size + 3) & -4, b"\0")


def message(kind: int, flags: int, seq: int, pid: int, body: bytes) -> bytes:
    """struct nlmsghdr and what follows, padded."""
    size = NLMSGHDR.size + len(body)
    return (NLMSGHDR.pack(size, kind, flags, seq, pid) + body).ljust((size + 3) & -4, b"\0")


def link_body() -> bytes:
    """lo as RTM_NEWLINK tells it."""
    flags = interface.FLAGS | interface.IFF_LOWER_UP
    return (
        IFINFOMSG.pack(AF_UNSPEC, interface.ARPHRD_LOOPBACK, interface.INDEX, flags, 0)
        + attribute(IFLA_IFNAME, interface.NAME + b"\0")
        + attribute(IFLA_TXQLEN, INT.pack(interface.TX_QUEUE_LENGTH))
        + attribute(IFLA_OPERSTATE, b"\0")
        + attribute(IFLA_MTU, INT.pack(LOOPBACK_MTU))
        + attribute(IFLA_ADDRESS, bytes(6))
        + attribute(IFLA_BROADCAST, bytes(6))
    )


def address_bodies(family: int) -> Iterator[bytes]:
    """The addresses of lo as RTM_NEWADDR tells them."""
    flags = attribute(IFA_FLAGS, INT.pack(IFA_F_PERMANENT))
    if family in (AF_UNSPEC, AF_INET):
        ip = b"\x7f\0\0\1"
        head = IFADDRMSG.pack(AF_INET, 8, IFA_F_PERMANENT, RT_SCOPE_HOST, interface.INDEX)
        label = attribute(IFA_LABEL, interface.NAME + b"\0")
        yield head + attribute(IFA_ADDRESS, ip) + attribute(IFA_LOCAL, ip) + label + flags
    if family in (AF_UNSPEC, AF_INET6):
        head = IFADDRMSG.pack(AF_INET6, 128, IFA_F_PERMANENT, RT_SCOPE_HOST, interface.INDEX)
        yield head + attribute(IFA_ADDRESS, LOOPBACK6) + flags


def route_bodies(family: int) -> Iterator[bytes]:
    """The local routes as RTM_NEWROUTE tells them."""
    routes = ((AF_INET, 8, b"\x7f\0\0\0"), (AF_INET6, 128, LOOPBACK6))
    for route_family, bits, destination in routes:
        if family in (AF_UNSPEC, route_family):
            yield (
                RTMSG.pack(
                    route_family, bits, 0, 0, RT_TABLE_LOCAL, RTPROT_KERNEL, RT_SCOPE_HOST,
                    RTN_LOCAL, 0,
                )
                + attribute(RTA_TABLE, INT.pack(RT_TABLE_LOCAL))
                + attribute(RTA_DST, destination)
                + attribute(RTA_OIF, INT.pack(interface.INDEX))
            )  # fmt: skip


class NetlinkSocket(SocketFile):
    """One NETLINK_ROUTE socket. Answers lie in its inbox as soon as a request was sent."""

    __slots__ = ("groups", "inbox", "port")

    def __init__(self, kernel: Kernel, type_: int, flags: int, uid: int, gid: int) -> None:
        super().__init__(kernel, AF_NETLINK, type_, NETLINK_ROUTE, flags, uid, gid)
        self.inbox: deque[bytes] = deque()
        self.port = 0
        """nl_pid, 0 while not bound."""
        self.groups = 0

    # Names.

    def bind(self, task: Task, address: bytes) -> None:
        """Take a port id, for 0 one of the kernel's choice. Multicast groups are silent."""
        if len(address) < SOCKADDR_NL.size:
            raise LinuxError(EINVAL)
        family, _, port, groups = SOCKADDR_NL.unpack_from(address)
        if family != AF_NETLINK or (self.port and port not in (0, self.port)):
            raise LinuxError(EINVAL)
        self.port = self.port or port or self._own_port(task)
        self.groups = groups

    def connect(self, task: Task, address: bytes) -> None:
        """Only the kernel can be talked to."""
        if len(address) < SOCKADDR_NL.size:
            raise LinuxError(EINVAL)
        family, _, port, _ = SOCKADDR_NL.unpack_from(address)
        if family not in (AF_NETLINK, AF_UNSPEC):
            raise LinuxError(EINVAL)
        if port:
            raise LinuxError(EPERM)
        self.port = self.port or self._own_port(task)

    def _own_port(self, task: Task) -> int:
        """The process's first socket has its pid, others a number that no process has."""
        return task.group.pid if self.inode.ino % 2 else 0x80000000 | self.inode.ino & 0x7FFFFFFF

    def getsockname(self) -> bytes:
        return SOCKADDR_NL.pack(AF_NETLINK, 0, self.port, self.groups)

    def getpeername(self) -> bytes:
        return SOCKADDR_NL.pack(AF_NETLINK, 0, 0, 0)

    # Requests and answers.

    def send(
        self,
        task: Task,
        source: Source,
        flags: int,
        address: bytes | None = None,
        ancillary: Ancillary | None = None,
    ) -> int:
        """Take requests and answer them."""
        if ancillary is not None:
            ancillary.release()
        if address is not None:
            if len(address) < SOCKADDR_NL.size:
                raise LinuxError(EINVAL)
            family, _, port, groups = SOCKADDR_NL.unpack_from(address)
            if family != AF_NETLINK:
                raise LinuxError(EINVAL)
            if port or groups:
                raise LinuxError(EPERM if groups else ECONNREFUSED)
        if source.remaining > SEND_MAX:
            raise LinuxError(EMSGSIZE)
        self.port = self.port or self._own_port(task)
        data = source.read()
        at = 0
        while len(data) - at >= NLMSGHDR.size:
            size, kind, msg_flags, seq, _ = NLMSGHDR.unpack_from(data, at)
            if not NLMSGHDR.size <= size <= len(data) - at:
                break
            if msg_flags & NLM_F_REQUEST and kind >= RTM_BASE:
                self._answer(task, kind, msg_flags, seq, data[at : at + size])
            at += (size + 3) & -4
        return len(data)

    def _answer(self, task: Task, kind: int, flags: int, seq: int, request: bytes) -> None:
        body = request[NLMSGHDR.size :]
        family = body[0] if body else AF_UNSPEC
        found = self._entries(kind, flags, family)
        if found is None:
            changes = kind < RTM_END and (kind - RTM_BASE) % 4 != 2
            errno = EPERM if changes and task.creds.euid != 0 else EOPNOTSUPP
            error = INT.pack(-errno) + request
            self.push(message(NLMSG_ERROR, 0, seq, self.port, error))
            return
        answer_kind, bodies = found
        if flags & NLM_F_DUMP:
            parts = [message(answer_kind, NLM_F_MULTI, seq, self.port, each) for each in bodies]
            done = message(NLMSG_DONE, NLM_F_MULTI, seq, self.port, INT.pack(0))
            if parts:
                self.push(b"".join(parts))
            self.push(done)
        else:
            self.push(message(answer_kind, 0, seq, self.port, bodies[0]))
            if flags & NLM_F_ACK:
                ack = INT.pack(0) + request[: NLMSGHDR.size]
                self.push(message(NLMSG_ERROR, 0, seq, self.port, ack))

    @staticmethod
    def _entries(kind: int, flags: int, family: int) -> tuple[int, list[bytes]] | None:
        """(type, bodies) of the answer, None for a request that is not understood."""
        if kind == RTM_GETLINK:
            return RTM_NEWLINK, [link_body()]
        if flags & NLM_F_DUMP == NLM_F_DUMP:
            if kind == RTM_GETADDR:
                return RTM_NEWADDR, list(address_bodies(family))
            if kind == RTM_GETROUTE:
                return RTM_NEWROUTE, list(route_bodies(family))
        return None

    def push(self, data: bytes) -> None:
        if len(self.inbox) >= MAX_QUEUE:
            self.error = ENOBUFS
            return
        self.inbox.append(data)
        self.queue.wake(POLLIN | POLLRDNORM)

    def receive(self, task: Task, sink: Sink, flags: int, received: Received | None = None) -> int:
        deadline_ns = self.receive_deadline(task, flags)
        self.take_error()
        while not self.inbox:
            self.wait(task, deadline_ns, errno=EAGAIN)
        data = self.inbox[0] if flags & MSG_PEEK else self.inbox.popleft()
        moved = sink.write(data[: sink.remaining]) if sink.remaining else 0
        if received is not None:
            received.address = SOCKADDR_NL.pack(AF_NETLINK, 0, 0, 0)
            if moved < len(data):
                received.flags |= MSG_TRUNC
        return len(data) if flags & MSG_TRUNC else moved

    def poll(self) -> int:
        events = POLLOUT | POLLWRNORM
        return events | POLLIN | POLLRDNORM if self.inbox else events

    def setsockopt(self, task: Task, level: int, name: int, data: bytes) -> None:
        if level == SOL_SOCKET:
            super().setsockopt(task, level, name, data)
        elif level != SOL_NETLINK:
            raise LinuxError(EOPNOTSUPP)
        elif len(data) < INT.size:
            raise LinuxError(EINVAL)


def new_socket(task: Task, type_: int, protocol: int, flags: int) -> NetlinkSocket:
    """socket(2). ESOCKTNOSUPPORT; EPROTONOSUPPORT all but NETLINK_ROUTE"""
    if type_ not in (SOCK_RAW, SOCK_DGRAM):
        raise LinuxError(ESOCKTNOSUPPORT)
    if protocol != NETLINK_ROUTE:
        raise LinuxError(EPROTONOSUPPORT)
    return NetlinkSocket(task.kernel, type_, flags, task.creds.fsuid, task.creds.fsgid)
