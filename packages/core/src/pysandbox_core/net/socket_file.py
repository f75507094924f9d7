"""SocketFile: what sockets of all families have in common.

Linux: net/socket.c, net/core/sock.c.

Interface: a family derives from it and implements the calls that its types have; the others answer
as Linux's sock_no_*() do. Data moves as in every file, through a Sink or a Source; what else comes
with a message goes in a `Received` or an `Ancillary`, None where nobody asks or there is none.
Addresses are the bytes of a sockaddr, family included, already copied from the program.
"""

from __future__ import annotations

import os
import stat
from errno import (
    EAGAIN,
    EDOM,
    EINTR,
    EINVAL,
    ENODEV,
    ENOPROTOOPT,
    ENOTTY,
    EOPNOTSUPP,
    EPERM,
)
from typing import TYPE_CHECKING

from pysandbox_core import task_signals
from pysandbox_core.abi.signal import SIGPIPE
from pysandbox_core.abi.socket import (
    BUFFER_MAX,
    LINGER,
    MIN_RCVBUF,
    MIN_SNDBUF,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SHUT_RD,
    SHUT_WR,
    SIOCINQ,
    SIOCOUTQ,
    SO_ACCEPTCONN,
    SO_BINDTODEVICE,
    SO_BROADCAST,
    SO_COOKIE,
    SO_DEBUG,
    SO_DOMAIN,
    SO_DONTROUTE,
    SO_ERROR,
    SO_INCOMING_CPU,
    SO_KEEPALIVE,
    SO_LINGER,
    SO_MARK,
    SO_NO_CHECK,
    SO_OOBINLINE,
    SO_PASSCRED,
    SO_PASSSEC,
    SO_PRIORITY,
    SO_PROTOCOL,
    SO_RCVBUF,
    SO_RCVBUFFORCE,
    SO_RCVLOWAT,
    SO_RCVTIMEO,
    SO_RCVTIMEO_NEW,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SO_SNDBUF,
    SO_SNDBUFFORCE,
    SO_SNDLOWAT,
    SO_SNDTIMEO,
    SO_SNDTIMEO_NEW,
    SO_TIMESTAMP,
    SO_TIMESTAMPNS,
    SO_TYPE,
    SOL_SOCKET,
)
from pysandbox_core.abi.time import NSEC_PER_SEC, NSEC_PER_USEC, TIMEVAL, USEC_PER_SEC
from pysandbox_core.credentials import CAP_NET_ADMIN
from pysandbox_core.errors import ERESTARTSYS, LinuxError
from pysandbox_core.fs.anonymous import AnonymousInode
from pysandbox_core.fs.file_description import FileDescription

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.task import Task
    from pysandbox_core.waiting import WaitQueue

RCV_SHUTDOWN = 1
SEND_SHUTDOWN = 2
SHUTDOWN_BOTH = 3

PLAIN_FLAGS = (
    SO_DEBUG,
    SO_REUSEADDR,
    SO_DONTROUTE,
    SO_BROADCAST,
    SO_KEEPALIVE,
    SO_OOBINLINE,
    SO_NO_CHECK,
    SO_REUSEPORT,
    SO_PASSCRED,
    SO_PASSSEC,
    SO_TIMESTAMP,
    SO_TIMESTAMPNS,
)
"""Options that are on or off; whoever acts on one asks `self.options`."""

MAX_SCHEDULE_NS = (1 << 63) - 1


class Ancillary:
    """What a sender attaches: open files, each with a reference of ours, and who it says it is."""

    __slots__ = ("creds", "files")

    def __init__(self) -> None:
        self.files: list[FileDescription] = []
        self.creds: tuple[int, int, int] | None = None
        """pid, uid, gid; None for the sender's own."""

    def release(self) -> None:
        """Nobody took the files."""
        files, self.files = self.files, []
        for file in files:
            file.decref()


class Received:
    """What comes with received data, for who asks (recvmsg(2))."""

    __slots__ = ("address", "control", "creds", "files", "flags")

    def __init__(self) -> None:
        self.address = b""
        """The sender's sockaddr; empty if it has none."""
        self.files: list[FileDescription] = []
        """Passed files; their references are the receiver's."""
        self.creds: tuple[int, int, int] | None = None
        self.control: list[tuple[int, int, bytes]] = []
        """Other control messages: level, type, data."""
        self.flags = 0
        """MSG_TRUNC, MSG_EOR, ..."""


