"""Inotify: an open file from which events of files are read. inotify(7)

Interface: `Inotify` is the file description; its watches stand in the `watches` of the inodes they
are for (notify.py). Events queue up to a limit, then one IN_Q_OVERFLOW says that some were lost; an
event equal to the last one queued is dropped.

Linux: fs/notify/inotify.
"""

from __future__ import annotations

import os
from collections import deque
from errno import EAGAIN, EEXIST, EINVAL, EMFILE, ENOSPC
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.abi.ioctls import FIONREAD
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs import notify
from pysandbox_core.fs.anonymous import AnonymousFile
from pysandbox_core.fs.notify import (
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_ISDIR,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
)
from pysandbox_core.kernel_memory import SMALL
from pysandbox_core.waiting import POLLIN, POLLRDNORM

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink
    from pysandbox_core.task import Task

EVENT = Struct("<iIII")
"""struct inotify_event without its name: wd, mask, cookie, len."""
IN_EXCL_UNLINK = 0x04000000
IN_MASK_CREATE = 0x10000000
IN_MASK_ADD = 0x20000000
IN_ONESHOT = 0x80000000
MAX_QUEUED_EVENTS = 16384
"""/proc/sys/fs/inotify/max_queued_events"""
MAX_USER_WATCHES = 65536
"""For each instance here. /proc/sys/fs/inotify/max_user_watches"""
MAX_USER_INSTANCES = 128
"""/proc/sys/fs/inotify/max_user_instances"""
_ALWAYS = IN_IGNORED | IN_UNMOUNT | IN_Q_OVERFLOW


_instances: dict[tuple[Kernel, int], int] = {}
"""How many each user of a kernel has open."""


class InotifyWatch:
    """One watch of one instance on one file."""

    __slots__ = ("inode", "instance", "mask", "path", "wd")

    def __init__(self, instance: Inotify, wd: int, path: Path, mask: int) -> None:
        self.instance = instance
        self.wd = wd
        self.inode: Inode = path.inode
        self.path = path
        """Keeps the dentry, and so the inode that everybody else finds."""
        self.mask = mask

    def happened(self, mask: int, cookie: int, name: bytes) -> None:
        if mask & self.mask & ~IN_ISDIR or mask & _ALWAYS:
            self.instance.queue_event(self.wd, mask, cookie, name)
            if self.mask & IN_ONESHOT and not mask & IN_IGNORED:
                self.instance.remove(self)
                return
        if mask & IN_DELETE_SELF:
            self.instance.remove(self)


class Inotify(AnonymousFile):
    """An inotify instance."""

    __slots__ = ("events", "kernel", "last_wd", "uid", "watches")

    KIND = b"inotify"

    def __init__(self, kernel: Kernel, flags: int, uid: int = 0) -> None:
        """EMFILE if the user `uid` has as many as one may have."""
        count = _instances.get((kernel, uid), 0)
        if count >= MAX_USER_INSTANCES:
            raise LinuxError(EMFILE)
        super().__init__(kernel, os.O_RDONLY | flags)
        self.kernel = kernel
        self.uid = uid
        _instances[kernel, uid] = count + 1
        self.events: deque[tuple[int, int, int, bytes]] = deque()
        """wd, mask, cookie, name."""
        self.watches: dict[int, InotifyWatch] = {}
        self.last_wd = 0

    def describe(self) -> bytes:
        return b"anon_inode:inotify"

    def release(self) -> None:
        _instances[self.kernel, self.uid] -= 1
        if not _instances[self.kernel, self.uid]:
            del _instances[self.kernel, self.uid]
        for watch in tuple(self.watches.values()):
            self._detach(watch)

    def add_watch(self, path: Path, mask: int) -> int:
        """Watch the file at `path`, or change the watch that is there. EEXIST, ENOSPC, ENOMEM"""
        for watch in path.inode.watches or ():
            if isinstance(watch, InotifyWatch) and watch.instance is self:
                if mask & IN_MASK_CREATE:
                    raise LinuxError(EEXIST)
                watch.mask = watch.mask | mask if mask & IN_MASK_ADD else mask
                return watch.wd
        if len(self.watches) >= MAX_USER_WATCHES:
            raise LinuxError(ENOSPC)
        self.kernel.memory.grow(SMALL)
        self.last_wd += 1
        watch = InotifyWatch(self, self.last_wd, path, mask)
        self.watches[watch.wd] = watch
        inode = path.inode
        if inode.watches is None:
            inode.watches = []
        inode.watches.append(watch)
        notify.watching += 1
        return watch.wd

    def remove_watch(self, wd: int) -> None:
        """EINVAL if there is no such watch. inotify_rm_watch(2)"""
        watch = self.watches.get(wd)
        if watch is None:
            raise LinuxError(EINVAL)
        self.remove(watch)

    def remove(self, watch: InotifyWatch) -> None:
        """End a watch and say so."""
        if self.watches.get(watch.wd) is watch:
            self._detach(watch)
            self.queue_event(watch.wd, IN_IGNORED, 0, b"")

    def _detach(self, watch: InotifyWatch) -> None:
        del self.watches[watch.wd]
        watches = watch.inode.watches
        if watches is not None:
            watches.remove(watch)
            if not watches:
                watch.inode.watches = None
        notify.watching -= 1

    def queue_event(self, wd: int, mask: int, cookie: int, name: bytes) -> None:
        event = (wd, mask, cookie, name)
        events = self.events
        if events and events[-1] == event:
            return
        if len(events) >= MAX_QUEUED_EVENTS or not self._has_memory(len(name)):
            if events and events[-1][0] == -1:
                return
            event = (-1, IN_Q_OVERFLOW, 0, b"")
        events.append(event)
        self.queue.wake(POLLIN | POLLRDNORM)

    def _has_memory(self, size: int) -> bool:
        """For an event with `size` bytes more. Where there is none, it counts as lost."""
        try:
            self.kernel.memory.grow(SMALL + size)
        except LinuxError:
            return False
        return True

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        """As many whole events as there is room for; EINVAL if not even one has."""
        while not self.events:
            if self.flags & os.O_NONBLOCK:
                raise LinuxError(EAGAIN)
            task.block(self.queue)
        data = bytearray()
        room = sink.remaining
        while self.events:
            packed = pack_event(*self.events[0])
            if len(data) + len(packed) > room:
                if not data:
                    raise LinuxError(EINVAL)
                break
            data += packed
            self.events.popleft()
        return sink.write(data)

    def poll(self) -> int:
        return POLLIN | POLLRDNORM if self.events else 0

    def ioctl(self, task: Task, request: int, argument: int) -> int:
        if request == FIONREAD:
            task.mm.write_u32(argument, sum(len(pack_event(*event)) for event in self.events))
            return 0
        return super().ioctl(task, request, argument)

    def fdinfo(self) -> bytes:
        return b"".join(
            b"inotify wd:%x ino:%x sdev:%x mask:%x ignored_mask:0\n"
            % (watch.wd, watch.inode.ino, watch.inode.fs.dev, watch.mask)
            for watch in self.watches.values()
        )


def pack_event(wd: int, mask: int, cookie: int, name: bytes) -> bytes:
    """A struct inotify_event; the name is padded with NULs to a multiple of the structure."""
    size = len(name) + EVENT.size & -EVENT.size if name else 0
    return EVENT.pack(wd, mask, cookie, size) + name.ljust(size, b"\0")
