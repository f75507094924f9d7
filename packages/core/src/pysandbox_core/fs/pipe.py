"""Pipes and fifos. pipe(7), fifo(7)

Linux: fs/pipe.c.

Interface: `open_pipe` makes the two ends of a pipe; a file system's fifo inode opens itself with
`open_fifo`, which finds the one `Pipe` of that inode for as long as anybody has it open.

Data is kept as it came: a deque of byte strings, each copied once from the program and once to it.
Small writes are joined, so that a pipe full of single bytes is no list of 65536 objects. In packet
mode (O_DIRECT) every write is a `Packet`, takes up a page of the capacity, and is read in one
piece.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable
from errno import EAGAIN, EBUSY, EINVAL, ENXIO, EPERM, EPIPE
from termios import FIONREAD
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pysandbox_core import task_signals
from pysandbox_core.abi.signal import SIGPIPE
from pysandbox_core.credentials import CAP_SYS_RESOURCE
from pysandbox_core.errors import Interrupted, LinuxError
from pysandbox_core.fs.anonymous import AnonymousInode
from pysandbox_core.fs.file_description import FMODE_READ, FMODE_WRITE, FileDescription
from pysandbox_core.waiting import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
    WaitQueue,
)

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.task import Task

PIPE_BUF = 4096
"""Writes of up to so many bytes are not mixed with others."""
DEFAULT_CAPACITY = 65536
MAX_CAPACITY = 1 << 20
"""/proc/sys/fs/pipe-max-size: what a user without CAP_SYS_RESOURCE may ask for."""
LARGEST_CAPACITY = 1 << 31
JOIN_BELOW = PIPE_BUF
"""Writes that together stay below this become one chunk."""

READABLE = POLLIN | POLLRDNORM
WRITABLE = POLLOUT | POLLWRNORM


class Packet(bytes):
    """One write in packet mode."""

    __slots__ = ()


class Pipe:
    """The buffer between readers and writers. Lives while an end is open."""

    __slots__ = (
        "capacity", "chunks", "head", "open_queue", "read_queue", "reader_opens", "readers", "used",
        "write_queue", "writer_opens", "writers",
    )  # fmt: skip

    def __init__(self) -> None:
        self.chunks: deque[bytes | bytearray] = deque()
        self.head = 0
        """Bytes of the first chunk that have been read."""
        self.used = 0
        """Bytes in it; a packet counts as PIPE_BUF."""
        self.capacity = DEFAULT_CAPACITY
        self.readers = 0
        self.writers = 0
        self.reader_opens = 0
        """How often it has been opened for reading: a fifo's writer waits for the next time."""
        self.writer_opens = 0
        self.read_queue = WaitQueue()
        """Woken for what a reader waits for."""
        self.write_queue = WaitQueue()
        self.open_queue = WaitQueue()
        """Woken when a fifo is opened."""

    def put(self, data: bytes) -> None:
        """Append `data`, for which there is room."""
        chunks = self.chunks
        if chunks and len(data) < JOIN_BELOW:
            last = chunks[-1]
            if len(last) + len(data) <= JOIN_BELOW and type(last) is not Packet:
                if type(last) is bytearray:
                    last += data
                else:
                    chunks[-1] = bytearray(last + data)
                self.used += len(data)
                return
        chunks.append(data)
        self.used += len(data)

    def put_packet(self, data: bytes) -> None:
        self.chunks.append(Packet(data))
        self.used += PIPE_BUF

    def take(self, sink: Sink) -> int:
        """Move what there is and fits to `sink`; at most one packet. How many bytes. EFAULT"""
        chunks = self.chunks
        done = 0
        while chunks:
            chunk = chunks[0]
            head = self.head
            if type(chunk) is Packet:
                if done:
                    break
                done = sink.write(chunk[: sink.remaining])
                chunks.popleft()  # what did not fit is lost, pipe(2)
                self.used -= PIPE_BUF
                break
            left = len(chunk) - head
            room = sink.remaining
            if not room:
                break
            if head or left > room:
                moved = sink.write(memoryview(chunk)[head : head + room])
            else:
                moved = sink.write(chunk)
            done += moved
            self.used -= moved
            if moved < left:
                self.head = head + moved
                break
            chunks.popleft()
            self.head = 0
        return done

    def clear(self) -> None:
        """Drop what is in it."""
        self.chunks.clear()
        self.head = self.used = 0

    def peek(self, count: int) -> bytes:
        """Up to `count` bytes from the front, left where they are: tee(2)."""
        parts: list[bytes] = []
        start = self.head
        for chunk in self.chunks:
            if count <= 0:
                break
            part = bytes(memoryview(chunk)[start : start + count])
            parts.append(part)
            count -= len(part)
            start = 0
        return b"".join(parts)

    def readable_bytes(self) -> int:
        """FIONREAD."""
        return sum(map(len, self.chunks)) - self.head

    def resize(self, task: Task, size: int) -> int:
        """fcntl(F_SETPIPE_SZ): a power of two of pages, what is in it fits. Returns the new
        size."""
        if size > LARGEST_CAPACITY:
            raise LinuxError(EINVAL)
        capacity = PIPE_BUF
        while capacity < size:
            capacity <<= 1
        unprivileged = not task.creds.capable(CAP_SYS_RESOURCE)
        if capacity > self.capacity and capacity > MAX_CAPACITY and unprivileged:
            raise LinuxError(EPERM)
        if self.used > capacity:
            raise LinuxError(EBUSY)
        grown = capacity > self.capacity
        self.capacity = capacity
        if grown:
            self.write_queue.wake(WRITABLE)
        return capacity