class SocketFile(FileDescription):
    """One socket. `queue` is woken for everything that happens to it."""

    __slots__ = (
        "error", "family", "kernel", "linger", "options", "protocol", "rcvbuf", "rcvlowat",
        "rcvtimeo_ns", "shut", "sndbuf", "sndtimeo_ns", "type",
    )  # fmt: skip

    def __init__(
        self, kernel: Kernel, family: int, type_: int, protocol: int, flags: int, uid: int, gid: int
    ) -> None:
        inode = AnonymousInode(kernel, stat.S_IFSOCK | 0o777, uid, gid)
        super().__init__(os.O_RDWR | flags, inode)
        self.kernel = kernel
        self.family = family
        self.type = type_
        self.protocol = protocol
        self.error = 0
        """SO_ERROR: an errno that the next call, or a look at the option, takes."""
        self.shut = 0
        """RCV_SHUTDOWN, SEND_SHUTDOWN"""
        self.sndbuf = BUFFER_MAX
        self.rcvbuf = BUFFER_MAX
        self.rcvlowat = 1
        self.rcvtimeo_ns = 0
        """SO_RCVTIMEO, 0 for none."""
        self.sndtimeo_ns = 0
        self.linger: tuple[int, int] = (0, 0)
        self.options: dict[int, int] = {}
        """SOL_SOCKET options that are kept and not acted on here, by number."""

    def describe(self) -> bytes:
        return b"socket:[%d]" % self.inode.ino

    # The calls of a family.

    def bind(self, task: Task, address: bytes) -> None:
        raise LinuxError(EOPNOTSUPP)

    def connect(self, task: Task, address: bytes) -> None:
        raise LinuxError(EOPNOTSUPP)

    def listen(self, task: Task, backlog: int) -> None:
        raise LinuxError(EOPNOTSUPP)

    def accept(self, task: Task) -> SocketFile:
        """The next connection, with a reference that is the caller's."""
        raise LinuxError(EOPNOTSUPP)

    def getsockname(self) -> bytes:
        raise LinuxError(EOPNOTSUPP)

    def getpeername(self) -> bytes:
        raise LinuxError(EOPNOTSUPP)

    def shutdown(self, task: Task, how: int) -> None:
        """`how` is one of SHUT_*, checked."""
        raise LinuxError(EOPNOTSUPP)

    def send(
        self,
        task: Task,
        source: Source,
        flags: int,
        address: bytes | None = None,
        ancillary: Ancillary | None = None,
    ) -> int:
        """Send from `source`, to `address` if given; how many bytes. Takes over `ancillary`."""
        raise LinuxError(EOPNOTSUPP)

    def receive(self, task: Task, sink: Sink, flags: int, received: Received | None = None) -> int:
        """Receive into `sink`; how many bytes, or with MSG_TRUNC how many there were."""
        raise LinuxError(EOPNOTSUPP)

    def unread(self) -> int:
        """SIOCINQ: bytes that a read would give."""
        raise LinuxError(ENOTTY)

    def unsent(self) -> int:
        """SIOCOUTQ: bytes on their way."""
        raise LinuxError(ENOTTY)

    @property
    def listening(self) -> bool:
        return False

    # As a file.

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        return self.receive(task, sink, 0) if sink.remaining else 0

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        return self.send(task, source, 0)

    def ioctl(self, task: Task, request: int, argument: int) -> int:
        if request == SIOCINQ:
            value = self.unread()
        elif request == SIOCOUTQ:
            value = self.unsent()
        else:
            from pysandbox_core.net import interface

            return interface.ioctl(task, request, argument)
        task.mm.write(argument, value.to_bytes(4, "little"))
        return 0

    # Waiting.

    def receive_deadline(self, task: Task, flags: int) -> int | None:
        """Until when a receiving call waits: 0 not at all, None for ever."""
        return self._deadline(task, flags, self.rcvtimeo_ns)

    def send_deadline(self, task: Task, flags: int) -> int | None:
        return self._deadline(task, flags, self.sndtimeo_ns)

    def _deadline(self, task: Task, flags: int, timeout_ns: int) -> int | None:
        if flags & MSG_DONTWAIT or self.flags & os.O_NONBLOCK:
            return 0
        return task.kernel.clocks.monotonic_ns() + timeout_ns if timeout_ns else None

    def wait(
        self,
        task: Task,
        deadline_ns: int | None,
        queues: WaitQueue | Sequence[WaitQueue] | None = None,
        errno: int = EAGAIN,
    ) -> None:
        """Wait until something happens to the socket, or in `queues`. `errno` once the time is up.

        Interrupted: a call with a timeout is not restarted, as sock_intr_errno() has it.
        """
        if deadline_ns == 0:
            raise LinuxError(errno)
        restart = ERESTARTSYS if deadline_ns is None else EINTR
        if not task.block(queues or self.queue, deadline_ns, restart):
            assert deadline_ns is not None
            task.kernel.clocks.catch_up(deadline_ns)
            raise LinuxError(errno)

    def take_error(self) -> None:
        """Raise the pending error, once."""
        error = self.error
        if error:
            self.error = 0
            raise LinuxError(error)

    def broken_pipe(self, task: Task, flags: int, errno: int) -> LinuxError:
        """What sending into the void raises; with SIGPIPE unless MSG_NOSIGNAL."""
        if not flags & MSG_NOSIGNAL:
            task_signals.send(task, SIGPIPE)
        return LinuxError(errno)

    # Options of level SOL_SOCKET. socket(7)

    def setsockopt(self, task: Task, level: int, name: int, data: bytes) -> None:
        """`data` is what the program gave, at most 4096 bytes."""
        if level != SOL_SOCKET:
            raise LinuxError(ENOPROTOOPT)
        if name in (SO_RCVTIMEO, SO_SNDTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW):
            self._set_timeout(name, data)
        elif name == SO_BINDTODEVICE:
            if data.rstrip(b"\0") not in (b"", b"lo"):
                raise LinuxError(ENODEV)
        elif len(data) < 4:
            raise LinuxError(EINVAL)
        elif name == SO_LINGER:
            if len(data) < LINGER.size:
                raise LinuxError(EINVAL)
            on, seconds = LINGER.unpack_from(data)
            self.linger = (int(bool(on)), seconds)
        else:
            self._set_number(task, name, int.from_bytes(data[:4], "little", signed=True))

    def _set_number(self, task: Task, name: int, value: int) -> None:
        if name in PLAIN_FLAGS:
            self.options[name] = int(bool(value))
        elif name in (SO_SNDBUF, SO_SNDBUFFORCE):
            limit = self._buffer_limit(task, name == SO_SNDBUFFORCE)
            self.options[SO_SNDBUF] = 1  # TCP's does not grow from now on
            self.sndbuf = max(min(value & 0xFFFFFFFF, limit) * 2, MIN_SNDBUF)
        elif name in (SO_RCVBUF, SO_RCVBUFFORCE):
            limit = self._buffer_limit(task, name == SO_RCVBUFFORCE)
            self.rcvbuf = max(min(value & 0xFFFFFFFF, limit) * 2, MIN_RCVBUF)
        elif name == SO_RCVLOWAT:
            self.rcvlowat = max(value, 1) if value >= 0 else 0x7FFFFFFF
        elif name == SO_PRIORITY:
            if not 0 <= value <= 6 and not task.creds.capable(CAP_NET_ADMIN):
                raise LinuxError(EPERM)
            self.options[name] = value
        elif name == SO_MARK:
            if not task.creds.capable(CAP_NET_ADMIN):
                raise LinuxError(EPERM)
            self.options[name] = value
        elif name == SO_INCOMING_CPU:
            self.options[name] = value
        else:
            raise LinuxError(ENOPROTOOPT)

    @staticmethod
    def _buffer_limit(task: Task, force: bool) -> int:
        if not force:
            return BUFFER_MAX
        if not task.creds.capable(CAP_NET_ADMIN):
            raise LinuxError(EPERM)
        return 0x3FFFFFFF

    def _set_timeout(self, name: int, data: bytes) -> None:
        if len(data) < TIMEVAL.size:
            raise LinuxError(EINVAL)
        sec, usec = TIMEVAL.unpack_from(data)
        if not 0 <= usec < USEC_PER_SEC:
            raise LinuxError(EDOM)
        timeout_ns = (sec * NSEC_PER_SEC + usec * NSEC_PER_USEC) if sec >= 0 else 1
        timeout_ns = 0 if timeout_ns > MAX_SCHEDULE_NS else timeout_ns
        if name in (SO_RCVTIMEO, SO_RCVTIMEO_NEW):
            self.rcvtimeo_ns = timeout_ns
        else:
            self.sndtimeo_ns = timeout_ns

    def getsockopt(self, task: Task, level: int, name: int, length: int) -> bytes:
        """The option's value; the caller cuts it to the `length` that the program has room for."""
        if level != SOL_SOCKET:
            raise LinuxError(ENOPROTOOPT)
        if name in (SO_RCVTIMEO, SO_RCVTIMEO_NEW):
            return pack_timeout(self.rcvtimeo_ns)
        if name in (SO_SNDTIMEO, SO_SNDTIMEO_NEW):
            return pack_timeout(self.sndtimeo_ns)
        if name == SO_LINGER:
            return LINGER.pack(*self.linger)
        if name == SO_COOKIE:
            if length < 8:
                raise LinuxError(EINVAL)
            return self.inode.ino.to_bytes(8, "little")
        if name == SO_BINDTODEVICE:
            return b""
        return self._get_number(name).to_bytes(4, "little", signed=True)

    def _get_number(self, name: int) -> int:
        if name == SO_ERROR:
            error, self.error = self.error, 0
            return error
        if name in PLAIN_FLAGS or name in (SO_PRIORITY, SO_MARK):
            return self.options.get(name, 0)
        if name == SO_INCOMING_CPU:
            return self.options.get(name, -1)
        value = {
            SO_TYPE: self.type,
            SO_DOMAIN: self.family,
            SO_PROTOCOL: self.protocol,
            SO_ACCEPTCONN: int(self.listening),
            SO_SNDBUF: self.sndbuf,
            SO_RCVBUF: self.rcvbuf,
            SO_RCVLOWAT: self.rcvlowat,
            SO_SNDLOWAT: 1,
        }.get(name)
        if value is None:
            raise LinuxError(ENOPROTOOPT)
        return value


def pack_timeout(timeout_ns: int) -> bytes:
    """struct timeval"""
    return TIMEVAL.pack(*divmod(timeout_ns // NSEC_PER_USEC, USEC_PER_SEC))


def shutdown_bits(how: int) -> int:
    """RCV_SHUTDOWN and SEND_SHUTDOWN for SHUT_*."""
    return {SHUT_RD: RCV_SHUTDOWN, SHUT_WR: SEND_SHUTDOWN}.get(how, SHUTDOWN_BOTH)
