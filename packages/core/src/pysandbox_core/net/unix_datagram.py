"""AF_UNIX datagram and seqpacket sockets: messages that stay whole. unix(7)

Linux: unix_dgram_*() and unix_seqpacket_*() in net/unix/af_unix.c.
"""

from __future__ import annotations

from errno import (
    ECONNREFUSED,
    EFAULT,
    EINVAL,
    EMSGSIZE,
    ENOTCONN,
    EOPNOTSUPP,
    EPERM,
    EPIPE,
)
from typing import TYPE_CHECKING

from pysandbox_core.abi.socket import (
    MSG_OOB,
    MSG_PEEK,
    MSG_TRUNC,
    SOCK_SEQPACKET,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.net import unix_passing
from pysandbox_core.net.network import network
from pysandbox_core.net.socket_file import RCV_SHUTDOWN, SEND_SHUTDOWN
from pysandbox_core.net.unix import (
    READABLE,
    WRITABLE,
    UnixSocket,
    sockaddr,
)
from pysandbox_core.net.unix_stream import ConnectedSocket
from pysandbox_core.waiting import POLLERR, POLLHUP

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.net.socket_file import Ancillary, Received
    from pysandbox_core.task import Task

MAX_QUEUE = 512
"""Messages in an inbox beyond which others have to wait: net.unix.max_dgram_qlen."""


class MessageSocket(UnixSocket):
    """Sending to an inbox and receiving from it, one message at a time."""

    __slots__ = ()

    def deliver(
        self,
        task: Task,
        other: UnixSocket,
        source: Source,
        deadline_ns: int | None,
        ancillary: Ancillary | None,
    ) -> int:
        """Put one message into `other`'s inbox. EMSGSIZE, EAGAIN, EPIPE; what changes while it
        waits is the caller's to check: it returns -1 then."""
        size = source.remaining
        if size > self.sndbuf - 32:
            raise LinuxError(EMSGSIZE)
        if self.used >= self.sndbuf:
            self.wait(task, deadline_ns)
            return -1
        if other.peer is not self and len(other.inbox) > MAX_QUEUE:
            self.wait(task, deadline_ns, (other.room_queue, other.queue, self.queue))
            return -1
        data = source.read()
        if len(data) < size:
            raise LinuxError(EFAULT)
        other.inbox.append(self.segment(task, data, ancillary, True, other))
        other.queue.wake(READABLE)
        return size

    def receive(self, task: Task, sink: Sink, flags: int, received: Received | None = None) -> int:
        """One message; what does not fit is lost, and MSG_TRUNC says so."""
        if flags & MSG_OOB:
            raise LinuxError(EOPNOTSUPP)
        deadline_ns = self.receive_deadline(task, flags)
        while not self.inbox:
            self.take_error()
            if self.shut & RCV_SHUTDOWN and (deadline_ns != 0 or self.type == SOCK_SEQPACKET):
                return 0
            self.wait(task, deadline_ns)
        segment = self.inbox[0]
        data = segment.data
        moved = sink.write(data[: sink.remaining]) if data and sink.remaining else 0
        if received is not None:
            received.creds = segment.creds
            received.address = sockaddr(segment.name) if segment.name else b""
            if moved < len(data):
                received.flags |= MSG_TRUNC
        if flags & MSG_PEEK:
            if received is not None:
                received.files.extend(file.incref() for file in segment.files)
        else:
            self._take(received)
        return len(data) if flags & MSG_TRUNC else moved

    def _take(self, received: Received | None) -> None:
        """The first message has been read."""
        segment = self.inbox.popleft()
        segment.sender.discharge(segment)
        if len(self.inbox) <= MAX_QUEUE and self.room_queue.waiters:
            self.room_queue.wake(WRITABLE)
        files = unix_passing.landed(network(self.kernel), segment)
        if not self.inbox:
            self.level = 0
        if received is not None:
            received.files.extend(files)
        else:
            for file in files:
                file.decref()


class DatagramSocket(MessageSocket):
    """SOCK_DGRAM: to anybody, by address, or to the one it is connected to."""

    __slots__ = ("senders",)

    def __init__(self, kernel: Kernel, type_: int, flags: int, uid: int, gid: int) -> None:
        super().__init__(kernel, type_, flags, uid, gid)
        self.senders: dict[DatagramSocket, None] = {}
        """Sockets that are connected to this one, whether or not it is to them."""

    def disconnect(self) -> None:
        self._set_peer(None)
        for sender in tuple(self.senders):
            sender.queue.wake(POLLERR | POLLHUP | WRITABLE)
        self.room_queue.wake(WRITABLE)

    def _set_peer(self, peer: DatagramSocket | None) -> None:
        if isinstance(self.peer, DatagramSocket):
            self.peer.senders.pop(self, None)
        self.peer = peer
        if peer is not None:
            peer.senders[self] = None

    def connect(self, task: Task, address: bytes) -> None:
        """Send to `address` from now on and receive from it alone; AF_UNSPEC undoes it."""
        if address[:2] == b"\0\0":
            self._set_peer(None)
            self.queue.wake(WRITABLE)
            return
        if self.passes_creds and not self.name:
            self.autobind()
        other = self.find(task, address)
        assert isinstance(other, DatagramSocket)
        if other.peer is not None and other.peer is not self:
            raise LinuxError(EPERM)
        self._set_peer(other)
        self.queue.wake(WRITABLE)

    def introduce(self, task: Task) -> None:
        super().introduce(task)
        if isinstance(self.peer, DatagramSocket):
            self.peer.senders[self] = None

    def send(
        self,
        task: Task,
        source: Source,
        flags: int,
        address: bytes | None = None,
        ancillary: Ancillary | None = None,
    ) -> int:
        """One message. ENOTCONN, ECONNREFUSED, EPERM, EMSGSIZE, EPIPE, EAGAIN"""
        deadline_ns = self.send_deadline(task, flags)
        try:
            if flags & MSG_OOB:
                raise LinuxError(EOPNOTSUPP)
            if self.passes_creds and not self.name:
                self.autobind()
            while True:
                self.take_error()
                if self.shut & SEND_SHUTDOWN:
                    raise LinuxError(EPIPE)
                other = self._receiver(task, address)
                if other.shut & RCV_SHUTDOWN:
                    raise LinuxError(EPIPE)
                sent = self.deliver(task, other, source, deadline_ns, ancillary)
                if sent >= 0:
                    return sent
        finally:
            if ancillary is not None:
                ancillary.release()

    def _receiver(self, task: Task, address: bytes | None) -> UnixSocket:
        if address is not None:
            other = self.find(task, address)
        else:
            peer = self.peer
            if peer is None:
                raise LinuxError(ENOTCONN)
            if peer.closed:
                self._set_peer(None)
                raise LinuxError(ECONNREFUSED)
            other = peer
        if other.peer is not None and other.peer is not self:
            raise LinuxError(EPERM)
        return other

    def poll(self) -> int:
        events = self.common_events()
        if self.writable:
            peer = self.peer
            if peer is None or peer.peer is self or len(peer.inbox) <= MAX_QUEUE:
                events |= WRITABLE
        return events

    def unread(self) -> int:
        return len(self.inbox[0].data) if self.inbox else 0


class SeqpacketSocket(ConnectedSocket, MessageSocket):
    """SOCK_SEQPACKET: a connection, as of a stream, for whole messages."""

    __slots__ = ()

    def send(
        self,
        task: Task,
        source: Source,
        flags: int,
        address: bytes | None = None,
        ancillary: Ancillary | None = None,
    ) -> int:
        """One message to the peer. ENOTCONN, EPIPE (no SIGPIPE), EMSGSIZE, EAGAIN"""
        deadline_ns = self.send_deadline(task, flags)
        try:
            while True:
                self.take_error()
                other = self.check_can_send(task, None, flags)
                sent = self.deliver(task, other, source, deadline_ns, ancillary)
                if sent >= 0:
                    return sent
        finally:
            if ancillary is not None:
                ancillary.release()

    def receive(self, task: Task, sink: Sink, flags: int, received: Received | None = None) -> int:
        if not self.was_connected:
            raise LinuxError(ENOTCONN)
        return super().receive(task, sink, flags, received)

    def unread(self) -> int:
        if self.listening:
            raise LinuxError(EINVAL)
        return sum(len(segment.data) for segment in self.inbox)
