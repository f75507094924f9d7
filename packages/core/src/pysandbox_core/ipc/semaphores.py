"""Semaphore sets. semget(2), semop(2), sysvipc(7)

Interface: `SemaphoreSet.operate` does a list of operations as one, waiting where it has to. What
SEM_UNDO is to take back is kept for each process and done when it ends. Linux: ipc/sem.c.

Who waits is woken by every change and looks for himself; the first who came looks first.
"""

from __future__ import annotations

from errno import EAGAIN, EFBIG, EINTR, EINVAL, ENOSPC, ERANGE
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from pysandbox_core.errors import Interrupted, LinuxError
from pysandbox_core.ipc.objects import IPC_NOWAIT, READ, WRITE, IpcObject, IpcTable
from pysandbox_core.kernel_memory import SMALL
from pysandbox_core.waiting import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task, ThreadGroup

SEMMNI, SEMMSL, SEMOPM, SEMVMX = 4096, 32000, 500, 32767
SEMMNS = 65536
"""Of all sets together; lower than Linux's, for they take the kernel's own memory."""
SEMAEM = SEMVMX
SEM_UNDO = 0x1000


class Operation(NamedTuple):
    """A struct sembuf."""

    number: int
    change: int
    flags: int


class Semaphore:
    """One of a set."""

    __slots__ = ("pid", "value", "waiting_up", "waiting_zero")

    def __init__(self) -> None:
        self.value = 0
        self.pid = 0
        """Who operated on it last."""
        self.waiting_up = 0
        """semncnt: who waits for it to grow."""
        self.waiting_zero = 0
        """semzcnt: who waits for it to be 0."""


