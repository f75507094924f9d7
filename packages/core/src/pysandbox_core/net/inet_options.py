"""Socket options of the levels IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP and IPPROTO_UDP.

Linux: net/ipv4/ip_sockglue.c, tcp.c, net/ipv6/ipv6_sockglue.c. Where there are no packets, most of
them have nothing to act on: they are checked, kept and told again.
"""

from __future__ import annotations

from errno import EINVAL, ENODEV, ENOENT, ENOPROTOOPT, ENOTCONN, EPERM
from typing import TYPE_CHECKING

from pysandbox_core.abi.inet import (
    IP_ADD_MEMBERSHIP,
    IP_BIND_ADDRESS_NO_PORT,
    IP_DROP_MEMBERSHIP,
    IP_FREEBIND,
    IP_MTU,
    IP_MTU_DISCOVER,
    IP_MULTICAST_IF,
    IP_MULTICAST_LOOP,
    IP_MULTICAST_TTL,
    IP_PKTINFO,
    IP_RECVERR,
    IP_RECVTOS,
    IP_RECVTTL,
    IP_TOS,
    IP_TRANSPARENT,
    IP_TTL,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPPROTO_TCP,
    IPV6_ADD_MEMBERSHIP,
    IPV6_DROP_MEMBERSHIP,
    IPV6_MTU,
    IPV6_MTU_DISCOVER,
    IPV6_MULTICAST_HOPS,
    IPV6_MULTICAST_IF,
    IPV6_MULTICAST_LOOP,
    IPV6_RECVERR,
    IPV6_RECVHOPLIMIT,
    IPV6_RECVPKTINFO,
    IPV6_RECVTCLASS,
    IPV6_TCLASS,
    IPV6_UNICAST_HOPS,
    IPV6_V6ONLY,
    LOOPBACK_MTU,
    TCP_CONGESTION,
    TCP_CORK,
    TCP_DEFER_ACCEPT,
    TCP_FASTOPEN,
    TCP_INFO,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_LINGER2,
    TCP_MAXSEG,
    TCP_NODELAY,
    TCP_NOTSENT_LOWAT,
    TCP_QUICKACK,
    TCP_SYNCNT,
    TCP_USER_TIMEOUT,
    TCP_WINDOW_CLAMP,
)
from pysandbox_core.credentials import CAP_NET_ADMIN, CAP_NET_RAW
from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.net.inet import InetSocket
    from pysandbox_core.task import Task

MAX_INT = 0x7FFFFFFF
IP_MAX_MTU = 0xFFFF
IP_OPTIONS: dict[int, tuple[int, int, int]] = {
    IP_TOS: (0, -1, 255),
    IP_TTL: (64, 1, 255),
    IP_PKTINFO: (0, 0, MAX_INT),
    IP_MTU_DISCOVER: (1, 0, 5),
    IP_RECVERR: (0, 0, MAX_INT),
    IP_RECVTTL: (0, 0, MAX_INT),
    IP_RECVTOS: (0, 0, MAX_INT),
    IP_FREEBIND: (0, 0, MAX_INT),
    IP_TRANSPARENT: (0, 0, MAX_INT),
    IP_BIND_ADDRESS_NO_PORT: (0, 0, MAX_INT),
    IP_MULTICAST_IF: (0, -MAX_INT, MAX_INT),
    IP_MULTICAST_TTL: (1, -1, 255),
    IP_MULTICAST_LOOP: (1, 0, MAX_INT),
}
"""Default, least and greatest value by name."""
IPV6_OPTIONS: dict[int, tuple[int, int, int]] = {
    IPV6_UNICAST_HOPS: (64, -1, 255),
    IPV6_MULTICAST_IF: (0, 0, MAX_INT),
    IPV6_MULTICAST_HOPS: (1, -1, 255),
    IPV6_MULTICAST_LOOP: (1, 0, 1),
    IPV6_MTU_DISCOVER: (1, 0, 5),
    IPV6_RECVERR: (0, 0, MAX_INT),
    IPV6_RECVPKTINFO: (0, 0, MAX_INT),
    IPV6_RECVHOPLIMIT: (0, 0, MAX_INT),
    IPV6_RECVTCLASS: (0, 0, MAX_INT),
    IPV6_TCLASS: (0, -1, 255),
}
TCP_OPTIONS: dict[int, tuple[int, int, int]] = {
    TCP_NODELAY: (0, -MAX_INT, MAX_INT),
    TCP_MAXSEG: (536, 88, 32767),
    TCP_CORK: (0, -MAX_INT, MAX_INT),
    TCP_KEEPIDLE: (7200, 1, 32767),
    TCP_KEEPINTVL: (75, 1, 32767),
    TCP_KEEPCNT: (9, 1, 127),
    TCP_SYNCNT: (6, 1, 127),
    TCP_LINGER2: (60, -MAX_INT, MAX_INT),
    TCP_DEFER_ACCEPT: (0, -MAX_INT, MAX_INT),
    TCP_WINDOW_CLAMP: (0, 0, MAX_INT),
    TCP_QUICKACK: (1, -MAX_INT, MAX_INT),
    TCP_USER_TIMEOUT: (0, 0, MAX_INT),
    TCP_FASTOPEN: (0, 0, MAX_INT),
    TCP_NOTSENT_LOWAT: (-1, -MAX_INT, MAX_INT),
}
FLAGS = (TCP_NODELAY, TCP_CORK, TCP_QUICKACK)
TCP_INFO_SIZE = 248
CONGESTION = b"cubic".ljust(16, b"\0")
KNOWN_CONGESTION = (b"cubic", b"reno")
MEMBERSHIPS = (
    (IPPROTO_IP, IP_ADD_MEMBERSHIP),
    (IPPROTO_IP, IP_DROP_MEMBERSHIP),
    (IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP),
    (IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP),
)


