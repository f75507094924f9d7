"""Robust futexes: locks that tell the next owner that the last one died. get_robust_list(2)

Linux: exit_robust_list() in kernel/futex/core.c, Documentation/locking/robust-futex-ABI.rst.

The list is the program's own and lies in its memory. It may be circular, endless, or point
anywhere: the walk ends at the first entry that can't be read, and after ROBUST_LIST_LIMIT entries.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.abi.futex import (
    FUTEX_OWNER_DIED,
    FUTEX_TID_MASK,
    FUTEX_WAITERS,
    ROBUST_LIST_LIMIT,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.futex import wake

if TYPE_CHECKING:
    from pysandbox_core.task import Task

ROBUST_LIST_HEAD = Struct("<QqQ")
"""struct robust_list_head: list.next, futex_offset, list_op_pending."""
PI_BIT = 1
"""In a pointer of the list: the lock it leads to is a priority-inheritance one."""
_U64 = 0xFFFFFFFFFFFFFFFF


def exit_robust_list(task: Task) -> None:
    """Mark every lock on the list of `task`, which is about to lose its memory."""
    head = task.robust_list
    task.robust_list = 0
    try:
        entry, offset, pending = task.mm.unpack(head, ROBUST_LIST_HEAD)
        if entry == head and not pending:
            return
        task.kernel.stop_others(task)
        for _ in range(ROBUST_LIST_LIMIT):
            if entry & ~PI_BIT == head:
                break
            addr = entry & ~PI_BIT
            # read before the lock is marked: from then on another thread may free it
            try:
                following: int | None = task.mm.read_u64(addr)
            except LinuxError:
                following = None
            if addr != pending & ~PI_BIT:
                _owner_died(task, addr + offset & _U64, bool(entry & PI_BIT), False)
            if following is None:
                break
            entry = following
        if pending:
            _owner_died(task, (pending & ~PI_BIT) + offset & _U64, bool(pending & PI_BIT), True)
    except LinuxError:
        pass  # there is nobody to tell


def _owner_died(task: Task, addr: int, pi: bool, pending: bool) -> None:
    """Mark the lock whose word is at `addr` if `task` holds it, and wake one who waits for it.

    Linux: handle_futex_death(). EINVAL, EFAULT
    """
    word = task.mm.read_u32(addr)
    if pending and not pi and not word:
        # it was released, and whoever released it died before it could wake anybody
        wake(task.mm, addr, 1)
        return
    if word & FUTEX_TID_MASK != task.tid:
        return
    task.mm.write_u32(addr, word & FUTEX_WAITERS | FUTEX_OWNER_DIED)
    if not pi and word & FUTEX_WAITERS:
        wake(task.mm, addr, 1)
