"""fcntl(2)."""

from __future__ import annotations

import fcntl as host
import os
from errno import EBADF, EBUSY, EINVAL, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core.abi import fcntl as abi
from pysandbox_core.declare import Fd, Hex, Result, UInt, syscall
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs import record_locks
from pysandbox_core.fs.permissions import is_owner
from pysandbox_core.fs.tmpfs import TmpFile
from pysandbox_core.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.fs.file_description import FileDescription

FD_CLOEXEC = 1
NSIG = 64
F_OWNER_EX = Struct("<ii")
"""struct f_owner_ex: type, pid."""
F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP = range(3)
ALLOWED_ON_O_PATH = (
    host.F_DUPFD, host.F_DUPFD_CLOEXEC, host.F_GETFD, host.F_SETFD, host.F_GETFL,
    abi.F_DUPFD_QUERY,
)  # fmt: skip


@syscall("fcntl", note="no leases; F_NOTIFY is EINVAL; read/write hints are taken and ignored")
def fcntl(task: Task, fd: Fd, command: UInt, argument: Hex) -> Result:
    """Do `command` to a descriptor or to its open file. fcntl(2)

    Errors: EBADF, also most commands on O_PATH; EINVAL unknown command; others by command.
    """
    file = task.files.get_any(fd)
    if file.flags & os.O_PATH and command not in ALLOWED_ON_O_PATH:
        raise LinuxError(EBADF)
    command_handler = _COMMANDS.get(command)
    if command_handler is None:
        raise LinuxError(EINVAL)
    return command_handler(task, fd, file, argument)


def _dupfd(task: Task, fd: int, file: FileDescription, argument: int, cloexec: bool = False) -> int:
    minimum = argument & 0xFFFFFFFF
    if minimum >= task.group.limits.nofile:
        raise LinuxError(EINVAL)
    return task.files.install(task, file.incref(), cloexec=cloexec, minimum=minimum)


