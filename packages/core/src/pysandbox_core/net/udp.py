"""UDP over the loopback, at the level of sockets. udp(7)

Linux: net/ipv4/udp.c, net/ipv6/udp.c. A datagram for which the receiver has no room is lost, as on
any network; one that nobody is bound for is refused, which a connected sender gets to know.
"""

from __future__ import annotations

from collections import deque
from errno import (
    EACCES,
    ECONNREFUSED,
    EDESTADDRREQ,
    EFAULT,
    EINVAL,
    EMSGSIZE,
    ENETUNREACH,
    ENOTCONN,
    EOPNOTSUPP,
    EPIPE,
)
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_core.abi.inet import (
    IP_PKTINFO,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPPROTO_UDP,
    IPV6_PKTINFO,
    IPV6_RECVPKTINFO,
    TCP_CLOSE,
    TCP_ESTABLISHED,
)
from pysandbox_core.abi.socket import AF_UNSPEC, MSG_OOB, MSG_PEEK, MSG_TRUNC, SO_BROADCAST
from pysandbox_core.errors import LinuxError
from pysandbox_core.net.inet import InetSocket, udp_ports
from pysandbox_core.net.inet_address import Endpoint, is_broadcast, is_v4, pack, parse
from pysandbox_core.net.socket_file import (
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SHUTDOWN_BOTH,
    shutdown_bits,
)
from pysandbox_core.waiting import (
    POLL_ANY,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDHUP,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
)

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.net.ports import PortTable
    from pysandbox_core.net.socket_file import Ancillary, Received
    from pysandbox_core.task import Task

MAX_DATAGRAM = 65507
"""What fits an IPv4 packet."""
OVERHEAD = 768
"""What a datagram costs the receive buffer besides its bytes."""
READABLE = POLLIN | POLLRDNORM
WRITABLE = POLLOUT | POLLWRNORM | POLLWRBAND
LOOPBACK_INDEX = 1
IN_PKTINFO = Struct("<i4s4s")
"""ipi_ifindex, ipi_spec_dst, ipi_addr"""
IN6_PKTINFO = Struct("<16si")
"""ipi6_addr, ipi6_ifindex"""


class Datagram(NamedTuple):
    """One message in an inbox."""

    data: bytes
    source: Endpoint
    ip: bytes
    """The address it was sent to."""


