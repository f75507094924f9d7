"""socket(2), and what is done with sockets: names, connections, messages, options.

Linux: net/socket.c.
"""

from __future__ import annotations

import os
from errno import (
    EAFNOSUPPORT,
    EINVAL,
    EMSGSIZE,
    ENOTSOCK,
    EOPNOTSUPP,
)
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core import hook_calls
from pysandbox_core.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_MAX,
    AF_NETLINK,
    AF_UNIX,
    MMSGHDR_SIZE,
    MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT,
    MSG_WAITFORONE,
    MSGHDR,
    SHUT_RDWR,
    SO_PASSCRED,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_TYPE_MASK,
    SOCKADDR_STORAGE_SIZE,
)
from pysandbox_core.abi.time import KTIME_MAX, read_timespec_ns, write_timespec_ns
from pysandbox_core.declare import (
    Fd,
    Hex,
    Int,
    Result,
    Size,
    SockaddrPtr,
    TimespecPtr,
    UInt,
    UserAddr,
    syscall,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from pysandbox_core.net.messages import MessageHeader
    from pysandbox_core.net.socket_file import SocketFile

TWO_FDS = Struct("<ii")
OPTION_MAX = 4096
"""Bytes of an option value that are looked at."""
UIO_MAXIOV = 1024


def get_socket(task: Task, fd: int) -> SocketFile:
    """EBADF not open; ENOTSOCK something else."""
    from pysandbox_core.net.socket_file import SocketFile

    file = task.files.get(fd)
    if not isinstance(file, SocketFile):
        raise LinuxError(ENOTSOCK)
    return file


def read_address(task: Task, addr: int, length: int) -> bytes:
    """The sockaddr of `length` bytes at `addr`. EINVAL, EFAULT"""
    if not 0 <= length <= SOCKADDR_STORAGE_SIZE:
        raise LinuxError(EINVAL)
    return task.mm.read(addr, length) if length else b""


def read_destination(task: Task, addr: int, length: int) -> bytes:
    """A sockaddr that something is to be sent to. EINVAL, EFAULT, and what a hook refuses it
    with."""
    address = read_address(task, addr, length)
    if task.kernel.hooks is not None:
        hook_calls.connect(task, address)
    return address


def write_address(task: Task, address: bytes, addr: int, length_addr: int) -> None:
    """Give the program `address`, cut to the room it says it has, and its real length."""
    room = int.from_bytes(task.mm.read(length_addr, 4), "little", signed=True)
    if room < 0:
        raise LinuxError(EINVAL)
    if room and address:
        task.mm.write(addr, address[:room])
    task.mm.write(length_addr, len(address).to_bytes(4, "little"))


@syscall(
    "socket", note="AF_UNIX, AF_INET and AF_INET6 (loopback), AF_NETLINK (NETLINK_ROUTE dumps)"
)
def socket(task: Task, domain: Int, type: Int, protocol: Int) -> Result:
    """A new socket. socket(2)

    Errors: EINVAL unknown flags or type; EAFNOSUPPORT; EPROTONOSUPPORT; ESOCKTNOSUPPORT; EMFILE.
    """
    kind, flags = check_type(domain, type)
    file = new_socket(task, domain, kind, protocol, flags & os.O_NONBLOCK)
    return task.files.install(task, file, cloexec=bool(flags & SOCK_CLOEXEC))


def check_type(domain: int, type_: int) -> tuple[int, int]:
    """(type, flags) out of the type argument. EINVAL, EAFNOSUPPORT"""
    flags = type_ & ~SOCK_TYPE_MASK
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise LinuxError(EINVAL)
    if not 0 <= domain < AF_MAX:
        raise LinuxError(EAFNOSUPPORT)
    kind = type_ & SOCK_TYPE_MASK
    if kind > 10:
        raise LinuxError(EINVAL)
    return kind, flags


def new_socket(task: Task, domain: int, kind: int, protocol: int, flags: int) -> SocketFile:
    """A socket of a family we have, with a reference that is the caller's."""
    if domain == AF_UNIX:
        from pysandbox_core.net import unix

        return unix.new_socket(task, kind, protocol, flags)
    if domain in (AF_INET, AF_INET6):
        from pysandbox_core.net import inet

        return inet.new_socket(task, domain, kind, protocol, flags)
    if domain == AF_NETLINK:
        from pysandbox_core.net import netlink

        return netlink.new_socket(task, kind, protocol, flags)
    raise LinuxError(EAFNOSUPPORT)


@syscall("socketpair")
def socketpair(task: Task, domain: Int, type: Int, protocol: Int, sv: UserAddr) -> Result:
    """Two sockets connected to each other, AF_UNIX only. socketpair(2)

    Errors: those of socket(2); EOPNOTSUPP another family; EMFILE; EFAULT.
    """
    kind, flags = check_type(domain, type)
    if domain != AF_UNIX:
        new_socket(task, domain, kind, protocol, 0).decref()
        raise LinuxError(EOPNOTSUPP)
    from pysandbox_core.net import unix

    pair = unix.socket_pair(task, kind, protocol, flags & os.O_NONBLOCK)
    cloexec = bool(flags & SOCK_CLOEXEC)
    try:
        first = task.files.install(task, pair[0], cloexec=cloexec)
    except LinuxError:
        pair[1].decref()
        raise
    try:
        second = task.files.install(task, pair[1], cloexec=cloexec)
    except LinuxError:
        task.files.close(task, first)
        raise
    try:
        task.mm.write(sv, TWO_FDS.pack(first, second))
    except LinuxError:
        task.files.close(task, first)
        task.files.close(task, second)
        raise
    return 0


# Names and connections.


@syscall("bind")
def bind(task: Task, sockfd: Fd, addr: SockaddrPtr, addrlen: Int) -> Result:
    """Give a socket a name. bind(2)

    Errors: EBADF; ENOTSOCK; EINVAL; EFAULT; EADDRINUSE; EADDRNOTAVAIL; EACCES; those of paths.
    """
    file = get_socket(task, sockfd)
    file.bind(task, read_address(task, addr, addrlen))
    return 0


@syscall("connect")
def connect(task: Task, sockfd: Fd, addr: SockaddrPtr, addrlen: Int) -> Result:
    """Connect to, or for datagrams choose, the other side. connect(2)"""
    file = get_socket(task, sockfd)
    file.connect(task, read_destination(task, addr, addrlen))
    return 0


@syscall("listen")
def listen(task: Task, sockfd: Fd, backlog: Int) -> Result:
    """Be ready for connections, `backlog` of them waiting. listen(2)"""
    get_socket(task, sockfd).listen(task, backlog)
    return 0


@syscall("accept")
def accept(task: Task, sockfd: Fd, addr: SockaddrPtr, addrlen: UserAddr) -> Result:
    """Take the next connection; its far end's name goes to `addr`. accept(2)"""
    return do_accept(task, sockfd, addr, addrlen, 0)


@syscall("accept4")
def accept4(task: Task, sockfd: Fd, addr: SockaddrPtr, addrlen: UserAddr, flags: Int) -> Result:
    """accept(2) with SOCK_CLOEXEC and SOCK_NONBLOCK. EINVAL any other flag"""
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise LinuxError(EINVAL)
    return do_accept(task, sockfd, addr, addrlen, flags)


def do_accept(task: Task, sockfd: int, addr: int, addrlen: int, flags: int) -> int:
    """EMFILE is found before a connection is taken."""
    file = get_socket(task, sockfd)
    task.files.allocate(task.group.limits.nofile)
    connection = file.accept(task)
    connection.flags |= flags & os.O_NONBLOCK
    fd = task.files.install(task, connection, cloexec=bool(flags & SOCK_CLOEXEC))
    if addr:
        try:
            write_address(task, peer_or_nothing(connection), addr, addrlen)
        except LinuxError:
            task.files.close(task, fd)
            raise
    return fd


def peer_or_nothing(connection: SocketFile) -> bytes:
    """The far end's name; one that has hung up already has none."""
    try:
        return connection.getpeername()
    except LinuxError:
        return b""


@syscall("getsockname")
def getsockname(task: Task, sockfd: Fd, addr: SockaddrPtr, addrlen: UserAddr) -> Result:
    """The socket's own name. getsockname(2)"""
    write_address(task, get_socket(task, sockfd).getsockname(), addr, addrlen)
    return 0


@syscall("getpeername")
def getpeername(task: Task, sockfd: Fd, addr: SockaddrPtr, addrlen: UserAddr) -> Result:
    """The name of the other side. ENOTCONN. getpeername(2)"""
    write_address(task, get_socket(task, sockfd).getpeername(), addr, addrlen)
    return 0


@syscall("shutdown")
def shutdown(task: Task, sockfd: Fd, how: Int) -> Result:
    """End one direction or both. EINVAL `how`; ENOTCONN. shutdown(2)"""
    file = get_socket(task, sockfd)
    if not 0 <= how <= SHUT_RDWR:
        raise LinuxError(EINVAL)
    file.shutdown(task, how)
    return 0


# Messages.


@syscall("sendto")
def sendto(
    task: Task,
    sockfd: Fd,
    buf: UserAddr,
    size: Size,
    flags: Hex,
    addr: SockaddrPtr,
    addrlen: Int,
) -> Result:
    """Send a message, to `addr` if given; how many bytes. sendto(2), send(2)"""
    source = task.mm.source(buf, size)
    file = get_socket(task, sockfd)
    address = read_destination(task, addr, addrlen) if addr else None
    return file.send(task, source, flags & 0xFFFFFFFF, address)


@syscall("recvfrom")
def recvfrom(
    task: Task,
    sockfd: Fd,
    buf: UserAddr,
    size: Size,
    flags: Hex,
    addr: SockaddrPtr,
    addrlen: UserAddr,
) -> Result:
    """Receive a message; its sender goes to `addr` if given. recvfrom(2), recv(2)"""
    sink = task.mm.sink(buf, size)
    file = get_socket(task, sockfd)
    if not addr:
        return file.receive(task, sink, flags & 0xFFFFFFFF)
    from pysandbox_core.net.socket_file import Received

    received = Received()
    count = file.receive(task, sink, flags & 0xFFFFFFFF, received)
    for passed in received.files:
        passed.decref()
    write_address(task, received.address, addr, addrlen)
    return count


@syscall("sendmsg")
def sendmsg(task: Task, sockfd: Fd, msg: UserAddr, flags: Hex) -> Result:
    """Send a message of several pieces, with control messages. sendmsg(2)"""
    return send_message(task, get_socket(task, sockfd), msg, flags & 0xFFFFFFFF)


def send_message(task: Task, file: SocketFile, msg: int, flags: int) -> int:
    from pysandbox_core.net.messages import read_ancillary, read_header

    header = read_header(task, msg)
    address = read_destination(task, header.name, header.namelen) if header.namelen else None
    source = task.mm.source_iov(header.iov, checked_iovlen(header))
    ancillary = read_ancillary(task, header.control, header.controllen)
    return file.send(task, source, flags, address, ancillary)


def checked_iovlen(header: MessageHeader) -> int:
    """EMSGSIZE for more than UIO_MAXIOV, where readv(2) has EINVAL."""
    if header.iovlen > UIO_MAXIOV:
        raise LinuxError(EMSGSIZE)
    return header.iovlen


@syscall("recvmsg")
def recvmsg(task: Task, sockfd: Fd, msg: UserAddr, flags: Hex) -> Result:
    """Receive a message into several pieces, with sender and control messages. recvmsg(2)"""
    return receive_message(task, get_socket(task, sockfd), msg, flags & 0xFFFFFFFF)


def receive_message(task: Task, file: SocketFile, msg: int, flags: int) -> int:
    from pysandbox_core.net.messages import read_header, write_received
    from pysandbox_core.net.socket_file import Received

    header = read_header(task, msg)
    sink = task.mm.sink_iov(header.iov, checked_iovlen(header))
    received = Received()
    try:
        count = file.receive(task, sink, flags & ~MSG_CMSG_CLOEXEC, received)
        passcred = bool(file.options.get(SO_PASSCRED))
        write_received(task, msg, header, received, flags, passcred)
    finally:
        for passed in received.files:
            passed.decref()
    return count


@syscall("sendmmsg")
def sendmmsg(task: Task, sockfd: Fd, msgvec: UserAddr, vlen: UInt, flags: Hex) -> Result:
    """sendmsg(2) for up to 1024 messages; how many went. An error after the first one is kept for
    the next call."""
    file = get_socket(task, sockfd)
    sent = 0
    for sent in range(min(vlen, UIO_MAXIOV)):
        entry = msgvec + sent * MMSGHDR_SIZE
        try:
            count = send_message(task, file, entry, flags & 0xFFFFFFFF)
            task.mm.write_u32(entry + MSGHDR.size, count)
        except LinuxError:
            if not sent:
                raise
            return sent
    return sent + 1 if vlen else 0


@syscall("recvmmsg")
def recvmmsg(
    task: Task, sockfd: Fd, msgvec: UserAddr, vlen: UInt, flags: Hex, timeout: TimespecPtr
) -> Result:
    """recvmsg(2) for up to `vlen` messages; how many came. `timeout` is only looked at between
    two."""
    clocks = task.kernel.clocks
    end_ns = None
    if timeout:
        end_ns = min(clocks.monotonic_ns() + read_timespec_ns(task.mm, timeout), KTIME_MAX)
    file = get_socket(task, sockfd)
    file.take_error()
    flags &= 0xFFFFFFFF
    count = 0
    while count < vlen:
        entry = msgvec + count * MMSGHDR_SIZE
        try:
            size = receive_message(task, file, entry, flags & ~MSG_WAITFORONE)
            task.mm.write_u32(entry + MSGHDR.size, size)
        except LinuxError:
            if not count:
                raise
            break
        count += 1
        if flags & MSG_WAITFORONE:
            flags |= MSG_DONTWAIT
        if end_ns is not None and clocks.monotonic_ns() >= end_ns:
            break
    if end_ns is not None:
        write_timespec_ns(task.mm, timeout, max(end_ns - clocks.monotonic_ns(), 0))
    return count


# Options.


@syscall("setsockopt")
def setsockopt(
    task: Task, sockfd: Fd, level: Int, optname: Int, optval: UserAddr, optlen: Int
) -> Result:
    """Set an option. setsockopt(2)

    Errors: EINVAL a negative length; EBADF; ENOTSOCK; EFAULT; ENOPROTOOPT; EINVAL the value.
    """
    if optlen < 0:
        raise LinuxError(EINVAL)
    file = get_socket(task, sockfd)
    data = task.mm.read(optval, min(optlen, OPTION_MAX)) if optlen else b""
    file.setsockopt(task, level, optname, data)
    return 0


@syscall("getsockopt")
def getsockopt(
    task: Task, sockfd: Fd, level: Int, optname: Int, optval: UserAddr, optlen: UserAddr
) -> Result:
    """Tell an option. getsockopt(2)"""
    file = get_socket(task, sockfd)
    length = int.from_bytes(task.mm.read(optlen, 4), "little", signed=True)
    if length < 0:
        raise LinuxError(EINVAL)
    value = file.getsockopt(task, level, optname, length)[:length]
    if value:
        task.mm.write(optval, value)
    task.mm.write(optlen, len(value).to_bytes(4, "little"))
    return 0
