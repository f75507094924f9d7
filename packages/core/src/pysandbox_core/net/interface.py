"""The one network interface, lo: what ioctl(2) and rtnetlink tell of it. netdevice(7)

Linux: net/core/dev_ioctl.c, net/ipv4/devinet.c.
"""

from __future__ import annotations

from errno import EADDRNOTAVAIL, EINVAL, ENODEV, ENOTTY, EPERM
from struct import Struct
from typing import TYPE_CHECKING, Final

from pysandbox_core.abi.inet import LOOPBACK_MTU
from pysandbox_core.abi.socket import AF_INET
from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.task import Task

NAME: Final = b"lo"
INDEX: Final = 1
IFNAMSIZ = 16
IFREQ_SIZE = 40

IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_RUNNING = 0x40
IFF_LOWER_UP = 0x10000
FLAGS: Final = IFF_UP | IFF_LOOPBACK | IFF_RUNNING
ARPHRD_LOOPBACK: Final = 772
TX_QUEUE_LENGTH = 1000

SIOCGIFNAME = 0x8910
SIOCGIFCONF = 0x8912
SIOCGIFFLAGS = 0x8913
SIOCGIFADDR = 0x8915
SIOCGIFDSTADDR = 0x8917
SIOCGIFBRDADDR = 0x8919
SIOCGIFNETMASK = 0x891B
SIOCGIFMETRIC = 0x891D
SIOCGIFMTU = 0x8921
SIOCGIFHWADDR = 0x8927
SIOCGIFINDEX = 0x8933
SIOCGIFTXQLEN = 0x8942
CHANGES = (0x8914, 0x8916, 0x8918, 0x891A, 0x891C, 0x8922, 0x8924, 0x890B, 0x890C, 0x8943)
"""SIOCSIF*, SIOCADDRT, SIOCDELRT."""

IFCONF = Struct("<i4xQ")
INT = Struct("<i")


def address(ip: bytes) -> bytes:
    """A struct sockaddr_in without port."""
    return Struct("<HH4s8x").pack(AF_INET, 0, ip)


ANSWERS: Final = {
    SIOCGIFFLAGS: Struct("<h").pack(FLAGS),
    SIOCGIFADDR: address(b"\x7f\0\0\1"),
    SIOCGIFDSTADDR: address(b"\x7f\0\0\1"),
    SIOCGIFBRDADDR: address(bytes(4)),
    SIOCGIFNETMASK: address(b"\xff\0\0\0"),
    SIOCGIFMETRIC: INT.pack(0),
    SIOCGIFMTU: INT.pack(LOOPBACK_MTU),
    SIOCGIFHWADDR: Struct("<H14x").pack(ARPHRD_LOOPBACK),
    SIOCGIFINDEX: INT.pack(INDEX),
    SIOCGIFTXQLEN: INT.pack(TX_QUEUE_LENGTH),
}
"""What follows the name in a struct ifreq."""


def ioctl(task: Task, request: int, argument: int) -> int:
    """The requests of netdevice(7), on any socket. ENODEV no such interface; EPERM for changes;
    ENOTTY"""
    mm = task.mm
    if request == SIOCGIFCONF:
        return list_interfaces(task, argument)
    if request == SIOCGIFNAME:
        (index,) = mm.unpack(argument + IFNAMSIZ, INT)
        if index != INDEX:
            raise LinuxError(ENODEV)
        mm.write(argument, NAME.ljust(IFNAMSIZ, b"\0"))
        return 0
    if request in CHANGES:
        raise LinuxError(EPERM)
    answer = ANSWERS.get(request)
    if answer is None:
        raise LinuxError(ENOTTY)
    name = mm.read(argument, IFNAMSIZ).split(b"\0")[0]
    if name != NAME:
        colon = name.partition(b":")[0] == NAME
        raise LinuxError(EADDRNOTAVAIL if colon else ENODEV)
    mm.write(argument + IFNAMSIZ, answer)
    return 0


def list_interfaces(task: Task, argument: int) -> int:
    """SIOCGIFCONF: a struct ifreq with the address of each; only their size without a buffer."""
    length, buffer = task.mm.unpack(argument, IFCONF)
    if length < 0:
        raise LinuxError(EINVAL)
    entry = (NAME.ljust(IFNAMSIZ, b"\0") + ANSWERS[SIOCGIFADDR]).ljust(IFREQ_SIZE, b"\0")
    if not buffer:
        written = IFREQ_SIZE
    else:
        written = IFREQ_SIZE if length >= IFREQ_SIZE else 0
        task.mm.write(buffer, entry[:written])
    task.mm.write(argument, INT.pack(written))
    return 0