class UdpSocket(InetSocket):
    """One UDP socket."""

    __slots__ = ("closed", "inbox", "inbox_size")

    PROTOCOL = IPPROTO_UDP

    def __init__(
        self, kernel: Kernel, family: int, type_: int, flags: int, uid: int, gid: int
    ) -> None:
        super().__init__(kernel, family, type_, flags, uid, gid)
        self.inbox: deque[Datagram] = deque()
        self.inbox_size = 0
        self.closed = False

    def port_table(self, kernel: Kernel) -> PortTable:
        return udp_ports(kernel)

    def release(self) -> None:
        self.closed = True
        self.unbind()
        self.inbox.clear()

    def getpeername(self) -> bytes:
        if self.remote is None:
            raise LinuxError(ENOTCONN)
        return pack(self.remote, self.family)

    def connect(self, task: Task, address: bytes) -> None:
        """Send to one place and receive from it alone; AF_UNSPEC undoes it. EINVAL, ENETUNREACH"""
        if len(address) < 2:
            raise LinuxError(EINVAL)
        if int.from_bytes(address[:2], "little") == AF_UNSPEC:
            self.remote = None
            self.local = Endpoint(self.bound_ip, self.local.port)
            return
        target = self.destination(parse(address, self.family, mixed=True))
        self.autobind()
        self.local = Endpoint(self.source_for(target.ip), self.local.port)
        self.remote = target
        self.shut = 0

    def shutdown(self, task: Task, how: int) -> None:
        self.shut |= shutdown_bits(how)
        self.queue.wake(POLL_ANY)
        if self.remote is None:
            self.shut = 0
            raise LinuxError(ENOTCONN)

    def send(
        self,
        task: Task,
        source: Source,
        flags: int,
        address: bytes | None = None,
        ancillary: Ancillary | None = None,
    ) -> int:
        """One datagram. EMSGSIZE, EDESTADDRREQ, ENETUNREACH, EACCES (broadcast), EPIPE;
        ECONNREFUSED of an earlier one"""
        if ancillary is not None:
            ancillary.release()
        size = source.remaining
        if size > MAX_DATAGRAM:
            raise LinuxError(EMSGSIZE)
        if flags & MSG_OOB:
            raise LinuxError(EOPNOTSUPP)
        self.autobind()
        target = self._target(address)
        self.take_error()
        if self.shut & SEND_SHUTDOWN:
            raise LinuxError(EPIPE)
        data = source.read()
        if len(data) < size:
            raise LinuxError(EFAULT)
        origin = Endpoint(self.source_for(target.ip), self.local.port)
        receiver = self.ports.find(
            target.ip,
            target.port,
            lambda socket: socket.remote is None or socket.remote == origin,
        )
        if isinstance(receiver, UdpSocket):
            receiver.deliver(Datagram(data, origin, target.ip))
        elif self.remote is not None:
            self.error = ECONNREFUSED
            self.queue.wake(POLLERR)
        return size

    def _target(self, address: bytes | None) -> Endpoint:
        if address is None:
            if self.remote is None:
                raise LinuxError(EDESTADDRREQ)
            return self.remote
        given = int.from_bytes(address[:2], "little")
        if given == AF_UNSPEC and self.is_v6 and self.remote is not None:
            return self.remote
        endpoint = parse(address, self.family, mixed=True)
        if not endpoint.port:
            raise LinuxError(EINVAL)
        if is_broadcast(endpoint.ip):
            raise LinuxError(ENETUNREACH if self.options.get(SO_BROADCAST) else EACCES)
        return self.destination(endpoint)

    def deliver(self, datagram: Datagram) -> None:
        """Take it in, unless there is no room or nobody wants to hear. ENOMEM"""
        if self.shut & RCV_SHUTDOWN or self.inbox_size + len(datagram.data) > self.rcvbuf:
            return
        self.kernel.memory.grow(len(datagram.data) + OVERHEAD)
        self.inbox.append(datagram)
        self.inbox_size += len(datagram.data) + OVERHEAD
        self.queue.wake(READABLE)

    def receive(self, task: Task, sink: Sink, flags: int, received: Received | None = None) -> int:
        """One datagram; what does not fit is lost, and MSG_TRUNC says so."""
        if flags & MSG_OOB:
            raise LinuxError(EOPNOTSUPP)
        deadline_ns = self.receive_deadline(task, flags)
        while not self.inbox:
            self.take_error()
            if self.shut & RCV_SHUTDOWN:
                return 0
            self.wait(task, deadline_ns)
        datagram = self.inbox[0]
        if not flags & MSG_PEEK:
            self.inbox.popleft()
            self.inbox_size -= len(datagram.data) + OVERHEAD
        size = len(datagram.data)
        moved = sink.write(datagram.data[: sink.remaining]) if size and sink.remaining else 0
        if received is not None:
            received.address = pack(datagram.source, self.family)
            if moved < size:
                received.flags |= MSG_TRUNC
            self._add_packet_info(datagram, received)
        return size if flags & MSG_TRUNC else moved

    def _add_packet_info(self, datagram: Datagram, received: Received) -> None:
        """IP_PKTINFO, IPV6_RECVPKTINFO: where it was sent to."""
        ip = datagram.ip
        if self.inet_options.get((IPPROTO_IP, IP_PKTINFO)) and is_v4(ip):
            info = IN_PKTINFO.pack(LOOPBACK_INDEX, ip[12:], ip[12:])
            received.control.append((IPPROTO_IP, IP_PKTINFO, info))
        if self.inet_options.get((IPPROTO_IPV6, IPV6_RECVPKTINFO)):
            info = IN6_PKTINFO.pack(ip, LOOPBACK_INDEX)
            received.control.append((IPPROTO_IPV6, IPV6_PKTINFO, info))

    def poll(self) -> int:
        events = WRITABLE
        if self.inbox:
            events |= READABLE
        if self.error:
            events |= POLLERR
        if self.shut & RCV_SHUTDOWN:
            events |= READABLE | POLLRDHUP
        if self.shut == SHUTDOWN_BOTH:
            events |= POLLHUP
        return events

    def unread(self) -> int:
        return len(self.inbox[0].data) if self.inbox else 0

    def unsent(self) -> int:
        return 0

    def proc_state(self) -> int:
        return TCP_CLOSE if self.remote is None else TCP_ESTABLISHED

    def queued(self) -> tuple[int, int]:
        return 0, self.inbox_size
