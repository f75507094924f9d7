"""signalfd: taking pending signals by read(2) instead of by a handler. signalfd(2)

What is read are the signals of the reading task. Whether there are any, for poll(2), is looked up
for the process that made the descriptor or read from it last: a child that inherits one polls its
parent's signals until its first read. Linux asks who is polling, which here only `read` is told.

Linux: fs/signalfd.c.
"""

from __future__ import annotations

import os
from errno import EAGAIN, EINVAL
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core import task_signals
from pysandbox_core.abi.signal import (
    SI_TIMER,
    SIGBUS,
    SIGCHLD,
    SIGFPE,
    SIGILL,
    SIGIO,
    SIGSEGV,
    SIGSYS,
    SIGTRAP,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.anonymous import AnonymousFile
from pysandbox_core.signals import (
    CHILD_FIELDS,
    FAULT_FIELDS,
    POLL_FIELDS,
    QUEUE_FIELDS,
    TIMER_FIELDS,
)
from pysandbox_core.waiting import POLLIN, POLLRDNORM

if TYPE_CHECKING:
    from pysandbox_core.mm.io_buffer import Sink
    from pysandbox_core.signals import SigInfo
    from pysandbox_core.task import Task

_SIGNALFD_SIGINFO = Struct("<IiiIIiIIIIiiQQQQ48x")
"""ssi_signo, ssi_errno, ssi_code, ssi_pid, ssi_uid, ssi_fd, ssi_tid, ssi_band, ssi_overrun,
ssi_trapno, ssi_status, ssi_int, ssi_ptr, ssi_utime, ssi_stime, ssi_addr; zeros."""
_FAULTS = (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS)


class SignalFd(AnonymousFile):
    """One open signalfd."""

    __slots__ = ("group", "mask")

    KIND = b"signalfd"

    def __init__(self, task: Task, mask: int, flags: int) -> None:
        super().__init__(task.kernel, os.O_RDWR | flags)
        self.mask = mask
        """The set of signals that it gives."""
        self.group = task.group
        self.queue = task.sighand.queue

    def set_mask(self, mask: int) -> None:
        self.mask = mask
        self.queue.wake(POLLIN)

    def poll(self) -> int:
        group = self.group
        pending = group.pending.mask
        for task in group.tasks:
            pending |= task.pending.mask
        return POLLIN | POLLRDNORM if pending & self.mask else 0

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        """As many signals as there are and fit; waits for the first. EINVAL too small, EAGAIN"""
        room = sink.remaining // _SIGNALFD_SIGINFO.size
        if not room:
            raise LinuxError(EINVAL)
        self.group = task.group
        self.queue = task.sighand.queue
        done = 0
        while room:
            info = task_signals.dequeue(task, ~self.mask)
            if info is not None:
                done += sink.write(_pack(info))
                room -= 1
            elif done:
                break
            elif self.flags & os.O_NONBLOCK:
                raise LinuxError(EAGAIN)
            else:
                task.block(self.queue)
        task_signals.recalculate(task)
        return done

    def fdinfo(self) -> bytes:
        """The set of signals. proc(5)"""
        return b"sigmask:\t%016x\n" % self.mask


def _pack(info: SigInfo) -> bytes:
    """struct signalfd_siginfo: the fields that the kind of signal has. Linux: signalfd_copyinfo."""
    pid = uid = fd = timer_id = band = overrun = status = value = utime = stime = addr = 0
    fields = info.fields.ljust(64, b"\0")
    if info.signo == SIGCHLD and info.code > 0:
        pid, uid, status, utime, stime = CHILD_FIELDS.unpack_from(fields)
    elif info.signo in _FAULTS and info.code > 0:
        (addr,) = FAULT_FIELDS.unpack_from(fields)
    elif info.signo == SIGIO and info.code > 0:
        band, fd = POLL_FIELDS.unpack_from(fields)
    elif info.code == SI_TIMER:
        timer_id, overrun, value = TIMER_FIELDS.unpack_from(fields)
    else:
        pid, uid, value = QUEUE_FIELDS.unpack_from(fields)
    low = value & 0xFFFFFFFF
    number = low - (1 << 32) if low >> 31 else low
    return _SIGNALFD_SIGINFO.pack(
        info.signo, info.errno, info.code, pid & 0xFFFFFFFF, uid, fd, timer_id & 0xFFFFFFFF,
        band & 0xFFFFFFFF, overrun & 0xFFFFFFFF, 0, status, number, value, utime, stime, addr,
    )  # fmt: skip
