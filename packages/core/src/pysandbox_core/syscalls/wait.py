"""Waiting for children: wait4(2), waitid(2)."""

from __future__ import annotations

import os
from errno import EAGAIN, EBADF, EINVAL, ESRCH
from typing import TYPE_CHECKING

from pysandbox_core import accounting, task_wait
from pysandbox_core.declare import Int, Pid, Result, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.task_wait import (
    WALL,
    WCLONE,
    WCONTINUED,
    WEXITED,
    WNOHANG,
    WNOTHREAD,
    WNOWAIT,
    WSTOPPED,
    WUNTRACED,
    Wait,
)

if TYPE_CHECKING:
    from pysandbox_core.task import Task

# waitid(2)
_P_ALL = 0
_P_PID = 1
_P_PGID = 2
_P_PIDFD = 3

_INT_MIN = -(1 << 31)
_NO_SIGINFO = bytes(28)
"""What waitid stores if no child reports; the rest of the siginfo is left alone."""


@syscall("wait4")
def wait4(task: Task, pid: Pid, wstatus: UserAddr, options: Int, rusage: UserAddr) -> Result:
    """Wait for a child to end (stop, continue); returns its pid, 0 with WNOHANG if none has.
    wait(2)

    Errors, first match wins: EINVAL options; ESRCH pid is INT_MIN; ECHILD; EFAULT, with the child
    gone. Interrupted by signals.
    """
    flags = options & 0xFFFFFFFF
    if flags & ~(WNOHANG | WUNTRACED | WCONTINUED | WNOTHREAD | WCLONE | WALL):
        raise LinuxError(EINVAL)
    if pid == _INT_MIN:
        raise LinuxError(ESRCH)
    flags |= WEXITED
    if pid > 0:
        what = Wait(flags, pid=pid)
    elif pid == -1:
        what = Wait(flags)
    else:
        what = _in_process_group(task, flags, -pid)
    report = task_wait.wait(task, what)
    if report is None:
        return 0
    if wstatus:
        task.mm.write_u32(wstatus, report.status)
    if rusage:
        task.mm.write(rusage, accounting.pack_rusage(report.cpu_time_ns, report.max_rss))
    return report.pid


@syscall("waitid")
def waitid(
    task: Task, which: Int, upid: Pid, infop: UserAddr, options: Int, rusage: UserAddr
) -> Result:
    """Wait for what `options` say of the children that `which` and `upid` name. waitid(2)

    Errors, first match wins: EINVAL options, which, upid; EBADF; ECHILD; EAGAIN a non-blocking
    pidfd and nothing to report; EFAULT. Interrupted by signals.
    """
    flags = options & 0xFFFFFFFF
    wanted = WEXITED | WSTOPPED | WCONTINUED
    if flags & ~(wanted | WNOHANG | WNOWAIT | WNOTHREAD | WCLONE | WALL) or not flags & wanted:
        raise LinuxError(EINVAL)
    again = False
    if which == _P_ALL:
        what = Wait(flags)
    elif which == _P_PID:
        if upid <= 0:
            raise LinuxError(EINVAL)
        what = Wait(flags, pid=upid)
    elif which == _P_PGID:
        if upid < 0:
            raise LinuxError(EINVAL)
        what = _in_process_group(task, flags, upid)
    elif which == _P_PIDFD:
        what, again = _of_pidfd(task, flags, upid)
    else:
        raise LinuxError(EINVAL)
    report = task_wait.wait(task, what)
    if report is None:
        if again:
            raise LinuxError(EAGAIN)
        if infop:
            task.mm.write(infop, _NO_SIGINFO)
        return 0
    if rusage:
        task.mm.write(rusage, accounting.pack_rusage(report.cpu_time_ns, report.max_rss))
    if infop:
        task.mm.write(infop, report.info.pack()[: len(_NO_SIGINFO)])
    return 0


def _in_process_group(task: Task, flags: int, pgid: int) -> Wait:
    """Children in process group `pgid`, 0 for the caller's."""
    if not pgid:
        return Wait(flags, process_group=task.group.process_group)
    process_group = task.kernel.process_groups.get(pgid)
    return Wait(flags, process_group=process_group, nothing=process_group is None)


def _of_pidfd(task: Task, flags: int, fd: int) -> tuple[Wait, bool]:
    """The child that a pidfd stands for; and does its O_NONBLOCK turn this into a poll?"""
    from pysandbox_core.fs.pidfd import PidFd

    if fd < 0:
        raise LinuxError(EINVAL)
    file = task.files.get(fd)
    if not isinstance(file, PidFd):
        raise LinuxError(EBADF)
    nonblocking = bool(file.flags & os.O_NONBLOCK) and not flags & WNOHANG
    if nonblocking:
        flags |= WNOHANG
    return Wait(flags, child=file.group), nonblocking