class SemaphoreSet(IpcObject):
    """Semaphores that are operated on together."""

    def __init__(self, task: Task, key: int, count: int, mode: int, now: int) -> None:
        super().__init__(task.creds, key, mode, now)
        self.otime = 0
        """Seconds since the epoch of the last operation."""
        self.semaphores = [Semaphore() for _ in range(count)]
        self.queue = WaitQueue()

    def operate(self, task: Task, operations: Sequence[Operation], deadline_ns: int | None) -> None:
        """Do all of `operations`, or none and wait until it can be done. semop(2)

        Errors, first match wins: EFBIG number; EACCES; ERANGE; EAGAIN IPC_NOWAIT, or the time is
        up; EIDRM; EINTR.
        """
        if max(operation.number for operation in operations) >= len(self.semaphores):
            raise LinuxError(EFBIG)
        changes = any(operation.change for operation in operations)
        self.require(task.creds, WRITE if changes else READ)
        while (blocking := self._try(task, operations)) is not None:
            if blocking.flags & IPC_NOWAIT:
                raise LinuxError(EAGAIN)
            self._wait(task, blocking, deadline_ns)
        self.otime = int(task.kernel.clocks.realtime_ns() // 10**9)
        if changes:
            self.queue.wake()

    def _try(self, task: Task, operations: Sequence[Operation]) -> Operation | None:
        """Do them, or change nothing and return the one that can't be done now. ERANGE"""
        values: dict[int, int] = {}
        adjustments: dict[int, int] = {}
        for operation in operations:
            number, change, flags = operation
            value = values.get(number, self.semaphores[number].value)
            if (not change and value) or value + change < 0:
                return operation
            if value + change > SEMVMX:
                raise LinuxError(ERANGE)
            values[number] = value + change
            if flags & SEM_UNDO:
                adjustments[number] = adjustments.get(number, 0) - change
        if adjustments:
            undo_list(task.group).add(self, adjustments)
        for number, value in values.items():
            self.semaphores[number].value = value
            self.semaphores[number].pid = task.group.pid
        return None

    def _wait(self, task: Task, blocking: Operation, deadline_ns: int | None) -> None:
        semaphore = self.semaphores[blocking.number]
        if blocking.change:
            semaphore.waiting_up += 1
        else:
            semaphore.waiting_zero += 1
        try:
            woken = task.block(self.queue, deadline_ns)
        except Interrupted:
            raise LinuxError(EINTR) from None  # never restarted, whatever SA_RESTART says
        finally:
            if blocking.change:
                semaphore.waiting_up -= 1
            else:
                semaphore.waiting_zero -= 1
        self.require_present()
        if not woken:
            raise LinuxError(EAGAIN)

    def set_values(self, task: Task, first: int, values: Sequence[int]) -> None:
        """SETVAL and SETALL: what was to be undone there is forgotten. ERANGE"""
        if any(not 0 <= value <= SEMVMX for value in values):
            raise LinuxError(ERANGE)
        for number, value in enumerate(values, first):
            self.semaphores[number].value = value
            self.semaphores[number].pid = task.group.pid
            for undo in _undo_lists.values():
                undo.forget(self, number)
        self.ctime = int(task.kernel.clocks.realtime_ns() // 10**9)
        self.queue.wake()


class UndoList:
    """What a process's end takes back: for each set, the change by semaphore."""

    def __init__(self) -> None:
        self._changes: dict[SemaphoreSet, dict[int, int]] = {}

    def add(self, target: SemaphoreSet, adjustments: dict[int, int]) -> None:
        """ERANGE, and nothing is added, if it comes to more than a semaphore can hold."""
        known = self._changes.get(target, {})
        changed = {number: known.get(number, 0) + by for number, by in adjustments.items()}
        if any(not -SEMAEM - 1 < by <= SEMAEM for by in changed.values()):
            raise LinuxError(ERANGE)
        self._changes[target] = known | changed

    def drop(self, target: SemaphoreSet) -> None:
        """The set was removed."""
        self._changes.pop(target, None)

    def forget(self, target: SemaphoreSet, number: int) -> None:
        self._changes.get(target, {}).pop(number, None)

    def apply(self, group: ThreadGroup) -> None:
        """Take it all back, as far as the values allow. exit_sem()"""
        for target, changes in self._changes.items():
            if target.removed:
                continue
            for number, by in changes.items():
                semaphore = target.semaphores[number]
                semaphore.value = min(max(semaphore.value + by, 0), SEMVMX)
                semaphore.pid = group.pid
            target.queue.wake()


_undo_lists: WeakKeyDictionary[ThreadGroup, UndoList] = WeakKeyDictionary()


def undo_list(group: ThreadGroup) -> UndoList:
    """That of the process, made with its first SEM_UNDO and applied when it ends."""
    found = _undo_lists.get(group)
    if found is None:
        found = _undo_lists[group] = UndoList()
        group.exit_callbacks.append(_apply)
    return found


def _apply(group: ThreadGroup) -> None:
    _undo_lists.pop(group).apply(group)


def make_set(task: Task, key: int, count: int, mode: int, now: int) -> SemaphoreSet:
    """A new one. EINVAL no semaphores; ENOSPC too many in all"""
    if not count:
        raise LinuxError(EINVAL)
    present = sets(task.kernel).by_index.values()
    if sum(len(other.semaphores) for other in present) + count > SEMMNS:
        raise LinuxError(ENOSPC)
    task.kernel.memory.grow(count * SMALL)
    return SemaphoreSet(task, key, count, mode, now)


class SetTable(IpcTable[SemaphoreSet]):
    """All sets of a kernel."""

    def remove(self, victim: SemaphoreSet) -> None:
        super().remove(victim)
        for undo in _undo_lists.values():
            undo.drop(victim)


_tables: WeakKeyDictionary[Kernel, SetTable] = WeakKeyDictionary()


def sets(kernel: Kernel) -> SetTable:
    """All of `kernel`."""
    table = _tables.get(kernel)
    if table is None:
        table = _tables[kernel] = SetTable(SEMMNI)
    return table
