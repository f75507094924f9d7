"""Waiting for children: what they did, whose they are, and taking zombies away. wait(2), waitid(2)

Interface: `wait` blocks until a child that `Wait` describes has something to report, and returns
what; nothing is stored in the program's memory here. A child reports its end once, to whoever takes
it; a stop and a continue once each, unless WNOWAIT leaves them.

Linux: kernel/exit.c (do_wait).
"""

from __future__ import annotations

from errno import ECHILD
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_core import accounting, task_exit
from pysandbox_core.abi.signal import CLD_CONTINUED, CLD_STOPPED, SIGCHLD, SIGCONT
from pysandbox_core.errors import LinuxError
from pysandbox_core.signals import SigInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pysandbox_core.sessions import ProcessGroup
    from pysandbox_core.task import Task, ThreadGroup

WNOHANG = 0x00000001
WUNTRACED = 0x00000002
WSTOPPED = WUNTRACED
WEXITED = 0x00000004
WCONTINUED = 0x00000008
WNOWAIT = 0x01000000
WNOTHREAD = 0x20000000
"""__WNOTHREAD: only children that the calling thread made."""
WALL = 0x40000000
"""__WALL: whatever signal they end with."""
WCLONE = 0x80000000
"""__WCLONE: those that end with another signal than SIGCHLD, and no others."""

_CONTINUED_STATUS = 0xFFFF


class Wait(NamedTuple):
    """What is waited for: the children that all conditions fit."""

    options: int
    pid: int = 0
    """0 for any."""
    process_group: ProcessGroup | None = None
    child: ThreadGroup | None = None
    """P_PIDFD"""
    nothing: bool = False
    """No child can fit (a process group that does not exist)."""


class Report(NamedTuple):
    """What a child did."""

    pid: int
    status: int
    """wait(2) status word."""
    info: SigInfo
    cpu_time_ns: int
    max_rss: int


def wait(task: Task, what: Wait) -> Report | None:
    """Block until a child reports; None with WNOHANG if none does now.

    Errors: ECHILD no child fits; Interrupted.
    """
    queue = task.group.child_queue
    while True:
        found = False
        for child in _eligible(task, what):
            found = True
            report = _consider(child, what.options)
            if report is not None:
                return report
        if not found:
            raise LinuxError(ECHILD)
        if what.options & WNOHANG:
            return None
        task.block(queue)


def _eligible(task: Task, what: Wait) -> Iterator[ThreadGroup]:
    """The children that `what` names, whatever they have to report."""
    options = what.options
    children = task.group.children
    if what.nothing:
        return
    if what.pid:
        candidate = children.get(what.pid)
        candidates: tuple[ThreadGroup, ...] = () if candidate is None else (candidate,)
    else:
        candidates = tuple(children.values())
    for child in candidates:
        if what.child is not None and child is not what.child:
            continue
        if what.process_group is not None and child.process_group is not what.process_group:
            continue
        if options & WNOTHREAD and child.parent_task is not task:
            continue
        if not options & WALL and (child.exit_signal != SIGCHLD) != bool(options & WCLONE):
            continue
        yield child


def _consider(child: ThreadGroup, options: int) -> Report | None:
    """What `child` has to report of what `options` ask for. Linux: wait_consider_task."""
    keep = options & WNOWAIT
    if child.exit_status is not None:
        if not options & WEXITED:
            return None
        cpu_time_ns = child.cpu_time_ns + child.children_cpu_ns
        max_rss = max(child.max_rss, child.children_max_rss)
        info = task_exit.exit_info(child)
        if not keep:
            task_exit.reap(child)
        return Report(child.pid, child.exit_status, info, cpu_time_ns, max_rss)
    if options & WSTOPPED and child.stop_signal and not child.stop_pending:
        if not child.stop_reported:
            child.stop_reported = bool(not keep)
            status = child.stop_signal << 8 | 0x7F
            return _living(child, status, CLD_STOPPED, child.stop_signal)
    if options & WCONTINUED and not child.continue_reported:
        child.continue_reported = bool(not keep)
        return _living(child, _CONTINUED_STATUS, CLD_CONTINUED, SIGCONT)
    return None


def _living(child: ThreadGroup, status: int, code: int, value: int) -> Report:
    leader = child.leader
    uid = leader.creds.uid if leader is not None else 0
    cpu_time_ns = accounting.group_cpu_time_ns(child)
    info = SigInfo.child(code, child.pid, uid, value, accounting.ticks(cpu_time_ns))
    return Report(child.pid, status, info, cpu_time_ns, accounting.group_max_rss(child))
