"""pipe(2), pipe2(2)."""

from __future__ import annotations

import os
from errno import EINVAL
from struct import Struct

from pysandbox_core.declare import OpenFlags, Result, UserAddr, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.pipe import open_pipe
from pysandbox_core.task import Task

TWO_FDS = Struct("<ii")


@syscall("pipe")
def pipe(task: Task, pipefd: UserAddr) -> Result:
    """Make a pipe; its read end and write end go to `pipefd`. pipe(2)"""
    return make_pipe(task, pipefd, 0)


@syscall("pipe2")
def pipe2(task: Task, pipefd: UserAddr, flags: OpenFlags) -> Result:
    """pipe(2) with O_CLOEXEC, O_NONBLOCK and O_DIRECT.

    Errors: EINVAL any other flag; EMFILE; EFAULT, and nothing is left open.
    """
    if flags & ~(os.O_CLOEXEC | os.O_NONBLOCK | os.O_DIRECT):
        raise LinuxError(EINVAL)
    return make_pipe(task, pipefd, flags)


def make_pipe(task: Task, pipefd: int, flags: int) -> int:
    """Install both ends, or neither."""
    cloexec = bool(flags & os.O_CLOEXEC)
    files = task.files
    creds = task.creds
    kept = flags & (os.O_NONBLOCK | os.O_DIRECT)
    reader, writer = open_pipe(task.kernel, kept, creds.fsuid, creds.fsgid)
    try:
        read_fd = files.install(task, reader, cloexec=cloexec)
    except LinuxError:
        writer.decref()
        raise
    try:
        write_fd = files.install(task, writer, cloexec=cloexec)
    except LinuxError:
        files.close(task, read_fd)
        raise
    try:
        task.mm.write(pipefd, TWO_FDS.pack(read_fd, write_fd))
    except LinuxError:
        files.close(task, read_fd)
        files.close(task, write_fd)
        raise
    return 0
