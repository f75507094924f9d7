"""ioctl(2): what every file has; the rest is the file's own."""

from __future__ import annotations

import os
from errno import EINVAL, EISDIR, ENOTSUP, ENOTTY
from typing import TYPE_CHECKING

from pysandbox_core.abi.ioctls import (
    FICLONE,
    FICLONERANGE,
    FIDEDUPERANGE,
    FIGETBSZ,
    FIOASYNC,
    FIOCLEX,
    FIONBIO,
    FIONCLEX,
    FIONREAD,
    FIOQSIZE,
)
from pysandbox_core.declare import Fd, Hex, Result, UInt, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from pysandbox_core.fs.file_description import FileDescription

S_IFMT = 0o170000
S_IFREG = 0o100000
S_IFDIR = 0o040000
S_IFLNK = 0o120000
INT_MAX = (1 << 31) - 1


@syscall("ioctl", note="no FIEMAP, no reflinks, no file flags (FS_IOC_*)")
def ioctl(task: Task, fd: Fd, request: UInt, argument: Hex) -> Result:
    """Whatever `request` means to the file. ioctl(2), ioctl_list(2)

    Errors: EBADF, also for O_PATH; ENOTTY the file does not know the request; EFAULT, EINVAL.
    """
    file = task.files.get(fd)
    if request == FIOCLEX:
        task.files.cloexec.add(fd)
    elif request == FIONCLEX:
        task.files.cloexec.discard(fd)
    elif request == FIONBIO:
        _set_flag(task, file, argument, os.O_NONBLOCK)
    elif request == FIOASYNC:
        _set_flag(task, file, argument, os.O_ASYNC)
    else:
        kind = file.inode.mode & S_IFMT
        if request == FIOQSIZE:
            if kind not in (S_IFREG, S_IFDIR, S_IFLNK):
                raise LinuxError(ENOTTY)
            task.mm.write_u64(argument, file.stat().size)
        elif request == FIGETBSZ:
            block_size = file.inode.stat().blksize
            if not block_size:
                raise LinuxError(EINVAL)
            task.mm.write_u32(argument, block_size)
        elif kind == S_IFREG:
            return _regular(task, file, request, argument)
        elif kind == S_IFDIR and request in (FICLONE, FICLONERANGE, FIDEDUPERANGE):
            raise LinuxError(EISDIR)
        else:
            return file.ioctl(task, request, argument)
    return 0


def _regular(task: Task, file: FileDescription, request: int, argument: int) -> int:
    if request == FIONREAD:
        left = file.stat().size - file.seek(task, 0, os.SEEK_CUR)
        task.mm.write_u32(argument, left & 0xFFFFFFFF)
        return 0
    if request in (FICLONE, FICLONERANGE, FIDEDUPERANGE):
        raise LinuxError(ENOTSUP)
    return file.ioctl(task, request, argument)


def _set_flag(task: Task, file: FileDescription, argument: int, flag: int) -> None:
    on = task.mm.read_s32(argument)
    file.set_status_flags(task, file.flags | flag if on else file.flags & ~flag)