class PipeFile(FileDescription):
    """An end of a pipe, or an opened fifo."""

    __slots__ = ("_forwarders", "_writer_opens_seen", "pipe")

    def __init__(self, pipe: Pipe, flags: int, inode: Inode, path: Path | None = None) -> None:
        super().__init__(flags, inode, path)
        self.pipe = pipe
        self._forwarders: tuple[Forwarder, ...] = ()
        self._writer_opens_seen = -1
        """A fifo opened without blocking does not hang up before it has had a writer."""
        mode = self.mode
        if mode == FMODE_READ:
            self.queue = pipe.read_queue
        elif mode == FMODE_WRITE:
            self.queue = pipe.write_queue
        else:
            forwarder = Forwarder(self.queue)
            self._forwarders = (forwarder,)
            pipe.read_queue.add(forwarder)
            pipe.write_queue.add(forwarder)
        if mode & FMODE_READ:
            pipe.readers += 1
            pipe.reader_opens += 1
        if mode & FMODE_WRITE:
            pipe.writers += 1
            pipe.writer_opens += 1

    def release(self) -> None:
        pipe = self.pipe
        for forwarder in self._forwarders:
            pipe.read_queue.remove(forwarder)
            pipe.write_queue.remove(forwarder)
        if self.mode & FMODE_READ:
            pipe.readers -= 1
            if not pipe.readers:
                pipe.write_queue.wake(POLLERR | WRITABLE)
        if self.mode & FMODE_WRITE:
            pipe.writers -= 1
            if not pipe.writers:
                pipe.read_queue.wake(POLLHUP | READABLE)
        if not pipe.readers and not pipe.writers:
            pipe.clear()  # a fifo's inode keeps the pipe

    def describe(self) -> bytes:
        return b"pipe:[%d]" % self.inode.ino

    def expect_writer(self) -> None:
        """No writer yet is not the end of the file: this fifo was opened with O_NONBLOCK."""
        self._writer_opens_seen = self.pipe.writer_opens

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        """read(2): what is there; blocks only while there is nothing and somebody may write."""
        if not sink.remaining:
            return 0
        pipe = self.pipe
        while not pipe.chunks:
            if not pipe.writers:
                return 0
            if self.flags & os.O_NONBLOCK:
                raise LinuxError(EAGAIN)
            task.block(pipe.read_queue)
        was_full = pipe.capacity - pipe.used < PIPE_BUF
        done = pipe.take(sink)
        if was_full and pipe.write_queue.waiters:
            pipe.write_queue.wake(WRITABLE)
        return done

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        """write(2): everything, in one piece up to PIPE_BUF bytes; without blocking, what fits.

        Errors: EPIPE with SIGPIPE if nobody can read it any more; EAGAIN; EFAULT.
        """
        pipe = self.pipe
        done = 0
        while source.remaining:
            if not pipe.readers:
                task_signals.send(task, SIGPIPE)
                if not done:
                    raise LinuxError(EPIPE)
                break
            room = pipe.capacity - pipe.used
            wanted = PIPE_BUF if self.flags & os.O_DIRECT else min(source.remaining, PIPE_BUF)
            if room >= wanted or (done and room and not self.flags & os.O_DIRECT):
                moved = self._put(task, source, room)
                done += moved
                if pipe.read_queue.waiters:
                    pipe.read_queue.wake(READABLE)
                if not moved:
                    break
                continue
            if self.flags & os.O_NONBLOCK:
                if not done:
                    raise LinuxError(EAGAIN)
                break
            try:
                task.block(pipe.write_queue)
            except Interrupted:
                if not done:
                    raise
                break
        return done

    def _put(self, task: Task, source: Source, room: int) -> int:
        """One chunk, or one packet, from `source`."""
        task.kernel.memory.grow(min(source.remaining, room))
        if self.flags & os.O_DIRECT:
            data = source.read(min(source.remaining, PIPE_BUF))
            if data:
                self.pipe.put_packet(data)
        else:
            data = source.read(min(source.remaining, room))
            if data:
                self.pipe.put(data)
        return len(data)

    def poll(self) -> int:
        pipe = self.pipe
        events = 0
        if self.mode & FMODE_READ:
            if pipe.chunks:
                events |= READABLE
            if not pipe.writers and self._writer_opens_seen != pipe.writer_opens:
                events |= POLLHUP
        if self.mode & FMODE_WRITE:
            if pipe.capacity - pipe.used >= PIPE_BUF:
                events |= WRITABLE
            if not pipe.readers:
                events |= POLLERR
        return events

    def ioctl(self, task: Task, request: int, argument: int) -> int:
        if request == FIONREAD:
            task.mm.write(argument, self.pipe.readable_bytes().to_bytes(4, "little"))
            return 0
        return super().ioctl(task, request, argument)


