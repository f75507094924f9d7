"""Scheduling: sched_setscheduler(2), sched_setaffinity(2), setpriority(2), ioprio_set(2),
getcpu(2).

The values are kept and have no effect, see scheduling.py.

Linux: kernel/sched/syscalls.c, kernel/sys.c, block/ioprio.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import E2BIG, EACCES, EINVAL, EPERM, ESRCH
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.abi.sched import (
    SCHED_BATCH,
    SCHED_DEADLINE,
    SCHED_FIFO,
    SCHED_IDLE,
    SCHED_OTHER,
    SCHED_RESET_ON_FORK,
    SCHED_RR,
)
from pysandbox_core.credentials import CAP_SYS_ADMIN, CAP_SYS_NICE
from pysandbox_core.declare import Int, Pid, Result, TimespecPtr, UInt, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.scheduling import PROCESSORS, Scheduling
from pysandbox_core.task_clone import INIT_PID

if TYPE_CHECKING:
    from pysandbox_core.task import Task

_KEPT = "kept and inherited; the host's scheduler decides"
_TIMESPEC = Struct("<qq")
_RR_INTERVAL_NS = 100_000_000
_SCHED_ATTR = Struct("<IIQiIQQQII")
"""size, sched_policy, sched_flags, sched_nice, sched_priority, sched_runtime, sched_deadline,
sched_period, sched_util_min, sched_util_max."""
_SCHED_ATTR_SIZE_VER0 = 48
_PAGE_SIZE = 4096
_SCHED_FLAG_RESET_ON_FORK = 1
_SCHED_FLAGS = 0x7F
_POLICY_KEEP = -1

_ALL_PROCESSORS = sum(1 << number for number in PROCESSORS)

_PRIO_PROCESS = 0
_PRIO_PGRP = 1
_PRIO_USER = 2

_IOPRIO_CLASS_SHIFT = 13
_IOPRIO_CLASS_NONE = 0
_IOPRIO_CLASS_RT = 1
_IOPRIO_CLASS_IDLE = 3


@syscall("sched_yield")
def sched_yield(task: Task) -> Result:
    """Let others run. Tasks that wait for the kernel come first anyhow. sched_yield(2)"""
    return 0


def _target(task: Task, pid: int) -> Task:
    """The thread `pid`, 0 for the caller. EINVAL negative, ESRCH."""
    if pid < 0:
        raise LinuxError(EINVAL)
    target = task.kernel.tasks.get(pid) if pid else task
    if target is None:
        raise LinuxError(ESRCH)
    return target


def _scheduling(task: Task, pid: int) -> Scheduling:
    """The attributes of the thread `pid`, to be read. Process 1, which has no thread, is as others
    start. EINVAL, ESRCH."""
    if pid == INIT_PID:
        return Scheduling()
    return _target(task, pid).scheduling


def _may_change(task: Task, target: Task) -> bool:
    """The same user, or CAP_SYS_NICE. Linux: check_same_owner"""
    mine, its = task.creds, target.creds
    return mine.euid in (its.euid, its.uid) or mine.capable(CAP_SYS_NICE)


# Policies.


@syscall("sched_setscheduler", note=_KEPT)
def sched_setscheduler(task: Task, pid: Pid, policy: Int, param: UserAddr) -> Result:
    """Set the policy and priority of a thread. EINVAL, EFAULT, ESRCH, EPERM.
    sched_setscheduler(2)"""
    if policy < 0 or not param or pid < 0:
        raise LinuxError(EINVAL)
    priority = task.mm.read_s32(param)
    _set_policy(task, _target(task, pid), policy, priority)
    return 0


@syscall("sched_setparam", note=_KEPT)
def sched_setparam(task: Task, pid: Pid, param: UserAddr) -> Result:
    """Set the priority of a thread. EINVAL, EFAULT, ESRCH, EPERM. sched_setparam(2)"""
    if not param or pid < 0:
        raise LinuxError(EINVAL)
    priority = task.mm.read_s32(param)
    _set_policy(task, _target(task, pid), _POLICY_KEEP, priority)
    return 0


def _set_policy(task: Task, target: Task, policy: int, priority: int) -> None:
    """Linux: __sched_setscheduler"""
    scheduling = target.scheduling
    reset = scheduling.reset_on_fork
    if policy == _POLICY_KEEP:
        policy = scheduling.policy
    else:
        reset = bool(policy & SCHED_RESET_ON_FORK)
        policy &= ~SCHED_RESET_ON_FORK
    if policy not in (SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_IDLE):
        raise LinuxError(EINVAL)
    realtime = policy in (SCHED_FIFO, SCHED_RR)
    if not 0 <= priority <= 99 or realtime != bool(priority):
        raise LinuxError(EINVAL)
    if not task.creds.capable(CAP_SYS_NICE):
        limit = target.group.limits.rtprio
        if realtime and policy != scheduling.policy and not limit:
            raise LinuxError(EPERM)
        if priority > scheduling.priority and priority > limit:
            raise LinuxError(EPERM)
        if not _may_change(task, target) or (scheduling.reset_on_fork and not reset):
            raise LinuxError(EPERM)
    scheduling.policy, scheduling.priority, scheduling.reset_on_fork = policy, priority, reset


@syscall("sched_getscheduler")
def sched_getscheduler(task: Task, pid: Pid) -> Result:
    """The policy of a thread. EINVAL, ESRCH. sched_getscheduler(2)"""
    scheduling = _scheduling(task, pid)
    return scheduling.policy | (SCHED_RESET_ON_FORK if scheduling.reset_on_fork else 0)


@syscall("sched_getparam")
def sched_getparam(task: Task, pid: Pid, param: UserAddr) -> Result:
    """Store the priority of a thread. EINVAL, ESRCH, EFAULT. sched_getparam(2)"""
    if not param:
        raise LinuxError(EINVAL)
    task.mm.write_u32(param, _scheduling(task, pid).priority)
    return 0


@syscall("sched_get_priority_max")
def sched_get_priority_max(task: Task, policy: Int) -> Result:
    """The highest priority of a policy. EINVAL. sched_get_priority_max(2)"""
    return _priority_range(policy)[1]


@syscall("sched_get_priority_min")
def sched_get_priority_min(task: Task, policy: Int) -> Result:
    """The lowest priority of a policy. EINVAL. sched_get_priority_min(2)"""
    return _priority_range(policy)[0]


def _priority_range(policy: int) -> tuple[int, int]:
    if policy in (SCHED_FIFO, SCHED_RR):
        return 1, 99
    if policy in (SCHED_OTHER, SCHED_BATCH, SCHED_IDLE, SCHED_DEADLINE):
        return 0, 0
    raise LinuxError(EINVAL)


@syscall("sched_rr_get_interval")
def sched_rr_get_interval(task: Task, pid: Pid, interval: TimespecPtr) -> Result:
    """Store the time slice of a thread of SCHED_RR, 0 for others. EINVAL, ESRCH, EFAULT.
    sched_rr_get_interval(2)"""
    round_robin = _scheduling(task, pid).policy == SCHED_RR
    task.mm.pack(interval, _TIMESPEC, 0, _RR_INTERVAL_NS if round_robin else 0)
    return 0


@syscall("sched_setattr", note=_KEPT + "; SCHED_DEADLINE is EPERM")
def sched_setattr(task: Task, pid: Pid, attr: UserAddr, flags: UInt) -> Result:
    """Set policy, priority and nice value of a thread from a structure. sched_setattr(2)

    Errors, first match wins: EINVAL; EFAULT; E2BIG a size or a field that is not known; EINVAL;
    ESRCH; EPERM.
    """
    if not attr or pid < 0 or flags:
        raise LinuxError(EINVAL)
    size = task.mm.read_u32(attr) or _SCHED_ATTR_SIZE_VER0
    if not _SCHED_ATTR_SIZE_VER0 <= size <= _PAGE_SIZE:
        _refuse_size(task, attr)
    data = task.mm.read(attr, size)
    if any(data[_SCHED_ATTR.size :]):
        _refuse_size(task, attr)
    fields = _SCHED_ATTR.unpack(data[: _SCHED_ATTR.size].ljust(_SCHED_ATTR.size, b"\0"))
    _, policy, attr_flags, nice, priority = fields[:5]
    target = _target(task, pid)
    if policy > SCHED_DEADLINE or attr_flags & ~_SCHED_FLAGS:
        raise LinuxError(EINVAL)
    if policy == SCHED_DEADLINE:
        raise LinuxError(EPERM)
    if attr_flags & _SCHED_FLAG_RESET_ON_FORK:
        policy |= SCHED_RESET_ON_FORK
    if policy & ~SCHED_RESET_ON_FORK in (SCHED_OTHER, SCHED_BATCH) and not _may_nice(
        task, target, max(-20, min(nice, 19))
    ):
        raise LinuxError(EPERM)
    _set_policy(task, target, policy, priority)
    if policy & ~SCHED_RESET_ON_FORK in (SCHED_OTHER, SCHED_BATCH):
        target.scheduling.nice = max(-20, min(nice, 19))
    return 0


def _refuse_size(task: Task, attr: int) -> None:
    task.mm.write_u32(attr, _SCHED_ATTR.size)
    raise LinuxError(E2BIG)


@syscall("sched_getattr")
def sched_getattr(task: Task, pid: Pid, attr: UserAddr, size: UInt, flags: UInt) -> Result:
    """Store policy, priority and nice value of a thread. EINVAL, ESRCH, EFAULT. sched_getattr(2)"""
    if not attr or pid < 0 or flags or not _SCHED_ATTR_SIZE_VER0 <= size <= _PAGE_SIZE:
        raise LinuxError(EINVAL)
    scheduling = _scheduling(task, pid)
    size = min(size, _SCHED_ATTR.size)
    attr_flags = _SCHED_FLAG_RESET_ON_FORK if scheduling.reset_on_fork else 0
    data = _SCHED_ATTR.pack(
        size, scheduling.policy, attr_flags, scheduling.nice, scheduling.priority, 0, 0, 0, 0, 1024
    )
    task.mm.write(attr, data[:size])
    return 0


# Processors.


@syscall("sched_getaffinity")
def sched_getaffinity(task: Task, pid: Pid, length: UInt, mask: UserAddr) -> Result:
    """Store the set of processors of a thread; returns the bytes stored. EINVAL, ESRCH, EFAULT.
    sched_setaffinity(2)"""
    size = (max(PROCESSORS) // 64 + 1) * 8
    if length < size or length % 8:
        raise LinuxError(EINVAL)
    if pid < 0:
        raise LinuxError(ESRCH)  # no such thread, unlike for the other calls
    affinity = _scheduling(task, pid).affinity or _ALL_PROCESSORS
    task.mm.write(mask, affinity.to_bytes(size, "little"))
    return size


@syscall("sched_setaffinity", note=_KEPT)
def sched_setaffinity(task: Task, pid: Pid, length: UInt, mask: UserAddr) -> Result:
    """Set the processors that a thread may run on. EFAULT, ESRCH, EPERM, EINVAL none of them is
    there. sched_setaffinity(2)"""
    data = task.mm.read(mask, min(length, 1024))
    if pid < 0:
        raise LinuxError(ESRCH)
    target = _target(task, pid)
    if not _may_change(task, target):
        raise LinuxError(EPERM)
    affinity = int.from_bytes(data, "little") & _ALL_PROCESSORS
    if not affinity:
        raise LinuxError(EINVAL)
    target.scheduling.affinity = affinity
    return 0


@syscall("getcpu", note="the first processor of the thread's set")
def getcpu(task: Task, cpu: UserAddr, node: UserAddr, cache: UserAddr) -> Result:
    """Store a processor that the thread may be running on, and its node, 0. EFAULT. getcpu(2)"""
    affinity = task.scheduling.affinity or _ALL_PROCESSORS
    if cpu:
        task.mm.write_u32(cpu, (affinity & -affinity).bit_length() - 1)
    if node:
        task.mm.write_u32(node, 0)
    return 0


# Nice values and their like, for many tasks at once.


def _select(task: Task, which: int, who: int) -> Iterator[Task]:
    """The tasks that PRIO_* `which` and `who` name; IOPRIO_WHO_* are the same plus one."""
    kernel = task.kernel
    if which == _PRIO_PROCESS:
        target = kernel.tasks.get(who) if who else task
        if target is not None:
            yield target
    elif which == _PRIO_PGRP:
        process_group = task.group.process_group if not who else kernel.process_groups.get(who)
        for group in process_group.members.values() if process_group is not None else ():
            yield from group.tasks
    else:
        uid = who or task.creds.uid
        for other in kernel.tasks.values():
            if other.creds.uid == uid:
                yield other


def _may_nice(task: Task, target: Task, nice: int) -> bool:
    """Lowering it takes RLIMIT_NICE or CAP_SYS_NICE. Linux: can_nice"""
    return (
        nice >= target.scheduling.nice
        or 20 - nice <= target.group.limits.nice
        or task.creds.capable(CAP_SYS_NICE)
    )


@syscall("getpriority")
def getpriority(task: Task, which: Int, who: Int) -> Result:
    """The highest priority, 20 - nice, of the tasks named. EINVAL, ESRCH. getpriority(2)"""
    if not _PRIO_PROCESS <= which <= _PRIO_USER:
        raise LinuxError(EINVAL)
    priorities = [20 - target.scheduling.nice for target in _select(task, which, who)]
    if not priorities:
        raise LinuxError(ESRCH)
    return max(priorities)


@syscall("setpriority", note=_KEPT)
def setpriority(task: Task, which: Int, who: Int, nice: Int) -> Result:
    """Set the nice value of the tasks named. EINVAL; ESRCH none; EPERM another user's; EACCES lower
    than allowed. setpriority(2)"""
    if not _PRIO_PROCESS <= which <= _PRIO_USER:
        raise LinuxError(EINVAL)
    nice = max(-20, min(nice, 19))

    def change(target: Task) -> None:
        if not _may_change(task, target):
            raise LinuxError(EPERM)
        if not _may_nice(task, target, nice):
            raise LinuxError(EACCES)
        target.scheduling.nice = nice

    return _for_each(_select(task, which, who), change)


def _for_each(targets: Iterator[Task], change: Callable[[Task], None]) -> int:
    """Change every target that may be changed; the last error if there was one, ESRCH without
    any."""
    failure = ESRCH
    for target in targets:
        try:
            change(target)
            failure = 0 if failure == ESRCH else failure
        except LinuxError as error:
            failure = error.errno
    if failure:
        raise LinuxError(failure)
    return 0


@syscall("ioprio_get")
def ioprio_get(task: Task, which: Int, who: Int) -> Result:
    """The best I/O priority of the tasks named. EINVAL, ESRCH. ioprio_set(2)"""
    if not _PRIO_PROCESS <= which - 1 <= _PRIO_USER:
        raise LinuxError(EINVAL)
    priorities = [target.scheduling.ioprio for target in _select(task, which - 1, who)]
    if not priorities:
        raise LinuxError(ESRCH)
    return min(priorities)


@syscall("ioprio_set", note=_KEPT)
def ioprio_set(task: Task, which: Int, who: Int, ioprio: Int) -> Result:
    """Set the I/O priority of the tasks named. EINVAL; EPERM the realtime class, or another user's;
    ESRCH. ioprio_set(2)"""
    kind, level = ioprio >> _IOPRIO_CLASS_SHIFT, ioprio & 7
    if kind == _IOPRIO_CLASS_RT:
        if not (task.creds.capable(CAP_SYS_ADMIN) or task.creds.capable(CAP_SYS_NICE)):
            raise LinuxError(EPERM)
    elif not _IOPRIO_CLASS_NONE <= kind <= _IOPRIO_CLASS_IDLE or (
        kind == _IOPRIO_CLASS_NONE and level
    ):
        raise LinuxError(EINVAL)
    if not _PRIO_PROCESS <= which - 1 <= _PRIO_USER:
        raise LinuxError(EINVAL)

    def change(target: Task) -> None:
        mine, its = task.creds, target.creds
        if its.uid not in (mine.euid, mine.uid) and not mine.capable(CAP_SYS_NICE):
            raise LinuxError(EPERM)
        target.scheduling.ioprio = ioprio

    return _for_each(_select(task, which - 1, who), change)
