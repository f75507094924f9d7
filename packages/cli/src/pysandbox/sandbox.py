"""Sandbox: the SDK. Programs in a sandbox from inside a Python program, threads and all.

Interface: a `Sandbox` is a context manager; it starts a sentry, a process of its own, and ends it
with everything that runs in it. `run` is called as often as wanted, from any number of threads at
once; what programs write stays in the sandbox's memory, is seen by later runs, and is gone at the
end. Everything raised is a SandboxError whose message says what to do; most are also the builtin
exception that one would expect (TimeoutError, FileNotFoundError, PermissionError, ValueError).

A sandbox belongs to the process that has opened it: in one that was forked from it, it is not open.

What the sentry says is not believed: a program may have taken it over. A message has a bound in
size and in time, is checked, and anything else than what was asked for ends the sandbox with a
KernelFailureError; tests/attacks/test_channel.py.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import weakref
from contextlib import ExitStack, suppress
from errno import E2BIG
from itertools import count
from typing import IO, TYPE_CHECKING, TypeAlias

from pysandbox_core.config import (
    Bind,
    SandboxConfig,
    Tmpfs,
    User,
    caller_directory,
    default_environment,
    host_path,
    parse_bind,
    parse_cpu_time,
    parse_size,
    parse_timeout,
    parse_tmpfs,
    parse_user,
)
from pysandbox_core.control import MAX_ANSWER, Channel, Message
from pysandbox_core.errors import (
    CommandNotExecutableError,
    InvalidOptionError,
    KernelFailureError,
    SandboxError,
    SandboxTimeoutError,
)
from pysandbox_core.jail.layers import parse_layers

from pysandbox.process import Process, error_of
from pysandbox.result import Result, RunTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    PathLike: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    TmpfsLike: TypeAlias = PathLike | Tmpfs
    BindLike: TypeAlias = str | Bind | tuple[PathLike, PathLike] | tuple[PathLike, PathLike, str]

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL

MAX_OUTPUT = 64 << 20
"""Bytes captured of each of standard output and error unless a run says otherwise."""
CLOSE_GRACE_S = 10
"""How long a sentry may take to end by itself."""
START_S = 60
"""How long it may take to be ready."""
ANSWER_S = 20
"""How long it may take to take a request, or to say why it ends."""
_NONSENSE = "gave an answer that makes no sense ({})"
_NOT_OPEN = "the sandbox is not open; use it in `with Sandbox() as sandbox:`"
_FORKED = "the process that this one was forked from has the sandbox; open another one here"

_opened: weakref.WeakSet[Sandbox] = weakref.WeakSet()
"""Those that may be open in this process."""


class Sandbox:
    """One sandbox: `with Sandbox() as sandbox: sandbox.run([…])`."""

    def __init__(
        self,
        *,
        platform: str = "auto",
        rootfs: PathLike = "/",
        binds: Iterable[BindLike] = (),
        tmpfs: Iterable[TmpfsLike] = (),
        env: Mapping[str, str] | None = None,
        workdir: PathLike | None = None,
        user: str | tuple[int, int] | None = None,
        hostname: str = "pysandbox",
        memory: int | str | None = None,
        pids: int | None = None,
        cpu_time: float | None = None,
        timeout: float | None = None,
        log_level: str = "warning",
        require: str | Iterable[str] = (),
        without: str | Iterable[str] = (),
    ) -> None:
        """As `pysandbox run` has them. `binds` are `"SRC:DST:rw"`, `(SRC, DST)` or `(SRC, DST,
        "rw")`; `tmpfs` are paths or `"DST:size=64M,nr_inodes=1000"`; `memory` is bytes or `"512M"`;
        `cpu_time` is how many seconds of CPU time all runs together may take, the kernel's work for
        them included; `timeout` is how many seconds the sandbox may exist;
        `require` and `without` are names of layers of the jail, or "all"; see docs/security.md.
        InvalidOptionError (a ValueError) tells of anything wrong.
        """
        self.config = SandboxConfig(
            platform=platform,
            rootfs=os.fsencode(rootfs),
            binds=[_bind(bind) for bind in binds],
            tmpfs=[_tmpfs(mount) for mount in tmpfs],
            hostname=os.fsencode(hostname),
            memory=parse_size(memory) if isinstance(memory, str) else memory,
            pids=pids,
            cpu_time_ns=None if cpu_time is None else parse_cpu_time(str(cpu_time)),
            user=_user(user),
            log_level=log_level,
            require=_layers(require),
            without=_layers(without),
        )
        self.platform = platform
        """Name of the platform it runs on, once it is open."""
        self.layers_off: dict[str, str] = {}
        """Layers of the jail that are off, and why, once it is open."""
        self._env = dict(env or {})
        self._workdir = None if workdir is None else os.fsencode(workdir)
        self._timeout_ns = None if timeout is None else parse_timeout(str(timeout))
        self._numbers = count(1)
        self._lock = threading.Lock()
        """Held to send, and to find out how the sentry ended."""
        self._channel: Channel | None = None
        self._lifeline = -1
        self._sentry: subprocess.Popen[bytes] | None = None
        self._failure: SandboxError | None = None
        self._not_open = _NOT_OPEN

    def __enter__(self) -> Sandbox:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_channel", None) is not None:
            self.close()

    def open(self) -> Sandbox:
        """Start the sentry; what `with` does. Returns itself.

        Errors: PlatformChoiceError, KernelFailureError, SandboxError.
        """
        if self._channel is not None:
            raise SandboxError("this sandbox is open already; make another one")
        _opened.add(self)
        with ExitStack() as stack:
            stack.callback(self.close)
            try:
                self._start_sentry()
            except OSError as error:
                raise SandboxError(
                    f"the sandbox's process can't be started: {error.strerror}"
                ) from error
            self._failure = None
            try:
                self._greet(time.monotonic() + START_S)
            except SandboxError:
                raise
            except TimeoutError:
                raise self._abandon(f"was not ready after {START_S} seconds") from None
            except ValueError as error:
                raise self._abandon(_NONSENSE.format(error)) from None
            except OSError:  # it has said why on standard error
                raise KernelFailureError(
                    "the sandbox's process ended before it was ready"
                ) from None
            stack.pop_all()
        return self

    def _start_sentry(self) -> None:
        """Start the process and be connected to it. OSError, and `close` what there is by then."""
        with ExitStack() as theirs:
            ours, control = _socketpair()
            theirs.callback(os.close, control)
            self._channel = Channel(socket.socket(fileno=ours), MAX_ANSWER)
            lifeline, self._lifeline = _pipe()
            theirs.callback(os.close, lifeline)
            # -P: modules are not taken from the caller's working directory
            command = [sys.executable, "-P", "-m", "pysandbox_core.sentry_server"]
            self._sentry = subprocess.Popen(
                [*command, str(control), str(lifeline)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(control, lifeline),
                start_new_session=True,
            )

    def _greet(self, deadline: float) -> None:
        """Tell the sentry what is wanted, and hear what it is. SandboxError is its own answer,
        ValueError one that makes no sense; OSError"""
        assert self._channel is not None
        request = {"sandbox": self._fields(), "timeout_ns": self._timeout_ns}
        self._channel.send(request, deadline=deadline)
        answer = self._receive(deadline)
        if answer is None:
            raise ConnectionResetError
        if "failed" in answer:
            raise error_of(answer)
        platform, off = answer.get("ready"), answer.get("off")
        if not isinstance(platform, str) or not isinstance(off, dict):
            raise ValueError("it is neither ready nor has it failed")
        self.platform = platform
        self.layers_off = {str(name): str(reason) for name, reason in off.items()}

    def close(self) -> None:
        """End every program and the sandbox. Idempotent."""
        channel, self._channel = self._channel, None
        if channel is not None:
            with suppress(OSError):  # the sentry is gone already
                channel.socket.shutdown(socket.SHUT_RDWR)  # a fork of ours may hold a copy
            channel.close()
        sentry, self._sentry = self._sentry, None
        if sentry is not None:
            try:
                sentry.wait(CLOSE_GRACE_S)
            except subprocess.TimeoutExpired:
                sentry.kill()
                sentry.wait()
        lifeline, self._lifeline = self._lifeline, -1  # another thread may be closing it too
        if lifeline >= 0:
            os.close(lifeline)

    def _leave_to_parent(self) -> None:
        """This process is a fork of the one that has opened the sandbox: let go of the copies that
        came along. With them it would end its parent's sandbox as it ends itself, mix its requests
        up with its parent's, and keep the sandbox when its parent was killed."""
        channel, self._channel = self._channel, None
        sentry, self._sentry = self._sentry, None
        lifeline, self._lifeline = self._lifeline, -1
        self._lock = threading.Lock()  # whoever held it is not in this process
        if channel is not None:
            self._not_open = _FORKED
            channel.close()
        if sentry is not None:
            sentry.poll()  # ECHILD: it has nothing to warn of when it is gone
        if lifeline >= 0:
            os.close(lifeline)

    def run(
        self,
        args: Sequence[str | os.PathLike[str]],
        *,
        input: bytes | str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: PathLike | None = None,
        user: str | tuple[int, int] | None = None,
        timeout: float | None = None,
        max_output: int = MAX_OUTPUT,
        capture: bool = True,
        check: bool = False,
    ) -> Result:
        """Run a program to its end and return how it ended and what it wrote.

        `input` is its standard input, which is empty otherwise; text is encoded as UTF-8. `env` is
        added to the sandbox's own environment; nothing of the caller's is passed on. At most
        `max_output` bytes of standard output and of standard error are kept, what exceeds them is
        read and dropped; without `capture` both are the caller's own. After `timeout` seconds the
        program and all it has started are killed and RunTimeoutError is raised. With `check`, a
        returncode other than 0 raises CommandFailedError. Processes that it leaves behind go on
        until the sandbox is closed.

        Errors: CommandNotFoundError, CommandNotExecutableError, RunTimeoutError,
        SandboxTimeoutError (the sandbox's own time is up), CommandFailedError, KernelFailureError,
        InvalidOptionError.
        """
        if max_output < 0:
            raise InvalidOptionError(f"max_output {max_output} is below 0")
        deadline = None
        if timeout is not None:
            deadline = time.monotonic() + parse_timeout(str(timeout)) / 1e9
        output = PIPE if capture else None
        data = input.encode() if isinstance(input, str) else input or b""
        stdin = PIPE if data else DEVNULL
        with self.start(
            args, stdin=stdin, stdout=output, stderr=output, env=env, cwd=cwd, user=user
        ) as process:
            captured = process.communicate(data, deadline, max_output)
            stdout, stderr = bytes(captured.stdout), bytes(captured.stderr)
            if captured.timed_out:
                raise RunTimeoutError(
                    f"{process.args[0]} ran longer than {timeout:g} seconds and was killed",
                    stdout,
                    stderr,
                )
            result = Result(
                process.args,
                process.wait(),
                stdout,
                stderr,
                process.duration,
                process.usage,
                captured.stdout_truncated,
                captured.stderr_truncated,
                process.limit or ("output" if captured.truncated else None),
            )
        return result.check() if check else result

    def start(
        self,
        args: Sequence[str | os.PathLike[str]],
        *,
        stdin: int | IO[bytes] | None = DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: PathLike | None = None,
        user: str | tuple[int, int] | None = None,
    ) -> Process:
        """Start a program and return while it runs.

        `stdin`, `stdout` and `stderr` are PIPE (then `Process` has the other end), DEVNULL, an open
        file or descriptor, or None for the caller's own. That the program could not be started is
        raised by what next waits for it.
        """
        if isinstance(args, str | bytes):
            raise InvalidOptionError('args is one string; pass a list, like ["sh", "-c", "…"]')
        words = [os.fspath(word) for word in args]
        spec = self._spec(words, env, cwd, user)
        _check_text(words, spec["env"], [spec["cwd"]])
        ends = _Ends()
        try:
            fds = (
                ends.child_end(stdin, 0),
                ends.child_end(stdout, 1),
                ends.child_end(stderr, 2),
            )
            status_fd, status_writer = _pipe()
            ends.theirs.append(status_writer)
            process = Process(self, spec["run"], words, status_fd, ends.pipes())
            try:
                self._send(spec, (*fds, status_writer))
            except ValueError:  # longer than any system call takes, however it is encoded
                process.close()
                raise CommandNotExecutableError(
                    f"{words[0]}: can't be executed: {os.strerror(E2BIG)}"
                ) from None
            except BaseException:
                process.close()
                raise
        except BaseException:
            ends.close_ours()
            raise
        finally:
            ends.close_theirs()
        return process

    def signal_run(self, number: int, signo: int, *, descendants: bool) -> None:
        """Send a signal to a run; see Process.send_signal and Process.kill."""
        if not 1 <= signo < signal.NSIG:
            raise InvalidOptionError(f"signal {signo} is not 1 to {signal.NSIG - 1}")
        self._send({"signal": int(signo), "run": number, "all": descendants})

    def failure(self) -> SandboxError:
        """Why the sentry is gone; one that is not, though it has no more to say, is killed."""
        with self._lock:
            if self._failure is None:
                self._failure = self._ask_failure()
            # a fresh one: several threads may raise it
            return type(self._failure)(*self._failure.args)

    def nonsense(self, what: ValueError) -> SandboxError:
        """End a sentry whose answer is none; the error to raise."""
        with self._lock:
            if self._failure is None:
                self._failure = self._abandon(_NONSENSE.format(what))
        return self.failure()

    def _ask_failure(self) -> SandboxError:
        answer: Message | None = None
        try:
            answer = self._receive(time.monotonic() + ANSWER_S)
        except TimeoutError:
            return self._abandon("does not answer")
        except ValueError as error:
            return self._abandon(_NONSENSE.format(error))
        except OSError:  # it has ended with something unread
            pass
        if answer is not None:
            if "failed" in answer:
                return error_of(answer)
            return self._abandon("said something that nobody has asked for")
        if self._channel is None:
            return SandboxError("the sandbox was closed while the program ran")
        return self._death()

    def _death(self) -> SandboxError:
        """What became of a sentry that is connected no more."""
        sentry = self._sentry
        if sentry is None:
            return SandboxError("the sandbox was closed while the program ran")
        try:
            returncode = sentry.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            return self._abandon("has closed the connection")
        if returncode == -signal.SIGALRM:  # sentry_server.end_after
            return SandboxTimeoutError("the sandbox's time is up; it did not end and was killed")
        if returncode == -signal.SIGSYS:
            from pysandbox_core.sentry import describe_death

            return KernelFailureError(describe_death(signal.SIGSYS))
        return KernelFailureError("the sandbox's process is gone; was it killed, out of memory?")

    def _abandon(self, what: str) -> SandboxError:
        """Kill the sentry, and with it all that runs in it."""
        sentry = self._sentry
        if sentry is not None:
            sentry.kill()  # its parent, which it does not outlive
        return KernelFailureError(
            f"the sandbox's process {what}, and was killed: its kernel has failed, or a program "
            "has taken it over"
        )

    def _receive(self, deadline: float) -> Message | None:
        received = None if self._channel is None else self._channel.receive(deadline)
        if received is None:
            return None
        message, fds = received
        for fd in fds:
            os.close(fd)  # a sentry has none to give
        return message

    def _send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        with self._lock:
            if self._channel is None:
                raise SandboxError(self._not_open)
            if self._failure is None:
                try:
                    self._channel.send(message, fds, time.monotonic() + ANSWER_S)
                    return
                except TimeoutError:
                    self._failure = self._abandon("takes no requests")
                except OSError:
                    pass  # the sentry is gone: the reason is more use than the broken pipe
        raise self.failure()

    def _spec(
        self,
        words: list[str],
        env: Mapping[str, str] | None,
        cwd: PathLike | None,
        user: str | tuple[int, int] | None,
    ) -> Message:
        """The request to run a program, control.py."""
        runs_as = self.config.user if user is None else _user(user)
        assert runs_as is not None
        environment = {
            os.fsdecode(name): os.fsdecode(value)
            for name, value in default_environment(runs_as).items()
        }
        environment.update(self._env)
        environment.update(env or {})
        if any("=" in name or not name for name in environment):
            raise InvalidOptionError("a variable of `env` has an empty name or one with `=`")
        directory = self._workdir if cwd is None else os.fsencode(cwd)
        return {
            "run": next(self._numbers),
            "argv": words,
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": os.fsdecode(caller_directory() if directory is None else directory),
            "cwd_required": directory is not None,
            "user": runs_as,
        }

    def _fields(self) -> Message:
        config = self.config
        return {
            "platform": config.platform,
            "rootfs": os.fsdecode(config.rootfs),
            "binds": [
                (os.fsdecode(bind.source), os.fsdecode(bind.target), bind.writable)
                for bind in config.binds
            ],
            "tmpfs": [
                (os.fsdecode(mount.target), mount.size, mount.inodes) for mount in config.tmpfs
            ],
            "hostname": os.fsdecode(config.hostname),
            "memory": config.memory,
            "pids": config.pids,
            "cpu_time_ns": config.cpu_time_ns,
            "user": config.user,
            "log_level": config.log_level,
            "require": sorted(config.require),
            "without": sorted(config.without),
        }


