"""epoll: waiting for many files at the cost of those that are ready. epoll(7)

Linux: fs/eventpoll.c.

Every watched file has an `EpollItem` in its queue. When the file wakes its queue, the item goes on
the ready list; epoll_wait(2) looks only there, asks each file what is really true now, and puts
level-triggered ones back. So nothing depends on how many files are watched.

An item belongs to a (file description, descriptor number) pair and holds no reference on the file:
when the file's last reference goes, its queue is woken with POLLFREE and the item leaves.
"""

from __future__ import annotations

import os
from errno import EEXIST, EINTR, EINVAL, ELOOP, ENOENT, ENOSPC
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.errors import Interrupted, LinuxError
from pysandbox_core.fs.anonymous import AnonymousFile
from pysandbox_core.kernel_memory import SMALL
from pysandbox_core.waiting import POLLERR, POLLFREE, POLLHUP, POLLIN, POLLRDNORM, WaitQueue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

EPOLL_EVENT = Struct("<IQ")
"""struct epoll_event, packed on x86-64: events, data."""

EPOLLEXCLUSIVE = 1 << 28
EPOLLWAKEUP = 1 << 29
EPOLLONESHOT = 1 << 30
EPOLLET = 1 << 31
PRIVATE_BITS = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE
"""What is left of the events of an item once it has fired with EPOLLONESHOT."""

MAX_NESTING = 5
"""Epoll instances that may watch one another in a row, the outermost included."""
MAX_PATHS = (0, 500, 100, 50, 10)
"""How many ways there may be from one file up to instances that nobody watches, by the number of
instances between the two; as many as one likes with none between. A piece of news goes all of
them."""
MAX_WATCHES = 1 << 20
"""Items of one instance; /proc/sys/fs/epoll/max_user_watches."""


class EpollItem:
    """One file that one epoll instance watches. Stands in the file's queue as a waiter."""

    __slots__ = ("data", "epoll", "events", "fd", "file")

    def __init__(
        self, epoll: EpollFile, file: FileDescription, fd: int, events: int, data: int
    ) -> None:
        self.epoll = epoll
        self.file = file
        self.fd = fd
        self.events = events
        """What is asked for, POLLERR and POLLHUP always, and the EPOLL* behaviour bits."""
        self.data = data

    def notify(self, events: int) -> None:
        if events == POLLFREE:
            if not self.file.refs:
                self.epoll.drop(self)
        elif events & self.events:
            self.epoll.item_ready(self)

    def true_events(self) -> int:
        """What is asked for and true now."""
        return self.file.poll() & self.events


