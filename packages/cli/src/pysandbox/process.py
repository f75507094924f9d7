"""A program that runs in a sandbox of the SDK.

Interface: made by `Sandbox.start`. The caller reads and writes `stdin`, `stdout` and `stderr` as
with subprocess, or lets `communicate` do it; `wait` waits for the end. All of it may be called from
any thread, one at a time. The sentry tells of the end through a pipe of this process's own, so that
no thread is needed to sort messages. What it tells is checked: sandbox.py says why.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import termios
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, TypeVar

from pysandbox_core.control import MAX_ANSWER, Message, parse
from pysandbox_core.errors import KernelFailureError, SandboxError, SandboxTimeoutError
from pysandbox_core.limits import LIMITS

from pysandbox.result import Usage

if TYPE_CHECKING:
    from pysandbox.sandbox import Sandbox

KILL_GRACE_S = 10
"""How long a sandbox may take to end a program that was killed before it is ended itself."""

_Number = TypeVar("_Number", int, float)

_MAX_POLL_MS = (1 << 31) - 1
"""poll(2) takes an int; whoever waits longer looks at the time and waits again."""

_CHUNK = 1 << 16
_MAX_MESSAGE = 1 << 16
"""Characters of a sentry's message that are shown."""


class Process:
    """One program in a sandbox. Its descriptors are closed by `close`, or by `with`."""

    def __init__(
        self,
        sandbox: Sandbox,
        number: int,
        args: list[str],
        status_fd: int,
        pipes: tuple[IO[bytes] | None, IO[bytes] | None, IO[bytes] | None],
    ) -> None:
        self.sandbox = sandbox
        self.args = args
        self.stdin, self.stdout, self.stderr = pipes
        self.returncode: int | None = None
        """As subprocess has it: the exit status, -N after signal N, None while it runs."""
        self.usage = Usage()
        self.limit: str | None = None
        """As in `Result.limit`, once it has ended."""
        self.started = time.monotonic()
        self.duration = 0.0
        """Seconds it ran, once it has ended."""
        self._number = number
        os.set_blocking(status_fd, False)
        self._status_fd = status_fd
        self._status_line = b""

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.returncode is None:
            with suppress(SandboxError):
                self.kill()
        self.close()

    def close(self) -> None:
        """Close the pipes; the program goes on, if it has not ended. Idempotent."""
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with suppress(OSError):  # a last write that nobody reads
                    pipe.close()
        if self._status_fd >= 0:
            os.close(self._status_fd)
            self._status_fd = -1

    def send_signal(self, signo: int) -> None:
        """Send a signal to the program, not to its children. Having ended is no error."""
        self.sandbox.signal_run(self._number, signo, descendants=False)

    def kill(self) -> None:
        """Kill the program and every process that it has started. Having ended is no error."""
        self.sandbox.signal_run(self._number, signal.SIGKILL, descendants=True)

    def poll(self) -> int | None:
        """`returncode` as of now."""
        if self.returncode is None and _ready(self._status_fd, 0.0):
            self._read_status()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the program has ended, at most `timeout` seconds; its `returncode`.

        SandboxTimeoutError if it still runs then; it goes on running.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if _ready(self._status_fd, left):
                self._read_status()
            elif deadline is not None and time.monotonic() >= deadline:
                raise SandboxTimeoutError(f"{self.args[0]} still runs after {timeout:g} seconds")
        return self.returncode

    def communicate(self, data: bytes, deadline: float | None, limit: int) -> Output:
        """Write `data` to its standard input and read the rest until it ends.

        Returns what was captured, at most `limit` bytes of each. At `deadline` (time.monotonic) the
        program is killed with all it has started, and `Output.timed_out` is set.
        """
        return _Conversation(self, data, limit).carry(deadline)

    def _read_status(self) -> None:
        """Take what the status pipe has. SandboxError if the program could not be started, or if
        the sandbox is gone."""
        try:
            chunk = os.read(self._status_fd, 4096)
        except BlockingIOError:  # whoever has written it has taken it back
            return
        self._status_line += chunk
        if not chunk:
            raise self.sandbox.failure()
        try:
            if len(self._status_line) > MAX_ANSWER:
                raise ValueError("too long")
            if not self._status_line.endswith(b"\n"):
                return
            message = parse(self._status_line)
            if "failed" not in message:
                returncode, usage, limit = _ending(message)
        except ValueError as error:
            raise self.sandbox.nonsense(error) from None
        if "failed" in message:
            raise error_of(message)
        self.duration = time.monotonic() - self.started
        self.usage = usage
        self.limit = limit
        self.returncode = returncode