class _Ends:
    """The descriptors of a program about to be started: the ends it gets and the ends we keep."""

    def __init__(self) -> None:
        self.theirs: list[int] = []
        self.ours: list[IO[bytes] | None] = [None, None, None]

    def child_end(self, what: int | IO[bytes] | None, number: int) -> int:
        """The descriptor to pass for standard descriptor `number`."""
        if what is None and _is_open(number):
            return _no_directory(number)
        if what == PIPE:
            reader, writer = _pipe()
            ours, theirs = (writer, reader) if number == 0 else (reader, writer)
            self.theirs.append(theirs)
            self.ours[number] = os.fdopen(ours, "wb" if number == 0 else "rb", buffering=0)
            return theirs
        if what is None or what == DEVNULL:
            fd = _above_standard(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
            self.theirs.append(fd)
            return fd
        return _no_directory(what if isinstance(what, int) else what.fileno())

    def pipes(self) -> tuple[IO[bytes] | None, IO[bytes] | None, IO[bytes] | None]:
        return (self.ours[0], self.ours[1], self.ours[2])

    def close_ours(self) -> None:
        for pipe in self.ours:
            if pipe is not None:
                pipe.close()

    def close_theirs(self) -> None:
        for fd in self.theirs:
            os.close(fd)


def _above_standard(fd: int) -> int:
    """`fd`, or a copy in its place if the caller has one of its standard descriptors closed and
    `fd` came to lie there: a program would be given it as the caller's own."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    return _above_standard(reader), _above_standard(writer)


def _socketpair() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return _above_standard(ours.detach()), _above_standard(theirs.detach())


def _leave_all_to_parent() -> None:
    for sandbox in list(_opened):
        sandbox._leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_to_parent)


def _check_text(*lists: list[str]) -> None:
    """InvalidOptionError if one of the texts stands for no bytes."""
    for text in (text for texts in lists for text in texts):
        try:
            os.fsencode(text)
        except UnicodeEncodeError as error:
            raise InvalidOptionError(f"{text!a} can't be encoded: {error.reason}") from None


def _layers(names: str | Iterable[str]) -> frozenset[str]:
    return parse_layers(names if isinstance(names, str) else ",".join(names))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _no_directory(fd: int) -> int:
    """`fd`. From a directory's all of the host's names could be reached."""
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        raise InvalidOptionError(
            f"descriptor {fd} is a directory; to show a program one, use `binds`"
        )
    return fd


def _bind(bind: BindLike) -> Bind:
    if isinstance(bind, Bind):
        return bind
    if isinstance(bind, str):
        return parse_bind(bind)
    source, target, *mode = bind
    if mode not in ([], ["ro"], ["rw"]):
        raise InvalidOptionError(f"bind {bind!r} is not (SRC, DST), or with 'ro' or 'rw' as third")
    return Bind(host_path(os.fsencode(source)), os.fsencode(target), mode == ["rw"])


def _tmpfs(mount: TmpfsLike) -> Tmpfs:
    if isinstance(mount, Tmpfs):
        return mount
    return parse_tmpfs(mount) if isinstance(mount, str) else Tmpfs(os.fsencode(mount))


def _user(user: str | tuple[int, int] | None) -> User | None:
    if user is None or isinstance(user, User):
        return user
    return parse_user(user if isinstance(user, str) else f"{user[0]}:{user[1]}")
