"""futex(2), futex_waitv(2).

Linux: kernel/futex/syscalls.c.
"""

from __future__ import annotations

from errno import EAGAIN, EINVAL, ENOSYS
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core import futex as futexes
from pysandbox_core.abi.futex import (
    FUTEX2_PRIVATE,
    FUTEX2_SIZE_MASK,
    FUTEX_32,
    FUTEX_BITSET_MATCH_ANY,
    FUTEX_CLOCK_REALTIME,
    FUTEX_CMD_MASK,
    FUTEX_CMP_REQUEUE,
    FUTEX_CMP_REQUEUE_PI,
    FUTEX_LOCK_PI,
    FUTEX_LOCK_PI2,
    FUTEX_OP_ADD,
    FUTEX_OP_ANDN,
    FUTEX_OP_CMP_EQ,
    FUTEX_OP_CMP_GE,
    FUTEX_OP_CMP_GT,
    FUTEX_OP_CMP_LE,
    FUTEX_OP_CMP_LT,
    FUTEX_OP_CMP_NE,
    FUTEX_OP_OPARG_SHIFT,
    FUTEX_OP_OR,
    FUTEX_OP_SET,
    FUTEX_OP_XOR,
    FUTEX_PRIVATE_FLAG,
    FUTEX_REQUEUE,
    FUTEX_TRYLOCK_PI,
    FUTEX_UNLOCK_PI,
    FUTEX_WAIT,
    FUTEX_WAIT_BITSET,
    FUTEX_WAIT_REQUEUE_PI,
    FUTEX_WAITV_MAX,
    FUTEX_WAKE,
    FUTEX_WAKE_BITSET,
    FUTEX_WAKE_OP,
)
from pysandbox_core.abi.time import CLOCK_MONOTONIC, CLOCK_REALTIME, KTIME_MAX, read_timespec_ns
from pysandbox_core.declare import (
    ClockId,
    Int,
    Result,
    TimespecPtr,
    UInt,
    UserAddr,
    sign32,
    syscall,
)
from pysandbox_core.errors import (
    ERESTART_RESTARTBLOCK,
    ERESTARTSYS,
    Interrupted,
    LinuxError,
)
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

TIMED = (
    FUTEX_WAIT,
    FUTEX_LOCK_PI,
    FUTEX_LOCK_PI2,
    FUTEX_WAIT_BITSET,
    FUTEX_WAIT_REQUEUE_PI,
)
"""Operations whose fourth argument is a timeout; for the others it is a number."""
MAY_USE_REALTIME = (FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI, FUTEX_LOCK_PI2)
WAITV = Struct("<QQII")
"""struct futex_waitv: val, uaddr, flags, __reserved."""


@syscall("futex")
def futex(
    task: Task,
    uaddr: UserAddr,
    op: Int,
    val: UInt,
    timeout: TimespecPtr,
    uaddr2: UserAddr,
    val3: UInt,
) -> Result:
    """Wait for, or wake who waits for, the word at `uaddr`. futex(2)

    Errors: ENOSYS no such operation, or one that takes no FUTEX_CLOCK_REALTIME; EINVAL; EFAULT;
    then those of the operation.
    """
    private = bool(op & FUTEX_PRIVATE_FLAG)
    command = op & FUTEX_CMD_MASK
    if command == FUTEX_WAKE and not op & FUTEX_CLOCK_REALTIME:
        return futexes.wake(task.mm, uaddr, sign32(val), private=private)
    if op & FUTEX_CLOCK_REALTIME and command not in MAY_USE_REALTIME:
        raise LinuxError(ENOSYS)
    deadline_ns = None
    if timeout and command in TIMED:
        deadline_ns = read_deadline(task, op, command, timeout)
    if command in (FUTEX_WAIT, FUTEX_WAIT_BITSET):
        bitset = val3 if command == FUTEX_WAIT_BITSET else FUTEX_BITSET_MATCH_ANY
        return wait(task, uaddr, private, val, deadline_ns, bitset)
    if command == FUTEX_WAKE_BITSET:
        return futexes.wake(task.mm, uaddr, sign32(val), val3, private=private)
    if command in (FUTEX_REQUEUE, FUTEX_CMP_REQUEUE):
        expected = val3 if command == FUTEX_CMP_REQUEUE else None
        return requeue(task, uaddr, uaddr2, private, sign32(val), sign32(timeout), expected)
    if command == FUTEX_WAKE_OP:
        return wake_op(task, uaddr, uaddr2, private, sign32(val), sign32(timeout), val3)
    return priority_inheritance(
        task, command, uaddr, uaddr2, private, val, val3, sign32(timeout), deadline_ns
    )


