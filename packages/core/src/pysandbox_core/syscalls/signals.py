"""Signals as programs see them: sigaction(2), sigprocmask(2), kill(2), sigaltstack(2) and their
kin.

Linux: kernel/signal.c.
"""

from __future__ import annotations

from errno import EAGAIN, EINTR, EINVAL, EPERM, ESRCH
from struct import Struct
from time import monotonic_ns
from typing import TYPE_CHECKING

from pysandbox_platform.registers_amd64 import RSP

from pysandbox_core import signal_frame_amd64 as signal_frame
from pysandbox_core import task_signals
from pysandbox_core.abi.signal import (
    NSIG,
    SA_KNOWN,
    SI_TKILL,
    SI_USER,
    SIG_BLOCK,
    SIG_SETMASK,
    SIG_UNBLOCK,
    SIGCONT,
    SIGSEGV,
    SS_AUTODISARM,
    UNBLOCKABLE,
)
from pysandbox_core.credentials import CAP_KILL
from pysandbox_core.declare import (
    Int,
    Pid,
    Result,
    Signo,
    SigsetPtr,
    Size,
    TimespecPtr,
    UserAddr,
    syscall,
)
from pysandbox_core.errors import ERESTARTNOHAND, Interrupted, LinuxError
from pysandbox_core.signals import SIGINFO_SIZE, SigInfo, SignalAction
from pysandbox_core.waiting import WaitQueue

if TYPE_CHECKING:
    from pysandbox_core.task import Task, ThreadGroup

_SIGSET_SIZE = 8
_SIGACTION = Struct("<4Q")
"""sa_handler, sa_flags, sa_restorer, sa_mask: the kernel's layout, not the C library's."""
_STACK = Struct("<QI4xQ")
"""ss_sp, ss_flags, ss_size"""
_TIMESPEC = Struct("<qq")


@syscall("rt_sigaction")
def rt_sigaction(
    task: Task, signo: Signo, act: UserAddr, oldact: UserAddr, sigsetsize: Size
) -> Result:
    """Set and get what happens on a signal. sigaction(2)

    Errors, first match wins: EINVAL sigsetsize; EFAULT act; EINVAL the signal, or SIGKILL or
    SIGSTOP with `act`; EFAULT oldact.
    """
    if sigsetsize != _SIGSET_SIZE:
        raise LinuxError(EINVAL)
    action = None
    if act:
        handler, flags, restorer, mask = task.mm.unpack(act, _SIGACTION)
        action = SignalAction(handler, flags & SA_KNOWN, restorer, mask & ~UNBLOCKABLE)
    if not 1 <= signo <= NSIG:
        raise LinuxError(EINVAL)
    bit = 1 << (signo - 1)
    sighand = task.sighand
    previous = sighand.actions[signo]
    if action is not None:
        if bit & UNBLOCKABLE:
            raise LinuxError(EINVAL)
        sighand.actions[signo] = action
        if sighand.ignores(signo):
            task_signals.discard(task.group, bit)  # POSIX: even if it is blocked
    if oldact:
        task.mm.pack(oldact, _SIGACTION, *previous)
    return 0


@syscall("rt_sigprocmask")
def rt_sigprocmask(
    task: Task, how: Int, new_set: SigsetPtr, old_set: SigsetPtr, sigsetsize: Size
) -> Result:
    """Change and get the thread's set of blocked signals. sigprocmask(2)

    Errors, first match wins: EINVAL sigsetsize; EFAULT new_set; EINVAL how; EFAULT old_set.
    """
    if sigsetsize != _SIGSET_SIZE:
        raise LinuxError(EINVAL)
    previous = task.sigmask
    if new_set:
        mask = task.mm.read_u64(new_set)
        if how == SIG_BLOCK:
            mask |= previous
        elif how == SIG_UNBLOCK:
            mask = previous & ~mask
        elif how != SIG_SETMASK:
            raise LinuxError(EINVAL)
        task_signals.set_sigmask(task, mask)
    if old_set:
        task.mm.write_u64(old_set, previous)
    return 0


@syscall("rt_sigpending")
def rt_sigpending(task: Task, set_ptr: SigsetPtr, sigsetsize: Size) -> Result:
    """Store the signals that are pending and blocked. EINVAL, EFAULT. sigpending(2)"""
    if sigsetsize > _SIGSET_SIZE:
        raise LinuxError(EINVAL)
    mask = (task.pending.mask | task.group.pending.mask) & task.sigmask
    task.mm.write(set_ptr, mask.to_bytes(8, "little")[:sigsetsize])
    return 0


@syscall("rt_sigsuspend")
def rt_sigsuspend(task: Task, new_set: SigsetPtr, sigsetsize: Size) -> Result:
    """Block `new_set` instead of the present mask and wait for a signal. sigsuspend(2)

    Errors: EINVAL, EFAULT, else always EINTR after a handler.
    """
    mask = read_sigset(task, new_set, sigsetsize)
    task_signals.set_temporary_sigmask(task, mask)
    _wait_for_signal(task)
    return None


