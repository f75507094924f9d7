"""Processes by descriptor, and comparing them: pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2),
kcmp(2)."""

from __future__ import annotations

import os
from errno import EBADF, EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING

from pysandbox_core import task_signals
from pysandbox_core.abi.signal import SI_TKILL, SI_USER
from pysandbox_core.credentials import CAP_SYS_PTRACE
from pysandbox_core.declare import Fd, Int, Pid, Result, Signo, UInt, ULong, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.pidfd import PidFd, install_pidfd
from pysandbox_core.signals import SigInfo
from pysandbox_core.syscalls.signals import check_permission, check_signo, read_siginfo

if TYPE_CHECKING:
    from pysandbox_core.task import Task, ThreadGroup

_PIDFD_NONBLOCK = os.O_NONBLOCK

# kcmp(2)
_KCMP_FILE = 0
_KCMP_SHARED = ("mm", "files", "fs", "sighand")
"""KCMP_VM, KCMP_FILES, KCMP_FS, KCMP_SIGHAND: numbers 1 to 4."""
_KCMP_IO = 5
_KCMP_SYSVSEM = 6


@syscall("pidfd_open")
def pidfd_open(task: Task, pid: Pid, flags: UInt) -> Result:
    """A descriptor for process `pid`. pidfd_open(2)

    Errors, first match wins: EINVAL flags, pid; ESRCH; EINVAL a thread that leads no process;
    EMFILE.
    """
    if flags & ~_PIDFD_NONBLOCK or pid <= 0:
        raise LinuxError(EINVAL)
    group = task.kernel.groups.get(pid)
    if group is None:
        raise LinuxError(EINVAL if pid in task.kernel.tasks else ESRCH)
    return install_pidfd(task, group, flags)


@syscall("pidfd_send_signal")
def pidfd_send_signal(task: Task, pidfd: Fd, signo: Signo, uinfo: UserAddr, flags: UInt) -> Result:
    """Send `signo` to the process of a pidfd, with a siginfo of the caller's if `uinfo` is not 0.
    pidfd_send_signal(2)

    Errors, first match wins: EINVAL flags; EBADF; EFAULT; EINVAL si_signo is another; EPERM a
    siginfo only the kernel may send; ESRCH the process is gone; EINVAL the signal; EPERM.
    """
    if flags:
        raise LinuxError(EINVAL)
    group = _signalled(task, pidfd)
    if uinfo:
        info = read_siginfo(task, signo, uinfo, check=True)
        if group is not task.group and (info.code >= 0 or info.code == SI_TKILL):
            raise LinuxError(EPERM)
    else:
        info = SigInfo.user(signo, SI_USER, task.group.pid, task.creds.uid)
    if group.kernel.groups.get(group.pid) is not group:
        raise LinuxError(ESRCH)
    check_signo(signo)
    check_permission(task, group, signo)
    if signo:
        task_signals.send(group, signo, info)
    return 0


def _signalled(task: Task, pidfd: int) -> ThreadGroup:
    """The process of a pidfd; for signals alone, an open directory /proc/PID is as good."""
    inode = task.files.get(pidfd).inode
    if inode.is_dir:
        from pysandbox_core.fs.proc.process import ProcessDirectory

        if isinstance(inode, ProcessDirectory) and inode.whole:
            return inode.target.group
    return _pidfd(task, pidfd).group


@syscall("pidfd_getfd")
def pidfd_getfd(task: Task, pidfd: Fd, target_fd: Fd, flags: UInt) -> Result:
    """A copy, close-on-exec, of a descriptor of another process. pidfd_getfd(2)

    Errors, first match wins: EINVAL flags; EBADF pidfd; ESRCH; EPERM; EBADF target_fd; EMFILE.
    """
    if flags:
        raise LinuxError(EINVAL)
    target = _first_task(_pidfd(task, pidfd).group)
    check_ptrace_access(task, target)
    file = target.files.get_any(target_fd)
    return task.files.install(task, file.incref(), cloexec=True)


@syscall("kcmp", note="KCMP_EPOLL_TFD is EINVAL")
def kcmp(task: Task, pid1: Pid, pid2: Pid, kind: Int, index1: ULong, index2: ULong) -> Result:
    """Do two tasks share a resource? 0 if so, else 1 or 2 for an order that is kept. kcmp(2)

    Errors, first match wins: ESRCH; EPERM; EBADF; EINVAL the kind.
    """
    tasks = task.kernel.tasks
    first, second = tasks.get(pid1), tasks.get(pid2)
    if first is None or second is None:
        raise LinuxError(ESRCH)
    check_ptrace_access(task, first)
    check_ptrace_access(task, second)
    a: object
    b: object
    if kind == _KCMP_FILE:
        a = first.files.get_any(index1) if index1 < 1 << 31 else _bad_fd()
        b = second.files.get_any(index2) if index2 < 1 << 31 else _bad_fd()
    elif 1 <= kind <= len(_KCMP_SHARED):
        a, b = (getattr(each, _KCMP_SHARED[kind - 1]) for each in (first, second))
    elif kind == _KCMP_IO:
        a, b = first, second
    elif kind == _KCMP_SYSVSEM:
        a, b = first.group, second.group
    else:
        raise LinuxError(EINVAL)
    if a is b:
        return 0
    return 1 if id(a) < id(b) else 2


def _bad_fd() -> object:
    raise LinuxError(EBADF)


def _pidfd(task: Task, fd: int) -> PidFd:
    file = task.files.get(fd)
    if not isinstance(file, PidFd):
        raise LinuxError(EBADF)
    return file


def _first_task(group: ThreadGroup) -> Task:
    if not group.tasks:
        raise LinuxError(ESRCH)
    return group.tasks[0]


def check_ptrace_access(task: Task, target: Task) -> None:
    """May `task` look into `target`? The same user with no more capabilities, or CAP_SYS_PTRACE;
    and the memory is dumpable. EPERM. ptrace(2), "Ptrace access mode checking",
    PTRACE_MODE_REALCREDS"""
    if target.group is task.group:
        return
    mine, its = task.creds, target.creds
    if mine.capable(CAP_SYS_PTRACE):
        return
    same_user = mine.uid == its.uid == its.euid == its.suid
    same_group = mine.gid == its.gid == its.egid == its.sgid
    if not (same_user and same_group) or its.cap_permitted & ~mine.cap_permitted:
        raise LinuxError(EPERM)
    if target.mm.dumpable != 1:
        raise LinuxError(EPERM)