class Forwarder:
    """Passes on what happens in one queue to another: a fifo opened for both has two."""

    __slots__ = ("queue",)

    def __init__(self, queue: WaitQueue) -> None:
        self.queue = queue

    def notify(self, events: int) -> None:
        self.queue.wake(events)


class PipeInode(AnonymousInode):
    """The inode of a pipe; opened again through /proc/PID/fd it is another end, without waiting."""

    def __init__(self, kernel: Kernel, pipe: Pipe, uid: int, gid: int) -> None:
        super().__init__(kernel, stat.S_IFIFO | 0o600, uid, gid)
        self.pipe = pipe

    def truncate(self, length: int) -> None:
        """O_TRUNC of a fifo has no effect. open(2)"""

    def open(self, task: Task, path: Path, flags: int) -> PipeFile:
        file = PipeFile(self.pipe, flags, self, path)
        self.pipe.open_queue.wake()
        return file


def open_pipe(kernel: Kernel, flags: int, uid: int = 0, gid: int = 0) -> tuple[PipeFile, PipeFile]:
    """The (read end, write end) of a new pipe, which belongs to `uid` and `gid`; `flags` of
    O_NONBLOCK and O_DIRECT."""
    pipe = Pipe()
    inode = PipeInode(kernel, pipe, uid, gid)
    return PipeFile(pipe, os.O_RDONLY | flags, inode), PipeFile(pipe, os.O_WRONLY | flags, inode)


_fifos: WeakKeyDictionary[Inode, Pipe] = WeakKeyDictionary()
"""The pipe of each fifo inode that has been opened."""


def open_fifo(task: Task, inode: Inode, path: Path, flags: int) -> PipeFile:
    """Open a fifo as fifo(7) says: a reader waits for a writer and the other way round.

    Errors: ENXIO to write without blocking while nobody reads; Interrupted.
    """
    pipe = _fifos.get(inode)
    if pipe is None or not pipe.readers + pipe.writers:
        pipe = _fifos[inode] = Pipe()
    access = flags & os.O_ACCMODE
    nonblock = flags & os.O_NONBLOCK
    if access == os.O_WRONLY and nonblock and not pipe.readers:
        raise LinuxError(ENXIO)
    file = PipeFile(pipe, flags, inode, path)
    pipe.open_queue.wake()
    if access == os.O_RDONLY and not pipe.writers:
        if nonblock:
            file.expect_writer()
        else:
            opens = pipe.writer_opens
            _wait_for_partner(task, file, lambda: pipe.writer_opens != opens)
    elif access == os.O_WRONLY and not pipe.readers:
        opens = pipe.reader_opens
        _wait_for_partner(task, file, lambda: pipe.reader_opens != opens)
    return file


def _wait_for_partner(task: Task, file: PipeFile, arrived: Callable[[], bool]) -> None:
    try:
        while not arrived():
            task.block(file.pipe.open_queue)
    except Interrupted:
        file.decref()
        raise
