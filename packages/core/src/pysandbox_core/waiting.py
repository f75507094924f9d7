"""Waiting: queues of waiters, and the one call with which a task blocks.

Interface:
- An object that others can wait for (a pipe, a futex, a child's exit) has a `WaitQueue` and calls
  `wake` when something changed. Waking is a hint: whoever waits looks again.
- A handler blocks with `task.block(queue, …)` in a loop around its own test. Nothing else runs
  between the test and the wait, so that no wake-up is lost.
- A handler whose work may take long, and can be done in pieces, asks its `Turn` between them.
- Everything here belongs to the kernel thread.

A blocked task costs one greenlet: the handler's Python stack stays where it is, and another
greenlet carries the kernel loop on (loop.py).
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Protocol

from pysandbox_core.errors import ERESTARTSYS, Interrupted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pysandbox_core.task import Task

# Event bits, as poll(2) has them.
POLLIN = 0x001
POLLPRI = 0x002
POLLOUT = 0x004
POLLERR = 0x008
POLLHUP = 0x010
POLLNVAL = 0x020
POLLRDNORM = 0x040
POLLRDBAND = 0x080
POLLWRNORM = 0x100
POLLWRBAND = 0x200
POLLRDHUP = 0x2000
POLLFREE = 0x4000
"""Not poll(2)'s: the file whose queue it is has lost its last reference."""
POLL_ANY = 0xFFFF

_TURN_NS = 5_000_000
"""How long a handler has the kernel for itself."""
_PAUSE_NS = 1_000_000
"""How long the others have it then."""


class Waiter(Protocol):
    """What stands in a WaitQueue."""

    def notify(self, events: int) -> None:
        """Something of `events` (POLL* bits) happened. May not block, may leave the queue."""


class WaitQueue:
    """Who wants to know about one object. Waiters are told in the order they came."""

    __slots__ = ("waiters",)

    def __init__(self) -> None:
        self.waiters: dict[Waiter, None] = {}

    def add(self, waiter: Waiter) -> None:
        self.waiters[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        """Take `waiter` out; not standing in the queue is no error."""
        self.waiters.pop(waiter, None)

    def wake(self, events: int = POLL_ANY) -> None:
        """Tell every waiter."""
        if self.waiters:
            for waiter in tuple(self.waiters):
                waiter.notify(events)

    def wake_one(self, events: int = POLL_ANY) -> bool:
        """Tell the first waiter and take it out; False if there is none."""
        for waiter in self.waiters:
            del self.waiters[waiter]
            waiter.notify(events)
            return True
        return False


class TaskWaiter:
    """The entry of one blocked task, in as many queues as it waits on."""

    __slots__ = ("task", "timed_out", "woken")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.woken = False
        self.timed_out = False

    def notify(self, events: int) -> None:
        if not self.woken:
            self.woken = True
            self.task.make_ready()

    def expire(self) -> None:
        """The deadline passed (a timer's callback)."""
        self.timed_out = True
        self.task.make_ready()


def block(
    task: Task,
    queues: WaitQueue | Sequence[WaitQueue],
    deadline_ns: int | None = None,
    restart: int = ERESTARTSYS,
    *,
    killable_only: bool = False,
) -> bool:
    """Block `task` until a queue is woken: True; or until `deadline_ns` of the monotonic clock:
    False.

    Raises Interrupted(`restart`) when a signal that the task does not block is pending, before or
    during the wait; with `killable_only`, only when the task is to die. May return True for no
    reason.
    """
    if task.interrupted(killable_only):
        raise Interrupted(restart)
    waiter = TaskWaiter(task)
    if isinstance(queues, WaitQueue):
        queues = (queues,)
    for queue in queues:
        queue.waiters[waiter] = None
    kernel = task.kernel
    timer = None if deadline_ns is None else kernel.timers.add(deadline_ns, waiter.expire)
    task.killable_only = killable_only
    try:
        kernel.park(task)
    finally:
        for queue in queues:
            queue.waiters.pop(waiter, None)
        if timer is not None:
            timer.cancel()
    if waiter.woken:
        return True
    if task.interrupted(killable_only):
        raise Interrupted(restart)
    return not waiter.timed_out


class Turn:
    """The time that a handler has had the kernel for itself. Made at the start of what may take
    long; as everybody's calls are served by one thread, nobody else's are meanwhile, not even the
    one that is to kill the caller. Linux: cond_resched()

    While others have their turn anything may change: files are closed, memory is unmapped.
    """

    __slots__ = ("_ends_ns", "_task")

    def __init__(self, task: Task) -> None:
        self._task = task
        self._ends_ns = monotonic_ns() + _TURN_NS

    def goes_on(self, *, killable_only: bool = False) -> bool:
        """Between two pieces: let others have the kernel if it is time. False if a signal that the
        task does not block, or with `killable_only` its death, is to end the call with what it has
        done so far."""
        task = self._task
        now_ns = monotonic_ns()
        if now_ns >= self._ends_ns:
            self._pause(now_ns, killable_only)
            self._ends_ns = monotonic_ns() + _TURN_NS
        return not task.interrupted(killable_only)

    def _pause(self, now_ns: int, killable_only: bool) -> None:
        task = self._task
        kernel = task.kernel
        if kernel.running or kernel.ready:
            now_ns += _PAUSE_NS
        timer = kernel.timers.add(now_ns, task.make_ready)
        task.killable_only = killable_only
        try:
            kernel.park(task)
        finally:
            timer.cancel()
