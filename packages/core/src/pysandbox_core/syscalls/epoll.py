"""epoll_create(2), epoll_ctl(2), epoll_wait(2) and their variants.

Linux: fs/eventpoll.c.
"""

from __future__ import annotations

import os
from errno import EFAULT, EINVAL, EPERM
from typing import TYPE_CHECKING

from pysandbox_core.abi.time import read_timespec_ns
from pysandbox_core.declare import (
    Fd,
    Int,
    OpenFlags,
    Result,
    SigsetPtr,
    Size,
    TimespecPtr,
    UserAddr,
    syscall,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.syscalls.poll import deadline_after, swap_sigmask
from pysandbox_core.task import Task
from pysandbox_core.waiting import POLLERR, POLLHUP, POLLIN, POLLOUT

if TYPE_CHECKING:
    from pysandbox_core.fs.epoll import EpollFile

EPOLL_CTL_ADD = 1
EPOLL_CTL_DEL = 2
EPOLL_CTL_MOD = 3
EVENT_SIZE = 12
MAX_EVENTS = 0x7FFFFFFF // EVENT_SIZE
EPOLLEXCLUSIVE = 1 << 28
EXCLUSIVE_OK_BITS = POLLIN | POLLOUT | POLLERR | POLLHUP | 1 << 29 | 1 << 31 | EPOLLEXCLUSIVE
"""What may stand beside EPOLLEXCLUSIVE: EPOLLWAKEUP and EPOLLET also."""


@syscall("epoll_create")
def epoll_create(task: Task, size: Int) -> Result:
    """A new epoll instance; `size` only has to be positive. epoll_create(2)"""
    if size <= 0:
        raise LinuxError(EINVAL)
    return new_epoll(task, 0)


@syscall("epoll_create1")
def epoll_create1(task: Task, flags: OpenFlags) -> Result:
    """A new epoll instance, with EPOLL_CLOEXEC or not. EINVAL any other flag; EMFILE"""
    if flags & ~os.O_CLOEXEC:
        raise LinuxError(EINVAL)
    return new_epoll(task, flags)


def new_epoll(task: Task, flags: int) -> int:
    from pysandbox_core.fs.epoll import EpollFile

    return task.files.install(task, EpollFile(task.kernel), cloexec=bool(flags & os.O_CLOEXEC))


def epoll_file(task: Task, epfd: int) -> EpollFile:
    """The epoll instance at `epfd`. EBADF not open, EINVAL something else."""
    from pysandbox_core.fs.epoll import EpollFile

    file = task.files.get(epfd)
    if not isinstance(file, EpollFile):
        raise LinuxError(EINVAL)
    return file


@syscall("epoll_ctl")
def epoll_ctl(task: Task, epfd: Fd, op: Int, fd: Fd, event: UserAddr) -> Result:
    """Watch a file, change what is watched, or stop. epoll_ctl(2)

    Errors, first match wins: EFAULT; EBADF; EPERM a file that can't be polled; EINVAL; ELOOP;
    EEXIST; ENOENT; ENOSPC.
    """
    from pysandbox_core.fs.epoll import EPOLL_EVENT, EpollFile

    events = data = 0
    if op in (EPOLL_CTL_ADD, EPOLL_CTL_MOD):
        events, data = task.mm.unpack(event, EPOLL_EVENT)
    epoll = task.files.get(epfd)
    file = task.files.get(fd)
    if not file.pollable:
        raise LinuxError(EPERM)
    if epoll is file or not isinstance(epoll, EpollFile):
        raise LinuxError(EINVAL)
    if events & EPOLLEXCLUSIVE:
        if op == EPOLL_CTL_MOD or isinstance(file, EpollFile) or events & ~EXCLUSIVE_OK_BITS:
            raise LinuxError(EINVAL)
    if op == EPOLL_CTL_ADD:
        epoll.add(file, fd, events, data)
    elif op == EPOLL_CTL_DEL:
        epoll.remove(file, fd)
    elif op == EPOLL_CTL_MOD:
        epoll.modify(file, fd, events, data)
    else:
        raise LinuxError(EINVAL)
    return 0


@syscall("epoll_wait")
def epoll_wait(task: Task, epfd: Fd, events: UserAddr, maxevents: Int, timeout_ms: Int) -> Result:
    """Wait for news of the watched files; how many events were written. epoll_wait(2)

    Errors: EINVAL `maxevents`; EFAULT; EBADF; EINVAL no epoll; EINTR, always: it is never
    restarted.
    """
    return wait(task, epfd, events, maxevents, deadline_after_ms(task, timeout_ms))


@syscall("epoll_pwait")
def epoll_pwait(
    task: Task,
    epfd: Fd,
    events: UserAddr,
    maxevents: Int,
    timeout_ms: Int,
    sigmask: SigsetPtr,
    sigsetsize: Size,
) -> Result:
    """epoll_wait(2) with another signal mask meanwhile."""
    swap_sigmask(task, sigmask, sigsetsize)
    return wait(task, epfd, events, maxevents, deadline_after_ms(task, timeout_ms))


@syscall("epoll_pwait2")
def epoll_pwait2(
    task: Task,
    epfd: Fd,
    events: UserAddr,
    maxevents: Int,
    timeout: TimespecPtr,
    sigmask: SigsetPtr,
    sigsetsize: Size,
) -> Result:
    """epoll_pwait(2) with a timeout in nanoseconds."""
    deadline_ns = None
    if timeout:
        deadline_ns = deadline_after(task, read_timespec_ns(task.mm, timeout))
    swap_sigmask(task, sigmask, sigsetsize)
    return wait(task, epfd, events, maxevents, deadline_ns)


def deadline_after_ms(task: Task, timeout_ms: int) -> int | None:
    """As `deadline_after`; None for a negative timeout."""
    return None if timeout_ms < 0 else deadline_after(task, timeout_ms * 1_000_000)


def wait(task: Task, epfd: int, addr: int, max_events: int, deadline_ns: int | None) -> int:
    if not 0 < max_events <= MAX_EVENTS:
        raise LinuxError(EINVAL)
    if addr + max_events * EVENT_SIZE > 1 << 47:
        raise LinuxError(EFAULT)
    epoll = epoll_file(task, epfd)
    return epoll.wait(task, addr, max_events, deadline_ns)
