"""Who a process is: pids, process groups, sessions. getpid(2), setpgid(2), setsid(2),
credentials(7)

Linux: kernel/sys.c.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING

from pysandbox_core import sessions
from pysandbox_core.declare import Pid, Result, syscall
from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.task import Task, ThreadGroup


@syscall("getpid")
def getpid(task: Task) -> Result:
    """The process's number. getpid(2)"""
    return task.group.pid


@syscall("gettid")
def gettid(task: Task) -> Result:
    """The thread's number. gettid(2)"""
    return task.tid


@syscall("getppid")
def getppid(task: Task) -> Result:
    """The parent process's number. getppid(2)"""
    parent = task.group.parent
    return parent.pid if parent is not None else 0


@syscall("getpgrp")
def getpgrp(task: Task) -> Result:
    """The number of the caller's process group. getpgrp(2)"""
    return task.group.process_group.pgid


@syscall("getpgid")
def getpgid(task: Task, pid: Pid) -> Result:
    """The number of the process group of `pid`, 0 for the caller. ESRCH. getpgid(2)"""
    return _group_of(task, pid).process_group.pgid


@syscall("getsid")
def getsid(task: Task, pid: Pid) -> Result:
    """The number of the session of `pid`, 0 for the caller. ESRCH. getsid(2)"""
    return _group_of(task, pid).process_group.session.sid


@syscall("setpgid")
def setpgid(task: Task, pid: Pid, pgid: Pid) -> Result:
    """Move the caller (pid 0) or a child into a process group of its session, or into a new one
    with its own number (pgid 0). setpgid(2)

    Errors, first match wins: EINVAL pgid < 0; ESRCH neither the caller nor a child; EINVAL not a
    process but a thread; EPERM a child in another session; EACCES the child has called execve;
    EPERM a session leader, or no such process group in the session.
    """
    caller = task.group
    pid = pid or caller.pid
    pgid = pgid or pid
    if pgid < 0:
        raise LinuxError(EINVAL)
    group = task.kernel.groups.get(pid)
    if group is None:
        raise LinuxError(EINVAL if pid in task.kernel.tasks else ESRCH)
    session = caller.process_group.session
    if group.parent is caller:
        if group.process_group.session is not session:
            raise LinuxError(EPERM)
        if group.has_execed:
            raise LinuxError(EACCES)
    elif group is not caller:
        raise LinuxError(ESRCH)
    if group.process_group.session.leader is group:
        raise LinuxError(EPERM)
    target = task.kernel.process_groups.get(pgid)
    if pgid != pid and (target is None or target.session is not session):
        raise LinuxError(EPERM)
    if target is None:
        target = sessions.ProcessGroup(pgid, session)
    target.add(group)
    return 0


@syscall("setsid")
def setsid(task: Task) -> Result:
    """Become the leader of a new session and of a new process group in it, without a terminal;
    returns the session's number. EPERM if the caller leads a process group already. setsid(2)"""
    group = task.group
    if group.pid in task.kernel.process_groups or group.process_group.session.leader is group:
        raise LinuxError(EPERM)
    return sessions.new_session(group).sid


def _group_of(task: Task, pid: int) -> ThreadGroup:
    """The process of a pid or tid; 0 is the caller's. ESRCH"""
    if not pid:
        return task.group
    other = task.kernel.tasks.get(pid)
    if other is not None:
        return other.group
    group = task.kernel.groups.get(pid)
    if group is None:
        raise LinuxError(ESRCH)
    return group
