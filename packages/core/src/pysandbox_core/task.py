"""Task and ThreadGroup: a thread, and the process it belongs to.

Interface: a `Task` is what Linux's `struct task_struct` is: one thread of the program, one platform
context, one place on the loop. What threads of a process share hangs off their `ThreadGroup`
(Linux's `signal_struct`) and off objects that clone(2) shares or copies by flag: `mm`, `files`,
`fs`, `sighand`.

This module holds the state. What is done with it is split by verb: `task_clone`, `task_exec`,
`task_exit`, `task_wait`, `task_signals`, `task_run`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pysandbox_core.errors import ERESTARTSYS
from pysandbox_core.scheduling import Scheduling
from pysandbox_core.waiting import WaitQueue, block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from greenlet import greenlet
    from pysandbox_platform import Context

    from pysandbox_core.accounting import Account
    from pysandbox_core.credentials import Credentials
    from pysandbox_core.fs.context import FsContext
    from pysandbox_core.fs.fd_table import FdTable
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.limits import ResourceLimits
    from pysandbox_core.mm.memory_manager import MemoryManager
    from pysandbox_core.sessions import ProcessGroup
    from pysandbox_core.signals import PendingSignals, SigaltStack, SignalHandlers
    from pysandbox_core.time.process_timers import Countdown, ProcessTimers
    from pysandbox_core.timers import Timer

# What a task has to do before its program runs on: bits of Task.work.
WORK_SIGNAL = 1
"""A signal may be deliverable (Linux's TIF_SIGPENDING)."""
WORK_EXIT = 2
"""The task has exited or is to die: it never returns to its program."""
WORK_RESTART = 4
"""The system call ended with an ERESTART number in `restart_errno`."""
WORK_STOP = 8
"""The thread group is stopped (job control)."""
WORK_RESTORE_SIGMASK = 16
"""`saved_sigmask` goes back once signals have been delivered (sigsuspend, ppoll, pselect)."""
WORK_OTHER = 32
"""A function in `task_work` is to run first."""


class ThreadGroup:
    """A process: what its threads share. Made by fork or clone; gone once waited for."""

    def __init__(self, kernel: Kernel, leader: Task | None, parent: ThreadGroup | None) -> None:
        self.kernel = kernel
        self.leader = leader
        """The thread whose tid is the process's pid; exec by another thread makes that one
        leader."""
        self.tasks: list[Task] = []
        """Threads that have not exited, oldest first."""
        self.pid = 0
        self.parent = parent
        self.parent_task: Task | None = None
        """The thread of `parent` that made it, while that lives: __WNOTHREAD, PR_SET_PDEATHSIG."""
        self.children: dict[int, ThreadGroup] = {}
        """Child processes by pid, zombies included, oldest first."""
        self.exit_signal = 0
        """What the parent gets when this process ends; 0 for none. clone(2)"""
        self.process_group: ProcessGroup = None  # type: ignore[assignment]  # set when it joins one
        self.pending: PendingSignals
        """Signals sent to the process as a whole."""
        self.limits: ResourceLimits
        self.exit_status: int | None = None
        """wait(2) status word once the last thread is gone, None while it lives."""
        self.group_exit_code: int | None = None
        """Set when the whole process is to end: the status word every thread exits with."""
        self.child_queue = WaitQueue()
        """Woken when a child changes state: wait4, waitid, signalfd."""
        self.exit_queue = WaitQueue()
        """Woken when this process has ended: pidfd."""
        self.stop_signal = 0
        """The signal that stops it (job control); 0 while it is to run."""
        self.stop_pending = 0
        """Threads that have yet to stop; the process has stopped when none is left."""
        self.stop_reported = True
        self.continue_reported = True
        self.is_child_subreaper = False
        self.personality = 0
        self.thp_disabled = False
        """prctl(PR_SET_THP_DISABLE); kept and inherited."""
        self.has_execed = False
        self.start_time_ns = 0
        """CLOCK_MONOTONIC when it was made, nanoseconds."""
        self.exe_path = b"/"
        """As /proc/PID/exe shows it."""
        self.cpu_time_ns = 0
        """Of threads that are gone; see accounting."""
        self.children_cpu_ns = 0
        """Of children that have been waited for, theirs included."""
        self.account: Account = kernel.account if parent is None else parent.account
        """Where its use is counted with its relatives'."""
        self.max_rss = 0
        """Bytes; of address spaces it has let go."""
        self.children_max_rss = 0
        """Bytes; the largest of any child that has been waited for."""
        self.oom_score_adj = 0
        """/proc/PID/oom_score_adj; a child inherits it, and the minimum."""
        self.oom_score_adj_min = 0
        """How low it may be set without CAP_SYS_RESOURCE."""
        self.timers: ProcessTimers | None = None
        """alarm(2), timer_create(2); None until one is asked for."""
        self.cpu_limit: Countdown | None = None
        """Watches RLIMIT_CPU, once there is one."""
        self.exit_callbacks: list[Callable[[ThreadGroup], None]] = []
        """Called once when its last thread exits: timers to disarm, sem_undo."""
        self.on_exit: Callable[[int], None] | None = None
        """Kernel-side observer: called with the status word when the process has ended."""
        self.on_stop: Callable[[int], None] | None = None
        """The same for when job control has stopped it; called with the signal. Who has one is
        looked after from outside, so that its process group is not orphaned."""

    def __repr__(self) -> str:
        return f"<ThreadGroup {self.pid}>"


class Task:
    """One thread. Owner of its platform context, from clone until exit."""

    def __init__(self, kernel: Kernel, group: ThreadGroup, context: Context) -> None:
        self.kernel = kernel
        self.group = group
        self.context = context
        self.regs: memoryview = context.regs
        """The context's register file, see pysandbox_platform.registers_amd64."""
        context.owner = self
        self.tid = 0
        self.comm = b""
        """At most 15 bytes, prctl(PR_SET_NAME)."""

        self.mm: MemoryManager
        self.files: FdTable
        self.fs: FsContext
        self.sighand: SignalHandlers
        self.creds: Credentials

        self.work = 0
        """WORK_* bits; anything but 0 takes the slow path back to the program."""
        self.task_work: list[Callable[[Task], None]] = []

        # Signals: task_signals.py
        self.sigmask = 0
        """Blocked signals, bit N-1 for signal N."""
        self.saved_sigmask = 0
        self.pending: PendingSignals
        """Signals sent to this thread."""
        self.altstack: SigaltStack
        self.stopped = False
        """Parked by job control."""
        self.trap_number = 0
        """Of the last fault, what a sigcontext shows as trapno, err and cr2."""
        self.trap_error = 0
        self.trap_addr = 0
        self.restart_errno = 0
        """The ERESTART number that ended the system call, with WORK_RESTART."""
        self.restart_block: Callable[[Task], int | None] | None = None
        """How restart_syscall(2) goes on."""
        self.syscall_number = -1
        """The call being answered, -1 outside of one."""
        self.pdeath_signal = 0
        self.scheduling = Scheduling()
        self.timer_slack_ns = 50_000
        """prctl(PR_SET_TIMERSLACK); kept and inherited, timers are as exact as the host's."""

        # Blocking: waiting.py, loop.py
        self.parked: greenlet | None = None
        """Where the blocked handler waits."""
        self.ready = False
        """Standing in kernel.ready."""
        self.killable_only = False
        """The wait ends early only if the task is to die."""
        self.running = False
        """Its context runs, or its stop has not been returned by the platform yet."""

        # Threads: set_tid_address(2), set_robust_list(2), rseq(2)
        self.clear_child_tid = 0
        self.robust_list = 0
        self.rseq_area = 0
        self.rseq_length = 0
        self.rseq_signature = 0
        self.exited = False
        self.exit_code = 0
        self.vfork_queue: WaitQueue | None = None
        """Woken, and set to None, when this task's vfork child lets go of the memory."""
        self.vfork_parent: Task | None = None
        self.alarm_timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Task {self.tid} {self.comm.decode(errors='replace')}>"

    @property
    def pid(self) -> int:
        return self.group.pid

    def make_ready(self) -> None:
        """Let a parked task go on as soon as the loop gets to it."""
        if not self.ready and not self.exited:
            self.ready = True
            self.kernel.ready.append(self)

    def block(
        self,
        queues: WaitQueue | Sequence[WaitQueue],
        deadline_ns: int | None = None,
        restart: int = ERESTARTSYS,
        *,
        killable_only: bool = False,
    ) -> bool:
        """See waiting.block."""
        return block(self, queues, deadline_ns, restart, killable_only=killable_only)

    def interrupted(self, killable_only: bool = False) -> bool:
        """Must a wait end now? A deliverable signal is pending, or the task is to die."""
        if killable_only:
            return bool(self.work & WORK_EXIT)
        return bool(self.work & (WORK_SIGNAL | WORK_EXIT | WORK_STOP))

    def notice(self, work: int) -> None:
        """Add `work` and see that the task gets to it: end its wait, or interrupt its program."""
        self.work |= work
        if self.parked is not None:
            if not self.killable_only or work & WORK_EXIT:
                self.make_ready()
        elif self.running:
            self.context.interrupt()
