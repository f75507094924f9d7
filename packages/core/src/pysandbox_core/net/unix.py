"""AF_UNIX sockets: what stream, datagram and seqpacket ones share. unix(7)

Linux: net/unix/af_unix.c. The two kinds are in unix_stream.py and unix_datagram.py, the lifetime of
files that are passed in unix_passing.py.

Interface: `new_socket`, `socket_pair`. A message lies in the receiver's `inbox` as a `Segment` and
is charged to its sender's send buffer until it is read.
"""

from __future__ import annotations

import stat
from collections import deque
from errno import (
    EADDRINUSE,
    ECONNREFUSED,
    EEXIST,
    EINVAL,
    ENOPROTOOPT,
    ENOSPC,
    ENOTCONN,
    EOPNOTSUPP,
    EPROTONOSUPPORT,
    EPROTOTYPE,
    ESOCKTNOSUPPORT,
)
from struct import pack
from typing import TYPE_CHECKING

from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.abi.socket import (
    AF_UNIX,
    SO_PASSCRED,
    SO_PEERCRED,
    SO_PEERGROUPS,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
    UCRED,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.net import unix_passing
from pysandbox_core.net.network import network
from pysandbox_core.net.socket_file import (
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SHUTDOWN_BOTH,
    SocketFile,
    shutdown_bits,
)
from pysandbox_core.waiting import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDHUP,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
    WaitQueue,
)

if TYPE_CHECKING:
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.net.socket_file import Ancillary
    from pysandbox_core.task import Task

UNIX_PATH_MAX = 108
OVERHEAD = 576
"""What a message costs its sender's buffer besides its bytes, as an skb does."""
READABLE = POLLIN | POLLRDNORM
WRITABLE = POLLOUT | POLLWRNORM | POLLWRBAND
NOBODY = 65534
Creds = tuple[int, int, int]
"""pid, uid, gid"""


class Segment:
    """Data in an inbox: a message, or a stretch of a stream, with what came with it."""

    __slots__ = ("charge", "creds", "data", "files", "name", "sender", "start", "uid")

    def __init__(
        self, sender: UnixSocket, data: bytes, creds: Creds, files: list[FileDescription], uid: int
    ) -> None:
        self.sender = sender
        self.data: bytes | bytearray = data
        self.start = 0
        """Bytes of it that have been read."""
        self.creds = creds
        self.files = files
        self.uid = uid
        """Whose files in flight they are."""
        self.name = sender.name
        self.charge = len(data) + OVERHEAD


