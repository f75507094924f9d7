"""POSIX message queues. mq_overview(7)

Linux: ipc/mqueue.c. The names are the sandbox's own and lie in no file system: there is no mqueue
to mount at /dev/mqueue.

Interface: `queues(kernel)` has the names. A queue lives while it has one, or is open.
"""

from __future__ import annotations

import heapq
import os
from contextlib import suppress
from errno import (
    EACCES,
    EAGAIN,
    EEXIST,
    EINVAL,
    EMFILE,
    EMSGSIZE,
    ENAMETOOLONG,
    ENOENT,
    ENOSPC,
    ETIMEDOUT,
)
from stat import S_IFREG
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pysandbox_core import task_signals
from pysandbox_core.credentials import CAP_FOWNER, CAP_SYS_RESOURCE
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.anonymous import AnonymousInode
from pysandbox_core.fs.file_description import FileDescription
from pysandbox_core.fs.permissions import MAY_READ, MAY_WRITE, check_access
from pysandbox_core.kernel_memory import SMALL
from pysandbox_core.signals import SigInfo
from pysandbox_core.waiting import POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM, WaitQueue

if TYPE_CHECKING:
    from pysandbox_core.credentials import Credentials
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink
    from pysandbox_core.net.netlink import NetlinkSocket
    from pysandbox_core.task import Task, ThreadGroup

# /proc/sys/fs/mqueue
QUEUES_MAX = 256
MSG_MAX = 10
MSGSIZE_MAX = 8192
# What CAP_SYS_RESOURCE may have, include/linux/ipc_namespace.h.
HARD_MSGMAX = 65536
HARD_MSGSIZEMAX = 16 << 20
NAME_MAX = 255
PRIO_MAX = 32768
MESSAGE_OVERHEAD = 80
"""What each message a queue may hold counts against RLIMIT_MSGQUEUE besides its bytes."""

SI_MESGQ = -3
NOTIFY_COOKIE_LEN = 32
NOTIFY_WOKENUP = 1
NOTIFY_REMOVED = 2
READABLE = POLLIN | POLLRDNORM
WRITABLE = POLLOUT | POLLWRNORM


class Notification:
    """Who wants to know when a message comes to the empty queue, and how. mq_notify(3)"""

    __slots__ = ("cookie", "group", "signo", "socket", "value")

    def __init__(self, group: ThreadGroup) -> None:
        self.group = group
        self.signo = 0
        """0: register, and say nothing (SIGEV_NONE)."""
        self.value = 0
        self.socket: NetlinkSocket | None = None
        """SIGEV_THREAD: where the C library's helper thread waits for `cookie`."""
        self.cookie = b""

    def tell(self, task: Task) -> None:
        """A message has come, from `task`."""
        if self.socket is not None:
            self._send_cookie(NOTIFY_WOKENUP)
        elif self.signo:
            creds = task.creds
            info = SigInfo.queued(self.signo, task.group.pid, creds.uid, self.value, SI_MESGQ)
            with suppress(LinuxError):  # the message has come, also where its signal has no room
                task_signals.send(self.group, self.signo, info)

    def remove(self) -> None:
        """It was taken back."""
        if self.socket is not None:
            self._send_cookie(NOTIFY_REMOVED)

    def _send_cookie(self, what: int) -> None:
        socket = self.socket
        assert socket is not None
        self.socket = None
        socket.push(self.cookie[:-1] + bytes((what,)))
        socket.decref()


class PosixQueue:
    """One queue: messages by priority, the oldest first."""

    def __init__(
        self, kernel: Kernel, mode: int, creds: Credentials, maxmsg: int, msgsize: int
    ) -> None:
        self.kernel = kernel
        self.inode = AnonymousInode(kernel, S_IFREG | mode, creds.fsuid, creds.fsgid)
        self.maxmsg = maxmsg
        self.msgsize = msgsize
        self.uid = creds.uid
        self.charge = maxmsg * (msgsize + MESSAGE_OVERHEAD)
        self.heap: list[tuple[int, int, bytes]] = []
        """(-priority, number, data)"""
        self._sent = 0
        self.bytes = 0
        self.queue = WaitQueue()
        """Whoever waits to receive or send, or polls."""
        self.receivers = 0
        """Tasks that wait for a message."""
        self.notification: Notification | None = None
        self.opens = 0
        self.linked = True

    def put(self, task: Task, data: bytes, priority: int) -> None:
        """Add a message, for which there is room."""
        was_empty = not self.heap
        heapq.heappush(self.heap, (-priority, self._sent, data))
        self._sent += 1
        self.bytes += len(data)
        if was_empty and not self.receivers and self.notification is not None:
            notification, self.notification = self.notification, None
            notification.tell(task)
        self.queue.wake(READABLE)

    def take(self) -> tuple[bytes, int]:
        """The first message and its priority."""
        priority, _, data = heapq.heappop(self.heap)
        self.bytes -= len(data)
        self.queue.wake(WRITABLE)
        return data, -priority

    def unused(self) -> None:
        """It has lost its name or its last opener."""
        if not self.linked and not self.opens:
            queues(self.kernel).discharge(self)


