"""What the SDK gives back: the outcome of a run, and the errors that carry what a run wrote."""

from __future__ import annotations

from dataclasses import dataclass, field

from pysandbox_core.errors import SandboxError, SandboxTimeoutError


@dataclass(frozen=True, slots=True)
class Usage:
    """What a program used, with the children that it waited for."""

    cpu_time: float = 0.0
    """Seconds that the host's processors worked for it; the kernel's own work is not in it."""
    max_memory: int = 0
    """Bytes that the largest of its processes had resident when it ended."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended. `returncode` is subprocess's: the exit status, or -N after signal N."""

    args: list[str]
    returncode: int
    stdout: bytes
    """What was captured; empty where it was not."""
    stderr: bytes
    duration: float
    """Seconds from the request to the end."""
    usage: Usage = field(default_factory=Usage)
    stdout_truncated: bool = False
    """More than the limit was written; the first bytes are in `stdout`."""
    stderr_truncated: bool = False
    limit: str | None = None
    """The limit that ended the program or made one of its calls fail: "cpu_time", "memory", "pids",
    "files", "tmpfs", "output"; None if it met none."""

    def check(self) -> Result:
        """Itself if `returncode` is 0; CommandFailedError otherwise."""
        if self.returncode:
            raise CommandFailedError(self)
        return self


class CommandFailedError(SandboxError):
    """A program ended with a status other than 0; `result` has the whole of it."""

    def __init__(self, result: Result) -> None:
        code = result.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"exited with status {code}"
        tail = result.stderr.decode(errors="backslashreplace").strip()[-500:]
        super().__init__(f"{result.args[0]} {how}" + (f": {tail}" if tail else ""))
        self.result = result


class RunTimeoutError(SandboxTimeoutError):
    """A run took longer than its `timeout`; `stdout` and `stderr` have what it wrote until then."""

    limit = "timeout"
    """As in `Result.limit`."""

    def __init__(self, message: str, stdout: bytes, stderr: bytes) -> None:
        super().__init__(message)
        self.stdout = stdout
        self.stderr = stderr