@syscall("pause")
def pause(task: Task) -> Result:
    """Wait for a signal; EINTR after a handler. pause(2)"""
    _wait_for_signal(task)
    return None


def _wait_for_signal(task: Task) -> None:
    nothing = WaitQueue()
    while True:
        task.block(nothing, restart=ERESTARTNOHAND)


def read_sigset(task: Task, addr: int, sigsetsize: int) -> int:
    """A signal set of the program's. EINVAL size, EFAULT."""
    if sigsetsize != _SIGSET_SIZE:
        raise LinuxError(EINVAL)
    return task.mm.read_u64(addr)


@syscall("rt_sigreturn")
def rt_sigreturn(task: Task) -> Result:
    """Leave a signal handler: everything is as its frame says. A bad frame is SIGSEGV.
    sigreturn(2)"""
    task.restart_block = None
    try:
        signal_frame.pop(task)
    except LinuxError:
        task_signals.force(task, SigInfo.kernel(SIGSEGV))
    return None


@syscall("restart_syscall")
def restart_syscall(task: Task) -> Result:
    """Go on with a call that a stop interrupted; programs have no use for it: EINTR.
    restart_syscall(2)"""
    block = task.restart_block
    task.restart_block = None
    if block is None:
        raise LinuxError(EINTR)
    return block(task)


@syscall("sigaltstack")
def sigaltstack(task: Task, ss: UserAddr, old_ss: UserAddr) -> Result:
    """Set and get the thread's alternate signal stack. sigaltstack(2)

    Errors, first match wins: EFAULT ss; EPERM the thread runs on it; EINVAL flags; ENOMEM too
    small; EFAULT old_ss.
    """
    previous = task.altstack
    status = previous.status(task.regs[RSP]) | previous.flags & SS_AUTODISARM
    if ss:
        base, flags, size = task.mm.unpack(ss, _STACK)
        signal_frame.set_altstack(task, base, flags, size)
    if old_ss:
        task.mm.pack(old_ss, _STACK, previous.base, status, previous.size)
    return 0


# Sending.


def check_permission(task: Task, group: ThreadGroup, signo: int) -> None:
    """May `task` send `signo` (0 only asks) to a process? EPERM. kill(2)"""
    if group is task.group:
        return
    creds = task.creds
    if group.leader is not None:
        its = group.leader.creds
        if {creds.euid, creds.uid} & {its.suid, its.uid} or creds.capable(CAP_KILL):
            return
        session = task.group.process_group.session
        if signo == SIGCONT and group.process_group.session is session:
            return
    elif creds.capable(CAP_KILL):
        return
    raise LinuxError(EPERM)


def check_signo(signo: int) -> None:
    """EINVAL unless it is a signal, or 0."""
    if not 0 <= signo <= NSIG:
        raise LinuxError(EINVAL)


def _send(task: Task, group: ThreadGroup, info: SigInfo) -> None:
    check_permission(task, group, info.signo)
    if info.signo:
        task_signals.send(group, info.signo, info)


def _from(task: Task, signo: int) -> SigInfo:
    """What kill(2) by `task` tells one receiver: queued, it says against whom it counts."""
    return SigInfo.user(signo, SI_USER, task.group.pid, task.creds.uid)


@syscall("kill")
def kill(task: Task, pid: Pid, signo: Signo) -> Result:
    """Send `signo` to a process (pid > 0), the caller's process group (0), all processes but 1 and
    the caller's own (-1), or a process group (-pid). kill(2)

    Errors: EINVAL the signal; ESRCH nobody there; EPERM none of them may be signalled.
    """
    check_signo(signo)
    kernel = task.kernel
    if pid > 0:
        target = kernel.tasks.get(pid)
        group = target.group if target is not None else kernel.groups.get(pid)
        if group is None:
            raise LinuxError(ESRCH)
        _send(task, group, _from(task, signo))
        return 0
    if pid == -1:
        groups = [
            group
            for group in kernel.groups.values()
            if group is not task.group and group is not kernel.init
        ]
    else:
        process_group = task.group.process_group if pid == 0 else kernel.process_groups.get(-pid)
        groups = list(process_group.members.values()) if process_group is not None else []
    if not groups:
        raise LinuxError(ESRCH)
    failures = 0
    for group in groups:
        try:
            _send(task, group, _from(task, signo))
        except LinuxError as error:
            if error.errno != EPERM:
                raise
            failures += 1
    if failures == len(groups):
        raise LinuxError(EPERM)
    return 0


def _thread(task: Task, tgid: int, tid: int) -> Task:
    """The thread `tid` of process `tgid` (-1 for any). ESRCH"""
    target = task.kernel.tasks.get(tid)
    if (
        target is None
        or tgid not in (-1, target.group.pid)
        or (target.exited and target.group.exit_status is None)
    ):
        raise LinuxError(ESRCH)
    return target


