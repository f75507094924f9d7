"""How tasks come to be: fork, vfork, clone, clone3, and the kernel's own first processes. clone(2)

Interface: `clone` makes a thread or a process from a running task and puts it on the loop; the
caller waits for a vfork child (`wait_for_vfork`). `new_init` makes process 1, `new_process` a
process that has nobody to be copied from; both are for the kernel.

Linux: kernel/fork.c, kernel/pid.c.
"""

from __future__ import annotations

from contextlib import suppress
from errno import EAGAIN, EEXIST, EINVAL, ENOMEM, EPERM
from time import monotonic_ns
from typing import TYPE_CHECKING

from pysandbox_platform import PlatformError
from pysandbox_platform.registers_amd64 import FS_BASE, RAX, RSP

from pysandbox_core import accounting, constant_results, cpu_limit
from pysandbox_core.abi.sched import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_CLEAR_SIGHAND,
    CLONE_DETACHED,
    CLONE_FILES,
    CLONE_FS,
    CLONE_NAMESPACES,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_PARENT,
    CLONE_PARENT_SETTID,
    CLONE_PIDFD,
    CLONE_SETTLS,
    CLONE_SIGHAND,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
)
from pysandbox_core.abi.signal import SIGCHLD
from pysandbox_core.credentials import CAP_SYS_ADMIN, CAP_SYS_RESOURCE, Credentials
from pysandbox_core.errors import ERESTARTNOINTR, Interrupted, LinuxError
from pysandbox_core.kernel_memory import MAPPING, TASK
from pysandbox_core.limits import ResourceLimits
from pysandbox_core.sessions import new_session
from pysandbox_core.signals import NO_ALTSTACK, PendingSignals, SignalHandlers
from pysandbox_core.task import WORK_EXIT, Task, ThreadGroup
from pysandbox_core.waiting import WaitQueue

if TYPE_CHECKING:
    from pysandbox_platform import Context

    from pysandbox_core.fs.context import FsContext
    from pysandbox_core.fs.fd_table import FdTable
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.memory_manager import MemoryManager

INIT_PID = 1
DEFAULT_TASKS = 4096
"""That may exist at once where no number was asked for: each is a thread or a process of the
host's."""
PID_MAX = 4_194_304
"""No tid reaches it, /proc/sys/kernel/pid_max."""
_RESERVED_PIDS = 300
"""Where numbers start again after PID_MAX."""


class CloneArgs:
    """What clone3(2) is asked for: struct clone_args, with clone's `stack` as its top."""

    __slots__ = (
        "child_tid",
        "exit_signal",
        "flags",
        "parent_tid",
        "pidfd",
        "set_tid",
        "stack",
        "tls",
    )

    def __init__(
        self,
        flags: int = 0,
        *,
        exit_signal: int = 0,
        stack: int = 0,
        tls: int = 0,
        parent_tid: int = 0,
        child_tid: int = 0,
        pidfd: int = 0,
        set_tid: int = 0,
    ) -> None:
        self.flags = flags
        self.exit_signal = exit_signal
        self.stack = stack
        """The child's stack pointer; 0 keeps the parent's."""
        self.tls = tls
        self.parent_tid = parent_tid
        self.child_tid = child_tid
        self.pidfd = pidfd
        """Address that receives the descriptor, with CLONE_PIDFD."""
        self.set_tid = set_tid
        """The tid that the child is to have; 0 for any."""


def allocate_tid(kernel: Kernel) -> int:
    """A number that no task, process group or session has."""
    tid = kernel.last_tid
    while True:
        tid += 1
        if tid >= PID_MAX:
            tid = _RESERVED_PIDS
        if not _tid_in_use(kernel, tid):
            kernel.last_tid = tid
            return tid


def check_task_limit(kernel: Kernel, account: accounting.Account) -> None:
    """EAGAIN if the sandbox has as many tasks as it may have."""
    limit = kernel.config.pids
    if limit is None:
        limit = DEFAULT_TASKS
    if len(kernel.tasks) >= limit:
        account.reach("pids", f"{limit} tasks at once, and no more could be made")
        raise LinuxError(EAGAIN)


def _tid_in_use(kernel: Kernel, tid: int) -> bool:
    return tid in kernel.tasks or tid in kernel.process_groups or tid in kernel.sessions


def new_init(kernel: Kernel) -> ThreadGroup:
    """Process 1: no threads, no memory; parent of what the user starts, heir of orphans."""
    init = ThreadGroup(kernel, None, None)
    init.pid = kernel.last_tid = INIT_PID
    init.limits = ResourceLimits()
    init.pending = PendingSignals()
    init.start_time_ns = monotonic_ns()
    kernel.init = kernel.groups[INIT_PID] = init
    new_session(init)
    return init


