"""FileDescription: an open file, what descriptors refer to. open(2), "open file description".

Interface: reference counted by `FdTable` entries and kernel users (`incref`, `decref`); the last
`decref` calls `release`. A subclass implements what its kind of file has; the defaults answer as
Linux does for a file that has not. Data moves through a `Sink` (to the program) or a `Source` (from
it), see mm/io_buffer.py; both know how much room or data is left, and end early at a bad address.

Blocking: `read` and `write` block unless O_NONBLOCK is in `flags`, by waiting on `queue` for the
event they need, and raise EAGAIN otherwise. `queue` is woken with POLL* bits whenever `poll` may
answer differently than before.

Linux: struct file, struct file_operations.
"""

from __future__ import annotations

import os
from errno import EBADF, EINVAL, EISDIR, ENODEV, ENOTDIR, ENOTTY, ESPIPE
from typing import TYPE_CHECKING

from pysandbox_core.errors import LinuxError
from pysandbox_core.waiting import POLLFREE, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM, WaitQueue

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.inode import DirEntry, Inode, Stat
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.mm.mappable import Mappable
    from pysandbox_core.task import Task

O_ACCMODE = os.O_ACCMODE
O_PATH = os.O_PATH
FMODE_READ = 1
FMODE_WRITE = 2


class _OpenFiles:
    """How many file descriptions there are in this process, which has one kernel."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


_open = _OpenFiles()


def open_files() -> int:
    """How many files are open. /proc/sys/fs/file-nr"""
    return _open.count


class FileDescription:
    """One open file. `path` is where it was opened, None for files without a name (pipes, sockets);
    `inode` its file."""

    __slots__ = (
        "__weakref__", "flags", "inode", "listing", "mode", "offset", "owner", "owner_signal",
        "path", "queue", "refs",
    )  # fmt: skip

    def __init__(self, flags: int, inode: Inode, path: Path | None = None) -> None:
        self.flags = flags
        """Access mode and status flags: what fcntl(F_GETFL) gives, without O_CREAT and its like."""
        access = flags & O_ACCMODE
        self.mode = 0 if flags & O_PATH else (FMODE_READ, FMODE_WRITE, 3, 0)[access]
        """FMODE_* bits: what it was opened for."""
        self.inode = inode
        self.path = path
        self.offset = 0
        """File position in bytes; of a directory, in entries."""
        self.listing: list[DirEntry] | None = None
        """A directory's entries as they were when it was first read."""
        self.owner = (1, 0)
        """Who gets SIGIO: F_OWNER_* and the number. fcntl(2)"""
        self.owner_signal = 0
        """F_SETSIG; 0 for SIGIO."""
        self.refs = 1
        _open.count += 1
        self.queue = WaitQueue()
        if path is not None:
            path.incref()

    def incref(self) -> FileDescription:
        self.refs += 1
        return self

    def decref(self) -> None:
        self.refs -= 1
        if self.refs == 0:
            _open.count -= 1
            if self.inode.locks is not None:
                self.inode.locks.released(self)
            self.release()
            self.queue.wake(POLLFREE)
            if self.path is not None:
                self.path.decref()

    def release(self) -> None:
        """The last reference is gone: give back what it holds."""

    def flush(self, task: Task) -> None:
        """A descriptor of it is being closed by `task` (others may remain)."""

    def describe(self) -> bytes:
        """As readlink(2) shows /proc/PID/fd/N, for a file without `path`: b"pipe:[12]"."""
        return b"anon_inode:[unknown]"

    def fdinfo(self) -> bytes:
        """Lines that its kind of file adds to /proc/PID/fdinfo/N."""
        return b""

    def stat(self) -> Stat:
        return self.inode.stat()

    # Data. `offset` None means: at the file position, which moves.

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        """Move bytes to `sink`; how many, 0 at the end of the file. read(2), pread(2)

        Errors: EAGAIN, EISDIR, ESPIPE (`offset` given and not seekable), EINVAL, Interrupted.
        """
        raise LinuxError(EISDIR if self.inode.is_dir else EINVAL)

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        """Move bytes from `source`; how many. write(2), pwrite(2)"""
        raise LinuxError(EINVAL)

    def seek(self, task: Task, offset: int, whence: int) -> int:
        """Move the file position and return it. lseek(2)"""
        raise LinuxError(ESPIPE)

    @property
    def pollable(self) -> bool:
        """epoll(7) takes it: it is no regular file or directory, which are always ready."""
        return not (self.inode.is_regular or self.inode.is_dir)

    @property
    def seekable(self) -> bool:
        """pread, pwrite and lseek make sense."""
        return False

    def entries(self, task: Task) -> list[DirEntry]:
        """All entries of an open directory, `.` and `..` included; the position is an index into
        them, and a rewind reads them anew. getdents64(2)"""
        raise LinuxError(ENOTDIR)

    def truncate(self, task: Task, length: int) -> None:
        raise LinuxError(EINVAL)

    def allocate(self, task: Task, mode: int, offset: int, length: int) -> None:
        """fallocate(2); the caller has checked the numbers."""
        raise LinuxError(ENODEV)

    def sync(self, task: Task, data_only: bool) -> None:
        """fsync(2), fdatasync(2)"""
        raise LinuxError(EINVAL)

    def ioctl(self, task: Task, request: int, argument: int) -> int:
        """ioctl(2); FIOCLEX, FIONBIO and their like are dealt with before."""
        raise LinuxError(ENOTTY)

    def mappable(self, task: Task) -> Mappable:
        """What mmap(2) of it maps. ENODEV where that makes no sense."""
        raise LinuxError(ENODEV)

    def poll(self) -> int:
        """The POLL* events that are true now."""
        return POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM

    def set_status_flags(self, task: Task, flags: int) -> None:
        """fcntl(F_SETFL): `flags` replaces what may change."""
        changeable = os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT | os.O_NOATIME | os.O_ASYNC
        self.flags = self.flags & ~changeable | flags & changeable

    # Checks that handlers share.

    def require_readable(self) -> None:
        """EBADF unless it is open for reading."""
        if not self.mode & FMODE_READ:
            raise LinuxError(EBADF)

    def require_writable(self) -> None:
        """EBADF unless it is open for writing."""
        if not self.mode & FMODE_WRITE:
            raise LinuxError(EBADF)
