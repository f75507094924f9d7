"""Out of memory: the process that has most is killed, and the sandbox goes on.

Interface: `kill_biggest` when the sandbox's memory limit is reached; `make_room` for a fault that
found no frame. Who was killed is dying until its last thread has exited; nobody else is killed
meanwhile, for that may be enough.

The measure is what a process keeps others from having: its frames, and estimates of the kernel's
objects that it holds and of the host's page tables, corrected by /proc/PID/oom_score_adj.

Linux: mm/oom_kill.c (oom_badness, oom_reaper).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_core import task_exit
from pysandbox_core.abi.signal import SIGKILL
from pysandbox_core.kernel_memory import HOST_THREAD

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.memory_manager import MemoryManager
    from pysandbox_core.mm.pages import MmPages
    from pysandbox_core.task import ThreadGroup

OOM_SCORE_ADJ_MIN = -1000
"""A process with this is never chosen."""
_FILE_BYTES = 1500
_RANGE_BYTES = 400
_THREAD_BYTES = 12 << 10


def dying(kernel: Kernel) -> list[ThreadGroup]:
    """Who was killed and is not gone yet."""
    memory = kernel.memory
    if memory.victims:
        memory.victims = [group for group in memory.victims if group.tasks]
    return memory.victims


def badness(group: ThreadGroup, total: int) -> int:
    """Bytes that killing `group` would free, more or less; `total` is what there is at all."""
    mm: MemoryManager = group.tasks[0].mm
    used = sum(end - start for start, end, piece in mm.pages if _in_memory_file(piece.source))
    used += mm.host_bytes() + len(group.tasks) * HOST_THREAD
    return used + kernel_bytes(group) + group.oom_score_adj * (total // 1000)


def kernel_bytes(group: ThreadGroup) -> int:
    """About how much the kernel's objects take that only `group` holds."""
    task = group.tasks[0]
    files = task.files.count() * _FILE_BYTES + task.files.size * 8
    return files + task.mm.range_count() * _RANGE_BYTES + len(group.tasks) * _THREAD_BYTES


def _in_memory_file(source: object) -> bool:
    return source is None or bool(getattr(source, "in_memory_file", True))


def kill_biggest(kernel: Kernel) -> ThreadGroup | None:
    """Kill the process that has most, and all that share its memory; None if there is nobody."""
    total = kernel.memory_file.total
    candidates = [
        group
        for group in kernel.groups.values()
        if group.tasks
        and group.group_exit_code is None
        and group.oom_score_adj != OOM_SCORE_ADJ_MIN
    ]
    if not candidates:
        return None
    # of equals the oldest: a process and its copies are ended by ending the one that copies
    victim = max(candidates, key=lambda group: (badness(group, total), -group.start_time_ns))
    mm = victim.tasks[0].mm
    comm = victim.tasks[0].comm.decode("utf-8", "backslashreplace")
    victim.account.reach("memory", f"process {victim.pid} ({comm}) was killed")
    kernel.log(f"out of memory: process {victim.pid} ({comm}) is killed", "info")
    for group in tuple(kernel.groups.values()):
        if group.tasks and group.tasks[0].mm is mm:
            kernel.memory.victims.append(group)
            task_exit.start_group_exit(group, SIGKILL)
    return victim


def make_room(mm: MmPages) -> bool:
    """A page is needed for `mm` and there is none: kill the process that has most unless somebody
    is dying already. True if there are pages now; otherwise there will be when they are gone, if
    `dying`."""
    kernel = mm.kernel
    if not dying(kernel) and kill_biggest(kernel) is None:
        return False
    granted = kernel.memory_file.granted
    for group in dying(kernel):
        space = group.tasks[0].mm
        # not its own: whoever is reading or writing its memory for it has not finished
        if space is not mm:
            space.reap()
    return kernel.memory_file.granted < granted