def read_deadline(task: Task, op: int, command: int, timeout: int) -> int:
    """When the wait ends, on the monotonic clock. FUTEX_WAIT takes a duration, the others a
    time."""
    clocks = task.kernel.clocks
    timeout_ns = read_timespec_ns(task.mm, timeout)
    if command == FUTEX_WAIT:
        return min(clocks.monotonic_ns() + timeout_ns, KTIME_MAX)
    if op & FUTEX_CLOCK_REALTIME or command == FUTEX_LOCK_PI:
        return clocks.monotonic_deadline(CLOCK_REALTIME, timeout_ns)
    return timeout_ns


def wait(
    task: Task, uaddr: int, private: bool, val: int, deadline_ns: int | None, bitset: int
) -> int:
    """FUTEX_WAIT. A stop without a handler continues it, with the same end if it has one."""
    if deadline_ns is None:
        return futexes.wait(task, uaddr, private, val, None, bitset, ERESTARTSYS)
    try:
        return futexes.wait(task, uaddr, private, val, deadline_ns, bitset, ERESTART_RESTARTBLOCK)
    except Interrupted:
        task.restart_block = lambda task: wait(task, uaddr, private, val, deadline_ns, bitset)
        raise


def requeue(
    task: Task,
    uaddr: int,
    uaddr2: int,
    private: bool,
    wake_count: int,
    move_count: int,
    expected: int | None,
) -> int:
    """FUTEX_REQUEUE, FUTEX_CMP_REQUEUE. EAGAIN if the word is not `expected`."""
    if wake_count < 0 or move_count < 0:
        raise LinuxError(EINVAL)
    source = futexes.futex_key(task.mm, uaddr, private)
    target = futexes.futex_key(task.mm, uaddr2, private)
    if expected is not None and task.mm.read_u32(uaddr) != expected:
        raise LinuxError(EAGAIN)
    return futexes.requeue(source, target, wake_count, move_count)


OPERATIONS: dict[int, Callable[[int, int], int]] = {
    FUTEX_OP_SET: lambda old, arg: arg,
    FUTEX_OP_ADD: lambda old, arg: old + arg,
    FUTEX_OP_OR: lambda old, arg: old | arg,
    FUTEX_OP_ANDN: lambda old, arg: old & ~arg,
    FUTEX_OP_XOR: lambda old, arg: old ^ arg,
}
COMPARISONS: dict[int, Callable[[int, int], bool]] = {
    FUTEX_OP_CMP_EQ: lambda old, arg: old == arg,
    FUTEX_OP_CMP_NE: lambda old, arg: old != arg,
    FUTEX_OP_CMP_LT: lambda old, arg: old < arg,
    FUTEX_OP_CMP_LE: lambda old, arg: old <= arg,
    FUTEX_OP_CMP_GT: lambda old, arg: old > arg,
    FUTEX_OP_CMP_GE: lambda old, arg: old >= arg,
}