def new_process(
    kernel: Kernel,
    *,
    mm: MemoryManager,
    files: FdTable,
    fs: FsContext,
    creds: Credentials,
    comm: bytes = b"",
) -> Task:
    """A child of process 1 with the given memory, files and credentials, whose references it takes
    over, in a session of its own. Its registers are still to be set; `start` puts it on the
    loop."""
    check_task_limit(kernel, kernel.account)
    group = ThreadGroup(kernel, None, kernel.init)
    group.account = accounting.Account(kernel.account)
    task = Task(kernel, group, kernel.platform.new_context())
    task.tid = group.pid = allocate_tid(kernel)
    group.leader = task
    group.tasks.append(task)
    group.exit_signal = SIGCHLD
    group.limits = ResourceLimits()
    group.pending = PendingSignals()
    group.start_time_ns = monotonic_ns()
    task.pending = PendingSignals()
    task.sighand = SignalHandlers()
    task.altstack = NO_ALTSTACK
    task.mm, task.files, task.fs, task.creds, task.comm = mm, files, fs, creds, comm
    new_session(group)
    _publish(task)
    kernel.init.children[group.pid] = group
    return task


def start(task: Task) -> None:
    """Let a new task run when the loop gets to it."""
    constant_results.publish(task)
    task.make_ready()


def clone(task: Task, args: CloneArgs) -> Task:
    """Make a child of `task` as `args` say; it runs when the loop gets to it. clone(2), clone3(2)

    Errors, first match wins: EINVAL flags that exclude each other; EPERM a new namespace; restart
    if a signal is pending; EAGAIN RLIMIT_NPROC or the sandbox's limit; EMFILE the pidfd; EFAULT
    where the pidfd is to be stored; EEXIST, EINVAL and EPERM set_tid.
    """
    flags = args.flags
    _check_flags(flags)
    if task.interrupted():
        raise Interrupted(ERESTARTNOINTR)  # a signal sent before fork is for the parent alone
    _check_process_limit(task)
    kernel = task.kernel
    check_task_limit(kernel, task.group.account)
    tid = allocate_tid(kernel) if not args.set_tid else _chosen_tid(task, args.set_tid)
    kernel.memory.grow(_size_of_copy(task, flags))
    child = Task(kernel, task.group, _new_context(kernel))
    child.tid = tid
    if not flags & CLONE_THREAD:
        child.group = _new_group(task, child, args)
    try:
        _copy(task, child, args)
    except BaseException:
        child.context.release()
        raise
    _set_up_context(task, child, args)
    try:
        _join(task, child, args)
    except LinuxError:
        _undo_copy(child)
        raise
    if flags & CLONE_PARENT_SETTID:
        _put_tid(task, args.parent_tid, tid)
    child.clear_child_tid = args.child_tid if flags & CLONE_CHILD_CLEARTID else 0
    if flags & CLONE_CHILD_SETTID:
        _put_tid(child, args.child_tid, tid)
    if flags & CLONE_VFORK:
        task.vfork_queue = WaitQueue()
        child.vfork_parent = task
    start(child)
    return child


def _size_of_copy(task: Task, flags: int) -> int:
    """About how much the kernel keeps for a child of `task`."""
    size = TASK
    if not flags & CLONE_VM:
        size += task.mm.range_count() * MAPPING + task.mm.host_bytes_found
    if not flags & CLONE_FILES:
        size += task.files.size * 8
    return size


def _new_context(kernel: Kernel) -> Context:
    """EAGAIN if the host refuses another thread or process."""
    try:
        return kernel.platform.new_context()
    except PlatformError as error:
        if error.errno in (EAGAIN, ENOMEM):
            raise LinuxError(EAGAIN) from None
        raise


def wait_for_vfork(task: Task) -> None:
    """Block until the vfork child has let go of the memory. Only death interrupts it."""
    while (queue := task.vfork_queue) is not None:
        task.block(queue, restart=ERESTARTNOINTR, killable_only=True)


def _check_flags(flags: int) -> None:
    if flags & CLONE_FS and flags & (CLONE_NEWNS | CLONE_NEWUSER):
        raise LinuxError(EINVAL)
    if flags & CLONE_THREAD and not flags & CLONE_SIGHAND:
        raise LinuxError(EINVAL)
    if flags & CLONE_SIGHAND and not flags & CLONE_VM:
        raise LinuxError(EINVAL)
    if flags & CLONE_THREAD and flags & (CLONE_NEWUSER | CLONE_NEWPID):
        raise LinuxError(EINVAL)
    if flags & CLONE_PIDFD and flags & (CLONE_DETACHED | CLONE_THREAD):
        raise LinuxError(EINVAL)
    if flags & CLONE_NAMESPACES:
        raise LinuxError(EPERM)  # as where unprivileged user namespaces are switched off


def _check_process_limit(task: Task) -> None:
    """RLIMIT_NPROC counts the threads of a real uid; root and the capable are exempt."""
    limit = task.group.limits.nproc
    tasks = task.kernel.tasks
    if len(tasks) < limit:
        return
    creds = task.creds
    if creds.uid == 0 or creds.capable(CAP_SYS_RESOURCE) or creds.capable(CAP_SYS_ADMIN):
        return
    if sum(other.creds.uid == creds.uid for other in tasks.values()) >= limit:
        raise LinuxError(EAGAIN)


