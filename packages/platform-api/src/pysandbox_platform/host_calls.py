"""How a platform says which of the host's system calls it makes, for the filter of the jail.

Interface: a `Platform` lists `HostCall`s in its `host_calls`: everything that it does between its
construction and its `close`, on any thread, over and above what any Python program does. A call
that is listed several times is allowed if one of the entries fits.
"""

from __future__ import annotations

from typing import NamedTuple


class Condition(NamedTuple):
    """What one argument of a host call has to be."""

    argument: int
    """0 to 5."""
    values: tuple[int, ...]
    """It is one of these, where `mask` has ones."""
    mask: int = 0xFFFFFFFF
    """Of 64 bits; what lies beyond the lower 32 only counts if the mask has it, for the host's
    kernel takes an int's worth of most arguments and ignores the rest."""


class HostCall(NamedTuple):
    """A host system call that is made, by its name, with all of `conditions` true."""

    name: str
    """As in syscalls(2)."""
    conditions: tuple[Condition, ...] = ()
    only_own: bool = False
    """It is made for each system call of the program, and reaches no process but the sandbox's own
    where the host keeps others out of sight and out of reach. Its conditions then add little and
    cost a tenth of a microsecond each time: they are left out there."""


def one_of(argument: int, *values: int) -> Condition:
    """The argument, an int, is one of `values`."""
    return Condition(argument, values)


def none_but(argument: int, bits: int) -> Condition:
    """The argument, a word of flags, has none set but those in `bits`."""
    return Condition(argument, (0,), ~bits & 0xFFFFFFFFFFFFFFFF)


def not_with(argument: int, bits: int) -> Condition:
    """The argument, a word of flags, has none of `bits` set."""
    return Condition(argument, (0,), bits)
