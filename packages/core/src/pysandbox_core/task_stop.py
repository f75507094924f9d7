"""Job control: stopping and continuing whole processes. signal(7), wait(2)

Interface: `start_group_stop` asks every thread to stop; each gets there through `stop_here` and
parks. The parent is told when the last one has, and again by `continue_group`, which SIGCONT brings
about whatever its disposition. SIGKILL ends a stop through WORK_EXIT.

Linux: kernel/signal.c (do_signal_stop, prepare_signal, do_notify_parent_cldstop).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_core import accounting, task_signals
from pysandbox_core.abi.signal import (
    CLD_CONTINUED,
    CLD_STOPPED,
    SA_NOCLDSTOP,
    SIG_IGN,
    SIGCHLD,
    SIGCONT,
)
from pysandbox_core.signals import SigInfo
from pysandbox_core.task import WORK_EXIT, WORK_STOP

if TYPE_CHECKING:
    from pysandbox_core.task import Task, ThreadGroup


def start_group_stop(group: ThreadGroup, signo: int) -> None:
    """Have every thread stop because of `signo`. A process that is stopped or stopping stays so."""
    if group.group_exit_code is not None:
        return
    group.stop_signal = signo
    for task in group.tasks:
        if not task.stopped and not task.work & (WORK_STOP | WORK_EXIT):
            group.stop_pending += 1
            task.notice(WORK_STOP)


def stop_here(task: Task) -> None:
    """Park `task`, which WORK_STOP asks to stop, until its process is continued or it is to die."""
    group = task.group
    task.work &= ~WORK_STOP
    if not group.stop_signal:
        return
    task.stopped = True
    thread_stopped(group)
    try:
        while task.stopped and not task.work & WORK_EXIT:
            task.killable_only = True
            task.kernel.park(task)
    finally:
        task.stopped = False
    task_signals.recalculate(task)


def thread_stopped(group: ThreadGroup) -> None:
    """One thread that was to stop has, or has exited; after the last one the parent is told."""
    group.stop_pending -= 1
    if group.stop_pending == 0:
        group.stop_reported = False
        group.continue_reported = True
        _notify_parent(group, CLD_STOPPED, group.stop_signal)


def continue_group(group: ThreadGroup) -> None:
    """End the stop, complete or not; the parent is told if it was complete."""
    if not group.stop_signal:
        return
    complete = not group.stop_pending
    stop_signal = group.stop_signal
    group.stop_signal = 0
    group.stop_pending = 0
    group.stop_reported = True
    for task in group.tasks:
        task.work &= ~WORK_STOP
        if task.stopped:
            task.stopped = False
            task.killable_only = False
            task.make_ready()
    group.continue_reported = False
    if complete:
        _notify_parent(group, CLD_CONTINUED, SIGCONT)
    else:
        # the stop was under way: Linux reports it although it never came to pass
        _notify_parent(group, CLD_STOPPED, stop_signal)


def _notify_parent(group: ThreadGroup, code: int, status: int) -> None:
    """Tell the parent of a stop or a continue, by SIGCHLD unless it does not want that, and wake
    it."""
    if code == CLD_STOPPED and group.on_stop is not None:
        group.on_stop(status)
    parent = group.parent
    if parent is None:
        return
    if parent.tasks:
        action = parent.tasks[0].sighand.actions[SIGCHLD]
        if action.handler != SIG_IGN and not action.flags & SA_NOCLDSTOP:
            leader = group.leader or group.tasks[0]
            ticks = accounting.ticks(accounting.group_cpu_time_ns(group))
            info = SigInfo.child(code, group.pid, leader.creds.uid, status, ticks)
            task_signals.send(parent, SIGCHLD, info)
    parent.child_queue.wake()