class UnixSocket(SocketFile):
    """One AF_UNIX socket. Connected ones know each other as `peer` until one is closed."""

    __slots__ = (
        "bound_inode", "closed", "creds", "groups", "inbox", "level", "name", "peer", "peer_creds",
        "peer_groups", "room_queue", "used",
    )  # fmt: skip

    def __init__(self, kernel: Kernel, type_: int, flags: int, uid: int, gid: int) -> None:
        super().__init__(kernel, AF_UNIX, type_, 0, flags, uid, gid)
        self.name = b""
        """sun_path as getsockname(2) gives it; empty while unbound."""
        self.bound_inode: Inode | None = None
        """The inode that bind made: it has to live as long as the socket."""
        self.inbox: deque[Segment] = deque()
        self.level = 0
        """How deep sockets lie in messages in sockets in its inbox: unix_passing.send_files."""
        self.used = 0
        """Bytes sent, overhead included, that have not been read."""
        self.peer: UnixSocket | None = None
        self.peer_creds: Creds = (0, NOBODY, NOBODY)
        """SO_PEERCRED: pid 0 and the overflow ids while not connected."""
        self.peer_groups: tuple[int, ...] | None = None
        self.room_queue = WaitQueue()
        """Woken when the inbox is no longer full: those who send messages to it stand here."""
        self.closed = False
        network(kernel).unix_sockets[self] = None

    def release(self) -> None:
        net = network(self.kernel)
        net.unix_sockets.pop(self, None)
        self.closed = True
        self._unbind()
        self.disconnect()
        unix_passing.drain(self)
        if net.in_flight:
            unix_passing.socket_closed(self.kernel)

    def flush(self, task: Task) -> None:
        if self.refs > 1 and network(self.kernel).in_flight:
            unix_passing.look_later(self.kernel)

    def disconnect(self) -> None:
        """The socket is being closed: tell its peer."""
        raise NotImplementedError

    def embryos(self) -> tuple[UnixSocket, ...]:
        """Connections that it has yet to accept."""
        return ()

    def _unbind(self) -> None:
        net = network(self.kernel)
        if self.bound_inode is not None:
            if net.bound_inodes.get(self.bound_inode) is self:
                del net.bound_inodes[self.bound_inode]
            self.bound_inode = None
        elif self.name and net.abstract_names.get((self.type, self.name[1:])) is self:
            del net.abstract_names[self.type, self.name[1:]]

    # Names.

    def getsockname(self) -> bytes:
        return sockaddr(self.name)

    def getpeername(self) -> bytes:
        if self.peer is None:
            raise LinuxError(ENOTCONN)
        return sockaddr(self.peer.name)

    def bind(self, task: Task, address: bytes) -> None:
        """Take a name: a path, where a socket is made, or an abstract one; a family alone takes any
        free abstract one. EINVAL bound already; EADDRINUSE; those of mknod(2)."""
        path = parse_address(address, autobind=True)
        if path is None:
            if not self.name:
                self.autobind()
            return
        if self.name:
            raise LinuxError(EINVAL)
        net = network(self.kernel)
        if path.startswith(b"\0"):
            if (self.type, path[1:]) in net.abstract_names:
                raise LinuxError(EADDRINUSE)
            net.abstract_names[self.type, path[1:]] = self
            self.name = path
            return
        from pysandbox_core.fs.names import create_name

        try:
            inode = create_name(task, AT_FDCWD, path, stat.S_IFSOCK | 0o777).inode
        except LinuxError as error:
            raise LinuxError(EADDRINUSE if error.errno == EEXIST else error.errno) from None
        net.bound_inodes[inode] = self
        self.bound_inode = inode
        self.name = path + b"\0"

    def autobind(self) -> None:
        """Take the next free abstract name of five hexadecimal digits. unix(7)"""
        net = network(self.kernel)
        for _ in range(1 << 20):
            net.last_autobind = (net.last_autobind + 1) & 0xFFFFF
            name = b"%05x" % net.last_autobind
            if (self.type, name) not in net.abstract_names:
                net.abstract_names[self.type, name] = self
                self.name = b"\0" + name
                return
        raise LinuxError(ENOSPC)

    def find(self, task: Task, address: bytes) -> UnixSocket:
        """The socket that `address` names. ECONNREFUSED nobody; EPROTOTYPE another type; those of
        path resolution; EACCES no write permission."""
        path = parse_address(address, autobind=False)
        assert path is not None
        net = network(self.kernel)
        if path.startswith(b"\0"):
            other = net.abstract_names.get((self.type, path[1:]))
        else:
            from pysandbox_core.fs.permissions import MAY_WRITE, check_access
            from pysandbox_core.fs.resolve import resolve

            inode = resolve(task, AT_FDCWD, path).inode
            check_access(task.creds, inode, MAY_WRITE)
            other = net.bound_inodes.get(inode) if stat.S_ISSOCK(inode.mode) else None
        if other is None or other.closed:
            raise LinuxError(ECONNREFUSED)
        if other.type != self.type:
            raise LinuxError(EPROTOTYPE)
        return other

    # Credentials.

    def introduce(self, task: Task) -> None:
        """What the other side of a connection made by `task` gets to know as SO_PEERCRED."""
        self.peer_creds = creds_of(task)
        self.peer_groups = task.creds.groups

    @property
    def passes_creds(self) -> bool:
        return bool(self.options.get(SO_PASSCRED))

    # Sending, for both kinds.

    def segment(
        self,
        task: Task,
        data: bytes,
        ancillary: Ancillary | None,
        with_files: bool,
        receiver: UnixSocket,
    ) -> Segment:
        """A message from here to `receiver`, charged to the send buffer. ENOMEM, ETOOMANYREFS"""
        self.kernel.memory.grow(len(data) + OVERHEAD)
        creds = ancillary.creds if ancillary is not None else None
        files: list[FileDescription] = []
        if with_files and ancillary is not None and ancillary.files:
            unix_passing.send_files(task, ancillary.files, receiver)
            files, ancillary.files = ancillary.files, []
        segment = Segment(self, data, creds or creds_of(task), files, task.creds.uid)
        self.used += segment.charge
        return segment

    def discharge(self, segment: Segment) -> None:
        """`segment`, sent from here, has been read."""
        was_writable = self.writable
        self.used -= segment.charge
        if not was_writable and self.writable:
            self.queue.wake(WRITABLE)

    @property
    def writable(self) -> bool:
        return self.used * 4 <= self.sndbuf

    # Shutdown, state, options.

    def shutdown(self, task: Task, how: int) -> None:
        bits = shutdown_bits(how)
        self.shut |= bits
        peer = self.peer
        if peer is not None and self.type != SOCK_DGRAM:
            peer.shut |= (bits & RCV_SHUTDOWN and SEND_SHUTDOWN) | (
                bits & SEND_SHUTDOWN and RCV_SHUTDOWN
            )
            peer.queue.wake(POLLHUP | POLLRDHUP | READABLE | WRITABLE)
        self.queue.wake(POLLHUP | POLLRDHUP | READABLE | WRITABLE)

    def common_events(self) -> int:
        """poll(2) bits that do not depend on the kind of socket."""
        events = 0
        if self.error:
            events |= POLLERR
        if self.shut == SHUTDOWN_BOTH:
            events |= POLLHUP
        if self.shut & RCV_SHUTDOWN:
            events |= POLLRDHUP | READABLE
        if self.inbox:
            events |= READABLE
        return events

    def setsockopt(self, task: Task, level: int, name: int, data: bytes) -> None:
        if level != SOL_SOCKET:
            raise LinuxError(EOPNOTSUPP)
        super().setsockopt(task, level, name, data)

    def getsockopt(self, task: Task, level: int, name: int, length: int) -> bytes:
        if level != SOL_SOCKET:
            raise LinuxError(EOPNOTSUPP)
        if name == SO_PEERCRED:
            pid, uid, gid = self.peer_creds
            return UCRED.pack(pid, uid, gid)
        if name == SO_PEERGROUPS:
            if self.peer_groups is None:
                raise LinuxError(ENOPROTOOPT)
            return b"".join(gid.to_bytes(4, "little") for gid in self.peer_groups)
        return super().getsockopt(task, level, name, length)

    def unsent(self) -> int:
        return self.used

    def proc_line(self) -> bytes:
        """As in /proc/net/unix."""
        state = 1 if self.peer is None else 3
        name = self.name.rstrip(b"\0") if self.name[:1] != b"\0" else b"@" + self.name[1:]
        return b"%016x: %08X 00000000 %08X %04X %02X %5d%s\n" % (
            0, self.refs, 0x10000 if self.listening else 0, self.type, state, self.inode.ino,
            b" " + name.replace(b"\0", b"@") if name else b"",
        )  # fmt: skip


