"""membarrier(2)

Other threads are made to pass through the kernel, which is a barrier on every processor, by
stopping them all for a moment.
"""

from __future__ import annotations

from errno import EINVAL, EPERM
from typing import TYPE_CHECKING

from pysandbox_core.declare import Int, Result, UInt, syscall
from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.task import Task

_QUERY = 0
_GLOBAL = 1 << 0
_GLOBAL_EXPEDITED = 1 << 1
_REGISTER_GLOBAL_EXPEDITED = 1 << 2
_PRIVATE_EXPEDITED = 1 << 3
_REGISTER_PRIVATE_EXPEDITED = 1 << 4
_PRIVATE_EXPEDITED_SYNC_CORE = 1 << 5
_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE = 1 << 6
_PRIVATE_EXPEDITED_RSEQ = 1 << 7
_REGISTER_PRIVATE_EXPEDITED_RSEQ = 1 << 8
_GET_REGISTRATIONS = 1 << 9
_FLAG_CPU = 1

_REGISTERS = (
    _REGISTER_GLOBAL_EXPEDITED | _REGISTER_PRIVATE_EXPEDITED | _REGISTER_PRIVATE_EXPEDITED_SYNC_CORE
    | _REGISTER_PRIVATE_EXPEDITED_RSEQ
)  # fmt: skip
_PRIVATE = _PRIVATE_EXPEDITED | _PRIVATE_EXPEDITED_SYNC_CORE | _PRIVATE_EXPEDITED_RSEQ
_ALL = _GLOBAL | _GLOBAL_EXPEDITED | _PRIVATE | _REGISTERS | _GET_REGISTRATIONS


@syscall("membarrier")
def membarrier(task: Task, cmd: Int, flags: UInt, cpu_id: Int) -> Result:
    """Order memory accesses of other threads. membarrier(2)

    Errors: EINVAL command or flags; EPERM a private command that was not registered for.
    """
    if flags and not (cmd == _PRIVATE_EXPEDITED_RSEQ and flags == _FLAG_CPU):
        raise LinuxError(EINVAL)
    mm = task.mm
    if cmd == _QUERY:
        return _ALL
    if cmd <= 0 or cmd & (cmd - 1) or not cmd & _ALL:
        raise LinuxError(EINVAL)
    if cmd == _GET_REGISTRATIONS:
        return mm.membarrier
    if cmd & _REGISTERS:
        mm.membarrier |= cmd
        return 0
    if cmd & _PRIVATE:
        if not mm.membarrier & cmd << 1:
            raise LinuxError(EPERM)
        if not mm.others_running():
            return 0
    task.kernel.stop_others(task)
    return 0
