"""AF_UNIX stream sockets, and what makes seqpacket ones connections too. unix(7)

Linux: unix_stream_*() in net/unix/af_unix.c.
"""

from __future__ import annotations

from collections import deque
from errno import (
    ECONNREFUSED,
    ECONNRESET,
    EINVAL,
    EISCONN,
    ENOTCONN,
    EOPNOTSUPP,
    EPIPE,
)
from typing import TYPE_CHECKING

from pysandbox_core.abi.socket import (
    MSG_OOB,
    MSG_PEEK,
    MSG_WAITALL,
    SOMAXCONN,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.kernel_memory import OPEN_FILE
from pysandbox_core.net import unix_passing
from pysandbox_core.net.network import network
from pysandbox_core.net.socket_file import RCV_SHUTDOWN, SEND_SHUTDOWN, SHUTDOWN_BOTH
from pysandbox_core.net.unix import (
    READABLE,
    WRITABLE,
    Segment,
    UnixSocket,
    creds_of,
    sockaddr,
)
from pysandbox_core.waiting import POLLERR, POLLHUP, POLLRDHUP

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.net.socket_file import Ancillary, Received
    from pysandbox_core.net.unix import Creds
    from pysandbox_core.task import Task

CHUNK = 32768
"""Most bytes of a stream that go in one piece."""
JOIN_BELOW = 4096
"""Pieces that together stay below this become one."""


class ConnectedSocket(UnixSocket):
    """A socket whose messages go to one peer: listening, connecting, hanging up."""

    __slots__ = ("accept_queue", "backlog", "listener_creds", "was_connected")

    def __init__(self, kernel: Kernel, type_: int, flags: int, uid: int, gid: int) -> None:
        super().__init__(kernel, type_, flags, uid, gid)
        self.accept_queue: deque[ConnectedSocket] = deque()
        """Connections nobody has accepted yet."""
        self.backlog = -1
        """listen(2)'s, -1 for a socket that does not listen."""
        self.listener_creds: tuple[Creds, tuple[int, ...]] | None = None
        """Who called listen(2): what a client sees as its peer."""
        self.was_connected = False

    @property
    def listening(self) -> bool:
        return self.backlog >= 0

    def embryos(self) -> tuple[UnixSocket, ...]:
        return tuple(self.accept_queue)

    def disconnect(self) -> None:
        for embryo in self.accept_queue:
            if embryo.peer is not None:
                embryo.peer.error = ECONNRESET
            embryo.decref()
        self.accept_queue.clear()
        peer = self.peer
        if peer is None:
            return
        self.peer = None
        if self.inbox:
            peer.error = ECONNRESET
        peer.shut = SHUTDOWN_BOTH
        peer.queue.wake(POLLHUP | POLLRDHUP | POLLERR | READABLE | WRITABLE)

    def getpeername(self) -> bytes:
        if self.peer is None:
            raise LinuxError(ENOTCONN)
        return sockaddr(self.peer.name)

    def listen(self, task: Task, backlog: int) -> None:
        """EINVAL not bound, or connected. listen(2)"""
        if not self.name or self.peer is not None or self.was_connected:
            raise LinuxError(EINVAL)
        grown = (backlog & 0xFFFFFFFF) > self.backlog >= 0
        self.backlog = min(backlog & 0xFFFFFFFF, SOMAXCONN)
        self.listener_creds = creds_of(task), task.creds.groups
        if grown:
            self.queue.wake(WRITABLE)

    def connect(self, task: Task, address: bytes) -> None:
        """Connect to a listening socket; blocks while its queue is full.

        Errors: EINVAL; ECONNREFUSED; EPROTOTYPE; EISCONN; EAGAIN; those of path resolution.
        """
        deadline_ns = self.send_deadline(task, 0)
        if self.passes_creds and not self.name:
            self.autobind()
        while True:
            other = self.find(task, address)
            assert isinstance(other, ConnectedSocket)
            if not other.listening or other.shut & RCV_SHUTDOWN:
                raise LinuxError(ECONNREFUSED)
            if len(other.accept_queue) <= other.backlog:
                break
            self.wait(task, deadline_ns, other.queue)
        if self.was_connected:
            raise LinuxError(EISCONN)
        if self.listening:
            raise LinuxError(EINVAL)
        self._connect_to(task, other)

    def _connect_to(self, task: Task, other: ConnectedSocket) -> None:
        """Make the far end of the connection and put it in `other`'s queue. ENOMEM"""
        self.kernel.memory.grow(OPEN_FILE)
        embryo = type(self)(self.kernel, self.type, 0, other.inode.uid, other.inode.gid)
        embryo.name = other.name
        embryo.options = dict(other.options)
        embryo.peer, self.peer = self, embryo
        embryo.was_connected = self.was_connected = True
        embryo.introduce(task)
        assert other.listener_creds is not None
        self.peer_creds, self.peer_groups = other.listener_creds
        other.accept_queue.append(embryo)
        other.queue.wake(READABLE)
        self.queue.wake(WRITABLE)

    def accept(self, task: Task) -> ConnectedSocket:
        """The oldest connection; blocks while there is none. EINVAL not listening; EAGAIN"""
        if not self.listening:
            raise LinuxError(EINVAL)
        deadline_ns = self.receive_deadline(task, 0)
        while not self.accept_queue:
            if self.shut & RCV_SHUTDOWN:
                raise LinuxError(EINVAL)
            self.wait(task, deadline_ns)
        embryo = self.accept_queue.popleft()
        self.queue.wake(WRITABLE)  # who waits to connect stands here, too
        return embryo

    def introduce(self, task: Task) -> None:
        super().introduce(task)
        self.was_connected = True

    def poll(self) -> int:
        events = self.common_events()
        if self.accept_queue:
            events |= READABLE
        if not self.was_connected and not self.listening:
            events |= POLLHUP
        if not self.listening and self.writable:
            events |= WRITABLE
        return events

    def check_can_send(self, task: Task, address: bytes | None, flags: int) -> UnixSocket:
        """Who gets it. EOPNOTSUPP, EISCONN, ENOTCONN, EPIPE"""
        if flags & MSG_OOB:
            raise LinuxError(EOPNOTSUPP)
        if address is not None:
            raise LinuxError(EISCONN if self.was_connected else EOPNOTSUPP)
        if not self.was_connected:
            raise LinuxError(ENOTCONN)
        peer = self.peer
        if peer is None or peer.closed or self.shut & SEND_SHUTDOWN or peer.shut & RCV_SHUTDOWN:
            raise LinuxError(EPIPE)
        return peer


class StreamSocket(ConnectedSocket):
    """A stream of bytes; files and credentials are tied to the byte they were sent with."""

    __slots__ = ()

    def send(
        self,
        task: Task,
        source: Source,
        flags: int,
        address: bytes | None = None,
        ancillary: Ancillary | None = None,
    ) -> int:
        """Everything, unless it must not block; EPIPE with SIGPIPE once nobody reads."""
        deadline_ns = self.send_deadline(task, flags)
        done = 0
        try:
            while True:
                try:
                    peer = self.check_can_send(task, address, flags)
                except LinuxError as error:
                    if error.errno == EPIPE:
                        raise self.broken_pipe(task, flags, EPIPE) from None
                    raise
                if not source.remaining:
                    break
                if self.used >= self.sndbuf:
                    self.wait(task, deadline_ns)
                    continue
                data = source.read(min(source.remaining, CHUNK, max(self.sndbuf // 2 - 64, 1)))
                if not data:
                    break
                self._deliver(task, peer, data, ancillary, not done)
                done += len(data)
        except LinuxError:
            if not done:
                raise
        finally:
            if ancillary is not None:
                ancillary.release()
        return done

    def _deliver(
        self,
        task: Task,
        peer: UnixSocket,
        data: bytes,
        ancillary: Ancillary | None,
        first: bool,
    ) -> None:
        inbox = peer.inbox
        if inbox and ancillary is None and len(data) < JOIN_BELOW:
            last = inbox[-1]
            if (
                last.sender is self
                and not last.files
                and len(last.data) + len(data) <= JOIN_BELOW
                and last.creds == creds_of(task)
            ):
                if type(last.data) is not bytearray:
                    last.data = bytearray(last.data)
                last.data += data
                last.charge += len(data)
                self.used += len(data)
                peer.queue.wake(READABLE)
                return
        inbox.append(self.segment(task, data, ancillary, first, peer))
        peer.queue.wake(READABLE)

    def receive(self, task: Task, sink: Sink, flags: int, received: Received | None = None) -> int:
        """What is there, up to what came with files or from somebody else; blocks for the first
        byte, with MSG_WAITALL for all of them."""
        if not self.was_connected:
            raise LinuxError(EINVAL)
        if flags & MSG_OOB:
            raise LinuxError(EOPNOTSUPP)
        deadline_ns = self.receive_deadline(task, flags)
        wanted = sink.remaining if flags & MSG_WAITALL else min(self.rcvlowat, sink.remaining)
        if flags & MSG_PEEK:
            return self._peek(task, sink, deadline_ns, received)
        done = 0
        first: Segment | None = None
        try:
            while True:
                if not self.inbox:
                    if done >= max(wanted, 1):
                        break
                    self.take_error()
                    if self.shut & RCV_SHUTDOWN:
                        break
                    self.wait(task, deadline_ns)
                    continue
                segment = self.inbox[0]
                if first is not None and self.passes_creds and segment.creds != first.creds:
                    break
                first = first or segment
                if segment.files and done:
                    break
                moved = self._move(segment, sink)
                done += moved
                if segment.files:
                    self._arrived(segment, received)
                    break
                if segment.start < len(segment.data) or not sink.remaining:
                    break
        except LinuxError:
            if not done:
                raise
        if first is not None and received is not None:
            received.creds = first.creds
            received.address = sockaddr(first.name) if first.name else b""
        return done

    def _move(self, segment: Segment, sink: Sink) -> int:
        """Move bytes of the first segment to `sink`, and the segment out once it is empty."""
        data = segment.data
        start = segment.start
        if start or len(data) > sink.remaining:
            moved = sink.write(memoryview(data)[start : start + sink.remaining])
        else:
            moved = sink.write(data)
        segment.start = start + moved
        sender = segment.sender
        if segment.start == len(data):
            self.inbox.popleft()
            sender.discharge(segment)
        return moved

    def _arrived(self, segment: Segment, received: Received | None) -> None:
        """The files of `segment` are the receiver's now, or dropped by one who did not ask."""
        files = unix_passing.landed(network(self.kernel), segment)
        if not self.inbox:
            self.level = 0
        if received is not None:
            received.files.extend(files)
        else:
            for file in files:
                file.decref()

    def _peek(
        self, task: Task, sink: Sink, deadline_ns: int | None, received: Received | None
    ) -> int:
        """MSG_PEEK: as `receive`, but everything stays; files are duplicated."""
        while not self.inbox:
            self.take_error()
            if self.shut & RCV_SHUTDOWN:
                return 0
            self.wait(task, deadline_ns)
        done = 0
        first = self.inbox[0]
        for segment in self.inbox:
            if segment is not first and (segment.files or segment.creds != first.creds):
                break
            view = memoryview(segment.data)[segment.start : segment.start + sink.remaining]
            done += sink.write(view)
            if segment.files or not sink.remaining:
                break
        if received is not None:
            received.creds = first.creds
            received.address = sockaddr(first.name) if first.name else b""
            received.files.extend(file.incref() for file in first.files)
        return done

    def unread(self) -> int:
        if self.listening:
            raise LinuxError(EINVAL)
        return sum(len(segment.data) - segment.start for segment in self.inbox)
