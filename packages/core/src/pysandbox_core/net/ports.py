"""Which sockets have which ports: one table for TCP, one for UDP.

Linux: net/ipv4/inet_connection_sock.c (inet_csk_get_port), udp.c (udp_lib_get_port).
"""

from __future__ import annotations

from errno import EADDRINUSE
from typing import TYPE_CHECKING

from pysandbox_core.abi.inet import EPHEMERAL_PORTS
from pysandbox_core.abi.socket import SO_REUSEADDR, SO_REUSEPORT
from pysandbox_core.errors import LinuxError
from pysandbox_core.net.inet_address import ANY4, ANY6, is_v4

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.net.inet import InetSocket


class PortTable:
    """Bound sockets by port. A socket is in it at most once, while `local` has a port."""

    __slots__ = ("_last_port", "_turn", "ports")

    def __init__(self) -> None:
        self.ports: dict[int, list[InetSocket]] = {}
        self._last_port = EPHEMERAL_PORTS[0] - 1
        self._turn = 0

    def bind(self, socket: InetSocket, ip: bytes, port: int) -> int:
        """Enter `socket` at `port`, or at a free one for 0; which. EADDRINUSE"""
        if not port:
            port = self._free_port(socket, ip)
        elif self.conflicts(socket, ip, port):
            raise LinuxError(EADDRINUSE)
        self.add(socket, port)
        return port

    def add(self, socket: InetSocket, port: int) -> None:
        """Enter `socket` whatever else is there: an accepted connection has its listener's port."""
        self.ports.setdefault(port, []).append(socket)

    def remove(self, socket: InetSocket, port: int) -> None:
        """Take `socket` out; not being there is no error."""
        sockets = self.ports.get(port, [])
        if socket in sockets:
            sockets.remove(socket)
            if not sockets:
                del self.ports[port]

    def conflicts(self, socket: InetSocket, ip: bytes, port: int) -> bool:
        """May `socket` not have `ip` and `port` beside those who do?"""
        return any(
            other is not socket
            and overlap(ip, socket.v6only, other.local.ip, other.v6only)
            and not may_share(socket, other)
            for other in self.ports.get(port, ())
        )

    def _free_port(self, socket: InetSocket, ip: bytes) -> int:
        first, last = EPHEMERAL_PORTS
        for _ in range(last - first + 1):
            self._last_port = self._last_port + 1 if self._last_port < last else first
            if self._last_port not in self.ports:
                return self._last_port
        for port in range(first, last + 1):
            if not self.conflicts(socket, ip, port):
                return port
        raise LinuxError(EADDRINUSE)

    def find(self, ip: bytes, port: int, wanted: Callable[[InetSocket], bool]) -> InetSocket | None:
        """Who gets what is sent to `ip` and `port`, among those `wanted`: the most exactly bound;
        those who share a port with SO_REUSEPORT take turns."""
        best: list[InetSocket] = []
        best_score = 0
        for socket in self.ports.get(port, ()):
            score = match(socket, ip)
            if score and score >= best_score and wanted(socket):
                score += 4 * socket.is_connected
                if score > best_score:
                    best = []
                    best_score = score
                if score == best_score:
                    best.append(socket)
        if not best:
            return None
        if not all(socket.options.get(SO_REUSEPORT) for socket in best):
            return best[-1]
        self._turn += 1
        return best[self._turn % len(best)]

    def proc_lines(self, v6: bool) -> list[bytes]:
        """/proc/net/tcp, udp, tcp6, udp6."""
        found = [
            socket for sockets in self.ports.values() for socket in sockets if socket.is_v6 == v6
        ]
        return [socket.proc_line(number) for number, socket in enumerate(found)]


def overlap(ip: bytes, v6only: bool, other: bytes, other_v6only: bool) -> bool:
    """Is there an address that both stand for?"""
    return ip == other or covers(ip, v6only, other) or covers(other, other_v6only, ip)


def covers(ip: bytes, v6only: bool, other: bytes) -> bool:
    """Is `ip` a wildcard that stands for `other` too?"""
    if ip == ANY4:
        return is_v4(other)
    return ip == ANY6 and not (v6only and is_v4(other))


def may_share(socket: InetSocket, other: InetSocket) -> bool:
    """Do their options let the two have one port?"""
    if socket.options.get(SO_REUSEPORT) and other.options.get(SO_REUSEPORT):
        if socket.inode.uid == other.inode.uid:
            return True
    both = socket.options.get(SO_REUSEADDR) and other.options.get(SO_REUSEADDR)
    return bool(both) and not other.listening


def match(socket: InetSocket, ip: bytes) -> int:
    """How exactly `socket` is bound to `ip`; 0 not at all."""
    bound = socket.local.ip
    if bound == ip:
        return 3
    if bound == ANY4:
        return 2 if is_v4(ip) else 0
    if bound == ANY6:
        return 1 if not (socket.v6only and is_v4(ip)) else 0
    return 0
