"""The data types that cross the platform interface.

Interface: everything here is plain data. Integers, not enum members, are what the hot path carries:
`Context.stop` holds one of the `STOP_*` numbers, protections are `PROT_*` bits as mmap(2) has them.
Named tuples, because every start pays for this module: dataclasses would add 8 ms to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

PAGE_SIZE: Final = 4096

# Protections of a mapping, mmap(2).
PROT_NONE: Final = 0
PROT_READ: Final = 1
PROT_WRITE: Final = 2
PROT_EXEC: Final = 4

# Why a context gave control back: a small closed set.
STOP_NONE: Final = 0
"""The context has not run yet, or is running now."""
STOP_SYSCALL: Final = 1
"""SYSCALL executed. The number is in regs[ORIG_RAX], the arguments in their registers, RIP is past
the instruction; RCX and R11 hold what the instruction puts there. RAX is not meaningful."""
STOP_FAULT: Final = 2
"""A page could not be reached: `fault_addr`, `fault_access`. RIP is at the instruction, which runs
again when the context is resumed."""
STOP_EXCEPTION: Final = 3
"""Any other exception: `signo`, `code`, `fault_addr` as Linux would put them in a siginfo."""
STOP_INTERRUPTED: Final = 4
"""`interrupt()` was called, or the platform had a reason of its own; may be spurious. The registers
are those of an instruction boundary."""
STOP_KILLED: Final = 5
"""What ran the context is gone (killed from outside, or it broke the platform's rules). The context
can't be resumed again; its registers are not meaningful. `message` says what happened."""

STOP_NAMES: Final = ("none", "syscall", "fault", "exception", "interrupted", "killed")

# What a faulting access wanted, as far as the platform can tell.
ACCESS_READ: Final = 1
ACCESS_WRITE: Final = 2
ACCESS_EXEC: Final = 4


class PlatformError(Exception):
    """The platform could not do what it was asked: a host limit, a lost stub, a bug. Fatal to the
    sandbox that meets it. `errno` is the host's error number, or 0 where there was none."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class PlatformUnavailableError(PlatformError):
    """This platform can't run here; the message says why and what to do about it."""


class Probe(NamedTuple):
    """What `Platform.probe()` found."""

    usable: bool
    reason: str
    """One line in words: why it can't be used, or what it will use. Never empty."""
    rank: int = 0
    """How good it is here, 0 to 100; the automatic choice takes the highest usable one."""
    details: Mapping[str, str] = MappingProxyType({})
    """Facts for `pysandbox doctor`: name -> value in words."""
