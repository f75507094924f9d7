"""Terminals: job control, sessions, and the requests that all kinds of them answer.

Interface: a `Tty` is one terminal, whatever its wire is: a pty's slave side (devpts.py) or the
caller's terminal (host_tty.py). `open` gives a `TtyFile`, and the controlling terminal to a session
leader that has none. A hang-up ends it for good: its files read as ended, and fail otherwise.

`controlling_tty` is the terminal of a task's session, None without one.

Linux: drivers/tty/{tty_io,tty_jobctrl,tty_ioctl}.c; ioctl_tty(2).
"""

from __future__ import annotations

import os
from errno import EAGAIN, EBUSY, EINVAL, EIO, ENOTTY, EPERM, ESRCH
from struct import Struct
from time import monotonic_ns
from typing import TYPE_CHECKING

from pysandbox_core.abi.signal import SIG_IGN, SIGCONT, SIGHUP, SIGTTIN, SIGTTOU, SIGWINCH
from pysandbox_core.abi.termios import (
    EXTPROC,
    FIONREAD,
    ICANON,
    TCFLSH,
    TCIFLUSH,
    TCIOFLUSH,
    TCOFLUSH,
    TCSBRK,
    TCSBRKP,
    TCXONC,
    TIOCCBRK,
    TIOCCONS,
    TIOCEXCL,
    TIOCGDEV,
    TIOCGETD,
    TIOCGEXCL,
    TIOCGPGRP,
    TIOCGSID,
    TIOCGSOFTCAR,
    TIOCGWINSZ,
    TIOCNOTTY,
    TIOCNXCL,
    TIOCOUTQ,
    TIOCSBRK,
    TIOCSCTTY,
    TIOCSETD,
    TIOCSPGRP,
    TIOCSTI,
    TIOCSWINSZ,
    TIOCVHANGUP,
    VMIN,
    VTIME,
    WINSIZE,
)
from pysandbox_core.credentials import CAP_SYS_ADMIN
from pysandbox_core.errors import ERESTARTSYS, Interrupted, LinuxError
from pysandbox_core.fs.file_description import FMODE_READ, FileDescription
from pysandbox_core.fs.termios import SET_REQUESTS, Termios, get_termios
from pysandbox_core.waiting import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.sessions import ProcessGroup, Session
    from pysandbox_core.task import Task

INT = Struct("<i")
DECISECOND_NS = 100_000_000
"""The unit of VTIME."""

HUNG_UP_EVENTS = POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDNORM | POLLWRNORM


