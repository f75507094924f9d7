"""Futexes: waiting for a word of memory to change. futex(2)

Linux: kernel/futex/. Priority inheritance and robust lists are in futex_pi.py and futex_robust.py.

Interface: a futex exists while somebody waits on it. Its identity, the key, is (mm, address) where
the memory is private to an address space, and the frame of the memory file, or the place in the
host file, where it is shared. Values are compared on the kernel thread, and a waiter stands in its
queue before anything else happens there: whoever changes the word and then calls wake is seen. What
must change a word that others may be changing (`atomic`) stops them first.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EAGAIN, EINVAL, ETIMEDOUT
from typing import TYPE_CHECKING

from pysandbox_core.abi.futex import FUTEX_BITSET_MATCH_ANY
from pysandbox_core.errors import ERESTARTSYS, Interrupted, LinuxError
from pysandbox_core.waiting import POLLIN, WaitQueue

if TYPE_CHECKING:
    from pysandbox_core.mm.memory_manager import MemoryManager
    from pysandbox_core.task import Task

Key = tuple[object, int]


class FutexWaiter(WaitQueue):
    """One task's stand in one futex, and the queue (of one) that the task blocks on."""

    __slots__ = ("bitset", "key", "pi", "task", "woken")

    def __init__(self, task: Task, key: Key, bitset: int = FUTEX_BITSET_MATCH_ANY) -> None:
        self.waiters = {}
        self.task = task
        self.key = key
        self.bitset = bitset
        self.woken = False
        """Somebody's wake has been spent on it: it may not be lost."""
        self.pi: object = None
        """Wants to be requeued to, or stands in, a priority-inheritance futex: see futex_pi."""

    def finish(self) -> None:
        """Let the task go on; it stands in no futex any more."""
        self.woken = True
        self.wake(POLLIN)


_queues: dict[Key, dict[FutexWaiter, None]] = {}
"""The waiters of every futex, first come first served. Keys are unique across sandboxes."""


pi_exit: Callable[[Task], None] | None = None
"""What futex_pi has to do when a thread exits, once it has been loaded."""


def futex_key(mm: MemoryManager, addr: int, private: bool) -> Key:
    """The identity of the futex at `addr`. EINVAL unless aligned; EFAULT if not accessible."""
    if addr & 3:
        raise LinuxError(EINVAL)
    if private:
        return (mm, addr)
    return mm.futex_key(addr)


def enqueue(waiter: FutexWaiter) -> None:
    queue = _queues.get(waiter.key)
    if queue is None:
        _queues[waiter.key] = {waiter: None}
    else:
        queue[waiter] = None


def dequeue(waiter: FutexWaiter) -> None:
    """Take a waiter out; that it stands nowhere is no error."""
    queue = _queues.get(waiter.key)
    if queue is not None and queue.pop(waiter, waiter) is None and not queue:
        del _queues[waiter.key]


def waiters_of(key: Key) -> tuple[FutexWaiter, ...]:
    """Who stands at `key`, first come first."""
    queue = _queues.get(key)
    return tuple(queue) if queue else ()


def wait(
    task: Task,
    addr: int,
    private: bool,
    value: int,
    deadline_ns: int | None,
    bitset: int,
    restart: int = ERESTARTSYS,
) -> int:
    """Sleep until woken, if the word at `addr` is `value`.

    Errors: EINVAL no bit in `bitset`; EFAULT; EAGAIN the word is another; ETIMEDOUT; Interrupted.
    """
    if not bitset:
        raise LinuxError(EINVAL)
    mm = task.mm
    key = futex_key(mm, addr, private)
    if mm.read_u32(addr) != value:
        raise LinuxError(EAGAIN)
    waiter = FutexWaiter(task, key, bitset)
    enqueue(waiter)
    sleep(task, waiter, deadline_ns, restart)
    return 0


def sleep(task: Task, waiter: FutexWaiter, deadline_ns: int | None, restart: int) -> None:
    """Block until `waiter`, which stands in a queue, is woken. ETIMEDOUT, Interrupted: it stands no
    more."""
    try:
        while not waiter.woken:
            if not task.block(waiter, deadline_ns, restart) and not waiter.woken:
                assert deadline_ns is not None
                task.kernel.clocks.catch_up(deadline_ns)
                raise LinuxError(ETIMEDOUT)
    except Interrupted:
        if not waiter.woken:
            raise
    finally:
        if not waiter.woken:
            dequeue(waiter)


def wait_any(task: Task, entries: list[tuple[int, int, bool]], deadline_ns: int | None) -> int:
    """Sleep until one of `entries` (address, value, private) is woken; the index of the last that
    was.

    Errors: those of `wait`; nothing waits if one word is another than expected.
    """
    waiters: list[FutexWaiter] = []
    mm = task.mm
    try:
        for addr, _, private in entries:
            waiters.append(FutexWaiter(task, futex_key(mm, addr, private)))
        for waiter, (addr, value, _) in zip(waiters, entries, strict=True):
            if mm.read_u32(addr) != value:
                raise LinuxError(EAGAIN)
            enqueue(waiter)
        while not any(waiter.woken for waiter in waiters):
            if not task.block(waiters, deadline_ns):
                assert deadline_ns is not None
                task.kernel.clocks.catch_up(deadline_ns)
                raise LinuxError(ETIMEDOUT)
    except LinuxError:
        if not any(waiter.woken for waiter in waiters):
            raise
    finally:
        for waiter in waiters:
            if not waiter.woken:
                dequeue(waiter)
    return max(index for index, waiter in enumerate(waiters) if waiter.woken)


def wake(
    mm: MemoryManager,
    addr: int,
    count: int,
    bitset: int = FUTEX_BITSET_MATCH_ANY,
    *,
    private: bool = False,
) -> int:
    """Wake up to `count` waiters of the futex at `addr` that share a bit; how many.

    Errors: EINVAL no bit, not aligned, or waiters of a priority-inheritance lock; EFAULT.
    """
    if not bitset:
        raise LinuxError(EINVAL)
    return wake_key(futex_key(mm, addr, private), count, bitset)


def wake_key(key: Key, count: int, bitset: int = FUTEX_BITSET_MATCH_ANY) -> int:
    """`wake` for a key. At least one is woken, as Linux does for counts below 1."""
    queue = _queues.get(key)
    if queue is None:
        return 0
    woken = 0
    for waiter in tuple(queue):
        if waiter.pi is not None:
            raise LinuxError(EINVAL)
        if waiter.bitset & bitset:
            del queue[waiter]
            waiter.finish()
            woken += 1
            if woken >= count:
                break
    if not queue:
        _queues.pop(key, None)
    return woken


def requeue(source: Key, target: Key, wake_count: int, move_count: int) -> int:
    """Wake `wake_count` waiters of `source` and let `move_count` others wait at `target` instead.
    Returns how many were woken or moved."""
    queue = _queues.get(source)
    if queue is None:
        return 0
    woken = moved = 0
    for waiter in tuple(queue):
        if waiter.pi is not None:
            raise LinuxError(EINVAL)
        if woken < wake_count:
            del queue[waiter]
            waiter.finish()
            woken += 1
        elif moved < move_count:
            moved += 1
            if source != target:
                del queue[waiter]
                waiter.key = target
                enqueue(waiter)
        else:
            break
    if not queue:
        _queues.pop(source, None)
    return woken + moved


def exit_robust_list(task: Task) -> None:
    """`task` lets go of its memory: the locks that it holds get to know."""
    if task.robust_list:
        from pysandbox_core import futex_robust

        futex_robust.exit_robust_list(task)
    if pi_exit is not None:
        pi_exit(task)
