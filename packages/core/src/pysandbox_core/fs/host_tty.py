"""The caller's terminal as a terminal of the sandbox: standard input, output or error that is a
tty.

Interface: `open_host_tty` gives a file over a host descriptor of a terminal, and makes it
`kernel.console`; `attach` makes it the controlling terminal of a new session. In the sandbox it is
/dev/console.

The host's line discipline goes on doing its work: settings, window size and flushing are passed on
to it, so that editing and echo are what the user is used to. Jobs are the sandbox's own: the kernel
keeps the foreground process group, stops who reads from the background, and gets the host's SIGINT,
SIGQUIT, SIGTSTP and SIGWINCH through the sentry, which forwards them to `console.foreground`.
Requests that could harm the caller's terminal are not passed on: nothing is faked as typed
(TIOCSTI), the wire's settings (c_cflag, c_line) stay, and whoever starts the sandbox puts the
settings back at its end (`terminal.py`).

The terminal is opened anew, so that O_NONBLOCK is set on a file description of our own; where the
host does not let us, readiness is asked for before each transfer.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from errno import EIO
from fcntl import F_DUPFD_CLOEXEC, F_GETFL, fcntl, ioctl
from stat import S_IFCHR
from typing import TYPE_CHECKING, NoReturn

from pysandbox_core.abi.termios import (
    FIONREAD,
    TCFLSH,
    TCGETS2,
    TCSETS2,
    TCSETSF2,
    TCSETSW2,
    TCXONC,
    TERMIOS2,
    TIOCGWINSZ,
    TIOCSWINSZ,
    TOSTOP,
    WINSIZE,
)
from pysandbox_core.errors import ERESTARTSYS, Interrupted, LinuxError, linux_errors
from pysandbox_core.fs.dev import CONSOLE
from pysandbox_core.fs.host_stdio import host_poll
from pysandbox_core.fs.termios import Termios
from pysandbox_core.fs.tty import INT, Tty, TtyFile
from pysandbox_core.waiting import POLLERR, POLLHUP, POLLIN, POLLOUT, Turn

if TYPE_CHECKING:
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.fd_table import FdTable
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.mm.io_buffer import Sink, Source
    from pysandbox_core.sessions import ProcessGroup
    from pysandbox_core.task import Task

CHUNK = 4096
"""Bytes moved at a time: what a terminal takes at once."""

# Flags that a program may set; the others stay as the caller has them.
INPUT_FLAGS = 0x7FFF
OUTPUT_FLAGS = 0xFFFF
LOCAL_FLAGS = 0xFFFF

_SET_REQUESTS = (TCSETS2, TCSETSW2, TCSETSF2)


class HostTty(Tty):
    """The caller's terminal. Made with the first descriptor of it; owns the host descriptors of its
    files, and one for its settings."""

    def __init__(self, kernel: Kernel, host_fd: int) -> None:
        super().__init__(kernel, CONSOLE, b"/dev/console")
        self.host_fd = fcntl(host_fd, F_DUPFD_CLOEXEC, 3)
        self.reader = open_again(self.host_fd, os.O_RDONLY)[0]
        """The terminal again, with O_NONBLOCK, to be asked about jobs; -1 if that can't be had."""
        self.path = find_console(kernel)
        self._termios = self.get_termios()
        for signo in (signal.SIGTTIN, signal.SIGTTOU):
            with suppress(ValueError):  # not the main thread: somebody else decides about signals
                signal.signal(signo, signal.SIG_IGN)

    def in_background(self, job: ProcessGroup) -> bool:
        """Also if the sandbox as a whole is a background job of the caller's shell: then its job in
        the foreground is stopped, and the command with it. That is why the host must not stop
        us."""
        return super().in_background(job) or self._is_hosts_background()

    def _is_hosts_background(self) -> bool:
        """The numbers of process groups do not tell: in a PID namespace, those outside are all 0.
        But from the background not even nothing can be read: EIO, as SIGTTIN is ignored.
        n_tty_read()"""
        try:
            if self.reader < 0:
                return os.tcgetpgrp(self.host_fd) != os.getpgrp()
            os.read(self.reader, 0)
        except OSError as error:  # otherwise it is not our controlling terminal, and nobody minds
            return error.errno == EIO
        return False

    def is_same(self, host_fd: int) -> bool:
        """Is `host_fd` this terminal?"""
        return os.fstat(host_fd).st_rdev == os.fstat(self.host_fd).st_rdev

    def open(self, task: Task, path: Path, inode: Inode, flags: int) -> TtyFile:
        """/dev/console, /dev/tty, or a descriptor through /proc/PID/fd."""
        access = flags & os.O_ACCMODE
        host_fd, nonblocking = open_again(self.host_fd, access)
        if host_fd < 0:
            if fcntl(self.host_fd, F_GETFL) & os.O_ACCMODE not in (os.O_RDWR, access):
                raise LinuxError(EIO)
            host_fd = fcntl(self.host_fd, F_DUPFD_CLOEXEC, 3)
        file = HostTtyFile(flags, inode, path, self, host_fd, nonblocking)
        if not flags & os.O_NOCTTY:
            self.acquire(task)
        return file

    # Data.

    def _host_failed(self, error: OSError) -> NoReturn:
        """EIO means that the caller's terminal is gone for good, unless the sandbox was put into
        the background in between: then its job is stopped now."""
        if error.errno == EIO and self.foreground is not None and self._is_hosts_background():
            self.foreground.signal(signal.SIGTTIN)
            raise Interrupted(ERESTARTSYS) from None
        if error.errno == EIO:
            self.hang_up()
        raise LinuxError(error.errno or EIO) from None

    def read(self, task: Task, file: TtyFile, sink: Sink) -> int:
        try:
            return super().read(task, file, sink)
        except LinuxError as error:
            if error.errno == EIO and self.hung_up:
                return 0
            raise

    def take(self, file: TtyFile, limit: int) -> bytes | None:
        assert isinstance(file, HostTtyFile)
        if not file.nonblocking and not host_poll(file.host_fd, POLLIN):
            return None
        try:
            return os.read(file.host_fd, min(limit, CHUNK))
        except BlockingIOError:
            return None
        except OSError as error:
            self._host_failed(error)

    def write(self, task: Task, file: TtyFile, source: Source) -> int:
        assert isinstance(file, HostTtyFile)
        if self._termios.c_lflag & TOSTOP:
            self.check_change(task)
        total = 0
        turn = Turn(task)
        while source.remaining:
            data = source.read(min(source.remaining, CHUNK))
            count = self._write_some(file, data)
            source.undo(len(data) - count)
            total += count
            if count or not data:
                if not turn.goes_on():
                    break
                continue
            try:
                file.wait(task, POLLOUT)
            except LinuxError:
                if total:
                    break
                raise
        return total

    def _write_some(self, file: HostTtyFile, data: bytes) -> int:
        if not file.nonblocking and not host_poll(file.host_fd, POLLOUT):
            return 0
        try:
            return os.write(file.host_fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._host_failed(error)

    def arm(self, file: TtyFile, events: int) -> None:
        assert isinstance(file, HostTtyFile)
        self.kernel.reactor.watch(file.host_fd, events).add(file)

    def poll(self, file: TtyFile) -> int:
        """Whoever polls may wait next: see that the file's queue is woken."""
        assert isinstance(file, HostTtyFile)
        wanted = file.mode & 1 and POLLIN | (file.mode & 2) << 1
        ready = host_poll(file.host_fd, POLLIN | POLLOUT)
        missing = wanted & ~ready
        if missing and not ready & (POLLERR | POLLHUP):
            self.arm(file, missing)
        return ready | (ready & POLLIN) << 6 | (ready & POLLOUT) << 6

    # Settings: the host's, within limits.

    def get_termios(self) -> Termios:
        data = bytearray(TERMIOS2.size)
        try:
            ioctl(self.host_fd, TCGETS2, data)
        except OSError as error:
            self._host_failed(error)
        self._termios = Termios().replaced_by(TERMIOS2, bytes(data))
        return self._termios

    def set_termios(self, new: Termios, when: int) -> None:
        old = self.get_termios()
        new.c_iflag = old.c_iflag & ~INPUT_FLAGS | new.c_iflag & INPUT_FLAGS
        new.c_oflag = old.c_oflag & ~OUTPUT_FLAGS | new.c_oflag & OUTPUT_FLAGS
        new.c_lflag = old.c_lflag & ~LOCAL_FLAGS | new.c_lflag & LOCAL_FLAGS
        new.c_cflag, new.c_line = old.c_cflag, old.c_line
        new.c_ispeed, new.c_ospeed = old.c_ispeed, old.c_ospeed
        with linux_errors():
            ioctl(self.host_fd, _SET_REQUESTS[when], new.pack(TERMIOS2))
        self._termios = new

    def get_window(self) -> bytes:
        data = bytearray(WINSIZE.size)
        with linux_errors():
            ioctl(self.host_fd, TIOCGWINSZ, data)
        return bytes(data)

    def resize(self, window: bytes) -> None:
        with linux_errors():
            ioctl(self.host_fd, TIOCSWINSZ, window)  # the host tells us, if that is news

    def flush(self, which: int) -> None:
        with linux_errors():
            ioctl(self.host_fd, TCFLSH, which)

    def flow(self, action: int) -> None:
        with linux_errors():
            ioctl(self.host_fd, TCXONC, action)

    def queued(self) -> int:
        data = bytearray(INT.size)
        with linux_errors():
            ioctl(self.host_fd, FIONREAD, data)
        count: int = INT.unpack(data)[0]
        return count


class HostTtyFile(TtyFile):
    """The caller's terminal, opened. Owns `host_fd`."""

    __slots__ = ("host_fd", "nonblocking")

    def __init__(
        self,
        flags: int,
        inode: Inode,
        path: Path | None,
        tty: HostTty,
        host_fd: int,
        nonblocking: bool,
    ) -> None:
        super().__init__(flags, inode, path, tty)
        self.host_fd = host_fd
        self.nonblocking = nonblocking
        """`host_fd` has O_NONBLOCK, which nobody else sees."""

    def notify(self, events: int) -> None:
        """The reactor has news of `host_fd`."""
        self.queue.wake(events)

    def release(self) -> None:
        super().release()
        self.tty.kernel.reactor.forget(self.host_fd)
        os.close(self.host_fd)


def open_again(host_fd: int, access: int) -> tuple[int, bool]:
    """Another file description of the terminal `host_fd`, with O_NONBLOCK: (descriptor, True), or
    (-1, False) if the host does not let us."""
    flags = access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        again = os.open(f"/proc/self/fd/{host_fd}", flags)
    except OSError:
        return -1, False
    if os.fstat(again).st_rdev != os.fstat(host_fd).st_rdev or not os.isatty(again):
        os.close(again)
        return -1, False
    return again, True


def open_host_tty(kernel: Kernel, host_fd: int, flags: int) -> TtyFile:
    """A file over `host_fd`, a terminal of the caller's; takes `host_fd` over."""
    tty = kernel.console
    if not isinstance(tty, HostTty) or not tty.is_same(host_fd):
        tty = HostTty(kernel, host_fd)
        if kernel.console is None:
            kernel.console = tty
    again, nonblocking = open_again(host_fd, flags & os.O_ACCMODE)
    if nonblocking:
        os.close(host_fd)
        host_fd = again
    return HostTtyFile(flags, tty.path.inode, tty.path, tty, host_fd, nonblocking)


def find_console(kernel: Kernel) -> Path:
    """Where /dev/console is; its node is the user's while the terminal is in use."""
    from pysandbox_core.fs.dentry import Path
    from pysandbox_core.fs.dev import DevFs

    for mount in kernel.mounts.all():
        if isinstance(mount.fs, DevFs):
            root = mount.root
            inode = mount.fs.console
            user = kernel.config.user
            inode.set_owner(user.uid, DevFs.TTY_GID, S_IFCHR | 0o620)
            known = root.children.get(b"console")
            if known is None or known.inode is not inode:
                known = kernel.mounts.dentries.add(root, b"console", inode)
            return Path(mount, known)
    raise LinuxError(EIO)


def attach(task: Task, files: FdTable) -> None:
    """Make the terminal among `files`, if there is one, the controlling terminal of the session
    that `task` leads."""
    for _, file in files.open_fds():
        if isinstance(file, HostTtyFile):
            file.tty.acquire(task)
            return
