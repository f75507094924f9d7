"""Signals as data: what is pending, what is to happen, what a handler is told.

Interface: plain state without policy. Who gets a signal and what becomes of it is decided in
`task_signals`; how a handler is entered, in `signal_frame_amd64`. Sets are integers with bit N-1
for signal N (abi/signal.py).

Linux: include/linux/signal_types.h (kernel_siginfo, sigqueue, sigpending, k_sigaction,
sighand_struct).
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_core.abi.signal import (
    DEFAULT_IGNORE,
    NSIG,
    SI_KERNEL,
    SI_QUEUE,
    SI_TIMER,
    SI_USER,
    SIG_DFL,
    SIG_IGN,
    SIGCHLD,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
    SYNCHRONOUS,
)
from pysandbox_core.waiting import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SIGINFO_SIZE = 128
_HEADER = Struct("<iii4x112s")
"""si_signo, si_errno, si_code, and what depends on the code."""

# siginfo_t's unions, from byte 16 on.
KILL_FIELDS = Struct("<iI")
"""si_pid, si_uid"""
QUEUE_FIELDS = Struct("<iIQ")
"""si_pid, si_uid, si_value"""
TIMER_FIELDS = Struct("<iiQ")
"""si_timerid, si_overrun, si_value"""
CHILD_FIELDS = Struct("<iIi4xqq")
"""si_pid, si_uid, si_status, si_utime, si_stime (clock ticks)"""
FAULT_FIELDS = Struct("<Q")
"""si_addr"""
POLL_FIELDS = Struct("<qi")
"""si_band, si_fd"""


class SigInfo:
    """What comes with one signal: siginfo_t. Immutable but for `fields` of a timer's."""

    __slots__ = ("charged_uid", "code", "errno", "fields", "on_collect", "signo")

    def __init__(self, signo: int, code: int, fields: bytes = b"", errno: int = 0) -> None:
        self.signo = signo
        self.errno = errno
        self.code = code
        self.fields = fields
        """The union's bytes that matter; zeros follow."""
        self.charged_uid = -1
        """Whose RLIMIT_SIGPENDING it counts against while queued; -1 for nobody's."""
        self.on_collect: Callable[[SigInfo], None] | None = None
        """Called when it leaves the queue, whether delivered or dropped; may set `fields`."""

    @classmethod
    def kernel(cls, signo: int) -> SigInfo:
        """From the kernel, with nothing to say (a terminal's ^C, a failed signal frame)."""
        return cls(signo, SI_KERNEL, KILL_FIELDS.pack(0, 0))

    @classmethod
    def user(cls, signo: int, code: int, pid: int, uid: int) -> SigInfo:
        """kill(2), tkill(2)"""
        return cls(signo, code, KILL_FIELDS.pack(pid, uid))

    @classmethod
    def queued(cls, signo: int, pid: int, uid: int, value: int, code: int = SI_QUEUE) -> SigInfo:
        """sigqueue(3), mq_notify(3)"""
        return cls(signo, code, QUEUE_FIELDS.pack(pid, uid, value))

    @classmethod
    def timer(cls, signo: int, timer_id: int, overrun: int, value: int) -> SigInfo:
        """timer_create(2)"""
        return cls(signo, SI_TIMER, TIMER_FIELDS.pack(timer_id, overrun, value))

    @classmethod
    def child(cls, code: int, pid: int, uid: int, status: int, ticks: int = 0) -> SigInfo:
        """SIGCHLD: child `pid` did what `code` (CLD_*) says; `ticks` of CPU time used."""
        return cls(SIGCHLD, code, CHILD_FIELDS.pack(pid, uid, status, ticks, 0))

    @classmethod
    def fault(cls, signo: int, code: int, addr: int) -> SigInfo:
        """SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP of the program's own making."""
        return cls(signo, code, FAULT_FIELDS.pack(addr))

    @classmethod
    def poll(cls, signo: int, code: int, band: int, fd: int) -> SigInfo:
        """SIGIO, fcntl(2)"""
        return cls(signo, code, POLL_FIELDS.pack(band, fd))

    @classmethod
    def unpack(cls, data: bytes) -> SigInfo:
        """From a siginfo_t of the program's."""
        signo, errno, code, fields = _HEADER.unpack(data)
        return cls(signo, code, fields, errno)

    def pack(self) -> bytes:
        """The siginfo_t, SIGINFO_SIZE bytes."""
        return _HEADER.pack(self.signo, self.errno, self.code, self.fields)

    @property
    def from_user(self) -> bool:
        """Sent by a program, not by the kernel (Linux's SI_FROMUSER)."""
        return self.code <= 0


