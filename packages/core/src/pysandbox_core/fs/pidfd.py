"""pidfd: a descriptor that stands for a process. pidfd_open(2)

It keeps no process alive: once that has ended the descriptor is readable, and stays so after the
pid belongs to somebody else.

Linux: fs/pidfs.c, kernel/pid.c.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pysandbox_core.fs.anonymous import AnonymousFile
from pysandbox_core.waiting import POLLHUP, POLLIN, POLLRDNORM

if TYPE_CHECKING:
    from pysandbox_core.task import Task, ThreadGroup


class PidFd(AnonymousFile):
    """One open pidfd."""

    __slots__ = ("group",)

    KIND = b"pidfd"

    def __init__(self, group: ThreadGroup, flags: int = 0) -> None:
        super().__init__(group.kernel, os.O_RDWR | flags)
        self.group = group
        self.queue = group.exit_queue

    def poll(self) -> int:
        group = self.group
        if group.exit_status is None:
            return 0
        if self.reaped:
            return POLLIN | POLLRDNORM | POLLHUP
        return POLLIN | POLLRDNORM

    @property
    def reaped(self) -> bool:
        """The process is gone for good, and perhaps its pid is another's."""
        group = self.group
        return group.kernel.groups.get(group.pid) is not group

    def fdinfo(self) -> bytes:
        """The pid as this kernel has it; -1 once it is gone. proc(5)"""
        pid = -1 if self.reaped else self.group.pid
        return b"Pid:\t%d\nNSpid:\t%d\n" % (pid, pid)


def install_pidfd(task: Task, group: ThreadGroup, flags: int = 0) -> int:
    """A new close-on-exec descriptor of `task`'s for `group`. EMFILE"""
    return task.files.install(task, PidFd(group, flags), cloexec=True)
