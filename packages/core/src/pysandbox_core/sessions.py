"""Process groups and sessions: who stands in which, and who is orphaned. setpgid(2), setsid(2)

Interface: a `ThreadGroup` is always in one `ProcessGroup`, that always in one `Session`; both
vanish with their last member. The kernel finds them by number in `process_groups` and `sessions`.

A terminal that controls a session (fs/tty.py) is the session's `tty`; what it needs to know of
process life is told through `ControllingTty`.

Linux: kernel/sys.c, kernel/exit.c (will_become_orphaned_pgrp), drivers/tty/tty_jobctrl.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pysandbox_core import task_signals
from pysandbox_core.abi.signal import SIGCONT, SIGHUP

if TYPE_CHECKING:
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import ThreadGroup


class ControllingTty(Protocol):
    """What a terminal is to its session."""

    foreground: ProcessGroup | None
    """The process group that may read from it."""

    def session_ended(self, session: Session) -> None:
        """The session's leader has exited: hang up. `session.tty` is None already."""


class Session:
    """Process groups under one controlling terminal, or none."""

    __slots__ = ("kernel", "leader", "process_groups", "sid", "tty")

    def __init__(self, kernel: Kernel, leader: ThreadGroup) -> None:
        self.kernel = kernel
        self.sid = leader.pid
        self.leader: ThreadGroup | None = leader
        """None once it has exited."""
        self.process_groups: dict[int, ProcessGroup] = {}
        self.tty: ControllingTty | None = None
        kernel.sessions[self.sid] = self


class ProcessGroup:
    """A job: processes that get the terminal's signals together."""

    __slots__ = ("members", "pgid", "session")

    def __init__(self, pgid: int, session: Session) -> None:
        self.pgid = pgid
        self.session = session
        self.members: dict[int, ThreadGroup] = {}
        """By pid, zombies included."""
        session.process_groups[pgid] = self
        session.kernel.process_groups[pgid] = self

    def add(self, group: ThreadGroup) -> None:
        """Let `group` join; it leaves the process group it was in."""
        previous = group.process_group
        group.process_group = self
        self.members[group.pid] = group
        if previous is not None and previous is not self:
            previous.remove(group)

    def remove(self, group: ThreadGroup) -> None:
        """Let `group` go; without members the process group is gone, and perhaps its session."""
        self.members.pop(group.pid, None)
        if self.members:
            return
        session = self.session
        kernel = session.kernel
        session.process_groups.pop(self.pgid, None)
        if kernel.process_groups.get(self.pgid) is self:
            del kernel.process_groups[self.pgid]
        tty = session.tty
        if tty is not None and tty.foreground is self:
            tty.foreground = None
        if not session.process_groups and kernel.sessions.get(session.sid) is session:
            del kernel.sessions[session.sid]

    def signal(self, signo: int) -> None:
        """Send `signo` to every member, from the kernel."""
        for group in tuple(self.members.values()):
            task_signals.send(group, signo)

    def is_orphaned(self, without: ThreadGroup | None = None) -> bool:
        """Has no member (but `without`, which is exiting) a parent in another process group of the
        session? Then nobody is left who would continue it: POSIX 3.264."""
        for group in self.members.values():
            if group is without or group.exit_status is not None or not group.tasks:
                continue
            if group.on_stop is not None:
                return False
            parent = group.parent
            if (
                parent is not None
                and parent.process_group is not None
                and parent is not group.kernel.init
                and parent.process_group is not self
                and parent.process_group.session is self.session
            ):
                return False
        return True

    def has_stopped_member(self) -> bool:
        return any(
            group.stop_signal and not group.stop_pending and group.exit_status is None
            for group in self.members.values()
        )


def new_session(group: ThreadGroup) -> Session:
    """Make `group` the leader of a session and of a process group in it, both its own. The caller
    has checked that it leads no process group."""
    session = Session(group.kernel, group)
    ProcessGroup(group.pid, session).add(group)
    return session


def check_orphaned(group: ThreadGroup, parent: ThreadGroup | None, exiting: bool) -> None:
    """After `group` (if `exiting`) or its `parent` has gone: a process group that was orphaned by
    it and has stopped members gets SIGHUP and SIGCONT. exit(3)

    `parent` is the one that `group` had, or has.
    """
    process_group = group.process_group
    if process_group is None or parent is None or parent.process_group is None:
        return
    if parent.process_group is process_group:
        return
    if parent.process_group.session is not process_group.session:
        return
    if process_group.is_orphaned(group if exiting else None) and process_group.has_stopped_member():
        process_group.signal(SIGHUP)
        process_group.signal(SIGCONT)


def leader_exited(group: ThreadGroup) -> None:
    """If `group`, whose last thread exits, leads its session, the session loses its terminal, and
    the terminal's foreground process group is told by SIGHUP and SIGCONT."""
    session = group.process_group.session
    if session.leader is not group:
        return
    session.leader = None
    tty = session.tty
    if tty is None:
        return
    session.tty = None
    foreground = tty.foreground
    if foreground is not None:
        foreground.signal(SIGHUP)
        foreground.signal(SIGCONT)
    tty.session_ended(session)
