"""AF_INET and AF_INET6 sockets: what TCP and UDP share. ip(7), ipv6(7)

Linux: net/ipv4/af_inet.c, net/ipv6/af_inet6.c.

The network is the sandbox's own loopback, at the level of sockets: there are no packets. What one
socket sends lies in the other's inbox when the call returns. Everything else is unreachable.
"""

from __future__ import annotations

from errno import (
    EACCES,
    EADDRNOTAVAIL,
    EINVAL,
    ENETUNREACH,
    EPERM,
    EPROTONOSUPPORT,
    ESOCKTNOSUPPORT,
)
from typing import TYPE_CHECKING

from pysandbox_core.abi.inet import (
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_IP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    PRIVILEGED_PORTS_END,
)
from pysandbox_core.abi.socket import (
    AF_INET,
    AF_INET6,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_STREAM,
    SOL_SOCKET,
)
from pysandbox_core.credentials import CAP_NET_BIND_SERVICE, CAP_NET_RAW
from pysandbox_core.errors import LinuxError
from pysandbox_core.net import inet_options
from pysandbox_core.net.inet_address import (
    ANY4,
    ANY6,
    LOOPBACK4,
    LOOPBACK6,
    Endpoint,
    is_any,
    is_broadcast,
    is_loopback,
    is_multicast,
    is_v4,
    pack,
    parse,
    proc_text,
)
from pysandbox_core.net.network import network
from pysandbox_core.net.ports import PortTable
from pysandbox_core.net.socket_file import SocketFile

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task


class InetSocket(SocketFile):
    """One TCP or UDP socket."""

    __slots__ = ("bound_ip", "inet_options", "local", "ports", "remote", "v6only")

    PROTOCOL = 0

    def __init__(
        self, kernel: Kernel, family: int, type_: int, flags: int, uid: int, gid: int
    ) -> None:
        super().__init__(kernel, family, type_, self.PROTOCOL, flags, uid, gid)
        self.local = Endpoint(self.any_ip, 0)
        """Where it is bound, as getsockname(2) tells; port 0 while it is not."""
        self.bound_ip = self.any_ip
        """The address that bind(2) gave, the wildcard if none."""
        self.remote: Endpoint | None = None
        self.v6only = False
        """IPV6_V6ONLY"""
        self.inet_options: dict[tuple[int, int], int] = {}
        """Options of other levels than SOL_SOCKET, by (level, name)."""
        self.ports = self.port_table(kernel)

    def port_table(self, kernel: Kernel) -> PortTable:
        raise NotImplementedError

    @property
    def any_ip(self) -> bytes:
        return ANY4 if self.family == AF_INET else ANY6

    @property
    def is_v6(self) -> bool:
        return self.family == AF_INET6

    @property
    def is_connected(self) -> bool:
        return self.remote is not None

    # Names.

    def getsockname(self) -> bytes:
        return pack(self.local, self.family)

    def bind(self, task: Task, address: bytes) -> None:
        """Take an address of the loopback, or all, and a port, for 0 any free one.

        Errors: EINVAL; EAFNOSUPPORT; EADDRNOTAVAIL; EACCES a privileged port; EINVAL bound already;
        EADDRINUSE.
        """
        endpoint = parse(address, self.family)
        ip = endpoint.ip
        if self.v6only and is_v4(ip):
            raise LinuxError(EINVAL)
        if not is_any(ip) and not is_loopback(ip) and not inet_options.may_bind_anywhere(self):
            if self.type != SOCK_DGRAM or not (is_multicast(ip) or is_broadcast(ip)):
                raise LinuxError(EADDRNOTAVAIL)
        port = endpoint.port
        if 0 < port < PRIVILEGED_PORTS_END and not task.creds.capable(CAP_NET_BIND_SERVICE):
            raise LinuxError(EACCES)
        if self.local.port:
            raise LinuxError(EINVAL)
        self.local = Endpoint(ip, self.ports.bind(self, ip, port))
        self.bound_ip = ip

    def autobind(self) -> None:
        """Take a free port at the wildcard address, unless it has one."""
        if not self.local.port:
            self.local = Endpoint(self.bound_ip, self.ports.bind(self, self.bound_ip, 0))

    def unbind(self) -> None:
        if self.local.port:
            self.ports.remove(self, self.local.port)
            self.local = Endpoint(self.any_ip, 0)

    def destination(self, endpoint: Endpoint) -> Endpoint:
        """`endpoint` as a place to send to: the wildcard means the loopback. ENETUNREACH"""
        ip = endpoint.ip
        if ip == ANY4:
            ip = LOOPBACK4
        elif ip == ANY6:
            ip = LOOPBACK6 if self.bound_ip == ANY6 or not is_v4(self.bound_ip) else LOOPBACK4
        if not is_loopback(ip) or (is_v4(ip) and self.v6only):
            raise LinuxError(ENETUNREACH)
        if not is_any(self.bound_ip) and is_v4(self.bound_ip) != is_v4(ip):
            raise LinuxError(ENETUNREACH)
        return Endpoint(ip, endpoint.port)

    def source_for(self, ip: bytes) -> bytes:
        """Our address as somebody at `ip` sees it."""
        if not is_any(self.bound_ip):
            return self.bound_ip
        return LOOPBACK4 if is_v4(ip) else LOOPBACK6

    # Options.

    def setsockopt(self, task: Task, level: int, name: int, data: bytes) -> None:
        if level == SOL_SOCKET:
            super().setsockopt(task, level, name, data)
        else:
            inet_options.set_option(task, self, level, name, data)

    def getsockopt(self, task: Task, level: int, name: int, length: int) -> bytes:
        if level == SOL_SOCKET:
            return super().getsockopt(task, level, name, length)
        return inet_options.get_option(self, level, name, length)

    # /proc/net

    def proc_state(self) -> int:
        return 7

    def queued(self) -> tuple[int, int]:
        """(bytes on their way, bytes received)"""
        return 0, 0

    def proc_line(self, number: int) -> bytes:
        """As in /proc/net/tcp and udp."""
        remote = self.remote or Endpoint(self.any_ip, 0)
        names = proc_text(self.local, self.is_v6), proc_text(remote, self.is_v6)
        line = b"%4d: %s %s %02X %08X:%08X" % (number, *names, self.proc_state(), *self.queued())
        line += b" 00:00000000 00000000 %5d        0 %d" % (self.inode.uid, self.inode.ino)
        udp = self.PROTOCOL == IPPROTO_UDP
        line += b" 2 0000000000000000" + (b" 0" if udp else b" 100 0 0 10 0")
        if not self.is_v6:
            line = line.ljust(127 if udp else 149)
        return line + b"\n"


