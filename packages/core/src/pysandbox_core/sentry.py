"""The sentry: the process that holds the kernel of one sandbox.

Interface: `Sentry(…)` boots a kernel on a platform; `start` starts a program, before or while `run`
carries the loop; `run` returns once `stop` was called; `close` ends everything that still runs and
leaves nothing behind. All of it on the main thread of a process of its own, the kernel thread; the
command forks that process (`run_program`), for the SDK sentry_server.py does (`Jail.fork`).

A sentry never outlives who asked for it: the host kills it when its parent ends, and every context
with it. The SDK's caller is not the parent: `tie_to_lifeline` has the parent killed when the other
end of a pipe is gone, in whatever way.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
from contextlib import suppress
from errno import EMFILE, ENOENT
from time import monotonic_ns
from typing import TYPE_CHECKING

from pysandbox_platform import PlatformError, PlatformUnavailableError

from pysandbox_core import boot, hook_calls
from pysandbox_core.config import DEFAULT_PATH, ProcessSpec, show
from pysandbox_core.errors import (
    CommandNotExecutableError,
    CommandNotFoundError,
    KernelFailureError,
    LinuxError,
    PlatformChoiceError,
    SandboxError,
)
from pysandbox_core.fs.sources import find_sources
from pysandbox_core.kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pysandbox_platform import Platform

    from pysandbox_core.config import SandboxConfig
    from pysandbox_core.jail.jail import Jail
    from pysandbox_core.reactor import Reactor
    from pysandbox_core.task import ThreadGroup

# Exit statuses of the command, as container tools use them.
STATUS_TIMEOUT = 124
STATUS_FAILED = 125
STATUS_NOT_EXECUTABLE = 126
STATUS_NOT_FOUND = 127

FORWARDED_SIGNALS = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT,
)  # fmt: skip
"""What reaches the program when it is sent to the sentry."""

PROGRAM_STOPPED, PROGRAM_CONTINUED = b"s", b"c"
TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH)


class Sentry:
    """One sandbox: its platform, its kernel, and what it was asked to run."""

    def __init__(
        self,
        config: SandboxConfig,
        platform_class: type[Platform],
        strace_fd: int | None = None,
        jail: Jail | None = None,
        own_fds: Iterable[int] = (),
    ) -> None:
        """Boot a kernel, in `jail` if there is one.

        `strace_fd` is the host descriptor to print system calls to. A jail closes every descriptor
        but that, the standard ones and `own_fds`.
        """
        self.config = config
        self._signal_pipe: tuple[int, int] | None = None
        sources = find_sources(config)
        if jail is not None:
            own = set(own_fds) if strace_fd is None else {*own_fds, strace_fd}
            jail.close_inherited(own)
        plugins = hook_calls.published(report)
        if strace_fd is not None:
            from pysandbox_core.strace import Strace

            plugins.append(("strace", Strace(strace_fd)))
        if jail is not None:
            jail.enter(sources, platform_class, [plugin for _, plugin in plugins])
        try:
            self.platform = platform_class()
        except PlatformUnavailableError as error:
            raise PlatformChoiceError(
                f"platform {platform_class.name} can't be used here: {error}"
            ) from error
        try:
            self.kernel = Kernel(config, self.platform)
            if self.platform.lost_fd >= 0:
                HostWatch(self.kernel.reactor, self.platform.lost_fd, self.platform.check)
            boot.boot(self.kernel, sources)
            if jail is not None:  # this process is the sandbox's alone
                self.kernel.memory.set_backstop()
            hook_calls.install(self.kernel, plugins)
            if jail is not None:
                jail.seal(platform_class)
                for layer, reason in jail.off.items():
                    self.kernel.log(f"layer {layer} of the jail is off: {reason}", "info")
        except BaseException:
            self.platform.close()
            raise

    def start(self, spec: ProcessSpec, on_exit: Callable[[int], None]) -> ThreadGroup:
        """Start a program as a child of the sandbox's init; a name without a slash is looked up in
        its PATH. `on_exit` gets its wait status, on the kernel thread.

        Errors: CommandNotFoundError, CommandNotExecutableError, SandboxError.
        """
        name = spec.argv[0]
        try:
            group = boot.spawn(self.kernel, spec, candidates(spec))
        except LinuxError as error:
            if error.errno != ENOENT:
                raise CommandNotExecutableError(
                    f"{show(name)}: can't be executed: {os.strerror(error.errno)}"
                ) from None
            where = "no such file in the sandbox" if b"/" in name else "not in the sandbox's PATH"
            raise CommandNotFoundError(f"{show(name)}: command not found ({where})") from None
        group.on_exit = on_exit
        return group

    def run(self) -> None:
        """Carry the kernel until it is stopped. KernelFailureError if it fails."""
        try:
            self.kernel.run()
            if self.kernel.hooks is not None:
                self.kernel.hooks.sandbox_end(kernel=self.kernel)
        except Exception as error:
            raise KernelFailureError(describe_failure(error)) from error

    def stop(self) -> None:
        """Make `run` return."""
        self.kernel.stop()

    def on_signal(self, callback: Callable[[int], None]) -> None:
        """Have `callback` called on the kernel thread, between stops, with each signal of
        FORWARDED_SIGNALS that the sentry is sent."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._signal_pipe = (reader, writer)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for signo in FORWARDED_SIGNALS:
            signal.signal(signo, _note_signal)
        HostWatch(self.kernel.reactor, reader, lambda: _drain(reader, callback))

    def close(self) -> None:
        """End every context and give everything back. Idempotent."""
        if self._signal_pipe is not None:
            signal.set_wakeup_fd(-1)
            for fd in self._signal_pipe:
                os.close(fd)
            self._signal_pipe = None
        self.platform.close()


