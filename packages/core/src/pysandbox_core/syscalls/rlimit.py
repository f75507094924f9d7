"""Resource limits and usage: getrlimit(2), prlimit(2), getrusage(2), times(2)."""

from __future__ import annotations

from errno import EINVAL, EPERM, ESRCH
from struct import Struct
from time import monotonic_ns
from typing import TYPE_CHECKING

from pysandbox_core import accounting, cpu_limit
from pysandbox_core.credentials import CAP_SYS_RESOURCE
from pysandbox_core.declare import Int, Pid, Result, UInt, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.limits import NAMES, NR_OPEN, RLIMIT_CPU, RLIMIT_NOFILE

if TYPE_CHECKING:
    from pysandbox_core.task import Task, ThreadGroup

_RLIMIT = Struct("<QQ")
_TMS = Struct("<4q")

# getrusage(2)
_RUSAGE_SELF = 0
_RUSAGE_CHILDREN = -1
_RUSAGE_THREAD = 1


@syscall("getrlimit")
def getrlimit(task: Task, resource: UInt, rlim: UserAddr) -> Result:
    """Store the soft and hard limit of `resource`. EINVAL, EFAULT. getrlimit(2)"""
    _check_resource(resource)
    task.mm.pack(rlim, _RLIMIT, *task.group.limits.get(resource))
    return 0


@syscall("setrlimit")
def setrlimit(task: Task, resource: UInt, rlim: UserAddr) -> Result:
    """Set the soft and hard limit of `resource`. setrlimit(2)

    Errors, first match wins: EFAULT; EINVAL the resource, or soft > hard; EPERM to raise a hard
    limit without CAP_SYS_RESOURCE, or RLIMIT_NOFILE beyond nr_open.
    """
    soft, hard = task.mm.unpack(rlim, _RLIMIT)
    _set(task, task.group, resource, soft, hard)
    return 0


@syscall("prlimit64")
def prlimit64(
    task: Task, pid: Pid, resource: UInt, new_rlim: UserAddr, old_rlim: UserAddr
) -> Result:
    """Set and get a limit of another process; 0 is the caller. prlimit(2)

    Errors, first match wins: EFAULT new_rlim; ESRCH; EPERM another user's process; then those of
    setrlimit; EFAULT old_rlim.
    """
    new = task.mm.unpack(new_rlim, _RLIMIT) if new_rlim else None
    other = task.kernel.tasks.get(pid) if pid else task
    if other is None:
        raise LinuxError(ESRCH)
    _check_permission(task, other)
    _check_resource(resource)
    old = other.group.limits.get(resource)
    if new is not None:
        _set(task, other.group, resource, *new)
    if old_rlim:
        task.mm.pack(old_rlim, _RLIMIT, *old)
    return 0


def _check_resource(resource: int) -> None:
    if resource >= len(NAMES):
        raise LinuxError(EINVAL)


def _check_permission(task: Task, other: Task) -> None:
    """May `task` see and set the limits of `other`? Linux: check_prlimit_permission."""
    mine, its = task.creds, other.creds
    if other.group is task.group or (
        mine.uid == its.euid == its.suid == its.uid and mine.gid == its.egid == its.sgid == its.gid
    ):
        return
    if not mine.capable(CAP_SYS_RESOURCE):
        raise LinuxError(EPERM)


def _set(task: Task, group: ThreadGroup, resource: int, soft: int, hard: int) -> None:
    _check_resource(resource)
    if soft > hard:
        raise LinuxError(EINVAL)
    if resource == RLIMIT_NOFILE and hard > NR_OPEN:
        raise LinuxError(EPERM)
    if hard > group.limits.get(resource)[1] and not task.creds.capable(CAP_SYS_RESOURCE):
        raise LinuxError(EPERM)
    if resource == RLIMIT_CPU:
        group.limits.set(resource, max(soft, 1), hard)
        cpu_limit.watch(group)
    else:
        group.limits.set(resource, soft, hard)


@syscall("getrusage", note="CPU time is user time alone; page faults and switches are not counted")
def getrusage(task: Task, who: Int, usage: UserAddr) -> Result:
    """Store what the process, its children waited for, or the thread has used. EINVAL, EFAULT.
    getrusage(2)"""
    group = task.group
    if who == _RUSAGE_SELF:
        used = accounting.group_cpu_time_ns(group), accounting.group_max_rss(group)
    elif who == _RUSAGE_THREAD:
        used = accounting.task_cpu_time_ns(task), accounting.group_max_rss(group)
    elif who == _RUSAGE_CHILDREN:
        used = group.children_cpu_ns, group.children_max_rss
    else:
        raise LinuxError(EINVAL)
    task.mm.write(usage, accounting.pack_rusage(*used))
    return 0


@syscall("times", note="CPU time is user time alone")
def times(task: Task, buf: UserAddr) -> Result:
    """Store the CPU time of the process and of its children; returns ticks since a point in the
    past. EFAULT. times(2)"""
    if buf:
        group = task.group
        own = accounting.ticks(accounting.group_cpu_time_ns(group))
        task.mm.pack(buf, _TMS, own, 0, accounting.ticks(group.children_cpu_ns), 0)
    return accounting.ticks(monotonic_ns())
