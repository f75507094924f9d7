"""Signals by descriptor: signalfd(2)."""

from __future__ import annotations

import os
from errno import EINVAL
from typing import TYPE_CHECKING

from pysandbox_core.abi.signal import UNBLOCKABLE
from pysandbox_core.declare import Fd, Int, Result, SigsetPtr, Size, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.signalfd import SignalFd
from pysandbox_core.syscalls.signals import read_sigset

if TYPE_CHECKING:
    from pysandbox_core.task import Task


@syscall("signalfd")
def signalfd(task: Task, fd: Fd, mask: SigsetPtr, sigsetsize: Size) -> Result:
    """As signalfd4 without flags. signalfd(2)"""
    return _signalfd(task, fd, mask, sigsetsize, 0)


@syscall("signalfd4")
def signalfd4(task: Task, fd: Fd, mask: SigsetPtr, sigsetsize: Size, flags: Int) -> Result:
    """A descriptor that gives the signals of a set (fd -1), or change the set of one. signalfd(2)

    Errors, first match wins: EINVAL sigsetsize; EFAULT; EINVAL flags; EMFILE; EBADF; EINVAL not a
    signalfd.
    """
    return _signalfd(task, fd, mask, sigsetsize, flags)


def _signalfd(task: Task, fd: int, mask: int, sigsetsize: int, flags: int) -> int:
    wanted = read_sigset(task, mask, sigsetsize) & ~UNBLOCKABLE
    if flags & ~(os.O_CLOEXEC | os.O_NONBLOCK):
        raise LinuxError(EINVAL)
    if fd == -1:
        file = SignalFd(task, wanted, flags & os.O_NONBLOCK)
        return task.files.install(task, file, cloexec=bool(flags & os.O_CLOEXEC))
    existing = task.files.get(fd)
    if not isinstance(existing, SignalFd):
        raise LinuxError(EINVAL)
    existing.set_mask(wanted)
    return fd