@syscall("tgkill")
def tgkill(task: Task, tgid: Pid, tid: Pid, signo: Signo) -> Result:
    """Send `signo` to thread `tid` of process `tgid`. EINVAL, ESRCH, EPERM, EAGAIN. tgkill(2)"""
    if tgid <= 0 or tid <= 0:
        raise LinuxError(EINVAL)
    return _tkill(task, tgid, tid, signo)


@syscall("tkill")
def tkill(task: Task, tid: Pid, signo: Signo) -> Result:
    """Send `signo` to thread `tid`. EINVAL, ESRCH, EPERM, EAGAIN. tkill(2)"""
    if tid <= 0:
        raise LinuxError(EINVAL)
    return _tkill(task, -1, tid, signo)


def _tkill(task: Task, tgid: int, tid: int, signo: int) -> int:
    target = _thread(task, tgid, tid)
    check_signo(signo)
    check_permission(task, target.group, signo)
    if signo:
        info = SigInfo.user(signo, SI_TKILL, task.group.pid, task.creds.uid)
        task_signals.send(target, signo, info)
    return 0


@syscall("rt_sigqueueinfo")
def rt_sigqueueinfo(task: Task, pid: Pid, signo: Signo, uinfo: UserAddr) -> Result:
    """Send `signo` with a siginfo to process `pid`, sigqueue(3). EFAULT, EPERM a siginfo only the
    kernel may send to others, EINVAL, ESRCH, EAGAIN. rt_sigqueueinfo(2)"""
    info = read_siginfo(task, signo, uinfo)
    _check_forgery(task, pid, info)
    target = task.kernel.tasks.get(pid)
    if target is None:
        raise LinuxError(ESRCH)
    check_signo(signo)
    _send(task, target.group, info)
    return 0


@syscall("rt_tgsigqueueinfo")
def rt_tgsigqueueinfo(task: Task, tgid: Pid, tid: Pid, signo: Signo, uinfo: UserAddr) -> Result:
    """As rt_sigqueueinfo, to thread `tid` of process `tgid`. rt_tgsigqueueinfo(2)"""
    info = read_siginfo(task, signo, uinfo)
    if tgid <= 0 or tid <= 0:
        raise LinuxError(EINVAL)
    _check_forgery(task, tid, info)
    target = _thread(task, tgid, tid)
    check_signo(signo)
    check_permission(task, target.group, signo)
    if signo:
        task_signals.send(target, signo, info)
    return 0


def read_siginfo(task: Task, signo: int, uinfo: int, *, check: bool = False) -> SigInfo:
    """A siginfo_t of the program's, with its number set to `signo`. EFAULT; with `check` EINVAL if
    its number is another."""
    info = SigInfo.unpack(task.mm.read(uinfo, SIGINFO_SIZE))
    if check and info.signo != signo:
        raise LinuxError(EINVAL)
    info.signo = signo
    return info


def _check_forgery(task: Task, pid: int, info: SigInfo) -> None:
    """Only to oneself may one pretend to be the kernel or kill(2). EPERM"""
    if (info.code >= 0 or info.code == SI_TKILL) and pid not in (task.tid, task.group.pid):
        raise LinuxError(EPERM)


# Taking without a handler.


@syscall("rt_sigtimedwait")
def rt_sigtimedwait(
    task: Task, set_ptr: SigsetPtr, uinfo: UserAddr, timeout: TimespecPtr, sigsetsize: Size
) -> Result:
    """Take a pending signal of the set, waiting for one if there is none; returns its number.
    sigtimedwait(2)

    Errors: EINVAL sigsetsize, timeout; EFAULT; EAGAIN the time is over; EINTR another signal's
    handler.
    """
    wanted = read_sigset(task, set_ptr, sigsetsize) & ~UNBLOCKABLE
    deadline_ns = None
    if timeout:
        seconds, nanoseconds = task.mm.unpack(timeout, _TIMESPEC)
        if seconds < 0 or not 0 <= nanoseconds < 1_000_000_000:
            raise LinuxError(EINVAL)
        deadline_ns = monotonic_ns() + seconds * 1_000_000_000 + nanoseconds
    info = _take(task, wanted, deadline_ns)
    if uinfo:
        task.mm.write(uinfo, info.pack())
    return info.signo


def _take(task: Task, wanted: int, deadline_ns: int | None) -> SigInfo:
    queue = task.sighand.queue
    in_time = True
    while True:
        info = task_signals.dequeue(task, ~wanted)
        if info is not None:
            task_signals.recalculate(task)
            return info
        if not in_time or (deadline_ns is not None and deadline_ns <= monotonic_ns()):
            raise LinuxError(EAGAIN)
        try:
            in_time = task.block(queue, deadline_ns, restart=EINTR)
        except Interrupted:
            # one of those wanted that is not even blocked is taken before its handler runs
            if not (task.pending.mask | task.group.pending.mask) & wanted:
                raise