class PendingSignals:
    """Signals sent and not yet delivered, to a task or to a thread group.

    Standard signals are kept once, realtime ones in the order they came. A bit of `mask` without an
    entry in the queue is a signal whose siginfo was lost to the limit.
    """

    __slots__ = ("_queues", "mask")

    def __init__(self) -> None:
        self.mask = 0
        """The set of signals pending."""
        self._queues: dict[int, deque[SigInfo]] = {}

    def add(self, info: SigInfo) -> None:
        queue = self._queues.get(info.signo)
        if queue is None:
            queue = self._queues[info.signo] = deque()
        queue.append(info)
        self.mask |= 1 << (info.signo - 1)

    def add_bare(self, signo: int) -> None:
        """Make `signo` pending without a siginfo."""
        self.mask |= 1 << (signo - 1)

    def first(self, blocked: int) -> int:
        """The signal to be delivered first of those not in `blocked`, 0 if there is none."""
        ready = self.mask & ~blocked
        if not ready:
            return 0
        ready = ready & SYNCHRONOUS or ready
        return (ready & -ready).bit_length()

    def take(self, signo: int) -> SigInfo:
        """Take the oldest `signo`, which is pending, out."""
        queue = self._queues.get(signo)
        if not queue:
            self.mask &= ~(1 << (signo - 1))
            return SigInfo(signo, SI_USER, KILL_FIELDS.pack(0, 0))
        info = queue.popleft()
        if not queue:
            self.mask &= ~(1 << (signo - 1))
        return info

    def discard(self, mask: int) -> list[SigInfo]:
        """Drop every signal of `mask`; returns what was queued."""
        dropped: list[SigInfo] = []
        mask &= self.mask
        self.mask &= ~mask
        while mask:
            signo = (mask & -mask).bit_length()
            mask &= mask - 1
            dropped.extend(self._queues.pop(signo, ()))
        return dropped


class SignalAction(NamedTuple):
    """What happens on a signal: struct sigaction, as the kernel has it."""

    handler: int = SIG_DFL
    """SIG_DFL, SIG_IGN or the handler's address."""
    flags: int = 0
    restorer: int = 0
    mask: int = 0


DEFAULT_ACTION = SignalAction()


class SignalHandlers:
    """Actions by signal number, shared with CLONE_SIGHAND. Linux: struct sighand_struct."""

    __slots__ = ("actions", "queue", "users")

    def __init__(self, actions: list[SignalAction] | None = None) -> None:
        self.actions = actions or [DEFAULT_ACTION] * (NSIG + 1)
        """By signal number; index 0 is unused."""
        self.users = 1
        self.queue = WaitQueue()
        """Woken with POLLIN when a signal becomes pending: signalfd, sigtimedwait."""

    def copy(self) -> SignalHandlers:
        """As fork does."""
        return SignalHandlers(self.actions[:])

    def ignore(self, numbers: Iterable[int]) -> None:
        """Set the actions of these signals to SIG_IGN."""
        for signo in numbers:
            self.actions[signo] = SignalAction(SIG_IGN)

    def reset_for_exec(self) -> None:
        """Caught signals go back to their default, ignored ones stay so. execve(2)"""
        ignore = SignalAction(SIG_IGN)
        self.actions = [
            ignore if action.handler == SIG_IGN else DEFAULT_ACTION for action in self.actions
        ]

    def ignores(self, signo: int) -> bool:
        """Would `signo` be thrown away, by choice or by default?"""
        handler = self.actions[signo].handler
        return handler == SIG_IGN or (
            handler == SIG_DFL and bool(DEFAULT_IGNORE >> (signo - 1) & 1)
        )


class SigaltStack(NamedTuple):
    """A thread's alternate signal stack, sigaltstack(2)."""

    base: int = 0
    flags: int = SS_DISABLE
    """SS_DISABLE or 0, with SS_AUTODISARM as it was asked for."""
    size: int = 0

    def contains(self, sp: int) -> bool:
        """Does a stack pointer lie in it? Stacks grow down, so the end belongs to it."""
        return self.base < sp <= self.base + self.size

    def in_use(self, sp: int) -> bool:
        """Is the thread running on it, as far as sigaltstack(2) is concerned?"""
        return not self.flags & SS_AUTODISARM and self.contains(sp)

    def status(self, sp: int) -> int:
        """SS_DISABLE, SS_ONSTACK or 0."""
        if not self.size:
            return SS_DISABLE
        return SS_ONSTACK if self.in_use(sp) else 0


NO_ALTSTACK = SigaltStack()
