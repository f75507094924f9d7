"""System V message queues. msgget(2), msgop(2), sysvipc(7)

Interface: messages are kept in order, each with a type; `take` chooses by type. Linux: ipc/msg.c.
"""

from __future__ import annotations

from errno import E2BIG, EAGAIN, ENOMEM, ENOMSG
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from pysandbox_core.errors import ERESTARTNOHAND, LinuxError
from pysandbox_core.ipc.objects import IPC_NOWAIT, READ, WRITE, IpcObject, IpcTable
from pysandbox_core.kernel_memory import SMALL
from pysandbox_core.waiting import WaitQueue

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

MSGMNI, MSGMAX, MSGMNB = 1024, 8192, 16384
MESSAGES_MAX = 65536
"""Of all queues together. This and MSGMNI bound the kernel's own memory that a program can take."""
MSG_NOERROR, MSG_EXCEPT, MSG_COPY = 0o10000, 0o20000, 0o40000
_LONG_MAX = (1 << 63) - 1


class Message(NamedTuple):
    kind: int
    """mtype, > 0."""
    text: bytes


class MessageQueue(IpcObject):
    """One queue."""

    def __init__(self, task: Task, key: int, mode: int, now: int) -> None:
        super().__init__(task.creds, key, mode, now)
        self.table = queues(task.kernel)
        self.stime = self.rtime = 0
        self.lspid = self.lrpid = 0
        self.limit = MSGMNB
        """msg_qbytes: of all texts together, and of the number of messages."""
        self.bytes = 0
        self.messages: list[Message] = []
        self.senders = WaitQueue()
        self.receivers = WaitQueue()

    def send(self, task: Task, message: Message, flags: int) -> None:
        """Put a message at the end, when there is room. EACCES; EAGAIN; EIDRM; EINTR; ENOMEM"""
        size = len(message.text)
        while True:
            self.require(task.creds, WRITE)
            if self.bytes + size <= self.limit and len(self.messages) < self.limit:
                break
            if flags & IPC_NOWAIT:
                raise LinuxError(EAGAIN)
            task.block(self.senders, restart=ERESTARTNOHAND)
            self.require_present()
        if self.table.messages >= MESSAGES_MAX:
            raise LinuxError(ENOMEM)
        task.kernel.memory.grow(size + SMALL)
        self.table.messages += 1
        self.messages.append(message)
        self.bytes += size
        self.lspid = task.group.pid
        self.stime = int(task.kernel.clocks.realtime_ns() // 10**9)
        self.receivers.wake()

    def take(self, task: Task, size: int, wanted: int, flags: int) -> Message:
        """The next message that `wanted` means, its text cut to `size` if MSG_NOERROR allows that.
        msgrcv(2). Errors: EACCES; E2BIG; ENOMSG; EIDRM; EINTR."""
        while True:
            self.require(task.creds, READ)
            index = self._choose(wanted, flags)
            if index is not None:
                break
            if flags & IPC_NOWAIT:
                raise LinuxError(ENOMSG)
            task.block(self.receivers, restart=ERESTARTNOHAND)
            self.require_present()
        kind, text = self.messages[index]
        if len(text) > size and not flags & MSG_NOERROR:
            raise LinuxError(E2BIG)
        del self.messages[index]
        self.table.messages -= 1
        self.bytes -= len(text)
        self.lrpid = task.group.pid
        self.rtime = int(task.kernel.clocks.realtime_ns() // 10**9)
        self.senders.wake()
        return Message(kind, text[:size])

    def _choose(self, wanted: int, flags: int) -> int | None:
        """Index of the first message of type `wanted`; 0: of any; with MSG_EXCEPT: of any other;
        negative: of the lowest type up to -`wanted`."""
        candidates = range(len(self.messages))
        if wanted < 0:
            highest = min(-wanted, _LONG_MAX)
            fitting = [index for index in candidates if self.messages[index].kind <= highest]
            return min(fitting, key=lambda index: self.messages[index].kind, default=None)
        for index in candidates:
            same = self.messages[index].kind == wanted
            if not wanted or same != bool(flags & MSG_EXCEPT):
                return index
        return None


class QueueTable(IpcTable[MessageQueue]):
    """All queues of a kernel."""

    def __init__(self) -> None:
        super().__init__(MSGMNI)
        self.messages = 0
        """In all of them."""

    def remove(self, victim: MessageQueue) -> None:
        super().remove(victim)
        self.messages -= len(victim.messages)
        victim.messages.clear()


_tables: WeakKeyDictionary[Kernel, QueueTable] = WeakKeyDictionary()


def queues(kernel: Kernel) -> QueueTable:
    """All of `kernel`."""
    table = _tables.get(kernel)
    if table is None:
        table = _tables[kernel] = QueueTable()
    return table
