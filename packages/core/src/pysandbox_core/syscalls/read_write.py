"""read(2), write(2) and their vector and positioned forms, lseek(2)."""

from __future__ import annotations

import os
from errno import EAGAIN, EBADF, EINVAL, ENOTSUP, EOVERFLOW, ESPIPE
from typing import TYPE_CHECKING

from pysandbox_core.declare import (
    Fd,
    Int,
    IovecPtr,
    Loff,
    Result,
    Size,
    UInt,
    ULong,
    UserAddr,
    UserBuffer,
    syscall,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_description import FMODE_READ, FMODE_WRITE
from pysandbox_core.fs.regular_file import RegularFile, wait_until_free
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from pysandbox_core.fs.file_description import FileDescription

# preadv2(2), <linux/fs.h>
RWF_HIPRI = 0x01
RWF_DSYNC = 0x02
RWF_SYNC = 0x04
RWF_NOWAIT = 0x08
RWF_APPEND = 0x10
RWF_NOAPPEND = 0x20
RWF_SUPPORTED = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND | RWF_NOAPPEND

LOFF_MAX = (1 << 63) - 1


@syscall("read")
def read(task: Task, fd: Fd, buf: UserAddr, count: Size) -> Result:
    """Read up to `count` bytes at the file position, which moves. read(2)

    Errors: EBADF, EFAULT, EISDIR, EAGAIN, EINTR.
    """
    return task.files.readable(fd).read(task, task.mm.sink(buf, count))


@syscall("write")
def write(task: Task, fd: Fd, buf: UserBuffer, count: Size) -> Result:
    """Write up to `count` bytes at the file position, which moves. write(2)

    Errors: EBADF, EFAULT, EFBIG, ENOSPC, EPIPE, EAGAIN, EINTR.
    """
    return task.files.writable(fd).write(task, task.mm.source(buf, count))


@syscall("pread64")
def pread64(task: Task, fd: Fd, buf: UserAddr, count: Size, offset: Loff) -> Result:
    """Read up to `count` bytes at byte `offset`; the position does not move. pread(2)

    Errors, first match wins: EINVAL offset < 0; EBADF not open; ESPIPE not seekable; EBADF not
    readable; EFAULT.
    """
    if offset < 0:
        raise LinuxError(EINVAL)  # before the fd is looked up, as Linux does
    file = positioned(task.files.get(fd), FMODE_READ)
    return file.read(task, task.mm.sink(buf, count), offset)


@syscall("pwrite64")
def pwrite64(task: Task, fd: Fd, buf: UserBuffer, count: Size, offset: Loff) -> Result:
    """Write at byte `offset`; the position does not move. With O_APPEND at the end all the same, as
    Linux does. pwrite(2)"""
    if offset < 0:
        raise LinuxError(EINVAL)
    file = positioned(task.files.get(fd), FMODE_WRITE)
    return file.write(task, task.mm.source(buf, count), offset)


@syscall("readv")
def readv(task: Task, fd: Fd, iov: IovecPtr, iovcnt: UInt) -> Result:
    """read(2) into several buffers. EINVAL more than IOV_MAX of them, or too long in all.
    readv(2)"""
    return task.files.readable(fd).read(task, task.mm.sink_iov(iov, iovcnt))


@syscall("writev")
def writev(task: Task, fd: Fd, iov: IovecPtr, iovcnt: UInt) -> Result:
    """write(2) from several buffers. writev(2)"""
    return task.files.writable(fd).write(task, task.mm.source_iov(iov, iovcnt))


@syscall("preadv")
def preadv(task: Task, fd: Fd, iov: IovecPtr, iovcnt: UInt, pos_l: ULong, pos_h: ULong) -> Result:
    """pread(2) into several buffers. The high word has no meaning on x86-64. preadv(2)"""
    return _read_vector(task, fd, iov, iovcnt, _position(pos_l), 0)


@syscall("pwritev")
def pwritev(task: Task, fd: Fd, iov: IovecPtr, iovcnt: UInt, pos_l: ULong, pos_h: ULong) -> Result:
    """pwrite(2) from several buffers. pwritev(2)"""
    return _write_vector(task, fd, iov, iovcnt, _position(pos_l), 0)


@syscall("preadv2")
def preadv2(
    task: Task, fd: Fd, iov: IovecPtr, iovcnt: UInt, pos_l: ULong, pos_h: ULong, flags: Int
) -> Result:
    """preadv(2) with RWF_* flags; position -1 is the file position. preadv2(2)"""
    return _read_vector(task, fd, iov, iovcnt, _position_or_none(pos_l), flags)


@syscall("pwritev2")
def pwritev2(
    task: Task, fd: Fd, iov: IovecPtr, iovcnt: UInt, pos_l: ULong, pos_h: ULong, flags: Int
) -> Result:
    """pwritev(2) with RWF_* flags; position -1 is the file position. pwritev2(2)"""
    return _write_vector(task, fd, iov, iovcnt, _position_or_none(pos_l), flags)


@syscall("lseek")
def lseek(task: Task, fd: Fd, offset: Loff, whence: UInt) -> Result:
    """Move the file position and return it. lseek(2)

    Errors: EBADF; EINVAL unknown `whence`, or before the start; ESPIPE; ENXIO for SEEK_DATA and
    SEEK_HOLE beyond the end; EOVERFLOW.
    """
    file = task.files.get(fd)
    if whence > os.SEEK_HOLE:
        raise LinuxError(EINVAL)
    if not file.seekable:
        raise LinuxError(ESPIPE)
    if whence != os.SEEK_SET and not -LOFF_MAX <= offset + file.offset <= LOFF_MAX:
        raise LinuxError(EOVERFLOW if offset > 0 else EINVAL)
    return file.seek(task, offset, whence)


def positioned(file: FileDescription, mode: int) -> FileDescription:
    """ESPIPE unless a position means something for `file`; then EBADF unless it is open for
    `mode`."""
    if not file.seekable:
        raise LinuxError(ESPIPE)
    if not file.mode & mode:
        raise LinuxError(EBADF)
    return file


def _position(pos_l: int) -> int:
    if pos_l > LOFF_MAX:
        raise LinuxError(EINVAL)
    return pos_l


def _position_or_none(pos_l: int) -> int | None:
    return None if pos_l == (1 << 64) - 1 else _position(pos_l)


def _read_vector(task: Task, fd: int, iov: int, iovcnt: int, offset: int | None, flags: int) -> int:
    if offset is None:
        file = task.files.readable(fd)
    else:
        file = positioned(task.files.get(fd), FMODE_READ)
    sink = task.mm.sink_iov(iov, iovcnt)
    _check_flags(flags, reading=True)
    if flags & RWF_NOWAIT and file.poll() & 0x40 == 0:
        raise LinuxError(EAGAIN)
    return file.read(task, sink, offset)


def _write_vector(
    task: Task, fd: int, iov: int, iovcnt: int, offset: int | None, flags: int
) -> int:
    if offset is None:
        file = task.files.writable(fd)
    else:
        file = positioned(task.files.get(fd), FMODE_WRITE)
    source = task.mm.source_iov(iov, iovcnt)
    _check_flags(flags, reading=False)
    if not flags & (RWF_APPEND | RWF_NOAPPEND) or not isinstance(file, RegularFile):
        return file.write(task, source, offset)
    # Whoever writes next waits until this is done, and sees the flag as it was.
    wait_until_free(task, file.inode, file)
    saved = file.flags & os.O_APPEND
    file.flags = file.flags & ~os.O_APPEND | (os.O_APPEND if flags & RWF_APPEND else 0)
    try:
        return file.write(task, source, offset)
    finally:
        file.flags = file.flags & ~os.O_APPEND | saved


def _check_flags(flags: int, *, reading: bool) -> None:
    if flags & ~RWF_SUPPORTED:
        raise LinuxError(ENOTSUP)
    if reading and flags & RWF_APPEND:
        raise LinuxError(ENOTSUP)
    if flags & RWF_APPEND and flags & RWF_NOAPPEND:
        raise LinuxError(EINVAL)
