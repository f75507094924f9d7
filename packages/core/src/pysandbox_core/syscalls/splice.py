"""sendfile(2), copy_file_range(2), splice(2), tee(2), vmsplice(2): data between files without a
detour through the program.

Here the data goes through a buffer of the kernel's; the calls are what Linux's are in every other
way. Linux: fs/splice.c, fs/read_write.c.
"""

from __future__ import annotations

import os
from errno import EAGAIN, EBADF, EFBIG, EINVAL, EISDIR, EOVERFLOW, ESPIPE, EXDEV
from typing import TYPE_CHECKING

from pysandbox_core.declare import Fd, IovecPtr, Result, Size, UInt, ULong, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.pipe import PipeFile
from pysandbox_core.mm.io_buffer import BytesSink, BytesSource
from pysandbox_core.task import Task
from pysandbox_core.waiting import Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.fs.file_description import FileDescription

MAX_RW_COUNT = 0x7FFFF000
CHUNK = 1 << 18
SPLICE_F_NONBLOCK = 2
SPLICE_F_ALL = 0xF
LOFF_MAX = (1 << 63) - 1
S_IFMT, S_IFREG, S_IFDIR = 0o170000, 0o100000, 0o040000


@syscall("sendfile")
def sendfile(task: Task, out_fd: Fd, in_fd: Fd, offset: UserAddr, count: Size) -> Result:
    """Write what `in_fd` has, from `*offset` or its position, to `out_fd`. sendfile(2)

    Errors: EFAULT; EBADF; ESPIPE `offset` and `in_fd` not seekable; EINVAL `out_fd` appends, or
    negative offset; EAGAIN; EINTR.
    """
    position = None
    if offset:
        position = task.mm.read_s64(offset)
    source = task.files.readable(in_fd)
    if position is not None and not source.seekable:
        raise LinuxError(ESPIPE)
    if position is not None and position < 0:
        raise LinuxError(EINVAL)
    target = task.files.writable(out_fd)
    if not source.seekable:
        raise LinuxError(EINVAL)  # what could not be written would be lost
    if target.flags & os.O_APPEND and target.inode.mode & S_IFMT == S_IFREG:
        raise LinuxError(EINVAL)
    if source.inode.mode & S_IFMT == S_IFDIR:
        raise LinuxError(EINVAL)
    if position is not None and position > LOFF_MAX - min(count, MAX_RW_COUNT):
        raise LinuxError(EOVERFLOW)
    done = _move(task, source, position, target, None, min(count, MAX_RW_COUNT))
    if position is not None:
        task.mm.write_s64(offset, position + done)
    return done


@syscall("copy_file_range")
def copy_file_range(
    task: Task,
    fd_in: Fd,
    off_in: UserAddr,
    fd_out: Fd,
    off_out: UserAddr,
    length: Size,
    flags: UInt,
) -> Result:
    """Copy a part of one regular file to another. copy_file_range(2)

    Errors: EBADF; EFAULT; EINVAL flags, no regular files, or overlapping ranges of one file;
    EISDIR; EBADF O_APPEND; EOVERFLOW; EFBIG; EXDEV from files that are made up as they are read.
    """
    source = task.files.readable(fd_in)
    target = task.files.writable(fd_out)
    position_in = _offset(task, off_in, source)
    position_out = _offset(task, off_out, target)
    if flags:
        raise LinuxError(EINVAL)
    if S_IFDIR in (source.inode.mode & S_IFMT, target.inode.mode & S_IFMT):
        raise LinuxError(EISDIR)
    for file in (source, target):
        if file.inode.mode & S_IFMT != S_IFREG:
            raise LinuxError(EINVAL)
    if target.flags & os.O_APPEND:
        raise LinuxError(EBADF)
    if not source.inode.stat().size and not source.inode.fs.cacheable and source.inode.fs.dev:
        if not _has_content(source):
            raise LinuxError(EXDEV)
    length = min(length, MAX_RW_COUNT)
    if position_in + length > LOFF_MAX or position_out + length > LOFF_MAX:
        raise LinuxError(EOVERFLOW)
    size = source.inode.stat().size
    length = max(0, min(length, size - position_in))
    if source.inode is target.inode and abs(position_in - position_out) < length:
        raise LinuxError(EINVAL)
    if position_out >= task.group.limits.fsize and length:
        raise LinuxError(EFBIG)
    done = _move(task, source, position_in, target, position_out, length)
    _store_offset(task, off_in, source, position_in + done)
    _store_offset(task, off_out, target, position_out + done)
    return done