def _ending(message: Message) -> tuple[int, Usage, str | None]:
    """Returncode, usage and the deciding limit of a program that has ended. ValueError if that is
    not what the sentry has said."""
    used, limit = message.get("usage"), message.get("limit")
    if not isinstance(used, dict) or used.keys() != {"cpu_time", "max_memory"}:
        raise ValueError("no usage")
    if limit is not None and limit not in LIMITS:
        raise ValueError("no limit")
    status = _number(message.get("exited"), int)
    if status > 0xFFFF:
        raise ValueError("no wait status")
    usage = Usage(_number(used["cpu_time"], float), _number(used["max_memory"], int))
    return os.waitstatus_to_exitcode(status & ~0x80), usage, limit


def _number(value: object, kind: type[_Number]) -> _Number:
    """`value`, if it counts or measures something. JSON has truth values, infinity and nothing at
    all as well. ValueError"""
    if type(value) is not kind or not 0 <= value < 1 << 63:
        raise ValueError(f"no {kind.__name__} where there should be one")
    return value


class Output:
    """What a conversation with a program captured."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.stdout_truncated = False
        self.stderr_truncated = False
        self.timed_out = False

    @property
    def truncated(self) -> bool:
        """More was written than is kept."""
        return self.stdout_truncated or self.stderr_truncated


class _Conversation:
    """One round of writing, reading and waiting, in one thread."""

    def __init__(self, process: Process, data: bytes, limit: int) -> None:
        self.process = process
        self.data = memoryview(data)
        self.output = Output(limit)
        self.poll = select.poll()
        self.poll.register(process._status_fd, select.POLLIN)
        self.open: dict[int, IO[bytes]] = {}
        for pipe, events in (
            (process.stdin, select.POLLOUT),
            (process.stdout, select.POLLIN),
            (process.stderr, select.POLLIN),
        ):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self.open[pipe.fileno()] = pipe
                self.poll.register(pipe.fileno(), events)

    def carry(self, deadline: float | None) -> Output:
        process = self.process
        while process.returncode is None:
            left = None if deadline is None else (deadline - time.monotonic()) * 1e3
            wait = None if left is None else min(left, _MAX_POLL_MS)
            ready = self.poll.poll(wait) if wait is None or wait > 0 else []
            if not ready and left is not None and time.monotonic() >= (deadline or 0):
                if self.output.timed_out:
                    process.sandbox.close()
                    raise KernelFailureError("a killed program did not end; the sandbox is closed")
                self.output.timed_out = True
                process.kill()
                deadline = time.monotonic() + KILL_GRACE_S
            for fd, _ in ready:
                self._serve(fd)
        # it wrote to our pipes before it ended; what others still write is not its output, and
        # may have no end
        for fd, pipe in tuple(self.open.items()):
            left = _readable_bytes(fd) if pipe is not process.stdin else 0
            while left > 0 and fd in self.open:
                left -= self._read(fd, pipe) or left
        return self.output

    def _serve(self, fd: int) -> None:
        pipe = self.open.get(fd)
        if pipe is None:
            self.process._read_status()
        elif pipe is self.process.stdin:
            self._write(fd, pipe)
        else:
            self._read(fd, pipe)

    def _write(self, fd: int, pipe: IO[bytes]) -> None:
        try:
            self.data = self.data[os.write(fd, self.data[:_CHUNK]) :] if self.data else self.data
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.data = self.data[:0]  # it does not read on: no error, as for subprocess
        if not self.data:
            self._drop(fd)
            pipe.close()

    def _read(self, fd: int, pipe: IO[bytes]) -> int:
        """Keep what there is, within the limit; how many bytes came."""
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:  # whoever has written it has taken it back
            return 0
        if not chunk:
            self._drop(fd)
            return 0
        name = "stdout" if pipe is self.process.stdout else "stderr"
        captured: bytearray = getattr(self.output, name)
        room = self.output.limit - len(captured)
        captured += chunk[:room]
        if len(chunk) > room:
            setattr(self.output, f"{name}_truncated", True)
        return len(chunk)

    def _drop(self, fd: int) -> None:
        self.poll.unregister(fd)
        del self.open[fd]


def error_of(message: Message) -> SandboxError:
    """The exception that a sentry's `failed` message stands for."""
    from pysandbox_core import errors

    kind = getattr(errors, str(message["failed"]), None)
    if not (isinstance(kind, type) and issubclass(kind, SandboxError)):
        kind = KernelFailureError
    return kind(_printable(str(message.get("message", ""))[:_MAX_MESSAGE]))


def _printable(text: str) -> str:
    """Without what a terminal would obey: it is going to be shown on one."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1]
        for letter in text
    )


def _readable_bytes(fd: int) -> int:
    """What is in a pipe now. FIONREAD"""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def _ready(fd: int, timeout: float | None) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else min(timeout * 1e3, _MAX_POLL_MS)))
