"""eventfd: a counter to wait for. eventfd(2)

Linux: fs/eventfd.c.
"""

from __future__ import annotations

import os
from errno import EAGAIN, EINVAL
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.anonymous import AnonymousFile
from pysandbox_core.waiting import POLLERR, POLLIN, POLLOUT

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.task import Task


COUNTER_MAX = 0xFFFF_FFFF_FFFF_FFFE


class EventFile(AnonymousFile):
    """One eventfd."""

    __slots__ = ("count", "semaphore")

    KIND = b"eventfd"

    def __init__(self, kernel: Kernel, count: int, flags: int, semaphore: bool) -> None:
        super().__init__(kernel, os.O_RDWR | flags)
        self.count = count
        self.semaphore = semaphore
        """A read takes 1, not everything."""

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        """Take the counter, or 1 of it; blocks while it is 0. EINVAL for less than 8 bytes."""
        if sink.remaining < 8:
            raise LinuxError(EINVAL)
        while not self.count:
            if self.flags & os.O_NONBLOCK:
                raise LinuxError(EAGAIN)
            task.block(self.queue)
        taken = 1 if self.semaphore else self.count
        self.count -= taken
        self.queue.wake(POLLOUT)
        return sink.write(taken.to_bytes(8, "little"))

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        """Add to the counter; blocks while it would overflow. EINVAL for less than 8 bytes or for
        2**64 - 1."""
        if source.remaining < 8:
            raise LinuxError(EINVAL)
        value = int.from_bytes(source.read(8), "little")
        if value > COUNTER_MAX:
            raise LinuxError(EINVAL)
        while value > COUNTER_MAX - self.count:
            if self.flags & os.O_NONBLOCK:
                raise LinuxError(EAGAIN)
            task.block(self.queue)
        self.add(value)
        return 8

    def add(self, value: int) -> None:
        """Add `value`, for which there is room: also the kernel's own way to notify."""
        self.count += value
        self.queue.wake(POLLIN)

    def fdinfo(self) -> bytes:
        return b"eventfd-count: %16x\neventfd-semaphore: %d\n" % (self.count, self.semaphore)

    def poll(self) -> int:
        events = 0
        if self.count:
            events |= POLLIN
        if self.count < COUNTER_MAX:
            events |= POLLOUT
        elif self.count > COUNTER_MAX:
            events |= POLLERR
        return events
