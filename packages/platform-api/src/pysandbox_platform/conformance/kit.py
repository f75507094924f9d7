"""The ground that the conformance tests stand on: a platform, a memory file, a way to run code.

Interface: tests use `Guest` and hooks of `PlatformTests`, and of a platform only what its interface
promises; what may be spurious there (wait's None, STOP_INTERRUPTED, STOP_NONE) is never failed on.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

import pytest

from pysandbox_platform.interface import AddressSpace, Context, Platform
from pysandbox_platform.registers_amd64 import RIP
from pysandbox_platform.types import (
    PAGE_SIZE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    STOP_INTERRUPTED,
    STOP_NAMES,
    STOP_SYSCALL,
)

CODE: Final = 0x10000000
"""Where `Guest.start` maps code."""
DATA: Final = 0x20000000
"""Where tests map data, by custom."""
PATIENCE_NS: Final = 20_000_000_000
"""How long a stop may take before a test fails; no test waits for it when all is well."""
_FILE_PAGES: Final = 4096


class Guest:
    """A platform, and a memory file whose pages are handed out one after another."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.fd = os.memfd_create("conformance", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, _FILE_PAGES * PAGE_SIZE)
        self.memory = mmap.mmap(self.fd, _FILE_PAGES * PAGE_SIZE)
        self._next = 0

    def close(self) -> None:
        """The platform is closed by whoever made it."""
        self.memory.close()
        os.close(self.fd)

    def pages(self, content: bytes = b"", count: int = 1) -> int:
        """Offset in the file of `count` new pages that begin with `content`."""
        offset = self._next
        self._next += count * PAGE_SIZE
        self.memory[offset : offset + len(content)] = content
        return offset

    def word(self, offset: int) -> int:
        """The 64-bit word at an offset of the file."""
        return int.from_bytes(self.memory[offset : offset + 8], "little")

    def set_word(self, offset: int, value: int) -> None:
        """Changes a word of the file."""
        self.memory[offset : offset + 8] = value.to_bytes(8, "little")

    def space(self, code: bytes, addr: int = CODE) -> AddressSpace:
        """A new address space with `code` at `addr`."""
        space = self.platform.new_address_space()
        self.map_code(space, code, addr)
        return space

    def map_code(self, space: AddressSpace, code: bytes, addr: int = CODE) -> None:
        """Maps a page of code, readable and executable."""
        space.map(addr, PAGE_SIZE, PROT_READ | PROT_EXEC, self.fd, self.pages(code))

    def map_data(
        self, space: AddressSpace, addr: int = DATA, content: bytes = b"", count: int = 1
    ) -> int:
        """Maps new pages readable and writable; gives their offset in the file."""
        offset = self.pages(content, count)
        space.map(addr, count * PAGE_SIZE, PROT_READ | PROT_WRITE, self.fd, offset)
        return offset

    def context(self, rip: int = CODE, **registers: int) -> Context:
        """A new context that will start at `rip`; `registers` are indexes' names in lower case."""
        context = self.platform.new_context()
        context.regs[RIP] = rip
        self.set(context, **registers)
        return context

    @staticmethod
    def set(context: Context, **registers: int) -> None:
        """Sets registers by name."""
        from pysandbox_platform.registers_amd64 import REGISTER_NAMES

        for name, value in registers.items():
            context.regs[REGISTER_NAMES.index(name)] = value % 2**64

    def next_stop(self) -> Context:
        """The next context that gives control back; fails when none does."""
        deadline = time.monotonic_ns() + PATIENCE_NS
        while (left := deadline - time.monotonic_ns()) > 0:
            context = self.platform.wait(left)
            if context is not None:
                return context
        pytest.fail("no context gave control back")

    def run(self, context: Context, space: AddressSpace) -> Context:
        """Resumes a context until it stops for a reason of its own."""
        while True:
            context.resume(space)
            stopped = self.next_stop()
            assert stopped is context
            if context.stop != STOP_INTERRUPTED:
                return context

    def run_to_syscall(self, context: Context, space: AddressSpace) -> Context:
        """As `run`, for a program that is to reach a SYSCALL."""
        self.run(context, space)
        assert_syscall(context)
        return context


def assert_syscall(context: Context) -> None:
    """Fails, saying what happened instead."""
    assert context.stop == STOP_SYSCALL, (
        f"{STOP_NAMES[context.stop]} at {context.regs[RIP]:#x}: signal {context.signo}, "
        f"code {context.code}, address {context.fault_addr:#x}"
    )


class PlatformTests:
    """Base of all test classes: names the platform, makes one for each test."""

    platform_class: ClassVar[type[Platform]]

    def kill(self, context: Context) -> None:
        """Kills from outside what runs `context`. Override where a platform has something to
        kill."""
        pytest.skip(f"{self.platform_class.name}: nothing outside the platform runs a context")

    def host_tasks(self) -> int:
        """How many children this process has; a platform with other helpers on the host adds
        them."""
        return sum(
            len(path.read_text().split()) for path in Path("/proc/self/task").glob("*/children")
        )

    @pytest.fixture
    def platform(self) -> Iterator[Platform]:
        """An open platform, closed afterwards."""
        probe = self.platform_class.probe()
        if not probe.usable:
            pytest.skip(f"{self.platform_class.name} can't be used here: {probe.reason}")
        platform = self.platform_class()
        yield platform
        platform.close()

    @pytest.fixture
    def guest(self, platform: Platform) -> Iterator[Guest]:
        """A platform with a memory file."""
        guest = Guest(platform)
        yield guest
        guest.close()