def wake_op(
    task: Task, uaddr: int, uaddr2: int, private: bool, wake1: int, wake2: int, encoded: int
) -> int:
    """FUTEX_WAKE_OP: change the word at `uaddr2` atomically, wake at `uaddr`, and at `uaddr2` if
    its old value compares as asked. ENOSYS no such operation or comparison."""
    mm = task.mm
    key1 = futexes.futex_key(mm, uaddr, private)
    key2 = futexes.futex_key(mm, uaddr2, private)
    operation = OPERATIONS.get(encoded >> 28 & 7)
    compare = COMPARISONS.get(encoded >> 24 & 15)
    argument = sign12(encoded >> 12)
    if encoded >> 28 & FUTEX_OP_OPARG_SHIFT:
        argument = 1 << (argument & 31)
    if operation is None:
        raise LinuxError(ENOSYS)
    task.kernel.stop_others(task)
    old = mm.read_u32(uaddr2)
    mm.write_u32(uaddr2, operation(old, argument) & 0xFFFFFFFF)
    if compare is None:
        raise LinuxError(ENOSYS)
    woken = futexes.wake_key(key1, wake1)
    if compare(sign32(old), sign12(encoded)):
        woken += futexes.wake_key(key2, wake2)
    return woken


def sign12(value: int) -> int:
    """The signed 12-bit number in the low bits."""
    return ((value & 0xFFF) ^ 0x800) - 0x800


def priority_inheritance(
    task: Task,
    command: int,
    uaddr: int,
    uaddr2: int,
    private: bool,
    val: int,
    val3: int,
    val2: int,
    deadline_ns: int | None,
) -> int:
    """The operations on priority-inheritance futexes; ENOSYS for what is no operation at all."""
    from pysandbox_core import futex_pi

    if command in (FUTEX_LOCK_PI, FUTEX_LOCK_PI2):
        return futex_pi.lock(task, uaddr, private, deadline_ns)
    if command == FUTEX_TRYLOCK_PI:
        return futex_pi.trylock(task, uaddr, private)
    if command == FUTEX_UNLOCK_PI:
        return futex_pi.unlock(task, uaddr, private)
    if command == FUTEX_WAIT_REQUEUE_PI:
        return futex_pi.wait_requeue(task, uaddr, uaddr2, private, val, deadline_ns)
    if command == FUTEX_CMP_REQUEUE_PI:
        return futex_pi.cmp_requeue(task, uaddr, uaddr2, private, sign32(val), val2, val3)
    raise LinuxError(ENOSYS)


@syscall("futex_waitv")
def futex_waitv(
    task: Task,
    waiters: UserAddr,
    nr_futexes: UInt,
    flags: UInt,
    timeout: TimespecPtr,
    clockid: ClockId,
) -> Result:
    """Wait for any of several futexes; which one, by its index. futex_waitv(2)

    Errors: EINVAL flags, number or clock; EFAULT; EINVAL an entry; EAGAIN a word is another;
    ETIMEDOUT.
    """
    if flags or not 1 <= nr_futexes <= FUTEX_WAITV_MAX or not waiters:
        raise LinuxError(EINVAL)
    deadline_ns = None
    if timeout:
        if clockid not in (CLOCK_MONOTONIC, CLOCK_REALTIME):
            raise LinuxError(EINVAL)
        until_ns = read_timespec_ns(task.mm, timeout)
        deadline_ns = task.kernel.clocks.monotonic_deadline(clockid, until_ns)
    entries: list[tuple[int, int, bool]] = []
    data = task.mm.read(waiters, nr_futexes * WAITV.size)
    for value, addr, entry_flags, reserved in WAITV.iter_unpack(data):
        if entry_flags & ~(FUTEX2_SIZE_MASK | FUTEX2_PRIVATE) or reserved:
            raise LinuxError(EINVAL)
        if entry_flags & FUTEX2_SIZE_MASK != FUTEX_32 or value >> 32:
            raise LinuxError(EINVAL)
        entries.append((addr, value, bool(entry_flags & FUTEX2_PRIVATE)))
    return futexes.wait_any(task, entries, deadline_ns)