class Tty:
    """One terminal. Lives as long as its driver keeps it; `files` says who has it open."""

    def __init__(self, kernel: Kernel, rdev: int, name: bytes) -> None:
        self.kernel = kernel
        self.rdev = rdev
        self.name = name
        """As ttyname(3) may find it, for messages."""
        self.session: Session | None = None
        """The session that it controls."""
        self.foreground: ProcessGroup | None = None
        """The job that may read from it and gets its signals."""
        self._window = bytes(WINSIZE.size)
        self.exclusive = False
        """TIOCEXCL"""
        self.hung_up = False
        self.files: dict[TtyFile, None] = {}

    # What a kind of terminal has of its own.

    def open(self, task: Task, path: Path, inode: Inode, flags: int) -> TtyFile:
        """Open it. EIO after a hang-up; EBUSY if somebody has it for himself"""
        if self.hung_up:
            raise LinuxError(EIO)
        if self.exclusive and not task.creds.capable(CAP_SYS_ADMIN):
            raise LinuxError(EBUSY)
        file = TtyFile(flags, inode, path, self)
        if not flags & os.O_NOCTTY and file.mode & FMODE_READ:
            self.acquire(task)
        return file

    def closed(self, file: TtyFile) -> None:
        """One of `files` is gone."""

    def take(self, file: TtyFile, limit: int) -> bytes | None:
        """What can be read now, at most `limit` bytes: b"" for an end of file, None for nothing."""
        raise NotImplementedError

    def write(self, task: Task, file: TtyFile, source: Source) -> int:
        raise NotImplementedError

    def poll(self, file: TtyFile) -> int:
        raise NotImplementedError

    def arm(self, file: TtyFile, events: int) -> None:
        """Somebody waits for `events`, or may do so next: see that `file.queue` is woken."""

    def get_termios(self) -> Termios:
        raise NotImplementedError

    def set_termios(self, new: Termios, when: int) -> None:
        """`when` is 0 for at once, 1 after the output is out, 2 dropping the input as well."""
        raise NotImplementedError

    def flush(self, which: int) -> None:
        """tcflush(3): TCIFLUSH, TCOFLUSH or TCIOFLUSH."""
        raise NotImplementedError

    def flow(self, action: int) -> None:
        """tcflow(3): TCOOFF, TCOON, TCIOFF or TCION."""
        raise NotImplementedError

    def get_window(self) -> bytes:
        """struct winsize"""
        return self._window

    def queued(self) -> int:
        """FIONREAD"""
        raise NotImplementedError

    def special_ioctl(self, task: Task, request: int, argument: int) -> int:
        """Requests of its kind alone."""
        raise LinuxError(ENOTTY)

    def read(self, task: Task, file: TtyFile, sink: Sink) -> int:
        """n_tty_read(): a line, or VMIN bytes with VTIME tenths of a second in between."""
        limit = sink.remaining
        termios = self.get_termios()
        canonical = termios.c_lflag & (ICANON | EXTPROC) == ICANON
        minimum, gap_ns = termios.c_cc[VMIN], termios.c_cc[VTIME] * DECISECOND_NS
        deadline_ns: int | None = None
        if canonical:
            minimum = 1
        elif not minimum:
            minimum, deadline_ns, gap_ns = 1, monotonic_ns() + gap_ns, 0
        total = 0
        while total < limit:
            data = self.take(file, limit - total)
            if data is not None:
                total += sink.write(data) if data else 0
                if canonical or not data or total >= minimum:
                    break
                if gap_ns:
                    deadline_ns = monotonic_ns() + gap_ns
                continue
            if self.hung_up or (deadline_ns is not None and monotonic_ns() >= deadline_ns):
                break
            try:
                file.wait(task, POLLIN, deadline_ns)
            except LinuxError:
                if total:
                    break
                raise
        return total

    # Sessions and jobs.

    def acquire(self, task: Task) -> None:
        """Become the controlling terminal of the task's session, if that may be asked for by
        opening: the task leads it, it has none, and this one is nobody's.
        tty_open_proc_set_tty()"""
        session = task.group.process_group.session
        if session.leader is task.group and not has_tty(session) and self.session is None:
            self.control(session, task)

    def control(self, session: Session, task: Task) -> None:
        self.session = session
        self.foreground = task.group.process_group
        session.tty = self

    def session_ended(self, session: Session) -> None:
        """The leader has exited; sessions.leader_exited"""
        if self.session is session:
            self.session = None
            self.foreground = None

    def release_session(self) -> None:
        """The session does without it from now on."""
        session = self.session
        self.session = self.foreground = None
        if session is not None and session.tty is self:
            session.tty = None

    def is_controlling(self, task: Task) -> bool:
        return controlling_tty(task) is self

    def check_change(self, task: Task, signo: int = SIGTTOU) -> None:
        """May a process of this job use the terminal? One in the background is stopped by `signo`,
        unless it does not care; EIO where nobody would continue it. __tty_check_change()"""
        group = task.group
        job = group.process_group
        if not self.is_controlling(task) or not self.in_background(job):
            return
        if task.sigmask >> (signo - 1) & 1 or task.sighand.actions[signo].handler == SIG_IGN:
            if signo == SIGTTIN:
                raise LinuxError(EIO)
        elif job.is_orphaned():
            raise LinuxError(EIO)
        else:
            job.signal(signo)
            raise Interrupted(ERESTARTSYS)

    def in_background(self, job: ProcessGroup) -> bool:
        """Must this job of the session keep its hands off the terminal?"""
        return self.foreground is not None and self.foreground is not job

    def signal(self, signo: int) -> None:
        """Tell the foreground job."""
        if self.foreground is not None:
            self.foreground.signal(signo)

    def resize(self, window: bytes) -> None:
        """Set the window's size; the foreground job is told if that is news."""
        if window != self._window:
            self._window = window
            self.signal(SIGWINCH)

    def hang_up(self) -> None:
        """The wire is gone: nothing can be read or written any more, and the session's leader is
        told. The rest of the session hears of it when the leader ends. __tty_hangup()"""
        if self.hung_up:
            return
        self.hung_up = True
        session = self.session
        if session is not None and session.leader is not None:
            from pysandbox_core import task_signals

            task_signals.send(session.leader, SIGHUP)
            task_signals.send(session.leader, SIGCONT)
        self.wake()

    def wake(self, events: int = 0xFFFF) -> None:
        """Reading or writing may have become possible: tell whoever waits, through any file."""
        for file in tuple(self.files):
            file.queue.wake(events)


