"""What signals do: sending, choosing a thread, delivering. signal(7)

Interface:
- `send` makes a signal pending for a thread or a process and sees that a thread gets to it. It
  never fails but for a full queue; permission is the caller's to check.
- `deliver` runs between a task's stop and its program's next instruction, with any of WORK_SIGNAL,
  WORK_RESTART, WORK_STOP, WORK_RESTORE_SIGMASK set, and takes away the bits it has dealt with.
- WORK_SIGNAL is set whenever a signal is pending that the task does not block; it may be set when
  another thread has taken that signal meanwhile.
- Whoever changes `task.sigmask` does it through `set_sigmask`.

Linux: kernel/signal.c, arch/x86/kernel/signal.c.
"""

from __future__ import annotations

from errno import EAGAIN, EINTR
from typing import TYPE_CHECKING

from pysandbox_platform.registers_amd64 import ORIG_RAX, RAX, RIP

from pysandbox_core import signal_frame_amd64 as signal_frame
from pysandbox_core import task_exit, task_stop
from pysandbox_core.abi.numbers_amd64 import NUMBERS
from pysandbox_core.abi.signal import (
    DEFAULT_CORE,
    DEFAULT_IGNORE,
    DEFAULT_STOP,
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SI_USER,
    SIG_DFL,
    SIG_IGN,
    SIGCONT,
    SIGKILL,
    SIGRTMIN,
    SIGSEGV,
    SIGSTOP,
    UNBLOCKABLE,
)
from pysandbox_core.errors import (
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    ERESTARTSYS,
    LinuxError,
)
from pysandbox_core.kernel_memory import SMALL
from pysandbox_core.signals import DEFAULT_ACTION, SigInfo
from pysandbox_core.task import (
    WORK_EXIT,
    WORK_RESTART,
    WORK_RESTORE_SIGMASK,
    WORK_SIGNAL,
    WORK_STOP,
    Task,
    ThreadGroup,
)
from pysandbox_core.waiting import POLLIN

if TYPE_CHECKING:
    from pysandbox_core.signals import PendingSignals, SignalAction

_U64 = 0xFFFFFFFFFFFFFFFF
_SYSCALL_LENGTH = 2
"""Bytes of the SYSCALL instruction, 0f 05."""


# Sending.


def send(target: Task | ThreadGroup, signo: int, info: SigInfo | None = None) -> bool:
    """Send `signo` to a thread, or to a process as a whole; without `info` from the kernel.

    Returns whether it was queued: False if it is ignored, was pending already, or the target is
    gone. Raises EAGAIN if a realtime signal of sigqueue(3) finds RLIMIT_SIGPENDING reached.
    """
    if isinstance(target, Task):
        group, thread = target.group, target
        if target.exited:
            return False
        pending = target.pending
    else:
        group = target
        if not group.tasks:
            return False
        thread = _first_thread(group)
        pending = group.pending
    if not _prepare(group, thread, signo):
        return False
    if signo < SIGRTMIN and pending.mask >> (signo - 1) & 1:
        return False
    if info is None:
        info = SigInfo.kernel(signo)
        pending.add(info)
    elif _charge(thread, info):
        pending.add(info)
    elif signo >= SIGRTMIN and info.code != SI_USER:
        raise LinuxError(EAGAIN)
    elif info.on_collect is not None:
        pending.add(info)  # a timer goes on when it is taken, and there is one at most
    else:
        pending.add_bare(signo)
    thread.sighand.queue.wake(POLLIN)
    _choose(group, thread, signo, pending is thread.pending)
    return True


def _first_thread(group: ThreadGroup) -> Task:
    leader = group.leader
    return leader if leader is not None and not leader.exited else group.tasks[0]


def _prepare(group: ThreadGroup, thread: Task, signo: int) -> bool:
    """What sending does whether or not the signal is ignored; is it to become pending?"""
    if group.group_exit_code is not None:
        return False
    bit = 1 << (signo - 1)
    if bit & DEFAULT_STOP:
        discard(group, 1 << (SIGCONT - 1))
    elif signo == SIGCONT:
        discard(group, DEFAULT_STOP)
        task_stop.continue_group(group)
    if thread.sigmask & bit:
        return True  # it may have a handler by the time it is unblocked
    return not thread.sighand.ignores(signo)


def _charge(thread: Task, info: SigInfo) -> bool:
    """Count `info` against its receiver's RLIMIT_SIGPENDING; False if that is reached. Standard
    signals from kill(2) and from the kernel are queued regardless."""
    counts = thread.kernel.queued_signals
    uid = thread.creds.uid
    count = counts.get(uid, 0)
    override = info.signo < SIGRTMIN and info.code >= 0
    if not override and count >= thread.group.limits.sigpending:
        return False
    try:
        thread.kernel.memory.grow(SMALL)
    except LinuxError:
        return False
    counts[uid] = count + 1
    info.charged_uid = uid
    return True


def collected(task: Task, info: SigInfo) -> None:
    """`info` has left its queue."""
    uid = info.charged_uid
    if uid >= 0:
        info.charged_uid = -1
        counts = task.kernel.queued_signals
        counts[uid] -= 1
        if not counts[uid]:
            del counts[uid]
    if info.on_collect is not None:
        info.on_collect(info)


def discard(group: ThreadGroup, mask: int) -> None:
    """Drop the signals of `mask` that are pending anywhere in the process."""
    thread = group.tasks[0]
    for info in group.pending.discard(mask):
        collected(thread, info)
    for task in group.tasks:
        discard_pending(task, task.pending, mask)


def discard_pending(task: Task, pending: PendingSignals, mask: int) -> None:
    """Drop the signals of `mask` from `pending`."""
    for info in pending.discard(mask):
        collected(task, info)


def _choose(group: ThreadGroup, thread: Task, signo: int, private: bool) -> None:
    """Find a thread to take the signal and wake it; end the whole process at once if that is what
    the signal will do. Linux: complete_signal."""
    bit = 1 << (signo - 1)
    if _wants(thread, signo, bit):
        chosen = thread
    elif private:
        return
    else:
        for chosen in group.tasks:
            if _wants(chosen, signo, bit):
                break
        else:
            return  # whoever unblocks it first will take it
    if (
        chosen.sighand.actions[signo].handler == SIG_DFL
        and not bit & (DEFAULT_IGNORE | DEFAULT_STOP | DEFAULT_CORE)
    ) or signo == SIGKILL:
        task_exit.start_group_exit(group, signo)
    else:
        chosen.notice(WORK_SIGNAL)


def _wants(task: Task, signo: int, bit: int) -> bool:
    if task.sigmask & bit or task.exited or task.work & WORK_EXIT:
        return False
    if signo == SIGKILL:
        return True
    return not task.stopped and not task.work & WORK_SIGNAL


def force(task: Task, info: SigInfo, *, default: bool = False) -> None:
    """Send `info` to `task`, which can't escape it: if it is blocked or ignored, or with `default`,
    its action becomes SIG_DFL. Linux: force_sig_info."""
    bit = 1 << (info.signo - 1)
    actions = task.sighand.actions
    if default or task.sigmask & bit or actions[info.signo].handler == SIG_IGN:
        actions[info.signo] = DEFAULT_ACTION
        if task.sigmask & bit:
            set_sigmask(task, task.sigmask & ~bit)
    send(task, info.signo, info)
    recalculate(task)


def force_fault(task: Task, signo: int, code: int, addr: int, error_code: int = 0) -> None:
    """The program did something it must not: `signo` with `code`, at `addr`. `error_code` is the
    page fault's."""
    signal_frame.note_trap(task, signo, code, addr, error_code)
    force(task, SigInfo.fault(signo, code, addr))


# The mask of blocked signals.


def recalculate(task: Task) -> None:
    """Set or clear WORK_SIGNAL by what is pending now."""
    if (task.pending.mask | task.group.pending.mask) & ~task.sigmask:
        task.work |= WORK_SIGNAL
    else:
        task.work &= ~WORK_SIGNAL


def set_sigmask(task: Task, mask: int) -> None:
    """Block exactly the signals of `mask`, SIGKILL and SIGSTOP excepted."""
    mask &= ~UNBLOCKABLE
    previous = task.sigmask
    if mask == previous:
        return
    task.sigmask = mask
    group = task.group
    shared = group.pending.mask & mask & ~previous
    if shared and task.work & WORK_SIGNAL:
        # it was to take them; another thread must now
        for other in group.tasks:
            if other is not task and shared & ~other.sigmask and not other.exited:
                shared &= other.sigmask
                other.notice(WORK_SIGNAL)
    recalculate(task)


def set_temporary_sigmask(task: Task, mask: int) -> None:
    """Block `mask` for the length of the current call (sigsuspend, ppoll, pselect, epoll_pwait):
    the old mask comes back when the call ends, after the handler if a signal ends it."""
    task.saved_sigmask = task.sigmask
    task.work |= WORK_RESTORE_SIGMASK
    set_sigmask(task, mask)


# Taking and delivering.


def dequeue(task: Task, blocked: int) -> SigInfo | None:
    """Take the next signal that is not in `blocked`, the thread's own before the process's."""
    pending = task.pending
    signo = pending.first(blocked)
    if not signo:
        pending = task.group.pending
        signo = pending.first(blocked)
        if not signo:
            return None
    info = pending.take(signo)
    collected(task, info)
    return info


def deliver(task: Task) -> None:
    """Deal with stops, signals, restarts and the saved mask, whichever of them `task.work` names.

    Returns after one handler's frame was built; another pending signal leaves WORK_SIGNAL set and
    its frame goes on top.
    """
    work = task.work
    if work & WORK_STOP:
        task_stop.stop_here(task)
        return
    if work & WORK_RESTORE_SIGMASK and not work & WORK_RESTART and task.regs[RAX] != -EINTR & _U64:
        _restore_sigmask(task)  # the call succeeded: signals see the program's own mask
    taken = _next_to_handle(task) if task.work & WORK_SIGNAL else None
    if task.work & (WORK_EXIT | WORK_STOP):
        return
    if taken is not None:
        _enter_handler(task, *taken)
        return
    if task.work & WORK_RESTART:
        _restart_without_handler(task)
    if task.work & WORK_RESTORE_SIGMASK:
        _restore_sigmask(task)
    recalculate(task)


def _next_to_handle(task: Task) -> tuple[SigInfo, SignalAction] | None:
    """Take signals until one has a handler, ends the process or stops it. Linux: get_signal."""
    actions = task.sighand.actions
    while True:
        info = dequeue(task, task.sigmask)
        if info is None:
            return None
        signo = info.signo
        action = actions[signo]
        if action.handler == SIG_IGN:
            continue
        if task.kernel.hooks is not None:
            task.kernel.hooks.signal_delivered(task=task, info=info)
        if action.handler != SIG_DFL:
            if action.flags & SA_RESETHAND:
                actions[signo] = action._replace(handler=SIG_DFL)
            return info, action
        bit = 1 << (signo - 1)
        if bit & DEFAULT_IGNORE:
            continue
        if bit & DEFAULT_STOP:
            if signo != SIGSTOP and task.group.process_group.is_orphaned():
                continue  # nobody would ever continue it
            task_stop.start_group_stop(task.group, signo)
            return None
        task_exit.start_group_exit(task.group, signo)
        return None


def _enter_handler(task: Task, info: SigInfo, action: SignalAction) -> None:
    """Build the handler's frame and block what it blocks. Linux: handle_signal."""
    if task.work & WORK_RESTART:
        task.work &= ~WORK_RESTART
        errno = task.restart_errno
        if errno in (ERESTARTNOHAND, ERESTART_RESTARTBLOCK) or (
            errno == ERESTARTSYS and not action.flags & SA_RESTART
        ):
            task.regs[RAX] = -EINTR & _U64
        else:
            _restart(task, task.regs[ORIG_RAX])
    mask = task.saved_sigmask if task.work & WORK_RESTORE_SIGMASK else task.sigmask
    try:
        signal_frame.push(task, info, action, mask)
    except LinuxError:
        recalculate(task)
        force(task, SigInfo.kernel(SIGSEGV), default=info.signo == SIGSEGV)
        return
    task.work &= ~WORK_RESTORE_SIGMASK
    blocked = task.sigmask | action.mask
    if not action.flags & SA_NODEFER:
        blocked |= 1 << (info.signo - 1)
    set_sigmask(task, blocked)
    recalculate(task)


def _restart_without_handler(task: Task) -> None:
    task.work &= ~WORK_RESTART
    if task.restart_errno == ERESTART_RESTARTBLOCK:
        _restart(task, NUMBERS["restart_syscall"])
    else:
        _restart(task, task.regs[ORIG_RAX])


def _restart(task: Task, number: int) -> None:
    """Have the program execute its SYSCALL instruction once more, as system call `number`."""
    regs = task.regs
    regs[RAX] = number
    regs[RIP] = regs[RIP] - _SYSCALL_LENGTH & _U64


def _restore_sigmask(task: Task) -> None:
    task.work &= ~WORK_RESTORE_SIGMASK
    set_sigmask(task, task.saved_sigmask)


def exit_if_dying(task: Task) -> None:
    """End the task: WORK_EXIT is set."""
    if not task.exited:
        task_exit.exit_task(task)
