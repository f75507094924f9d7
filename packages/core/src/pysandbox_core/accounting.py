"""What tasks have used: CPU time and memory. getrusage(2), times(2), time(7)

What programs have used together, and which limits they have met, is in an `Account`.

The CPU time of a task is what its context has used on the host, which the platform reads when it is
asked (`Context.cpu_time_ns`), so that running costs nothing. It is all counted as user time: the
kernel's own thread works for every task at once, and dividing its time would take two clock reads
on each system call. Where a platform can't say, it is 0.

Interface: times in nanoseconds. A thread's time moves to its group when it exits, a process's to
its parent when that waits for it.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pysandbox_core.task import Task, ThreadGroup

TICKS_PER_SECOND = 100
"""USER_HZ: what times(2) and si_utime count in, sysconf(_SC_CLK_TCK)."""
_NS_PER_TICK = 1_000_000_000 // TICKS_PER_SECOND

RUSAGE = Struct("<16q")
"""struct rusage: ru_utime, ru_stime, ru_maxrss (KiB), ru_ixrss, ru_idrss, ru_isrss, ru_minflt,
ru_majflt, ru_nswap, ru_inblock, ru_oublock, ru_msgsnd, ru_msgrcv, ru_nsignals, ru_nvcsw,
ru_nivcsw."""


class Account:
    """Of programs that are looked at together. Each that is started from outside has one, which its
    descendants share; the sandbox's own (`Kernel.account`) is the parent of all. Linux: a control
    group."""

    __slots__ = ("cpu_time_ns", "own", "parent", "reached")

    def __init__(self, parent: Account | None = None) -> None:
        self.parent = parent
        self.cpu_time_ns = 0
        """Of tasks that are gone."""
        self.reached: dict[str, str] = {}
        """Limits (names of limits.LIMITS) that were met here and below -> what came of it the first
        time."""
        self.own: dict[str, int] = {}
        """How often they were met here: in the sandbox's account, by nobody in particular."""

    def reach(self, limit: str, consequence: str) -> None:
        """A limit was met."""
        self.own[limit] = self.own.get(limit, 0) + 1
        account: Account | None = self
        while account is not None:
            account.reached.setdefault(limit, consequence)
            account = account.parent

    def add_cpu_time(self, time_ns: int) -> None:
        """A task has ended that had used so much."""
        self.cpu_time_ns += time_ns
        if self.parent is not None:
            self.parent.add_cpu_time(time_ns)


def task_cpu_time_ns(task: Task) -> int:
    """CLOCK_THREAD_CPUTIME_ID"""
    return 0 if task.exited else task.context.cpu_time_ns()


def group_cpu_time_ns(group: ThreadGroup) -> int:
    """CLOCK_PROCESS_CPUTIME_ID: all threads, those that are gone included."""
    return group.cpu_time_ns + sum(task_cpu_time_ns(task) for task in group.tasks)


def ticks(time_ns: int) -> int:
    """In units of TICKS_PER_SECOND."""
    return time_ns // _NS_PER_TICK


def group_max_rss(group: ThreadGroup) -> int:
    """The most memory, in bytes, that the process has had resident."""
    if not group.tasks:
        return group.max_rss
    return max(group.max_rss, peak_rss(group.tasks[0]))


def peak_rss(task: Task) -> int:
    """Of the task's address space."""
    return task.mm.peak_rss()


def task_exited(task: Task) -> None:
    """Move the thread's share to its group; its context and its memory are still there."""
    group = task.group
    used_ns = task_cpu_time_ns(task)
    group.cpu_time_ns += used_ns
    group.account.add_cpu_time(used_ns)
    if len(group.tasks) == 1:
        group.max_rss = group_max_rss(group)


def child_reaped(parent: ThreadGroup, child: ThreadGroup) -> None:
    """`child` has been waited for: its use counts as that of a child of `parent`."""
    parent.children_cpu_ns += child.cpu_time_ns + child.children_cpu_ns
    parent.children_max_rss = max(parent.children_max_rss, child.max_rss, child.children_max_rss)


def pack_rusage(cpu_time_ns: int, max_rss: int) -> bytes:
    """struct rusage; what is not counted is 0."""
    seconds, rest_ns = divmod(cpu_time_ns, 1_000_000_000)
    return RUSAGE.pack(seconds, rest_ns // 1000, 0, 0, max_rss >> 10, *(0,) * 11)
