"""eventfd(2), eventfd2(2)."""

from __future__ import annotations

import os
from errno import EINVAL

from pysandbox_core.declare import OpenFlags, Result, UInt, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.task import Task

EFD_SEMAPHORE = 1


@syscall("eventfd")
def eventfd(task: Task, initval: UInt) -> Result:
    """A new eventfd with counter `initval`. eventfd(2)"""
    return new_eventfd(task, initval, 0)


@syscall("eventfd2")
def eventfd2(task: Task, initval: UInt, flags: OpenFlags) -> Result:
    """eventfd(2) with EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE. EINVAL any other flag; EMFILE"""
    return new_eventfd(task, initval, flags)


def new_eventfd(task: Task, initval: int, flags: int) -> int:
    if flags & ~(os.O_CLOEXEC | os.O_NONBLOCK | EFD_SEMAPHORE):
        raise LinuxError(EINVAL)
    from pysandbox_core.fs.eventfd import EventFile

    file = EventFile(task.kernel, initval, flags & os.O_NONBLOCK, bool(flags & EFD_SEMAPHORE))
    return task.files.install(task, file, cloexec=bool(flags & os.O_CLOEXEC))
