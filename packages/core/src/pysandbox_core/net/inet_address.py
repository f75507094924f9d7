"""Internet addresses. ip(7), ipv6(7)

Interface: an address is 16 bytes, an IPv4 one the IPv6 address that stands for it (::ffff:a.b.c.d),
so that sockets of both families meet. Only the loopback has routes.
"""

from __future__ import annotations

from errno import EAFNOSUPPORT, EINVAL
from struct import Struct
from typing import Final, NamedTuple

from pysandbox_core.abi.socket import AF_INET, AF_INET6, AF_UNSPEC
from pysandbox_core.errors import LinuxError

V4_PREFIX: Final = bytes(10) + b"\xff\xff"
ANY4: Final = V4_PREFIX + bytes(4)
ANY6: Final = bytes(16)
LOOPBACK4: Final = V4_PREFIX + b"\x7f\0\0\1"
LOOPBACK6: Final = bytes(15) + b"\1"

SOCKADDR_IN = Struct("<H2s4s8x")
"""sin_family, sin_port (big endian), sin_addr."""
SOCKADDR_IN6 = Struct("<H2sI16sI")
"""sin6_family, sin6_port (big endian), sin6_flowinfo, sin6_addr, sin6_scope_id."""
SIN6_LEN_RFC2133 = 24
"""Without sin6_scope_id: what must be there at least."""


class Endpoint(NamedTuple):
    """An address and a port; port 0 for none."""

    ip: bytes
    port: int


def is_v4(ip: bytes) -> bool:
    return ip.startswith(V4_PREFIX)


def is_any(ip: bytes) -> bool:
    return ip in (ANY4, ANY6)


def is_loopback(ip: bytes) -> bool:
    """127.0.0.0/8 or ::1."""
    return ip == LOOPBACK6 or (is_v4(ip) and ip[12] == 127)


def is_multicast(ip: bytes) -> bool:
    return 224 <= ip[12] < 240 if is_v4(ip) else ip[0] == 0xFF


def is_broadcast(ip: bytes) -> bool:
    return ip == V4_PREFIX + b"\xff\xff\xff\xff"


def parse(address: bytes, family: int, *, mixed: bool = False) -> Endpoint:
    """The struct sockaddr that a socket of `family` was given; `mixed`: an IPv6 socket takes an
    IPv4 one too. EINVAL too short; EAFNOSUPPORT"""
    given = int.from_bytes(address[:2], "little")
    if family == AF_INET or (mixed and given == AF_INET):
        if len(address) < SOCKADDR_IN.size:
            raise LinuxError(EINVAL)
        _, port, ip = SOCKADDR_IN.unpack_from(address)
        if given != AF_INET and not (given == AF_UNSPEC and ip == bytes(4)):
            raise LinuxError(EAFNOSUPPORT)
        return Endpoint(V4_PREFIX + ip, int.from_bytes(port, "big"))
    if len(address) < SIN6_LEN_RFC2133:
        raise LinuxError(EINVAL)
    if given != AF_INET6:
        raise LinuxError(EAFNOSUPPORT)
    return Endpoint(address[8:24], int.from_bytes(address[2:4], "big"))


def pack(endpoint: Endpoint, family: int) -> bytes:
    """The struct sockaddr of `endpoint` for a socket of `family`."""
    port = endpoint.port.to_bytes(2, "big")
    if family == AF_INET:
        return SOCKADDR_IN.pack(AF_INET, port, endpoint.ip[12:])
    return SOCKADDR_IN6.pack(AF_INET6, port, 0, endpoint.ip, 0)


def proc_text(endpoint: Endpoint, v6: bool) -> bytes:
    """As in /proc/net/tcp: the words of the address in host order, then the port."""
    ip = endpoint.ip if v6 else endpoint.ip[12:]
    words = b"".join(
        b"%08X" % int.from_bytes(ip[at : at + 4], "little") for at in range(0, len(ip), 4)
    )
    return b"%s:%04X" % (words, endpoint.port)