def table(socket: InetSocket, level: int) -> dict[int, tuple[int, int, int]]:
    """The options of `level`. ENOPROTOOPT for a level that the socket has not"""
    if level == IPPROTO_IP:
        return IP_OPTIONS
    if level == IPPROTO_IPV6 and socket.is_v6:
        return IPV6_OPTIONS
    if level == IPPROTO_TCP and socket.PROTOCOL == IPPROTO_TCP:
        return TCP_OPTIONS
    raise LinuxError(ENOPROTOOPT)


def set_option(task: Task, socket: InetSocket, level: int, name: int, data: bytes) -> None:
    """setsockopt(2). ENOPROTOOPT; EINVAL too short, or out of range; EPERM; ENODEV"""
    known = table(socket, level)
    if (level, name) in MEMBERSHIPS:
        raise LinuxError(ENODEV)  # no interface here does multicast
    if (level, name) == (IPPROTO_TCP, TCP_CONGESTION):
        if data.rstrip(b"\0") not in KNOWN_CONGESTION:
            raise LinuxError(ENOENT)
        return
    if len(data) >= 4:
        value = int.from_bytes(data[:4], "little", signed=True)
    elif level == IPPROTO_IP and data:
        value = data[0]  # ip(7): a char will do
    else:
        raise LinuxError(EINVAL)
    if (level, name) == (IPPROTO_IPV6, IPV6_V6ONLY):
        if socket.local.port:
            raise LinuxError(EINVAL)
        socket.v6only = bool(value)
        return
    if name not in known:
        raise LinuxError(ENOPROTOOPT)
    default, least, greatest = known[name]
    if (level, name) == (IPPROTO_IP, IP_TRANSPARENT) and value:
        if not (task.creds.capable(CAP_NET_ADMIN) or task.creds.capable(CAP_NET_RAW)):
            raise LinuxError(EPERM)
    if not least <= value <= greatest:
        raise LinuxError(EINVAL)
    if value == -1 and level != IPPROTO_TCP:
        value = default
    if level == IPPROTO_TCP and name in FLAGS:
        value = int(bool(value))
    socket.inet_options[level, name] = value


def get_option(socket: InetSocket, level: int, name: int, length: int) -> bytes:
    """getsockopt(2). ENOPROTOOPT; ENOTCONN"""
    known = table(socket, level)
    if (level, name) in ((IPPROTO_IP, IP_MTU), (IPPROTO_IPV6, IPV6_MTU)):
        if socket.remote is None:
            raise LinuxError(ENOTCONN)
        value = min(LOOPBACK_MTU, IP_MAX_MTU)
    elif (level, name) == (IPPROTO_IPV6, IPV6_V6ONLY):
        value = int(socket.v6only)
    elif (level, name) == (IPPROTO_TCP, TCP_INFO):
        return bytes((socket.proc_state(),)).ljust(TCP_INFO_SIZE, b"\0")
    elif (level, name) == (IPPROTO_TCP, TCP_CONGESTION):
        return CONGESTION
    elif name in known:
        value = socket.inet_options.get((level, name), known[name][0])
    else:
        raise LinuxError(ENOPROTOOPT)
    data = value.to_bytes(4, "little", signed=True)
    if level == IPPROTO_IP and 0 < length < 4 and 0 <= value <= 255:
        return data[:1]
    return data


def may_bind_anywhere(socket: InetSocket) -> bool:
    """IP_FREEBIND, IP_TRANSPARENT"""
    return any(
        socket.inet_options.get((IPPROTO_IP, name)) for name in (IP_FREEBIND, IP_TRANSPARENT)
    )
