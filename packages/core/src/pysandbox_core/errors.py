"""The kernel's exception types, split by whose fault it is.

`LinuxError` is an answer to the program. `KernelBug` is ours and ends the sandbox. What a person
did wrong when asking for a sandbox is a `SandboxError`. A host error (OSError) is none of these: it
must not reach the program by accident, and `linux_errors()` converts where that is meant.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

# include/linux/errno.h: never seen by a program; the signal code turns them into EINTR or a
# restart.
ERESTARTSYS = 512
"""Restart if the handler that interrupts has SA_RESTART, else EINTR."""
ERESTARTNOINTR = 513
"""Always restart."""
ERESTARTNOHAND = 514
"""Restart only if no handler runs, else EINTR."""
ERESTART_RESTARTBLOCK = 516
"""Continue through restart_syscall(2) with task.restart_block; EINTR if a handler runs."""


class LinuxError(Exception):
    """The system call fails with `errno`; the program sees -errno."""

    __slots__ = ("errno",)

    def __init__(self, errno: int) -> None:
        self.errno = errno

    def __str__(self) -> str:
        return f"{errno.errorcode.get(self.errno, self.errno)} ({os.strerror(self.errno)})"


class Interrupted(LinuxError):
    """A wait ended because a signal is pending; `errno` is one of the ERESTART numbers."""

    __slots__ = ()


class KernelBug(Exception):
    """A broken promise inside the kernel. Ends the sandbox with status 125."""


class SandboxError(Exception):
    """The sandbox can't be made or used as asked; the message says what to do about it."""


class InvalidOptionError(SandboxError, ValueError):
    """An option or argument makes no sense; the message says what would."""


class PlatformChoiceError(SandboxError):
    """The platform asked for is unknown, broken or can't be used here."""


class CommandNotFoundError(SandboxError, FileNotFoundError):
    """The program to run does not exist in the sandbox."""


class CommandNotExecutableError(SandboxError, PermissionError):
    """The program to run exists in the sandbox but can't be executed."""


class SandboxTimeoutError(SandboxError, TimeoutError):
    """The time limit of a run or of the sandbox has passed; what ran has been killed."""


class KernelFailureError(SandboxError, RuntimeError):
    """The sandbox's kernel or platform failed and the sandbox has ended; the message says how."""


@contextmanager
def linux_errors() -> Iterator[None]:
    """Give the program the errno of any OSError raised inside: for host calls made on its
    behalf."""
    try:
        yield
    except OSError as error:
        raise LinuxError(error.errno or errno.EIO) from None