def _has_content(file: FileDescription) -> bool:
    """A file with a real size: not one of proc or sysfs, which all say 0."""
    from pysandbox_core.fs.regular_file import RegularFile

    return isinstance(file, RegularFile)


def _offset(task: Task, addr: int, file: FileDescription) -> int:
    if not addr:
        return file.seek(task, 0, os.SEEK_CUR) if file.seekable else 0
    offset = task.mm.read_s64(addr)
    if offset < 0:
        raise LinuxError(EINVAL)
    return offset


def _store_offset(task: Task, addr: int, file: FileDescription, offset: int) -> None:
    if addr:
        task.mm.write_s64(addr, offset)
    else:
        file.seek(task, offset, os.SEEK_SET)


@syscall("splice")
def splice(
    task: Task,
    fd_in: Fd,
    off_in: UserAddr,
    fd_out: Fd,
    off_out: UserAddr,
    length: Size,
    flags: UInt,
) -> Result:
    """Move data between a pipe and another file, or two pipes. splice(2)

    Errors: EINVAL unknown flag, no pipe, both ends of one pipe, O_APPEND; EBADF; ESPIPE an offset
    for a pipe or for what can't seek; EAGAIN; EINTR.
    """
    if not length:
        return 0
    if flags & ~SPLICE_F_ALL:
        raise LinuxError(EINVAL)
    source = task.files.get(fd_in)
    target = task.files.get(fd_out)
    if not source.mode & 1 or not target.mode & 2:
        raise LinuxError(EBADF)
    from_pipe, to_pipe = isinstance(source, PipeFile), isinstance(target, PipeFile)
    if (from_pipe and off_in) or (to_pipe and off_out):
        raise LinuxError(ESPIPE)
    if isinstance(source, PipeFile) and isinstance(target, PipeFile):
        if source.pipe is target.pipe:
            raise LinuxError(EINVAL)
    elif not from_pipe and not to_pipe:
        raise LinuxError(EINVAL)
    position_in = _seek_offset(task, off_in, source)
    position_out = _seek_offset(task, off_out, target)
    if to_pipe is False and target.flags & os.O_APPEND:
        raise LinuxError(EINVAL)
    nonblock = bool(flags & SPLICE_F_NONBLOCK)
    done = _pipe_move(task, source, position_in, target, position_out, length, nonblock)
    if position_in is not None:
        task.mm.write_s64(off_in, position_in + done)
    if position_out is not None:
        task.mm.write_s64(off_out, position_out + done)
    return done


def _seek_offset(task: Task, addr: int, file: FileDescription) -> int | None:
    if not addr:
        return None
    if not file.seekable:
        raise LinuxError(EINVAL)
    offset = task.mm.read_s64(addr)
    if offset < 0:
        raise LinuxError(EINVAL)
    return offset


@syscall("tee")
def tee(task: Task, fd_in: Fd, fd_out: Fd, length: Size, flags: UInt) -> Result:
    """Copy data from one pipe to another and leave it in the first. tee(2)

    Errors: EINVAL unknown flag, no pipe, the same pipe; EBADF; EAGAIN; EINTR.
    """
    if flags & ~SPLICE_F_ALL:
        raise LinuxError(EINVAL)
    if not length:
        return 0
    source = task.files.get(fd_in)
    target = task.files.get(fd_out)
    if not source.mode & 1 or not target.mode & 2:
        raise LinuxError(EBADF)
    if not isinstance(source, PipeFile) or not isinstance(target, PipeFile):
        raise LinuxError(EINVAL)
    if source.pipe is target.pipe:
        raise LinuxError(EINVAL)
    nonblock = bool(flags & SPLICE_F_NONBLOCK)
    if not _await_data(task, source, nonblock):
        return 0
    data = source.pipe.peek(min(length, CHUNK))
    return _without_waiting(target, nonblock, lambda: target.write(task, BytesSource(data)))