def creds_of(task: Task) -> Creds:
    """What SCM_CREDENTIALS says of `task` by default."""
    return task.group.pid, task.creds.uid, task.creds.gid


def sockaddr(name: bytes) -> bytes:
    """struct sockaddr_un, as long as the name is."""
    return pack("<H", AF_UNIX) + name


def parse_address(address: bytes, *, autobind: bool) -> bytes | None:
    """The name in a struct sockaddr_un: a path, or an abstract name with its leading NUL; None for
    a family alone, which `autobind` allows. EINVAL"""
    if len(address) < 2 or len(address) > 2 + UNIX_PATH_MAX or address[:2] != b"\x01\0":
        raise LinuxError(EINVAL)
    name = address[2:]
    if not name:
        if autobind:
            return None
        raise LinuxError(EINVAL)
    if name[0]:
        return name.split(b"\0", 1)[0]
    return name


def kind(type_: int) -> type[UnixSocket]:
    """The class for a socket type. ESOCKTNOSUPPORT"""
    if type_ == SOCK_STREAM:
        from pysandbox_core.net.unix_stream import StreamSocket

        return StreamSocket
    if type_ in (SOCK_DGRAM, SOCK_SEQPACKET, SOCK_RAW):
        from pysandbox_core.net.unix_datagram import DatagramSocket, SeqpacketSocket

        return SeqpacketSocket if type_ == SOCK_SEQPACKET else DatagramSocket
    raise LinuxError(ESOCKTNOSUPPORT)


def new_socket(task: Task, type_: int, protocol: int, flags: int) -> UnixSocket:
    """socket(2). EPROTONOSUPPORT, ESOCKTNOSUPPORT"""
    if protocol not in (0, AF_UNIX):
        raise LinuxError(EPROTONOSUPPORT)
    type_ = SOCK_DGRAM if type_ == SOCK_RAW else type_
    creds = task.creds
    return kind(type_)(task.kernel, type_, flags, creds.fsuid, creds.fsgid)


def socket_pair(task: Task, type_: int, protocol: int, flags: int) -> tuple[UnixSocket, UnixSocket]:
    """Two sockets connected to each other. socketpair(2)"""
    first = new_socket(task, type_, protocol, flags)
    second = new_socket(task, type_, protocol, flags)
    first.peer, second.peer = second, first
    first.introduce(task)
    second.introduce(task)
    return first, second
