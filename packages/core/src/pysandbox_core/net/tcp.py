"""TCP over the loopback, at the level of sockets. tcp(7)

Linux: net/ipv4/tcp.c, inet_connection_sock.c. Two connected sockets know each other as `peer`; what
one sends is in the other's inbox. A FIN is `RCV_SHUTDOWN` at the other side, a RST is `reset`.
There are no segments, so no urgent data (MSG_OOB is sent as ordinary data) and no TIME_WAIT: a port
is free when its sockets are closed.
"""

from __future__ import annotations

import os
from collections import deque
from errno import (
    EADDRINUSE,
    EALREADY,
    ECONNREFUSED,
    ECONNRESET,
    EINPROGRESS,
    EINVAL,
    EISCONN,
    ENOTCONN,
    EPIPE,
)
from typing import TYPE_CHECKING

from pysandbox_core.abi.inet import (
    IPPROTO_TCP,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT2,
    TCP_LISTEN,
    TCP_SYN_SENT,
)
from pysandbox_core.abi.socket import (
    AF_UNSPEC,
    MSG_OOB,
    MSG_PEEK,
    MSG_TRUNC,
    MSG_WAITALL,
    SO_SNDBUF,
    SOMAXCONN,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.kernel_memory import OPEN_FILE, SMALL
from pysandbox_core.net.inet import InetSocket, tcp_ports
from pysandbox_core.net.inet_address import Endpoint, pack, parse
from pysandbox_core.net.socket_file import (
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SHUTDOWN_BOTH,
    shutdown_bits,
)
from pysandbox_core.waiting import (
    POLL_ANY,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDHUP,
    POLLRDNORM,
    POLLWRNORM,
)

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.net.ports import PortTable
    from pysandbox_core.net.socket_file import Ancillary, Received
    from pysandbox_core.task import Task

DEFAULT_SNDBUF = 16384
"""net.ipv4.tcp_wmem[1]: what SO_SNDBUF tells. Until it is set, Linux lets the buffer grow."""
DEFAULT_RCVBUF = 131072
"""net.ipv4.tcp_rmem[1]"""
GROWN_SNDBUF = 262144
CHUNK = 65536
READABLE = POLLIN | POLLRDNORM
WRITABLE = POLLOUT | POLLWRNORM


class TcpSocket(InetSocket):
    """One end of a connection, or a listening socket."""

    __slots__ = (
        "accept_queue", "backlog", "closed", "connecting", "fin_received", "head", "inbox",
        "peer", "pending", "state", "unread_bytes",
    )  # fmt: skip

    PROTOCOL = IPPROTO_TCP

    def __init__(
        self, kernel: Kernel, family: int, type_: int, flags: int, uid: int, gid: int
    ) -> None:
        super().__init__(kernel, family, type_, flags, uid, gid)
        self.sndbuf = DEFAULT_SNDBUF
        self.rcvbuf = DEFAULT_RCVBUF
        self.state = TCP_CLOSE
        """TCP_CLOSE, TCP_LISTEN, TCP_SYN_SENT or TCP_ESTABLISHED."""
        self.connecting = False
        """A connect(2) has been begun whose result has not been told yet."""
        self.peer: TcpSocket | None = None
        self.closed = False
        """Nobody has it open any more."""
        self.fin_received = False
        self.inbox: deque[bytes] = deque()
        self.head = 0
        """Bytes of the first piece that have been read."""
        self.unread_bytes = 0
        self.backlog = 0
        self.accept_queue: deque[TcpSocket] = deque()
        self.pending: dict[TcpSocket, None] = {}
        """Sockets that wait for room in `accept_queue`, oldest first."""

    def port_table(self, kernel: Kernel) -> PortTable:
        return tcp_ports(kernel)

    @property
    def listening(self) -> bool:
        return self.state == TCP_LISTEN

    def release(self) -> None:
        self.closed = True
        if self.state == TCP_LISTEN:
            self._stop_listening()
        elif self.state == TCP_SYN_SENT:
            self._give_up()
        elif self.state == TCP_ESTABLISHED:
            self._hang_up()
        self.state = TCP_CLOSE
        self.unbind()
        self.inbox.clear()
        self.head = self.unread_bytes = 0
        peer = self.peer
        if peer is not None and peer.closed:
            self.peer = peer.peer = None  # no circle: neither is of use to the other

    def _stop_listening(self) -> None:
        for embryo in self.accept_queue:
            embryo.linger = (1, 0)
            embryo.decref()
        self.accept_queue.clear()
        for client in self.pending:
            client.refuse()
        self.pending.clear()

    def _give_up(self) -> None:
        """Who is asked for a connection need not keep the request."""
        assert self.remote is not None
        listener = self.ports.find(
            self.remote.ip, self.remote.port, lambda socket: socket.listening
        )
        if isinstance(listener, TcpSocket):
            listener.pending.pop(self, None)

    def _hang_up(self) -> None:
        """Send FIN, or RST if there is unread data or SO_LINGER says so."""
        peer = self.peer
        if peer is None or peer.closed:
            return
        if self.unread_bytes or self.linger == (1, 0):
            peer.reset()
        else:
            peer.receive_fin()

    def receive_fin(self) -> None:
        """The other side has nothing more to say."""
        self.fin_received = True
        self.shut |= RCV_SHUTDOWN
        self.queue.wake(READABLE | POLLRDHUP | POLLHUP)

    def reset(self) -> None:
        """The other side refuses what we send: tcp_reset()"""
        self.error = EPIPE if self.fin_received else ECONNRESET
        self.shut = SHUTDOWN_BOTH
        self.state = TCP_CLOSE
        self.queue.wake(POLL_ANY)

    def refuse(self) -> None:
        """Nobody listens where we want to connect to."""
        self.state = TCP_CLOSE
        self.error = ECONNREFUSED
        self.shut = SHUTDOWN_BOTH
        self.remote = None
        self.queue.wake(POLL_ANY)

    # Connecting.

    def getpeername(self) -> bytes:
        if self.remote is None or self.state != TCP_ESTABLISHED:
            raise LinuxError(ENOTCONN)
        return pack(self.remote, self.family)

    def listen(self, task: Task, backlog: int) -> None:
        """EINVAL connected; EADDRINUSE somebody else listens there. listen(2)"""
        if self.state not in (TCP_CLOSE, TCP_LISTEN) or self.connecting:
            raise LinuxError(EINVAL)
        self.backlog = min(backlog & 0xFFFFFFFF, SOMAXCONN)
        if self.state == TCP_LISTEN:
            return
        self.autobind()
        self.state = TCP_LISTEN
        if self.ports.conflicts(self, self.local.ip, self.local.port):
            self.state = TCP_CLOSE
            raise LinuxError(EADDRINUSE)
        self.shut = 0

    def connect(self, task: Task, address: bytes) -> None:
        """Connect to a listening socket. Without blocking EINPROGRESS, as if there were a network.

        Errors: EINVAL, EAFNOSUPPORT; EALREADY; EISCONN; ENETUNREACH; ECONNREFUSED.
        """
        if len(address) < 2:
            raise LinuxError(EINVAL)
        if int.from_bytes(address[:2], "little") == AF_UNSPEC:
            self._disconnect()
            return
        if self.connecting:
            if self.state == TCP_SYN_SENT and self.flags & os.O_NONBLOCK:
                raise LinuxError(EALREADY)
        elif self.state != TCP_CLOSE:
            raise LinuxError(EISCONN)
        else:
            self._begin(parse(address, self.family))
            if self.flags & os.O_NONBLOCK:
                raise LinuxError(EINPROGRESS)
        deadline_ns = self.send_deadline(task, 0)
        while self.state == TCP_SYN_SENT:
            self.wait(task, deadline_ns, errno=EINPROGRESS)
        self.connecting = False
        if self.error:
            self.shut = 0
        self.take_error()

    def _begin(self, wanted: Endpoint) -> None:
        self.kernel.memory.grow(OPEN_FILE)
        target = self.destination(wanted)
        self.autobind()
        self.error = 0
        self.shut = 0
        self.fin_received = False
        self.connecting = True
        self.remote = target
        self.local = Endpoint(self.source_for(target.ip), self.local.port)
        listener = self.ports.find(target.ip, target.port, lambda socket: socket.listening)
        if not isinstance(listener, TcpSocket):
            self.refuse()
            return
        self.state = TCP_SYN_SENT
        if len(listener.accept_queue) > listener.backlog:
            listener.pending[self] = None
        else:
            listener.establish(self)

    def establish(self, client: TcpSocket) -> None:
        """Make the near end for `client`, and let it be accepted."""
        assert client.remote is not None
        embryo = TcpSocket(self.kernel, self.family, self.type, 0, self.inode.uid, self.inode.gid)
        embryo.local = client.remote
        embryo.bound_ip = client.remote.ip
        embryo.remote = client.local
        embryo.options = dict(self.options)
        embryo.inet_options = dict(self.inet_options)
        embryo.sndbuf, embryo.rcvbuf = self.sndbuf, self.rcvbuf
        embryo.peer, client.peer = client, embryo
        embryo.state = client.state = TCP_ESTABLISHED
        self.ports.add(embryo, embryo.local.port)
        self.accept_queue.append(embryo)
        self.queue.wake(READABLE)
        client.queue.wake(WRITABLE)

    def _disconnect(self) -> None:
        """connect(2) with AF_UNSPEC: as if nothing had been."""
        if self.state == TCP_LISTEN:
            self._stop_listening()
        elif self.state == TCP_ESTABLISHED and self.peer is not None:
            self.peer.reset()
        self.state = TCP_CLOSE
        self.connecting = False
        self.peer = self.remote = None
        self.shut = 0
        self.error = 0
        self.inbox.clear()
        self.head = self.unread_bytes = 0
        self.queue.wake(POLL_ANY)

    def accept(self, task: Task) -> TcpSocket:
        """The oldest connection; blocks while there is none. EINVAL not listening; EAGAIN"""
        deadline_ns = self.receive_deadline(task, 0)
        while True:
            if self.state != TCP_LISTEN:
                raise LinuxError(EINVAL)
            if self.accept_queue:
                break
            self.wait(task, deadline_ns)
        embryo = self.accept_queue.popleft()
        while self.pending and len(self.accept_queue) <= self.backlog:
            client = next(iter(self.pending))
            del self.pending[client]
            if client.state == TCP_SYN_SENT and not client.closed:
                self.establish(client)
        return embryo

    def shutdown(self, task: Task, how: int) -> None:
        """ENOTCONN. A listening socket stops listening."""
        bits = shutdown_bits(how)
        if self.state == TCP_LISTEN:
            if bits & RCV_SHUTDOWN:
                self._stop_listening()
                self.state = TCP_CLOSE
        elif self.state != TCP_ESTABLISHED:
            raise LinuxError(ENOTCONN)
        else:
            if bits & SEND_SHUTDOWN and not self.shut & SEND_SHUTDOWN:
                if self.peer is not None and not self.peer.closed:
                    self.peer.receive_fin()
            self.shut |= bits
        self.queue.wake(POLL_ANY)

    # Data.

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        peer = self.peer
        if peer is None:
            return 0
        own = self.sndbuf if SO_SNDBUF in self.options else GROWN_SNDBUF
        return own + peer.rcvbuf - peer.unread_bytes

    def send(
        self,
        task: Task,
        source: Source,
        flags: int,
        address: bytes | None = None,
        ancillary: Ancillary | None = None,
    ) -> int:
        """Everything, unless it must not block. EPIPE, with SIGPIPE; the pending error; EAGAIN"""
        if ancillary is not None:
            ancillary.release()
        deadline_ns = self.send_deadline(task, flags)
        done = 0
        try:
            while source.remaining:
                while self.state == TCP_SYN_SENT:
                    self.wait(task, deadline_ns)
                if self.error or self.shut & SEND_SHUTDOWN or self.state != TCP_ESTABLISHED:
                    error, self.error = self.error or EPIPE, 0
                    if error == EPIPE:
                        raise self.broken_pipe(task, flags, EPIPE)
                    raise LinuxError(error)
                peer = self.peer
                assert peer is not None
                room = self.room
                if room <= 0 and not peer.closed:
                    self.wait(task, deadline_ns)
                    continue
                count = min(source.remaining, room if room > 0 else CHUNK, CHUNK)
                self.kernel.memory.grow(count + SMALL)
                data = source.read(count)
                if not data:
                    break
                done += len(data)
                if peer.closed:
                    self.reset()  # there is nobody to read it: it is answered with RST
                    break
                peer.inbox.append(data)
                peer.unread_bytes += len(data)
                peer.queue.wake(READABLE)
        except LinuxError:
            if not done:
                raise
        return done

    def receive(self, task: Task, sink: Sink, flags: int, received: Received | None = None) -> int:
        """What is there; blocks for the first byte, with MSG_WAITALL for all. ENOTCONN, EAGAIN;
        EINVAL for MSG_OOB: there is no urgent data"""
        if self.state == TCP_LISTEN:
            raise LinuxError(ENOTCONN)
        if flags & MSG_OOB:
            raise LinuxError(EINVAL)
        deadline_ns = self.receive_deadline(task, flags)
        size = sink.remaining
        wanted = size if flags & MSG_WAITALL else min(self.rcvlowat, size)
        done = 0
        try:
            while True:
                if self.inbox:
                    if flags & MSG_PEEK:
                        if self.unread_bytes >= wanted or self._at_end():
                            return self._peek(sink)
                    else:
                        done += self._move(sink, size - done, bool(flags & MSG_TRUNC))
                        if done >= size:
                            break
                        if self.inbox:
                            break  # a bad address stopped it
                if done >= max(wanted, 1):
                    break
                if self._at_end():
                    break
                self.wait(task, deadline_ns)
        except LinuxError:
            if not done:
                raise
        return done

    def _at_end(self) -> bool:
        """Nothing more will come: the end of the file, or the error that says why. ENOTCONN"""
        if self.fin_received:
            return True
        if self.inbox:
            return bool(self.error or self.shut & RCV_SHUTDOWN)
        self.take_error()
        if self.shut & RCV_SHUTDOWN:
            return True
        if self.state == TCP_CLOSE:
            raise LinuxError(ENOTCONN)
        return False

    def _move(self, sink: Sink, limit: int, discard: bool) -> int:
        """Take up to `limit` bytes out of the inbox, to `sink` or to nowhere; how many."""
        inbox = self.inbox
        done = 0
        was_full = self.peer is not None and not self.peer.writable
        try:
            while inbox and done < limit:
                piece = inbox[0]
                head = self.head
                left = len(piece) - head
                count = min(left, limit - done)
                if discard:
                    moved = count
                elif head or count < left:
                    moved = sink.write(memoryview(piece)[head : head + count])
                else:
                    moved = sink.write(piece)
                done += moved
                if moved < left:
                    self.head = head + moved
                    if moved < count:
                        break
                else:
                    inbox.popleft()
                    self.head = 0
        finally:
            self.unread_bytes -= done
            if was_full and self.peer is not None and self.peer.writable:
                self.peer.queue.wake(WRITABLE)
        return done

    def _peek(self, sink: Sink) -> int:
        done = 0
        head = self.head
        for piece in self.inbox:
            if not sink.remaining:
                break
            done += sink.write(memoryview(piece)[head : head + sink.remaining])
            head = 0
        return done

    # What is true now.

    @property
    def writable(self) -> bool:
        peer = self.peer
        return peer is not None and self.room * 2 >= peer.unread_bytes

    def poll(self) -> int:
        if self.state == TCP_LISTEN:
            return READABLE if self.accept_queue else 0
        events = 0
        if self.shut == SHUTDOWN_BOTH or self.state == TCP_CLOSE:
            events |= POLLHUP
        if self.shut & RCV_SHUTDOWN:
            events |= READABLE | POLLRDHUP
        if self.state != TCP_SYN_SENT:
            if self.unread_bytes and self.unread_bytes >= self.rcvlowat:
                events |= READABLE
            if self.shut & SEND_SHUTDOWN or self.state == TCP_CLOSE or self.writable:
                events |= WRITABLE
        if self.error:
            events |= POLLERR | READABLE
        return events

    def unread(self) -> int:
        if self.state == TCP_LISTEN:
            raise LinuxError(EINVAL)
        return self.unread_bytes

    def unsent(self) -> int:
        if self.state == TCP_LISTEN:
            raise LinuxError(EINVAL)
        return 0

    def proc_state(self) -> int:
        if self.state == TCP_ESTABLISHED:
            if self.fin_received:
                return TCP_CLOSE_WAIT
            if self.shut & SEND_SHUTDOWN:
                return TCP_FIN_WAIT2
        return self.state

    def queued(self) -> tuple[int, int]:
        if self.state == TCP_LISTEN:
            return self.backlog, len(self.accept_queue)
        return 0, self.unread_bytes