class HostWatch:
    """A callback for every time that a host descriptor has something to read."""

    __slots__ = ("callback", "host_fd", "reactor")

    def __init__(self, reactor: Reactor, host_fd: int, callback: Callable[[], None]) -> None:
        self.reactor = reactor
        self.host_fd = host_fd
        self.callback = callback
        reactor.watch(host_fd, select.EPOLLIN).add(self)

    def notify(self, events: int) -> None:
        self.callback()
        self.reactor.watch(self.host_fd, select.EPOLLIN)  # it watches for one event at a time


def candidates(spec: ProcessSpec) -> list[bytes]:
    """The paths to try for the program, in order."""
    name = spec.argv[0]
    if b"/" in name:
        return [name]
    path = spec.variable(b"PATH") or DEFAULT_PATH
    return [(directory or b".") + b"/" + name for directory in path.split(b":")]


def run_program(
    config: SandboxConfig,
    spec: ProcessSpec,
    platform_class: type[Platform],
    *,
    timeout_ns: int | None = None,
    strace_fd: int | None = None,
    signal_mask: set[int | signal.Signals] | None = None,
    jail: Jail | None = None,
    requests_fd: int = -1,
) -> int:
    """Run one program in a sandbox of its own and return the status for the command to exit with.

    What went wrong besides is reported on descriptor 2. The sandbox ends with its program, whatever
    else runs in it then. `signal_mask` is set once signals can be forwarded; the caller blocks them
    until then. Whoever reads from `requests_fd` is to stop this process when the last byte is
    PROGRAM_STOPPED.
    """
    sentry = None
    try:
        sentry = Sentry(config, platform_class, strace_fd, jail, (requests_fd,))
        return _run_to_end(sentry, spec, timeout_ns, signal_mask, requests_fd)
    except SandboxError as error:
        report(str(error))
        return status_of_error(error)
    except Exception as error:
        report(describe_failure(error))
        return STATUS_FAILED
    finally:
        if sentry is not None:
            sentry.close()


def _run_to_end(
    sentry: Sentry,
    spec: ProcessSpec,
    timeout_ns: int | None,
    signal_mask: set[int | signal.Signals] | None,
    requests_fd: int,
) -> int:
    statuses: list[int] = []

    def ended(wait_status: int) -> None:
        statuses.append(wait_status)
        sentry.stop()

    group = sentry.start(spec, ended)
    group.on_stop = lambda signo: tell_front(requests_fd, PROGRAM_STOPPED)

    def forward(signo: int) -> None:
        forward_signal(group, signo)
        if signo == signal.SIGCONT:
            tell_front(requests_fd, PROGRAM_CONTINUED)

    sentry.on_signal(forward)
    if signal_mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, signal_mask)
    if timeout_ns is not None:
        sentry.kernel.timers.add(monotonic_ns() + timeout_ns, sentry.stop)
    sentry.run()
    for limit, consequence in sentry.kernel.account.reached.items():
        report(f"limit reached: {limit}: {consequence}")
    if not statuses:
        report(f"timed out after {(timeout_ns or 0) / 1e9:g} s; the program was killed")
        return STATUS_TIMEOUT
    return exit_status(statuses[0])


