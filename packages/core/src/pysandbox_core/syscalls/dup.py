"""dup(2), dup2(2), dup3(2)."""

from __future__ import annotations

import os
from errno import EBADF, EINVAL

from pysandbox_core.declare import Fd, OpenFlags, Result, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.task import Task


@syscall("dup")
def dup(task: Task, oldfd: Fd) -> Result:
    """Another descriptor, the lowest free one, of the same file description. dup(2)"""
    file = task.files.get_any(oldfd)
    return task.files.install(task, file.incref())


@syscall("dup2")
def dup2(task: Task, oldfd: Fd, newfd: Fd) -> Result:
    """dup(2) to `newfd`, whatever that was; nothing happens if they are equal. dup2(2)"""
    if oldfd == newfd:
        task.files.get_any(oldfd)
        return newfd
    return _dup_to(task, oldfd, newfd, cloexec=False)


@syscall("dup3")
def dup3(task: Task, oldfd: Fd, newfd: Fd, flags: OpenFlags) -> Result:
    """dup2(2) with O_CLOEXEC. EINVAL if the two are equal, or for another flag. dup3(2)"""
    if flags & ~os.O_CLOEXEC or oldfd == newfd:
        raise LinuxError(EINVAL)
    return _dup_to(task, oldfd, newfd, cloexec=bool(flags))


def _dup_to(task: Task, oldfd: int, newfd: int, *, cloexec: bool) -> int:
    if not 0 <= newfd < task.group.limits.nofile:
        raise LinuxError(EBADF)
    file = task.files.get_any(oldfd)
    task.kernel.memory.grow(8 * max(0, newfd - task.files.size))
    previous = task.files.set(newfd, file.incref(), cloexec)
    if previous is not None:
        task.files.let_go(task, previous)
    return newfd