def _chosen_tid(task: Task, tid: int) -> int:
    """The tid that clone3's set_tid asks for. Errors: EINVAL, EPERM, EEXIST."""
    if not 0 < tid < PID_MAX:
        raise LinuxError(EINVAL)
    if not task.creds.capable(CAP_SYS_ADMIN):
        raise LinuxError(EPERM)
    if _tid_in_use(task.kernel, tid):
        raise LinuxError(EEXIST)
    return tid


def _copy(task: Task, child: Task, args: CloneArgs) -> None:
    """Share or copy what the flags say, and what is always copied."""
    flags = args.flags
    kernel = task.kernel
    if flags & CLONE_VM:
        task.mm.users += 1
        child.mm = task.mm
    else:
        space = kernel.platform.new_address_space()
        hot = (args.stack or task.regs[RSP], task.regs[FS_BASE])
        child.mm = task.mm.fork(space, child.group.limits, hot)
    if flags & CLONE_FILES:
        task.files.users += 1
        child.files = task.files
    else:
        child.files = task.files.copy()
    if flags & CLONE_FS:
        task.fs.users += 1
        child.fs = task.fs
    else:
        child.fs = task.fs.copy()
    if flags & CLONE_SIGHAND:
        task.sighand.users += 1
        child.sighand = task.sighand
    else:
        child.sighand = task.sighand.copy()
        if flags & CLONE_CLEAR_SIGHAND:
            child.sighand.reset_for_exec()
    child.creds = task.creds
    child.comm = task.comm
    child.sigmask = task.sigmask
    child.scheduling = task.scheduling.copy()
    child.timer_slack_ns = task.timer_slack_ns
    child.pending = PendingSignals()
    own_stack = flags & CLONE_VM and not flags & CLONE_VFORK
    child.altstack = NO_ALTSTACK if own_stack else task.altstack


def _undo_copy(child: Task) -> None:
    child.files.release(child)
    child.fs.release()
    child.sighand.users -= 1
    child.mm.release(child)
    child.context.release()


def _set_up_context(task: Task, child: Task, args: CloneArgs) -> None:
    """The parent's registers and extended state, but for what `args` change, and 0 as the
    result."""
    regs = child.regs
    regs[:] = task.regs
    regs[RAX] = 0
    if args.stack:
        regs[RSP] = args.stack
    if args.flags & CLONE_SETTLS:
        regs[FS_BASE] = args.tls
    child.context.set_fpstate(task.context.get_fpstate())


def _join(task: Task, child: Task, args: CloneArgs) -> None:
    """Give the child its place: another thread of `task`'s process, or a process."""
    flags = args.flags
    group = child.group
    if flags & CLONE_PIDFD:
        from pysandbox_core.fs.pidfd import install_pidfd

        fd = install_pidfd(task, group)
        try:
            task.mm.write_u32(args.pidfd, fd)
            _check_alive(task)
        except LinuxError:
            task.files.close(task, fd)
            raise
    _check_alive(task)
    group.tasks.append(child)
    _publish(child)
    if not flags & CLONE_THREAD:
        task.group.process_group.add(group)
        assert group.parent is not None
        group.parent.children[group.pid] = group
        cpu_limit.watch(group)


def _check_alive(task: Task) -> None:
    """What the child needs may have been the memory too much that `task` is killed for (oom.py). A
    child that came after would live on, in a process that all others take for dead."""
    if task.work & WORK_EXIT:
        raise Interrupted(ERESTARTNOINTR)


def _new_group(task: Task, child: Task, args: CloneArgs) -> ThreadGroup:
    """The process that `child` leads; not yet among its parent's children."""
    parent = task.group
    group = ThreadGroup(task.kernel, child, parent)
    group.parent_task = task
    group.exit_signal = args.exit_signal
    if args.flags & CLONE_PARENT:
        group.parent, group.parent_task = parent.parent, parent.parent_task
        group.exit_signal = parent.exit_signal
    group.pid = child.tid
    group.limits = parent.limits.copy()
    group.pending = PendingSignals()
    group.start_time_ns = monotonic_ns()
    group.exe_path = parent.exe_path
    group.personality = parent.personality
    group.thp_disabled = parent.thp_disabled
    group.oom_score_adj = parent.oom_score_adj
    group.oom_score_adj_min = parent.oom_score_adj_min
    return group


def _publish(task: Task) -> None:
    kernel = task.kernel
    kernel.tasks[task.tid] = task
    if task.group.leader is task:
        kernel.groups[task.tid] = task.group
    if kernel.hooks is not None:
        kernel.hooks.task_start(task=task)


def _put_tid(task: Task, addr: int, tid: int) -> None:
    """Store a tid in the program's memory; a bad address is nobody's error."""
    with suppress(LinuxError):
        task.mm.write_u32(addr, tid)