def _dupfd_cloexec(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    return _dupfd(task, fd, file, argument, True)


def _getfd(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    return FD_CLOEXEC if fd in task.files.cloexec else 0


def _setfd(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    if argument & FD_CLOEXEC:
        task.files.cloexec.add(fd)
    else:
        task.files.cloexec.discard(fd)
    return 0


def _getfl(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    return file.flags


def _setfl(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    flags = argument & 0xFFFFFFFF
    if flags & os.O_NOATIME and not file.flags & os.O_NOATIME:
        if not is_owner(task.creds, file.inode):
            raise LinuxError(EPERM)
    file.set_status_flags(task, flags)
    return 0


def _dupfd_query(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    other = argument & 0xFFFFFFFF
    return int(task.files.get_any(other if other < 1 << 31 else -1) is file)


# Seals. memfd_create(2)


def _sealable(file: FileDescription) -> TmpFile:
    inode = file.inode
    if not isinstance(inode, TmpFile) or inode.fs.type_name != b"tmpfs":
        raise LinuxError(EINVAL)
    return inode


def _get_seals(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    return _sealable(file).seals


def _add_seals(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    seals = argument & 0xFFFFFFFF
    if not file.mode & 2:
        raise LinuxError(EPERM)
    known = (
        abi.F_SEAL_SEAL | abi.F_SEAL_SHRINK | abi.F_SEAL_GROW | abi.F_SEAL_WRITE
        | abi.F_SEAL_FUTURE_WRITE | abi.F_SEAL_EXEC
    )  # fmt: skip
    if seals & ~known:
        raise LinuxError(EINVAL)
    inode = _sealable(file)
    if inode.seals & abi.F_SEAL_SEAL:
        raise LinuxError(EPERM)
    if seals & abi.F_SEAL_WRITE and not inode.seals & abi.F_SEAL_WRITE:
        if inode.pages.mapped_writable:
            raise LinuxError(EBUSY)
    if seals & abi.F_SEAL_EXEC and inode.mode & 0o111:
        seals |= abi.F_SEAL_SHRINK | abi.F_SEAL_GROW | abi.F_SEAL_WRITE | abi.F_SEAL_FUTURE_WRITE
    inode.seals |= seals
    return 0


# Pipes.


def _get_pipe_size(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    from pysandbox_core.fs.pipe import PipeFile

    if not isinstance(file, PipeFile):
        raise LinuxError(EBADF)
    return file.pipe.capacity


def _set_pipe_size(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    from pysandbox_core.fs.pipe import PipeFile

    if not isinstance(file, PipeFile):
        raise LinuxError(EBADF)
    return file.pipe.resize(task, argument & 0xFFFFFFFF)


# Who gets SIGIO. The owner is kept and told; O_ASYNC sends nothing but for sockets and terminals.


def _set_owner(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    owner = (argument & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
    if owner == -(1 << 31):
        raise LinuxError(EINVAL)
    kind = F_OWNER_PGRP if owner < 0 else F_OWNER_PID
    return _remember_owner(task, file, kind, abs(owner))


def _remember_owner(task: Task, file: FileDescription, kind: int, number: int) -> int:
    from errno import ESRCH

    kernel = task.kernel
    if number:
        if kind == F_OWNER_TID:
            known = number in kernel.tasks
        elif kind == F_OWNER_PID:
            known = number in kernel.groups
        else:
            known = any(group.process_group.pgid == number for group in kernel.groups.values())
        if not known:
            raise LinuxError(ESRCH)
    file.owner = (kind, number)
    return 0


def _get_owner(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    kind, number = file.owner
    # a process group is a negative number, which the program takes from the register as it is
    return number if kind != F_OWNER_PGRP else -number & 0xFFFFFFFFFFFFFFFF


def _set_owner_ex(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    kind, number = task.mm.unpack(argument, F_OWNER_EX)
    if kind not in (F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP) or number < 0:
        raise LinuxError(EINVAL)
    return _remember_owner(task, file, kind, number)


def _get_owner_ex(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    task.mm.pack(argument, F_OWNER_EX, *file.owner)
    return 0


def _get_signal(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    return file.owner_signal


def _set_signal(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    if argument > NSIG:
        raise LinuxError(EINVAL)
    file.owner_signal = argument
    return 0


# Leases and hints.


def _get_lease(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    return host.F_UNLCK


def _rw_hint(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    task.mm.write_u64(argument, 0)
    return 0


def _set_rw_hint(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    if task.mm.read_u64(argument) > 5:
        raise LinuxError(EINVAL)
    return 0


def _created_query(task: Task, fd: int, file: FileDescription, argument: int) -> int:
    return 0


_COMMANDS: dict[int, Callable[[Task, int, FileDescription, int], int]] = {
    host.F_DUPFD: _dupfd,
    host.F_DUPFD_CLOEXEC: _dupfd_cloexec,
    host.F_GETFD: _getfd,
    host.F_SETFD: _setfd,
    host.F_GETFL: _getfl,
    host.F_SETFL: _setfl,
    host.F_GETLK: record_locks.get_posix,
    host.F_SETLK: record_locks.set_posix,
    host.F_SETLKW: record_locks.wait_posix,
    abi.F_OFD_GETLK: record_locks.get_ofd,
    abi.F_OFD_SETLK: record_locks.set_ofd,
    abi.F_OFD_SETLKW: record_locks.wait_ofd,
    host.F_SETOWN: _set_owner,
    host.F_GETOWN: _get_owner,
    abi.F_SETOWN_EX: _set_owner_ex,
    abi.F_GETOWN_EX: _get_owner_ex,
    abi.F_SETSIG: _set_signal,
    abi.F_GETSIG: _get_signal,
    host.F_GETLEASE: _get_lease,
    host.F_ADD_SEALS: _add_seals,
    host.F_GET_SEALS: _get_seals,
    host.F_GETPIPE_SZ: _get_pipe_size,
    host.F_SETPIPE_SZ: _set_pipe_size,
    abi.F_DUPFD_QUERY: _dupfd_query,
    abi.F_CREATED_QUERY: _created_query,
    abi.F_GET_RW_HINT: _rw_hint,
    abi.F_SET_RW_HINT: _set_rw_hint,
    abi.F_GET_FILE_RW_HINT: _rw_hint,
    abi.F_SET_FILE_RW_HINT: _set_rw_hint,
}