class TtyFile(FileDescription):
    """A terminal that is open."""

    __slots__ = ("tty",)

    def __init__(self, flags: int, inode: Inode, path: Path | None, tty: Tty) -> None:
        super().__init__(flags, inode, path)
        self.tty = tty
        tty.files[self] = None

    def release(self) -> None:
        tty = self.tty
        tty.files.pop(self, None)
        tty.closed(self)

    def describe(self) -> bytes:
        return self.tty.name

    def read(self, task: Task, sink: Sink, offset: int | None = None) -> int:
        if self.tty.hung_up:
            return 0
        self.tty.check_change(task, SIGTTIN)
        return self.tty.read(task, self, sink)

    def write(self, task: Task, source: Source, offset: int | None = None) -> int:
        if self.tty.hung_up:
            raise LinuxError(EIO)
        return self.tty.write(task, self, source)

    def wait(self, task: Task, events: int, deadline_ns: int | None = None) -> bool:
        """Block until one of `events` may be there, see waiting.block. EAGAIN with O_NONBLOCK"""
        self.tty.arm(self, events)
        if self.flags & os.O_NONBLOCK:
            raise LinuxError(EAGAIN)
        return task.block(self.queue, deadline_ns)

    def poll(self) -> int:
        return HUNG_UP_EVENTS if self.tty.hung_up else self.tty.poll(self)

    def ioctl(self, task: Task, request: int, argument: int) -> int:
        if self.tty.hung_up:
            raise LinuxError(ENOTTY if request == TIOCSPGRP else EIO)
        return tty_ioctl(task, self, self.tty, request, argument)


def has_tty(session: Session) -> bool:
    """Does it have a controlling terminal that is not hung up?"""
    tty = session.tty
    return isinstance(tty, Tty) and not tty.hung_up


def controlling_tty(task: Task) -> Tty | None:
    """The controlling terminal of the task's session."""
    tty = task.group.process_group.session.tty
    return tty if isinstance(tty, Tty) and not tty.hung_up else None


# ioctl_tty(2). `tty` is what a request is about; for the master side of a pty, its slave.


def tty_ioctl(task: Task, file: FileDescription, tty: Tty, request: int, argument: int) -> int:
    """Answer `request`. ENOTTY for one that no terminal knows."""
    if get_termios_request(task, tty, request, argument):
        return 0
    setting = SET_REQUESTS.get(request)
    if setting is not None:
        layout, when = setting
        tty.check_change(task)
        data = task.mm.read(argument, layout.size)
        tty.set_termios(tty.get_termios().replaced_by(layout, data), when)
        return 0
    handler = _HANDLERS.get(request)
    if handler is not None:
        handler(task, file, tty, argument)
        return 0
    return tty.special_ioctl(task, request, argument)


def get_termios_request(task: Task, tty: Tty, request: int, argument: int) -> bool:
    """TCGETS and its like."""
    return request >> 8 & 0xFF == 0x54 and get_termios(task, tty.get_termios(), request, argument)