def tell_front(requests_fd: int, word: bytes) -> None:
    """The program was stopped (^Z): be stopped with it. The front does that, for the first process
    of a PID namespace can't stop itself, and stops too, so that the caller's shell goes on; its
    SIGCONT is forwarded like any other signal. That it came is said as well: what was said before
    it no longer holds."""
    with suppress(OSError):  # it is gone, and so are we
        os.write(requests_fd, word)


def forward_signal(group: ThreadGroup, signo: int) -> None:
    """Give the program a signal that the sentry was sent: to the foreground process group if it is
    a terminal's and the program has our terminal, to the process `group` otherwise. Continuing is
    for all of its job, as shells do it."""
    if signo == signal.SIGCONT:
        group.process_group.signal(signo)
        return
    console = group.kernel.console
    if signo in TERMINAL_SIGNALS and console is not None and console.foreground is not None:
        console.foreground.signal(signo)
    else:
        boot.send_signal(group, signo)


def exit_status(wait_status: int) -> int:
    """The shell's view of a wait(2) status word: the exit code, or 128+N after signal N."""
    signo = wait_status & 0x7F
    return 128 + signo if signo else wait_status >> 8 & 0xFF


def status_of_error(error: SandboxError) -> int:
    """The command's exit status for what kept a program from running."""
    if isinstance(error, CommandNotFoundError):
        return STATUS_NOT_FOUND
    if isinstance(error, CommandNotExecutableError):
        return STATUS_NOT_EXECUTABLE
    return STATUS_FAILED


def describe_death(signo: int) -> str:
    """What to report of a sentry that was killed by a signal."""
    if signo == signal.SIGSYS:
        return (
            "the sandbox was killed: its kernel made a host system call that its jail forbids. "
            "This is a bug in PySandbox, or the program has taken the kernel over"
        )
    return f"the sandbox was killed by signal {signo} ({signal.strsignal(signo)})"


def report(text: str) -> None:
    """Tell whoever reads our standard error, which the program shares; never fails."""
    with suppress(OSError):  # nobody reads: the status still says what happened
        os.write(2, f"pysandbox: {text}\n".encode("utf-8", "backslashreplace"))


def describe_failure(error: BaseException) -> str:
    """What to report of an exception that ended the kernel; a bug's report has the system call (the
    loop's note on the exception) and the traceback."""
    if isinstance(error, PlatformError):
        return f"the platform failed: {error}"
    if isinstance(error, MemoryError):
        return "limit reached: memory: the kernel itself has none left, and the sandbox has ended"
    if isinstance(error, OSError) and error.errno == EMFILE:
        return (
            "limit reached: files: the host lets a process have too few (RLIMIT_NOFILE), and the "
            "sandbox has ended"
        )
    import traceback

    where = "".join(f" {note}" for note in getattr(error, "__notes__", ())[-1:])
    lines = "".join(traceback.format_exception(error)).rstrip()
    return (
        f"the kernel failed{where}: {type(error).__name__}: {error}\n{lines}\n"
        "This is a bug in PySandbox; please report it with the lines above."
    )


def tie_to_lifeline(host_fd: int) -> None:
    """Have this process killed when every other end of the pipe `host_fd` reads from is closed.

    The host does it by itself (SIGIO's machinery with SIGKILL as the signal, fcntl(2) F_SETSIG): it
    works in the middle of anything and, unlike PR_SET_PDEATHSIG, whatever thread started us.
    """
    fcntl.fcntl(host_fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(host_fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(host_fd, fcntl.F_SETFL, fcntl.fcntl(host_fd, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(host_fd, 0)
    if poll.poll(0):  # it was closed before we asked to be told
        os.kill(os.getpid(), signal.SIGKILL)


def _note_signal(signo: int, frame: object) -> None:
    """The wake-up descriptor has told the reactor already."""


def _drain(reader: int, callback: Callable[[int], None]) -> None:
    with suppress(BlockingIOError):
        for signo in os.read(reader, 4096):
            callback(signo)
