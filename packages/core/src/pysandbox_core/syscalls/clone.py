"""Making threads and processes: fork(2), vfork(2), clone(2), clone3(2), and namespaces they might
have.

Linux: kernel/fork.c.
"""

from __future__ import annotations

from errno import E2BIG, EBADF, EINVAL, EPERM
from struct import Struct
from typing import TYPE_CHECKING

from pysandbox_core import task_clone
from pysandbox_core.abi.sched import (
    CLONE_CLEAR_SIGHAND,
    CLONE_DETACHED,
    CLONE_FILES,
    CLONE_FS,
    CLONE_INTO_CGROUP,
    CLONE_LEGACY_FLAGS,
    CLONE_NAMESPACES,
    CLONE_NEWTIME,
    CLONE_PARENT,
    CLONE_PARENT_SETTID,
    CLONE_PIDFD,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
    CSIGNAL,
)
from pysandbox_core.abi.signal import NSIG, SIGCHLD
from pysandbox_core.declare import (
    CloneFlags,
    Fd,
    Int,
    Result,
    Size,
    UserAddr,
    syscall,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.task_clone import CloneArgs

if TYPE_CHECKING:
    from pysandbox_core.task import Task

_CLONE_ARGS = Struct("<11Q")
"""flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size,
cgroup: struct clone_args."""
_CLONE_ARGS_SIZE_VER0 = 64
_PAGE_SIZE = 4096
_MAX_PID_NS_LEVEL = 32
_TASK_SIZE_MAX = (1 << 47) - 4096
_NO_NAMESPACES = "every flag but those for new namespaces, which is EPERM"


@syscall("fork")
def fork(task: Task) -> Result:
    """Make a copy of the process; returns the child's pid. EAGAIN, ENOMEM. fork(2)"""
    return task_clone.clone(task, CloneArgs(exit_signal=SIGCHLD)).tid


@syscall("vfork")
def vfork(task: Task) -> Result:
    """As fork, but with the parent's memory, and the parent waits until the child has called execve
    or ended. vfork(2)"""
    return _run(task, CloneArgs(CLONE_VFORK | CLONE_VM, exit_signal=SIGCHLD))


@syscall("clone", note=_NO_NAMESPACES)
def clone(
    task: Task,
    flags: CloneFlags,
    stack: UserAddr,
    parent_tid: UserAddr,
    child_tid: UserAddr,
    tls: UserAddr,
) -> Result:
    """Make a thread or a process that shares what `flags` say; returns its tid. clone(2)

    Errors: EINVAL flags that exclude each other; those of task_clone.clone.
    """
    if flags & CLONE_PIDFD and flags & CLONE_PARENT_SETTID:
        raise LinuxError(EINVAL)  # both would be stored in parent_tid
    args = CloneArgs(
        flags & CLONE_LEGACY_FLAGS & ~CSIGNAL,
        exit_signal=flags & CSIGNAL,
        stack=stack,
        tls=tls,
        parent_tid=parent_tid,
        child_tid=child_tid,
        pidfd=parent_tid,
    )
    return _run(task, args)


@syscall("clone3", note=_NO_NAMESPACES + "; CLONE_INTO_CGROUP is EBADF")
def clone3(task: Task, uargs: UserAddr, size: Size) -> Result:
    """As clone, from a structure. clone(2)

    Errors, first match wins: E2BIG a size beyond a page, or a field unknown here that is not 0;
    EINVAL size, set_tid, exit signal, flags, stack; EFAULT; then as clone.
    """
    return _run(task, _read_clone_args(task, uargs, size))


def _run(task: Task, args: CloneArgs) -> int:
    child = task_clone.clone(task, args)
    tid = child.tid
    if args.flags & CLONE_VFORK:
        task_clone.wait_for_vfork(task)
    return tid


def _read_clone_args(task: Task, addr: int, size: int) -> CloneArgs:
    """Linux: copy_clone_args_from_user and clone3_args_valid."""
    if size > _PAGE_SIZE:
        raise LinuxError(E2BIG)
    if size < _CLONE_ARGS_SIZE_VER0:
        raise LinuxError(EINVAL)
    data = task.mm.read(addr, size)
    if any(data[_CLONE_ARGS.size :]):
        raise LinuxError(E2BIG)
    (
        flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        set_tid_size, _cgroup,
    ) = _CLONE_ARGS.unpack(data[: _CLONE_ARGS.size].ljust(_CLONE_ARGS.size, b"\0"))  # fmt: skip
    if set_tid_size > _MAX_PID_NS_LEVEL or bool(set_tid) != bool(set_tid_size):
        raise LinuxError(EINVAL)
    if exit_signal > NSIG:
        raise LinuxError(EINVAL)
    tid = 0
    if set_tid:
        if set_tid_size > 1:
            raise LinuxError(EINVAL)  # there is one pid namespace
        tid = task.mm.read_s32(set_tid)
        if tid <= 0:
            raise LinuxError(EINVAL)
    if flags & ~(CLONE_LEGACY_FLAGS | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP):
        raise LinuxError(EINVAL)
    if flags & (CLONE_DETACHED | CSIGNAL & ~CLONE_NEWTIME):
        raise LinuxError(EINVAL)
    both = CLONE_SIGHAND | CLONE_CLEAR_SIGHAND
    if flags & both == both or (flags & (CLONE_THREAD | CLONE_PARENT) and exit_signal):
        raise LinuxError(EINVAL)
    if bool(stack) != bool(stack_size) or stack + stack_size > _TASK_SIZE_MAX:
        raise LinuxError(EINVAL)
    if flags & CLONE_INTO_CGROUP:
        raise LinuxError(EBADF)  # there are no control groups to have a descriptor of
    if flags & CLONE_NEWTIME:
        raise LinuxError(EPERM)
    return CloneArgs(
        flags,
        exit_signal=exit_signal,
        stack=stack + stack_size,
        tls=tls,
        parent_tid=parent_tid,
        child_tid=child_tid,
        pidfd=pidfd,
        set_tid=tid,
    )


@syscall("unshare", note="CLONE_FS, CLONE_FILES and CLONE_SYSVSEM; new namespaces are EPERM")
def unshare(task: Task, flags: CloneFlags) -> Result:
    """Stop sharing the working directory or the descriptors with other tasks. unshare(2)

    Errors, first match wins: EINVAL unknown flags, or CLONE_VM, CLONE_SIGHAND or CLONE_THREAD with
    other threads there; EPERM a new namespace.
    """
    sharing = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD
    own = CLONE_FS | CLONE_FILES | CLONE_SYSVSEM
    if flags & ~(sharing | own | CLONE_NAMESPACES | CLONE_NEWTIME):
        raise LinuxError(EINVAL)
    if flags & sharing and len(task.group.tasks) > 1:
        raise LinuxError(EINVAL)
    if flags & (CLONE_SIGHAND | CLONE_VM) and task.mm.users > 1:
        raise LinuxError(EINVAL)
    if flags & (CLONE_NAMESPACES | CLONE_NEWTIME):
        raise LinuxError(EPERM)
    if flags & CLONE_FS and task.fs.users > 1:
        shared_fs = task.fs
        task.fs = shared_fs.copy()
        shared_fs.release()
    if flags & CLONE_FILES:
        unshare_files(task)
    return 0


def unshare_files(task: Task) -> None:
    """Give the task descriptors of its own. unshare(2), execve(2), close_range(2)"""
    shared = task.files
    if shared.users > 1:
        task.files = shared.copy()
        shared.release(task)


@syscall("setns", note="there is one namespace of each kind")
def setns(task: Task, fd: Fd, nstype: Int) -> Result:
    """Join a namespace. EBADF; EINVAL no namespace's descriptor; EPERM. setns(2)"""
    task.files.get(fd)
    raise LinuxError(EINVAL)