class QueueFile(FileDescription):
    """An open message queue."""

    __slots__ = ("posix_queue",)

    def __init__(self, queue: PosixQueue, flags: int) -> None:
        super().__init__(flags, queue.inode)
        self.posix_queue = queue
        self.queue = queue.queue
        queue.opens += 1

    pollable = True

    def release(self) -> None:
        self.posix_queue.opens -= 1
        self.posix_queue.unused()

    def flush(self, task: Task) -> None:
        """Closing any descriptor of it takes back the process's notification."""
        notification = self.posix_queue.notification
        if notification is not None and notification.group is task.group:
            self.posix_queue.notification = None
            notification.remove()

    def describe(self) -> bytes:
        return b"anon_inode:[mqueue]"

    def send(self, task: Task, data: bytes, priority: int, deadline_ns: int | None) -> None:
        """EMSGSIZE; EAGAIN; ETIMEDOUT; Interrupted"""
        queue = self.posix_queue
        if len(data) > queue.msgsize:
            raise LinuxError(EMSGSIZE)
        while len(queue.heap) >= queue.maxmsg:
            self._wait(task, deadline_ns)
        task.kernel.memory.grow(len(data) + SMALL)
        queue.put(task, data, priority)

    def receive(self, task: Task, room: int, deadline_ns: int | None) -> tuple[bytes, int]:
        """(data, priority) of the first message. EMSGSIZE `room` is less than a message may have"""
        queue = self.posix_queue
        if room < queue.msgsize:
            raise LinuxError(EMSGSIZE)
        while not queue.heap:
            queue.receivers += 1
            try:
                self._wait(task, deadline_ns)
            finally:
                queue.receivers -= 1
        return queue.take()

    def _wait(self, task: Task, deadline_ns: int | None) -> None:
        if self.flags & os.O_NONBLOCK:
            raise LinuxError(EAGAIN)
        if not task.block(self.queue, deadline_ns):
            raise LinuxError(ETIMEDOUT)

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        """A line about its state, as a file at /dev/mqueue has."""
        queue = self.posix_queue
        notification = queue.notification
        line = b"QSIZE:%-10d NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n" % (
            queue.bytes,
            0 if notification is None or notification.socket is None else 2,
            0 if notification is None else notification.signo,
            0 if notification is None else notification.group.pid,
        )
        at = self.offset if offset is None else offset
        done = sink.write(line[at:][: sink.remaining])
        if offset is None:
            self.offset += done
        return done

    def poll(self) -> int:
        queue = self.posix_queue
        events = READABLE if queue.heap else 0
        return events | WRITABLE if len(queue.heap) < queue.maxmsg else events


class QueueNames:
    """The queues of one sandbox by name."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.by_name: dict[bytes, PosixQueue] = {}
        self.charged: dict[int, int] = {}
        """Bytes that each user's queues may take up."""

    def open(
        self, task: Task, name: bytes, flags: int, mode: int, sizes: tuple[int, int] | None
    ) -> QueueFile:
        """mq_open(2); `sizes` are maxmsg and msgsize. EACCES, ENAMETOOLONG, EEXIST, ENOENT; those
        of `create`"""
        check_name(name)
        queue = self.by_name.get(name)
        if queue is None:
            if not flags & os.O_CREAT:
                raise LinuxError(ENOENT)
            queue = self.create(task, name, mode & ~task.fs.umask & 0o777, sizes)
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise LinuxError(EEXIST)
        else:
            access = flags & os.O_ACCMODE
            if access == os.O_ACCMODE:
                raise LinuxError(EINVAL)
            wanted = (MAY_READ, MAY_WRITE, MAY_READ | MAY_WRITE)[access]
            check_access(task.creds, queue.inode, wanted)
        return QueueFile(queue, flags & (os.O_ACCMODE | os.O_NONBLOCK))

    def create(
        self, task: Task, name: bytes, mode: int, sizes: tuple[int, int] | None
    ) -> PosixQueue:
        """EINVAL sizes; ENOSPC too many queues; EMFILE RLIMIT_MSGQUEUE"""
        creds = task.creds
        privileged = creds.capable(CAP_SYS_RESOURCE)
        maxmsg, msgsize = sizes or (MSG_MAX, MSGSIZE_MAX)
        most = HARD_MSGMAX if privileged else MSG_MAX
        largest = HARD_MSGSIZEMAX if privileged else MSGSIZE_MAX
        if not 0 < maxmsg <= most or not 0 < msgsize <= largest:
            raise LinuxError(EINVAL)
        if len(self.by_name) >= QUEUES_MAX and not privileged:
            raise LinuxError(ENOSPC)
        queue = PosixQueue(self.kernel, mode, creds, maxmsg, msgsize)
        charged = self.charged.get(queue.uid, 0) + queue.charge
        if charged > task.group.limits.msgqueue:
            raise LinuxError(EMFILE)
        self.charged[queue.uid] = charged
        self.by_name[name] = queue
        return queue

    def unlink(self, task: Task, name: bytes) -> None:
        """mq_unlink(2). ENOENT; EACCES somebody else's"""
        check_name(name)
        queue = self.by_name.get(name)
        if queue is None:
            raise LinuxError(ENOENT)
        creds = task.creds
        if queue.inode.uid != creds.fsuid and not creds.capable(CAP_FOWNER):
            raise LinuxError(EACCES)
        del self.by_name[name]
        queue.linked = False
        queue.unused()

    def discharge(self, queue: PosixQueue) -> None:
        self.charged[queue.uid] -= queue.charge


def check_name(name: bytes) -> None:
    """The C library has taken the leading slash away: there may be no other. EACCES,
    ENAMETOOLONG"""
    if len(name) > NAME_MAX:
        raise LinuxError(ENAMETOOLONG)
    if not name or b"/" in name or name in (b".", b".."):
        raise LinuxError(EACCES if name else ENOENT)


_names: WeakKeyDictionary[Kernel, QueueNames] = WeakKeyDictionary()


def queues(kernel: Kernel) -> QueueNames:
    """Those of `kernel`."""
    names = _names.get(kernel)
    if names is None:
        names = _names[kernel] = QueueNames(kernel)
    return names