def new_socket(task: Task, family: int, type_: int, protocol: int, flags: int) -> InetSocket:
    """socket(2). ESOCKTNOSUPPORT, EPROTONOSUPPORT; EPERM for raw sockets, EACCES for ping's"""
    cls: type[InetSocket]
    if type_ == SOCK_STREAM and protocol in (IPPROTO_IP, IPPROTO_TCP):
        from pysandbox_core.net.tcp import TcpSocket

        cls = TcpSocket
    elif type_ == SOCK_DGRAM and protocol in (IPPROTO_IP, IPPROTO_UDP):
        from pysandbox_core.net.udp import UdpSocket

        cls = UdpSocket
    elif type_ == SOCK_DGRAM and protocol in (IPPROTO_ICMP, IPPROTO_ICMPV6):
        raise LinuxError(EACCES)  # net.ipv4.ping_group_range is empty
    elif type_ == SOCK_RAW:
        raise LinuxError(
            EPROTONOSUPPORT if task.creds.capable(CAP_NET_RAW) or not protocol else EPERM
        )
    elif type_ in (SOCK_STREAM, SOCK_DGRAM):
        raise LinuxError(EPROTONOSUPPORT)
    else:
        raise LinuxError(ESOCKTNOSUPPORT)
    creds = task.creds
    return cls(task.kernel, family, type_, flags, creds.fsuid, creds.fsgid)


def tcp_ports(kernel: Kernel) -> PortTable:
    net = network(kernel)
    if net.tcp is None:
        net.tcp = PortTable()
    return net.tcp


def udp_ports(kernel: Kernel) -> PortTable:
    net = network(kernel)
    if net.udp is None:
        net.udp = PortTable()
    return net.udp
