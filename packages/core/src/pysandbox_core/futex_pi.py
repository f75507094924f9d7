"""Futexes with priority inheritance: locks whose owner the kernel knows. futex(2), "PI futexes"

Linux: kernel/futex/pi.c, requeue.c. There are no priorities here, so that there is nothing to
inherit; what remains is the protocol: the word holds the owner's tid, FUTEX_WAITERS if the kernel
is to be asked to unlock, FUTEX_OWNER_DIED if an owner went without unlocking. Waiters get the lock
in the order they came.

Interface: every function here stops the other contexts before it changes a word (futex.py).
"""

from __future__ import annotations

from contextlib import suppress
from errno import EAGAIN, EDEADLK, EINVAL, EPERM, ESRCH, EWOULDBLOCK
from typing import TYPE_CHECKING

from pysandbox_core import futex
from pysandbox_core.abi.futex import FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS
from pysandbox_core.errors import ERESTARTNOINTR, Interrupted, LinuxError
from pysandbox_core.futex import (
    FutexWaiter,
    Key,
    dequeue,
    enqueue,
    futex_key,
    sleep,
    waiters_of,
)

if TYPE_CHECKING:
    from pysandbox_core.mm.memory_manager import MemoryManager
    from pysandbox_core.task import Task


class PiLock:
    """A lock that somebody waits for. Exists as long as somebody does."""

    __slots__ = ("key", "owner")

    def __init__(self, key: Key, owner: Task) -> None:
        self.key = key
        self.owner = owner


class PiWaiter(FutexWaiter):
    """Waits for a lock, or (`lock` is None) to be requeued to the one at `target`."""

    __slots__ = ("addr", "lock", "target")

    def __init__(self, task: Task, key: Key, target: Key, addr: int) -> None:
        super().__init__(task, key)
        self.pi = self
        self.lock: PiLock | None = None
        self.target = target
        self.addr = addr
        """Where the waiter's process has the word of `target`."""


_locks: dict[Key, PiLock] = {}
_blocked: dict[Task, PiWaiter] = {}
"""Who waits for a lock, for finding cycles."""


def lock(task: Task, addr: int, private: bool, deadline_ns: int | None) -> int:
    """FUTEX_LOCK_PI: take the lock, waiting for it if need be.

    Errors: EINVAL; EFAULT; EDEADLK; ESRCH the owner is gone; ETIMEDOUT; restarts after signals.
    """
    key = futex_key(task.mm, addr, private)
    task.kernel.stop_others(task)
    if _acquire(task, task.mm, addr, key, False):
        return 0
    waiter = PiWaiter(task, key, key, addr)
    _join(waiter)
    _wait_for_lock(task, waiter, deadline_ns)
    return 0


def trylock(task: Task, addr: int, private: bool) -> int:
    """FUTEX_TRYLOCK_PI: EAGAIN if it is held."""
    key = futex_key(task.mm, addr, private)
    task.kernel.stop_others(task)
    if _acquire(task, task.mm, addr, key, False):
        return 0
    raise LinuxError(EAGAIN)


def unlock(task: Task, addr: int, private: bool) -> int:
    """FUTEX_UNLOCK_PI: give the lock to the first waiter. EPERM if it is not the caller's."""
    mm = task.mm
    if mm.read_u32(addr) & FUTEX_TID_MASK != task.tid:
        raise LinuxError(EPERM)
    key = futex_key(mm, addr, private)
    task.kernel.stop_others(task)
    waiters = waiters_of(key)
    if waiters and waiters[0].pi is None:
        raise LinuxError(EINVAL)
    held = _locks.get(key)
    if held is None:
        mm.write_u32(addr, 0)
        return 0
    if held.owner is not task:
        raise LinuxError(EINVAL)
    mm.write_u32(addr, FUTEX_WAITERS | _waiters(key)[0].task.tid)
    _give(held)
    return 0


def wait_requeue(
    task: Task,
    addr: int,
    addr2: int,
    private: bool,
    value: int,
    deadline_ns: int | None,
) -> int:
    """FUTEX_WAIT_REQUEUE_PI: wait at `addr` until requeued to the lock at `addr2` and given it."""
    if addr == addr2:
        raise LinuxError(EINVAL)
    mm = task.mm
    target = futex_key(mm, addr2, private)
    key = futex_key(mm, addr, private)
    if mm.read_u32(addr) != value:
        raise LinuxError(EAGAIN)
    if key == target:
        raise LinuxError(EINVAL)
    waiter = PiWaiter(task, key, target, addr2)
    enqueue(waiter)
    try:
        _wait_for_lock(task, waiter, deadline_ns)
    except Interrupted:
        if waiter.key == target:  # a restart would find another value
            raise LinuxError(EWOULDBLOCK) from None
        raise
    return 0