@syscall("vmsplice")
def vmsplice(task: Task, fd: Fd, iov: IovecPtr, nr_segs: ULong, flags: UInt) -> Result:
    """Move user memory into a pipe, or a pipe's data out to it. The data is copied. vmsplice(2)

    Errors: EINVAL unknown flag; EBADF no pipe; EFAULT; EAGAIN; EINTR.
    """
    if flags & ~SPLICE_F_ALL:
        raise LinuxError(EINVAL)
    file = task.files.get(fd)
    if not isinstance(file, PipeFile) or not file.mode:
        raise LinuxError(EBADF)
    nonblock = bool(flags & SPLICE_F_NONBLOCK)
    if file.mode & 2:
        source = task.mm.source_iov(iov, nr_segs)
        if not source.remaining:
            return 0
        return _without_waiting(file, nonblock, lambda: file.write(task, source))
    sink = task.mm.sink_iov(iov, nr_segs)
    if not sink.remaining:
        return 0
    return _without_waiting(file, nonblock, lambda: file.read(task, sink))


def _without_waiting(file: FileDescription, nonblock: bool, call: Callable[[], int]) -> int:
    """`call` as if O_NONBLOCK were set on `file`, if `nonblock`. Nothing else runs meanwhile: it
    does not wait."""
    if not nonblock or file.flags & os.O_NONBLOCK:
        return call()
    file.flags |= os.O_NONBLOCK
    try:
        return call()
    finally:
        file.flags &= ~os.O_NONBLOCK


def _await_data(task: Task, source: PipeFile, nonblock: bool) -> bool:
    """Wait until `source` has data: False if there will be none."""
    while not source.pipe.used:
        if not source.pipe.writers:
            return False
        if nonblock or source.flags & os.O_NONBLOCK:
            raise LinuxError(EAGAIN)
        task.block(source.queue)
    return True


def _pipe_move(
    task: Task,
    source: FileDescription,
    position_in: int | None,
    target: FileDescription,
    position_out: int | None,
    length: int,
    nonblock: bool,
) -> int:
    """Move at most `length` bytes, waiting for the first ones at most: what a pipe holds at
    once."""
    if isinstance(source, PipeFile) and not _await_data(task, source, nonblock):
        return 0
    if isinstance(target, PipeFile):
        length = min(length, _await_room(task, target, nonblock))
    sink = BytesSink(min(length, CHUNK))
    source_nonblock = nonblock and isinstance(source, PipeFile)
    count = _without_waiting(source, source_nonblock, lambda: source.read(task, sink, position_in))
    if not count:
        return 0
    return target.write(task, BytesSource(sink.data), position_out)


def _await_room(task: Task, target: PipeFile, nonblock: bool) -> int:
    """Wait until `target` takes data, and say how much it takes without waiting; with nobody left
    to read, any number: the write will say EPIPE."""
    pipe = target.pipe
    while pipe.readers and pipe.used >= pipe.capacity:
        if nonblock or target.flags & os.O_NONBLOCK:
            raise LinuxError(EAGAIN)
        task.block(target.queue)
    return pipe.capacity - pipe.used if pipe.readers else 1


def _move(
    task: Task,
    source: FileDescription,
    position_in: int | None,
    target: FileDescription,
    position_out: int | None,
    length: int,
) -> int:
    """Copy until `length`, the end, or something that ends a transfer early; an error counts only
    if nothing was moved. What was read and could not be written is read again."""
    done = 0
    turn = Turn(task)
    rewinds = position_in is None and source.seekable
    while done < length:
        start = source.seek(task, 0, os.SEEK_CUR) if rewinds else (position_in or 0) + done
        sink = BytesSink(min(length - done, CHUNK))
        try:
            count = source.read(task, sink, None if position_in is None else start)
            if not count:
                break
            out = None if position_out is None else position_out + done
            written = target.write(task, BytesSource(sink.data), out)
        except LinuxError:
            if rewinds:
                source.seek(task, start, os.SEEK_SET)
            if done:
                break
            raise
        done += written
        if written < count:
            if rewinds:
                source.seek(task, start + written, os.SEEK_SET)
            break
        if done < length and not turn.goes_on():
            break
    return done
