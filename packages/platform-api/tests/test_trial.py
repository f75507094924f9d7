"""The probes' system call: what does not come back as one is an error in words."""

from __future__ import annotations

import os
from typing import Any

import pytest
from pysandbox_platform import (
    STOP_EXCEPTION,
    STOP_KILLED,
    STOP_SYSCALL,
    AddressSpace,
    Context,
    Platform,
    PlatformError,
    trial,
)
from pysandbox_platform.registers_amd64 import NREGS, ORIG_RAX, RAX


class Space(AddressSpace):
    """Where the program is mapped, and nothing runs."""

    def map(self, addr: int, length: int, prot: int, fd: int, offset: int) -> None:
        assert os.pread(fd, length, offset).startswith(b"\x0f\x05")

    protect = unmap = sync = release = lambda self: None  # type: ignore[assignment]


class Stopped(Context):
    """Stops as it was told to."""

    def __init__(self, stop: int, number: int | None) -> None:
        self.regs = memoryview(bytearray(8 * NREGS)).cast("Q")
        self.will = (stop, number)
        self.message = "it fell over"

    def resume(self, address_space: AddressSpace) -> None:
        self.stop, number = self.will
        self.regs[ORIG_RAX] = self.regs[RAX] if number is None else number

    interrupt = get_fpstate = set_fpstate = release = lambda self: None  # type: ignore[assignment]


class Scripted(Platform):
    """One context, one stop; none where `stop` is None."""

    probe = kick = read_tsc = close = lambda self: None  # type: ignore[assignment]

    def __init__(self, stop: int | None, number: int | None = None) -> None:
        self.silent = stop is None
        self.context = Stopped(stop or 0, number)

    def new_address_space(self) -> Space:
        return Space()

    def new_context(self) -> Stopped:
        return self.context

    def wait(self, timeout_ns: int | None = None) -> Context | None:
        return None if self.silent else self.context


def test_it_arrives() -> None:
    trial.run_one_syscall(Scripted(STOP_SYSCALL))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((STOP_KILLED,), "the probe's program failed: it fell over"),
        ((STOP_EXCEPTION,), "the probe's system call did not arrive, but: exception"),
        ((STOP_SYSCALL, 1), "the probe's system call did not arrive, but: syscall"),
    ],
)
def test_it_does_not(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(PlatformError, match=words):
        trial.run_one_syscall(Scripted(*arguments))


def test_it_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_TIMEOUT_NS", -1)
    with pytest.raises(PlatformError, match="does not stop"):
        trial.run_one_syscall(Scripted(None))