def _get_window(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    task.mm.write(argument, tty.get_window())


def _set_window(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    tty.resize(task.mm.read(argument, WINSIZE.size))


def _is_master(file: FileDescription) -> bool:
    """The request came through the other side of a pty."""
    return not isinstance(file, TtyFile)


def _get_foreground(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    if not _is_master(file) and not tty.is_controlling(task):
        raise LinuxError(ENOTTY)
    foreground = tty.foreground
    task.mm.write(argument, INT.pack(0 if foreground is None else foreground.pgid))


def _set_foreground(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    try:
        tty.check_change(task)
    except Interrupted:
        raise
    except LinuxError:
        raise LinuxError(ENOTTY) from None
    pgid = task.mm.read_s32(argument)
    if pgid < 0:
        raise LinuxError(EINVAL)
    session = task.group.process_group.session
    if not tty.is_controlling(task) or tty.session is not session:
        raise LinuxError(ENOTTY)
    process_group = task.kernel.process_groups.get(pgid)
    if process_group is None:
        raise LinuxError(ESRCH)
    if process_group.session is not session:
        raise LinuxError(EPERM)
    tty.foreground = process_group


def _get_session(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    if tty.session is None or (not _is_master(file) and not tty.is_controlling(task)):
        raise LinuxError(ENOTTY)
    task.mm.write(argument, INT.pack(tty.session.sid))


def _set_controlling(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    """TIOCSCTTY; `argument` 1 takes it away from another session, if one may."""
    session = task.group.process_group.session
    leads = session.leader is task.group
    if leads and tty.session is session:
        return
    if not leads or has_tty(session):
        raise LinuxError(EPERM)
    powerful = task.creds.capable(CAP_SYS_ADMIN)
    if tty.session is not None:
        if argument != 1 or not powerful:
            raise LinuxError(EPERM)
        tty.release_session()
    if not file.mode & FMODE_READ and not powerful:
        raise LinuxError(EPERM)
    tty.control(session, task)


def _give_up_controlling(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    """TIOCNOTTY. When the leader does it, the whole session loses the terminal, and the foreground
    job is told. For others it has no effect here: the terminal is the session's, not a
    process's."""
    if not tty.is_controlling(task):
        raise LinuxError(ENOTTY)
    session = task.group.process_group.session
    if session.leader is task.group:
        foreground = tty.foreground
        tty.release_session()
        if foreground is not None:
            foreground.signal(SIGHUP)
            foreground.signal(SIGCONT)


def _flush(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    tty.check_change(task)
    if argument not in (TCIFLUSH, TCOFLUSH, TCIOFLUSH):
        raise LinuxError(EINVAL)
    tty.flush(argument)


def _flow(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    tty.check_change(task)
    if not 0 <= argument <= 3:
        raise LinuxError(EINVAL)
    tty.flow(argument)


def _after_change(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    """Breaks, and waiting for the output: what is written is on the wire already."""
    tty.check_change(task)


def _refuse_input(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    """TIOCSTI, as with dev.tty.legacy_tiocsti=0."""
    raise LinuxError(EIO)


def _refuse(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    raise LinuxError(EPERM)


def _hang_up(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    if not task.creds.capable(CAP_SYS_ADMIN):
        raise LinuxError(EPERM)
    tty.hang_up()


def _set_exclusive(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    tty.exclusive = True


def _clear_exclusive(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    tty.exclusive = False


def _set_discipline(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
    """N_TTY, number 0, is the only line discipline."""
    if task.mm.read_s32(argument) != 0:
        raise LinuxError(EINVAL)


def _gives(value: Callable[[Tty], int]) -> Callable[[Task, FileDescription, Tty, int], None]:
    """A request that stores one int."""

    def handler(task: Task, file: FileDescription, tty: Tty, argument: int) -> None:
        task.mm.write(argument, INT.pack(value(tty)))

    return handler


_HANDLERS: dict[int, Callable[[Task, FileDescription, Tty, int], None]] = {
    TIOCGWINSZ: _get_window, TIOCSWINSZ: _set_window, TIOCGPGRP: _get_foreground,
    TIOCSPGRP: _set_foreground, TIOCGSID: _get_session, TIOCSCTTY: _set_controlling,
    TIOCNOTTY: _give_up_controlling, TCFLSH: _flush, TCXONC: _flow, TCSBRK: _after_change,
    TCSBRKP: _after_change, TIOCSBRK: _after_change, TIOCCBRK: _after_change,
    TIOCSTI: _refuse_input, TIOCCONS: _refuse, TIOCVHANGUP: _hang_up, TIOCEXCL: _set_exclusive,
    TIOCNXCL: _clear_exclusive, TIOCSETD: _set_discipline,
    FIONREAD: _gives(lambda tty: tty.queued()), TIOCOUTQ: _gives(lambda tty: 0),
    TIOCGETD: _gives(lambda tty: 0), TIOCGEXCL: _gives(lambda tty: int(tty.exclusive)),
    TIOCGSOFTCAR: _gives(lambda tty: 0), TIOCGDEV: _gives(lambda tty: tty.rdev),
}  # fmt: skip