class EpollFile(AnonymousFile):
    """One epoll instance."""

    __slots__ = ("items", "kernel", "ready", "wait_queue")

    KIND = b"eventpoll"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel, os.O_RDWR)
        self.kernel = kernel
        self.items: dict[tuple[FileDescription, int], EpollItem] = {}
        self.ready: dict[EpollItem, None] = {}
        """Items that may have something to report, in the order of their news."""
        self.wait_queue = WaitQueue()
        """Tasks in epoll_wait; one is woken for each piece of news. `queue` has the others, who
        poll this instance as a file."""

    def release(self) -> None:
        for item in self.items.values():
            item.file.queue.remove(item)
        self.items.clear()
        self.ready.clear()

    def fdinfo(self) -> bytes:
        lines = []
        for item in self.items.values():
            stat = item.file.stat()
            lines.append(
                b"tfd: %8d events: %8x data: %16x  pos:%d ino:%x sdev:%x\n"
                % (item.fd, item.events, item.data, item.file.offset, stat.ino, stat.dev)
            )
        return b"".join(lines)

    # What happens at the files.

    def item_ready(self, item: EpollItem) -> None:
        """`item` may have something to report."""
        self.ready[item] = None
        if self.wait_queue.waiters:
            self.wait_queue.wake_one(POLLIN)
        if self.queue.waiters:
            self.queue.wake(POLLIN | POLLRDNORM)

    def drop(self, item: EpollItem) -> None:
        """Stop watching."""
        item.file.queue.remove(item)
        self.ready.pop(item, None)
        self.items.pop((item.file, item.fd), None)

    # epoll_ctl(2); the caller has checked everything that does not depend on this instance.

    def add(self, file: FileDescription, fd: int, events: int, data: int) -> None:
        """EPOLL_CTL_ADD. ELOOP, EEXIST, ENOSPC, ENOMEM, EINVAL"""
        if isinstance(file, EpollFile):
            self._check_nesting(file)
        if (file, fd) in self.items:
            raise LinuxError(EEXIST)
        if len(self.items) >= MAX_WATCHES:
            raise LinuxError(ENOSPC)
        self.kernel.memory.grow(SMALL)
        item = EpollItem(self, file, fd, events | POLLERR | POLLHUP, data)
        self.items[file, fd] = item
        file.queue.add(item)
        try:
            self._check_paths(file)
        except LinuxError:
            self.drop(item)
            raise
        if item.true_events():
            self.item_ready(item)

    def modify(self, file: FileDescription, fd: int, events: int, data: int) -> None:
        """EPOLL_CTL_MOD. ENOENT; EINVAL for an exclusive one"""
        item = self._item(file, fd)
        if item.events & EPOLLEXCLUSIVE:
            raise LinuxError(EINVAL)
        item.events = events | POLLERR | POLLHUP
        item.data = data
        if item.true_events():
            self.item_ready(item)

    def remove(self, file: FileDescription, fd: int) -> None:
        """EPOLL_CTL_DEL. ENOENT"""
        self.drop(self._item(file, fd))

    def _item(self, file: FileDescription, fd: int) -> EpollItem:
        item = self.items.get((file, fd))
        if item is None:
            raise LinuxError(ENOENT)
        return item

    def _check_nesting(self, inner: EpollFile) -> None:
        """ELOOP if watching `inner` would make a circle or a chain that is too long."""
        if inner._height(self, {}) + self._depth({}) > MAX_NESTING:
            raise LinuxError(ELOOP)

    def _height(self, forbidden: EpollFile, known: dict[EpollFile, int]) -> int:
        """Instances in the longest chain that is watched from here, this one included; `known` has
        what was found already, for the ways to one instance may be many."""
        if self is forbidden:
            raise LinuxError(ELOOP)
        if self not in known:
            below = (file for file, _ in self.items if isinstance(file, EpollFile))
            heights = (file._height(forbidden, known) for file in below)
            known[self] = 1 + max(heights, default=0)
        return known[self]

    def _depth(self, known: dict[EpollFile, int]) -> int:
        """Instances in the longest chain that ends here, this one included."""
        if self not in known:
            depths = (epoll._depth(known) for epoll in _watchers(self))
            known[self] = 1 + max(depths, default=0)
        return known[self]

    def _check_paths(self, file: FileDescription) -> None:
        """EINVAL if too many ways lead up from `file`, watched here now, or from a file below it.
        reverse_path_check()"""
        if not isinstance(file, EpollFile):
            if any(True for _ in _watchers(self)):
                _count_paths(file, 0, list(MAX_PATHS))
            return
        for leaf in file._leaves():
            _count_paths(leaf, 0, list(MAX_PATHS))

    def _leaves(self) -> set[FileDescription]:
        """The files that are watched from here, at any depth, and are no epoll instances."""
        leaves: set[FileDescription] = set()
        seen = {self}
        todo = [self]
        while todo:
            for file, _ in todo.pop().items:
                if not isinstance(file, EpollFile):
                    leaves.add(file)
                elif file not in seen:
                    seen.add(file)
                    todo.append(file)
        return leaves

    # epoll_wait(2)

    def poll(self) -> int:
        for item in tuple(self.ready):
            if item.true_events():
                return POLLIN | POLLRDNORM
            self.ready.pop(item, None)
        return 0

    def wait(self, task: Task, addr: int, max_events: int, deadline_ns: int | None) -> int:
        """Write up to `max_events` events to `addr`; waits for the first one until `deadline_ns`
        (None: for ever, 0: not at all). EFAULT, EINTR"""
        while True:
            if self.ready:
                if task.interrupted(killable_only=True):
                    self._pass_on()  # what is told once goes to those who can still hear it
                    raise Interrupted(EINTR)
                count = self._report(task, addr, max_events)
                if count:
                    return count
            if deadline_ns == 0:
                return 0
            try:
                if not task.block(self.wait_queue, deadline_ns, EINTR):
                    assert deadline_ns is not None
                    task.kernel.clocks.catch_up(deadline_ns)
                    deadline_ns = 0  # news that came at the last moment is news
            except Interrupted:
                self._pass_on()
                raise

    def _report(self, task: Task, addr: int, max_events: int) -> int:
        """Write what is ready; how many events."""
        candidates = tuple(self.ready)
        parts: list[bytes] = []
        again: list[EpollItem] = []
        reported: list[tuple[EpollItem, int]] = []
        for item in candidates:
            del self.ready[item]
            events = item.file.poll() & item.events
            if events:
                parts.append(EPOLL_EVENT.pack(events, item.data))
                reported.append((item, item.events))
                if item.events & EPOLLONESHOT:
                    item.events &= PRIVATE_BITS
                elif not item.events & EPOLLET:
                    again.append(item)
                if len(parts) == max_events:
                    break
        self.ready.update(dict.fromkeys(again))
        if parts:
            try:
                task.mm.write(addr, b"".join(parts))
            except LinuxError:
                for item, events in reported:
                    item.events = events
                    self.ready[item] = None
                raise
        self._pass_on()
        return len(parts)

    def _pass_on(self) -> None:
        """There is more, or the one that was woken for it does not take it: wake the next."""
        if self.ready and self.wait_queue.waiters:
            self.wait_queue.wake_one(POLLIN)


def _watchers(file: FileDescription) -> Iterator[EpollFile]:
    """The epoll instances that watch `file`, once for each item."""
    return (waiter.epoll for waiter in file.queue.waiters if isinstance(waiter, EpollItem))


def _count_paths(file: FileDescription, between: int, left: list[int]) -> None:
    """Take the ways that lead up from `file` off `left`, by the number of instances between."""
    for epoll in _watchers(file):
        if any(True for _ in _watchers(epoll)):
            _count_paths(epoll, between + 1, left)
        elif between:
            left[between] -= 1
            if left[between] < 0:
                raise LinuxError(EINVAL)
