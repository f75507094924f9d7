"""The caller's own descriptors as files of the sandbox: what is standard input, output and error.

Interface: `open_stdio` gives file descriptions over host descriptors, which may be anything: pipes,
files, terminals, sockets, /dev/null. They are shared with the caller, so
- their position is the host's: read and write move it, as if the program had inherited the
  descriptor;
- O_NONBLOCK is never set on them: readiness is asked for before each transfer, and a transfer is
  asked not to wait (RWF_NOWAIT) where the host can do that, in case somebody else was faster;
- a wait goes through the kernel's reactor. Regular files are always ready and never get that far.

The reactor has one queue for a descriptor; each file over it stands in that queue and passes the
news on to its own, which whoever waits (epoll above all) may have joined long before. The reactor
tells once for each time it is asked, so `poll` asks for every event that is not there yet.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from errno import EACCES, EAGAIN, EINVAL, ENODEV, ENOTSUP, ENOTTY, EPERM, EPIPE, ESPIPE
from fcntl import F_DUPFD_CLOEXEC, F_GETFL, fcntl
from stat import S_IFCHR, S_IFMT, S_IFREG
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError, linux_errors
from pysandbox_core.fs import host_ids
from pysandbox_core.fs.anonymous import anonymous_fs
from pysandbox_core.fs.file_description import FileDescription
from pysandbox_core.fs.inode import Inode, Stat
from pysandbox_core.standard_fds import CLOSED
from pysandbox_core.waiting import POLLERR, POLLHUP, POLLIN, POLLOUT, Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.mm.mappable import Mappable
    from pysandbox_core.task import Task

CHUNK = 1 << 16
"""Bytes moved at a time."""
_AT_POSITION = -1
"""As the offset of preadv2(2): the file position."""
_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK


def open_stdio(kernel: Kernel, host_fds: Sequence[int]) -> list[FileDescription | None]:
    """A file description for each of `host_fds`, which stay the caller's; None for CLOSED. Ones
    that are the same as an earlier one are no special case."""
    return [
        None if host_fd == CLOSED else open_host_descriptor(kernel, host_fd) for host_fd in host_fds
    ]


def open_host_descriptor(kernel: Kernel, host_fd: int) -> FileDescription:
    """A file description over a duplicate of `host_fd`."""
    host_fd = fcntl(host_fd, F_DUPFD_CLOEXEC, 3)
    flags = fcntl(host_fd, F_GETFL) & _FLAGS & ~os.O_NONBLOCK
    if os.isatty(host_fd):
        from pysandbox_core.fs.host_tty import open_host_tty

        return open_host_tty(kernel, host_fd, flags)
    return HostStream(kernel, flags, HostStreamInode(kernel, host_fd))


class HostStreamInode(Inode):
    """The file that a host descriptor refers to. Owns the descriptor."""

    def __init__(self, kernel: Kernel, host_fd: int) -> None:
        self.kernel = kernel
        self.host_fd = host_fd
        self.fs = anonymous_fs(kernel)
        status = host_ids.fstat(host_fd)
        self.ino = status.st_ino
        self.mode = status.st_mode
        self.uid = status.st_uid
        self.gid = status.st_gid
        self.rdev = status.st_rdev

    def __del__(self) -> None:
        with suppress(ValueError):  # the kernel has ended, and the reactor with it
            self.kernel.reactor.forget(self.host_fd)
        os.close(self.host_fd)

    def stat(self) -> Stat:
        with linux_errors():
            return stat_of(host_ids.fstat(self.host_fd))

    def set_times(self, atime_ns: int | None, mtime_ns: int | None) -> None:
        """What was given is a stream; the file behind it is the caller's. The jail's filter has no
        call for this either."""
        raise LinuxError(EPERM)

    def truncate(self, length: int) -> None:
        if S_IFMT(self.mode) == S_IFREG:
            with linux_errors():
                os.ftruncate(self.host_fd, length)

    def open(self, task: Task, path: Path, flags: int) -> FileDescription:
        """Through /proc/PID/fd or /dev/stdout. A regular file is opened anew, with a position of
        its own; but never with more access than the caller gave: EACCES."""
        access = fcntl(self.host_fd, F_GETFL) & os.O_ACCMODE
        if access not in (os.O_RDWR, flags & os.O_ACCMODE):
            raise LinuxError(EACCES)
        inode = self
        if S_IFMT(self.mode) == S_IFREG:
            host_flags = flags & (os.O_ACCMODE | os.O_APPEND) | os.O_CLOEXEC | os.O_NOCTTY
            with suppress(OSError):  # no /proc here: it shares the position then
                inode = HostStreamInode(
                    self.kernel, os.open(f"/proc/self/fd/{self.host_fd}", host_flags)
                )
        return HostStream(self.kernel, flags, inode)


class HostStream(FileDescription):
    """An open host descriptor that is no terminal."""

    __slots__ = ("host_fd", "is_regular", "is_seekable", "kernel", "nowait")

    inode: HostStreamInode

    def __init__(self, kernel: Kernel, flags: int, inode: HostStreamInode) -> None:
        super().__init__(flags, inode)
        self.kernel = kernel
        self.host_fd = inode.host_fd
        self.is_regular = S_IFMT(inode.mode) == S_IFREG
        self.is_seekable = self._can_seek()
        self.nowait = os.RWF_NOWAIT if not self.is_seekable else 0

    def _can_seek(self) -> bool:
        try:
            os.lseek(self.host_fd, 0, os.SEEK_CUR)
        except OSError:
            return False
        return True

    def release(self) -> None:
        self.kernel.reactor.unwatch(self.host_fd, self)

    def describe(self) -> bytes:
        """The host's name for it, if the host's root is the sandbox's; otherwise names of the
        host's are nobody's business."""
        if self.kernel.config.rootfs == b"/":
            with suppress(OSError):
                return os.fsencode(os.readlink(f"/proc/self/fd/{self.host_fd}"))
        kind = b"file" if self.is_regular else b"pipe"
        return b"%s:[%d]" % (kind, self.inode.ino)

    @property
    def seekable(self) -> bool:
        return self.is_seekable

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        if not sink.remaining:
            return 0
        if offset is not None:
            with linux_errors():
                return sink.write(os.pread(self.host_fd, min(sink.remaining, CHUNK), offset))
        while True:
            if self.is_seekable or self._ready(POLLIN):
                try:
                    data = self._read_some(min(sink.remaining, CHUNK))
                except BlockingIOError:
                    pass
                else:
                    return sink.write(data) if data else 0
            self._wait(task, POLLIN)

    def _read_some(self, size: int) -> bytes:
        if self.nowait:
            buffer = bytearray(size)
            try:
                count = os.preadv(self.host_fd, [buffer], _AT_POSITION, self.nowait)
            except BlockingIOError:
                raise
            except OSError as error:
                if error.errno not in (ENOTSUP, ESPIPE, EINVAL):
                    raise LinuxError(error.errno or EINVAL) from None
                self.nowait = 0  # this kind of file cannot be asked not to wait
            else:
                return bytes(buffer[:count])
        with linux_errors():
            return os.read(self.host_fd, size)

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        total = 0
        turn = Turn(task)
        while source.remaining:
            if not self.is_seekable and not self._ready(POLLOUT):
                if total and self.flags & os.O_NONBLOCK:
                    break
                try:
                    self._wait(task, POLLOUT)
                except LinuxError:
                    if total:
                        break
                    raise
                continue
            data = source.read(min(source.remaining, CHUNK))
            try:
                count = self._write_some(task, data, None if offset is None else offset + total)
            except BlockingIOError:
                count = 0
            except LinuxError:
                if total:
                    break
                raise
            source.undo(len(data) - count)
            total += count
            if not data or (source.remaining and not turn.goes_on(killable_only=self.is_regular)):
                break
        return total

    def _write_some(self, task: Task, data: bytes, offset: int | None) -> int:
        try:
            if offset is not None:
                return os.pwrite(self.host_fd, data, offset)
            if self.nowait:
                try:
                    return os.pwritev(self.host_fd, [data], _AT_POSITION, self.nowait)
                except OSError as error:
                    if error.errno not in (ENOTSUP, ESPIPE, EINVAL):
                        raise
                    self.nowait = 0
            if not self.is_seekable:
                data = data[: select.PIPE_BUF]  # what a ready one takes without waiting
            elif self.is_regular and self.flags & os.O_APPEND:
                return os.pwritev(self.host_fd, [data], _AT_POSITION, os.RWF_APPEND)
            return os.write(self.host_fd, data)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == EPIPE:
                from pysandbox_core import task_signals

                task_signals.send(task, signal.SIGPIPE)
            raise LinuxError(error.errno or EINVAL) from None

    def _ready(self, events: int) -> bool:
        return bool(host_poll(self.host_fd, events))

    def _wait(self, task: Task, events: int) -> None:
        """Block until one of `events` may be there; EAGAIN with O_NONBLOCK. The queue is armed
        either way: a program that gets EAGAIN waits with epoll next."""
        self._arm(events)
        if self.flags & os.O_NONBLOCK:
            raise LinuxError(EAGAIN)
        task.block(self.queue)

    def _arm(self, events: int) -> None:
        self.kernel.reactor.watch(self.host_fd, events).add(self)

    def notify(self, events: int) -> None:
        """The reactor has news of the descriptor."""
        self.queue.wake(events)

    def poll(self) -> int:
        ready = host_poll(self.host_fd, POLLIN | POLLOUT)
        missing = self._wanted() & ~ready
        if missing and not ready & (POLLERR | POLLHUP) and not self.is_seekable:
            self._arm(missing)
        return ready | (ready & POLLIN) << 6 | (ready & POLLOUT) << 6

    def _wanted(self) -> int:
        return self.mode & 1 and POLLIN | (self.mode & 2) << 1

    def seek(self, task: Task, offset: int, whence: int) -> int:
        if not self.is_seekable:
            raise LinuxError(ESPIPE)
        with linux_errors():
            return os.lseek(self.host_fd, offset, whence)

    def truncate(self, task: Task, length: int) -> None:
        if not self.is_regular:
            raise LinuxError(EINVAL)
        self.inode.truncate(length)

    def allocate(self, task: Task, mode: int, offset: int, length: int) -> None:
        if mode or not self.is_regular:
            raise LinuxError(ENOTSUP if self.is_regular else ENODEV)
        # not posix_fallocate(3), which writes to every page where the file system has no such call
        from pysandbox_core.host_calls import fallocate

        with linux_errors():
            fallocate(self.host_fd, 0, offset, length)

    def sync(self, task: Task, data_only: bool) -> None:
        with linux_errors():
            os.fsync(self.host_fd)

    def ioctl(self, task: Task, request: int, argument: int) -> int:
        if request == FIONREAD and S_IFMT(self.inode.mode) != S_IFCHR:
            task.mm.write_u32(argument, self._readable_bytes())
            return 0
        raise LinuxError(ENOTTY)

    def _readable_bytes(self) -> int:
        if self.is_regular:
            with linux_errors():
                left = os.fstat(self.host_fd).st_size - os.lseek(self.host_fd, 0, os.SEEK_CUR)
            return max(0, min(left, 0x7FFFFFFF))
        from fcntl import ioctl
        from struct import unpack

        with linux_errors():
            count: int = unpack("i", ioctl(self.host_fd, FIONREAD, bytes(4)))[0]
        return count

    def mappable(self, task: Task) -> Mappable:
        if not self.is_regular:
            raise LinuxError(ENODEV)
        from pysandbox_core.mm.mappable import HostFileMappable

        with linux_errors():
            host_fd = fcntl(self.host_fd, F_DUPFD_CLOEXEC, 3)
        return HostFileMappable(host_fd, can_write=self.flags & os.O_ACCMODE == os.O_RDWR)


FIONREAD = 0x541B


def host_poll(host_fd: int, events: int) -> int:
    """Which POLL* events a host descriptor has now."""
    poller = select.poll()
    poller.register(host_fd, events)
    for _, ready in poller.poll(0):
        return ready
    return 0


def stat_of(status: os.stat_result) -> Stat:
    """A host's stat result as it is."""
    return Stat(
        status.st_dev, status.st_ino, status.st_mode, status.st_nlink, status.st_uid,
        status.st_gid, status.st_rdev, status.st_size, status.st_blksize, status.st_blocks,
        status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip
