"""How threads and processes end. exit(2), exit_group(2), wait(2)

Interface:
- Whoever wants a thread gone sets WORK_EXIT (`request_exit`, `start_group_exit`); the thread itself
  gets to `exit_task` before it would run its program again. Its exit code is a wait(2) status word.
- A process is dead when its last thread is: then its parent is told, and it stays a zombie until
  the parent waits for it (`reap`), or goes at once where nobody will.
- Children of a dead process go to its nearest living ancestor that is a subreaper, else to process
  1, which is the kernel's own and reaps at once.

Linux: kernel/exit.c.
"""

from __future__ import annotations

from contextlib import suppress
from errno import EAGAIN
from typing import TYPE_CHECKING

from pysandbox_core import accounting, constant_results, futex, sessions, task_signals, task_stop
from pysandbox_core.abi.signal import (
    CLD_EXITED,
    CLD_KILLED,
    NSIG,
    SA_NOCLDWAIT,
    SI_USER,
    SIG_IGN,
    SIGCHLD,
)
from pysandbox_core.errors import ERESTARTNOINTR, Interrupted, LinuxError
from pysandbox_core.signals import SigInfo
from pysandbox_core.task import WORK_EXIT, WORK_SIGNAL, WORK_STOP
from pysandbox_core.waiting import POLLIN

if TYPE_CHECKING:
    from pysandbox_core.task import Task, ThreadGroup


def status_of_exit(code: int) -> int:
    """The status word of exit(`code`)."""
    return (code & 0xFF) << 8


def request_exit(task: Task, status: int) -> None:
    """End one thread with a status word. exit(2)"""
    task.exit_code = status
    task.notice(WORK_EXIT)


def start_group_exit(group: ThreadGroup, status: int) -> None:
    """End every thread of the process. The first status given is the process's."""
    if group.group_exit_code is None:
        group.group_exit_code = status
    for task in group.tasks:
        task.notice(WORK_EXIT)


def kill_other_threads(task: Task) -> None:
    """End every other thread of `task`'s process and wait until they are gone, for execve(2).

    EAGAIN if the process is about to end or another thread is doing the same; raises Interrupted if
    `task` is to die meanwhile.
    """
    group = task.group
    if group.group_exit_code is not None or task.work & WORK_EXIT:
        raise LinuxError(EAGAIN)
    for other in group.tasks:
        if other is not task:
            other.notice(WORK_EXIT)
    while len(group.tasks) > 1:
        task.block(group.exit_queue, restart=ERESTARTNOINTR, killable_only=True)
        if task.work & WORK_EXIT:
            raise Interrupted(ERESTARTNOINTR)


def become_leader(task: Task) -> None:
    """Give `task`, the last thread of its process, the tid and the place of the leader, which has
    exited. execve(2)"""
    group = task.group
    leader = group.leader
    if leader is task or leader is None:
        return
    tasks = task.kernel.tasks
    tasks.pop(task.tid, None)
    task.tid, leader.tid = leader.tid, task.tid
    tasks[task.tid] = task
    group.leader = task
    constant_results.publish(task)


def release_memory(task: Task) -> None:
    """What a thread does when it lets go of its address space, by exit or execve: robust futexes
    are marked, locks with priority inheritance handed over, whoever waits for its end by the tid
    word is woken, a vfork parent goes on. Linux: mm_release."""
    futex.exit_robust_list(task)
    addr = task.clear_child_tid
    task.clear_child_tid = 0
    if addr and task.mm.users > 1:
        with suppress(LinuxError):  # the program's own mistake, and nobody to tell
            task.mm.write_u32(addr, 0)
            futex.wake(task.mm, addr, 1)
    finish_vfork(task)


def finish_vfork(task: Task) -> None:
    """Let the parent that is waiting in vfork(2) for `task` go on."""
    parent = task.vfork_parent
    if parent is None:
        return
    task.vfork_parent = None
    queue = parent.vfork_queue
    parent.vfork_queue = None
    if queue is not None:
        queue.wake()


def exit_task(task: Task) -> None:
    """End `task`, which is neither running nor parked, for good. Linux: do_exit."""
    kernel = task.kernel
    group = task.group
    if group.group_exit_code is not None:
        task.exit_code = group.group_exit_code
    if task.work & WORK_STOP:
        task.work &= ~WORK_STOP
        if group.stop_signal:
            task_stop.thread_stopped(group)
    _hand_over_signals(task)
    release_memory(task)
    accounting.task_exited(task)
    task.exited = True
    if kernel.hooks is not None:
        kernel.hooks.task_exit(task=task, status=task.exit_code)
    group.tasks.remove(task)
    last = not group.tasks
    if last:
        for callback in group.exit_callbacks:
            callback(group)
        group.exit_callbacks.clear()
    task.files.release(task)
    task.fs.release()
    task.sighand.users -= 1
    task.mm.release(task)
    task.context.release()
    task.context.owner = None  # no circle: what is gone is free at once
    if task is not group.leader:
        kernel.tasks.pop(task.tid, None)
    _leave_children(task, last)
    if last:
        if group.group_exit_code is None:
            group.group_exit_code = task.exit_code
        _end_process(group)
    else:
        group.exit_queue.wake()


def _hand_over_signals(task: Task) -> None:
    """Drop the thread's own signals, and let others take those of the process that it was to
    take."""
    group = task.group
    task_signals.discard_pending(task, task.pending, task.pending.mask)
    shared = group.pending.mask & ~task.sigmask
    task.sigmask = -1
    for other in group.tasks:
        if other is not task and shared & ~other.sigmask:
            shared &= other.sigmask
            other.notice(WORK_SIGNAL)


def _leave_children(task: Task, last: bool) -> None:
    """Find new parents for the children that `task` made, and tell those who asked for it. Linux:
    forget_original_parent."""
    group = task.group
    if not group.children:
        return
    heir = None if last else group.tasks[0]
    reaper = group if heir is not None else _find_reaper(group)
    for child in tuple(group.children.values()):
        if child.parent_task is not task and not last:
            continue
        child.parent_task = heir
        for signo in [thread.pdeath_signal for thread in child.tasks if thread.pdeath_signal]:
            info = SigInfo.user(signo, SI_USER, group.pid, task.creds.uid)
            task_signals.send(child, signo, info)
        if reaper is group:
            continue
        del group.children[child.pid]
        child.parent = reaper
        child.parent_task = reaper.tasks[0] if reaper.tasks else None
        reaper.children[child.pid] = child
        child.exit_signal = SIGCHLD
        if child.exit_status is not None:
            _notify_parent(child)
        sessions.check_orphaned(child, group, exiting=False)


def _find_reaper(group: ThreadGroup) -> ThreadGroup:
    """Who inherits the children of `group`: prctl(2), PR_SET_CHILD_SUBREAPER."""
    ancestor = group.parent
    while ancestor is not None and ancestor is not group.kernel.init:
        if ancestor.is_child_subreaper and ancestor.tasks:
            return ancestor
        ancestor = ancestor.parent
    return group.kernel.init


def _end_process(group: ThreadGroup) -> None:
    """The last thread is gone, and its status is the process's: that is a zombie. Linux:
    exit_notify."""
    leader = group.leader
    assert leader is not None
    task_signals.discard_pending(leader, group.pending, group.pending.mask)
    sessions.leader_exited(group)
    sessions.check_orphaned(group, group.parent, exiting=True)
    group.exit_status = group.group_exit_code or 0
    group.exit_queue.wake(POLLIN)
    if group.on_exit is not None:
        group.on_exit(group.exit_status)
    _notify_parent(group)


def _notify_parent(group: ThreadGroup) -> None:
    """Tell the parent that `group` has ended, and reap it where nobody will wait. Linux:
    do_notify_parent."""
    parent = group.parent
    if parent is None or not parent.tasks:
        reap(group)
        return
    signo = group.exit_signal
    autoreap = False
    if signo == SIGCHLD:
        action = parent.tasks[0].sighand.actions[SIGCHLD]
        autoreap = action.handler == SIG_IGN or bool(action.flags & SA_NOCLDWAIT)
        if action.handler == SIG_IGN:
            signo = 0
    if 0 < signo <= NSIG:
        info = exit_info(group)
        info.signo = signo
        with suppress(LinuxError):  # a realtime signal that the parent has no room for is lost
            task_signals.send(parent, signo, info)
    if autoreap:
        reap(group)
    parent.child_queue.wake()


def exit_info(group: ThreadGroup) -> SigInfo:
    """What SIGCHLD and waitid(2) say of a process that has ended."""
    status = group.exit_status or 0
    code, value = (CLD_KILLED, status & 0x7F) if status & 0x7F else (CLD_EXITED, status >> 8)
    leader = group.leader
    uid = leader.creds.uid if leader is not None else 0
    ticks = accounting.ticks(group.cpu_time_ns)
    return SigInfo.child(code, group.pid, uid, value, ticks)


def reap(group: ThreadGroup) -> None:
    """Take a zombie away: its pid is free, and its use counts as its parent's children's."""
    kernel = group.kernel
    parent = group.parent
    if parent is not None:
        parent.children.pop(group.pid, None)
        accounting.child_reaped(parent, group)
    kernel.groups.pop(group.pid, None)
    kernel.tasks.pop(group.pid, None)
    group.process_group.remove(group)
    group.leader = None  # no circle