def cmp_requeue(
    task: Task, addr: int, addr2: int, private: bool, wake_count: int, move_count: int, value: int
) -> int:
    """FUTEX_CMP_REQUEUE_PI: give the lock at `addr2` to the first waiter at `addr` if it is free,
    and let up to `move_count` others wait for it. How many were given it or moved."""
    if wake_count != 1 or addr == addr2 or move_count < 0:
        raise LinuxError(EINVAL)
    mm = task.mm
    source = futex_key(mm, addr, private)
    target = futex_key(mm, addr2, private)
    if source == target:
        raise LinuxError(EINVAL)
    if mm.read_u32(addr) != value:
        raise LinuxError(EAGAIN)
    task.kernel.stop_others(task)
    done = 0
    for waiter in waiters_of(source)[: 1 + move_count]:
        if not isinstance(waiter, PiWaiter) or waiter.target != target:
            raise LinuxError(EINVAL)
        if not done and _acquire(waiter.task, mm, addr2, target, move_count > 0):
            dequeue(waiter)
            waiter.key = target
            waiter.finish()
        else:
            _join(waiter, mm, addr2)
        done += 1
    return done


def exit_locks(task: Task) -> None:
    """`task` lets go of its memory: what it holds goes to the first waiter, marked
    FUTEX_OWNER_DIED."""
    owned = [held for held in _locks.values() if held.owner is task]
    if owned:
        task.kernel.stop_others(task)
    for held in owned:
        top = _waiters(held.key)[0]
        with suppress(LinuxError):  # the waiter can't be told in a word that is not there any more
            top.task.mm.write_u32(top.addr, FUTEX_WAITERS | top.task.tid | FUTEX_OWNER_DIED)
        _give(held)


def _waiters(key: Key) -> list[PiWaiter]:
    return [waiter for waiter in waiters_of(key) if isinstance(waiter, PiWaiter)]


def _acquire(task: Task, mm: MemoryManager, addr: int, key: Key, set_waiters: bool) -> bool:
    """Write `task` into the word at `addr` if the lock is free. EDEADLK, EINVAL, EFAULT"""
    word = mm.read_u32(addr)
    if word & FUTEX_TID_MASK == task.tid:
        raise LinuxError(EDEADLK)
    held = _locks.get(key)
    if held is not None:
        if word & FUTEX_TID_MASK != held.owner.tid:
            raise LinuxError(EINVAL)  # the program has meddled with the word
        return False
    waiters = waiters_of(key)
    if waiters and waiters[0].pi is None:
        raise LinuxError(EINVAL)
    if word & FUTEX_TID_MASK:
        return False
    waiters_bit = FUTEX_WAITERS if set_waiters else 0
    mm.write_u32(addr, word & FUTEX_OWNER_DIED | task.tid | waiters_bit)
    return True


def _join(waiter: PiWaiter, mm: MemoryManager | None = None, addr: int = 0) -> None:
    """Let `waiter` wait for the held lock at its target, whose word is at `addr` of `mm`.

    Errors: ESRCH the word names no thread; EDEADLK its owner waits, directly or not, for us. It
    stands where it stood then.
    """
    key = waiter.target
    if mm is None:
        mm, addr = waiter.task.mm, waiter.addr
    word = mm.read_u32(addr)
    held = _locks.get(key)
    if held is None:
        owner = waiter.task.kernel.tasks.get(word & FUTEX_TID_MASK)
        if owner is None or owner.exited:
            raise LinuxError(ESRCH)
        held = PiLock(key, owner)
    holder: Task = held.owner
    for _ in range(1024):
        if holder is waiter.task:
            raise LinuxError(EDEADLK)
        above = _blocked.get(holder)
        if above is None or above.lock is None:
            break
        holder = above.lock.owner
    if not word & FUTEX_WAITERS:
        mm.write_u32(addr, word | FUTEX_WAITERS)
    _locks[key] = held
    waiter.lock = held
    _blocked[waiter.task] = waiter
    dequeue(waiter)
    waiter.key = key
    enqueue(waiter)


def _wait_for_lock(task: Task, waiter: PiWaiter, deadline_ns: int | None) -> None:
    try:
        sleep(task, waiter, deadline_ns, ERESTARTNOINTR)
    finally:
        _blocked.pop(task, None)
        held = waiter.lock
        if held is not None and not _waiters(held.key):
            _locks.pop(held.key, None)


def _give(held: PiLock) -> None:
    """Make the first waiter the owner, whom the word names already."""
    waiters = _waiters(held.key)
    top = waiters[0]
    held.owner = top.task
    dequeue(top)
    if len(waiters) == 1:
        _locks.pop(held.key, None)
    top.finish()


futex.pi_exit = exit_locks
