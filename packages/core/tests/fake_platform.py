"""A platform for unit tests: its contexts run Python generators instead of machine code.

A context's `program` yields the next stop as a dict of what the context shows (`stop`, registers by
index, fault attributes) and goes on when it is resumed. Address spaces keep a page-by-page model of
what is mapped: page address -> (prot, fd, offset).
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from pysandbox_platform import (
    PAGE_SIZE,
    STOP_INTERRUPTED,
    STOP_NONE,
    AddressSpace,
    Context,
    Platform,
    Probe,
)
from pysandbox_platform.registers_amd64 import NREGS

Program = Iterator[dict[str, Any]]


class FakeAddressSpace(AddressSpace):
    def __init__(self) -> None:
        self.pages: dict[int, tuple[int, int, int]] = {}
        self.released = False
        self.syncs = 0

    def map(self, addr: int, length: int, prot: int, fd: int, offset: int) -> None:
        for done in range(0, length, PAGE_SIZE):
            self.pages[addr + done] = (prot, fd, offset + done)

    def protect(self, addr: int, length: int, prot: int) -> None:
        for page in range(addr, addr + length, PAGE_SIZE):
            if page in self.pages:
                _, fd, offset = self.pages[page]
                self.pages[page] = (prot, fd, offset)

    def unmap(self, addr: int, length: int) -> None:
        for page in range(addr, addr + length, PAGE_SIZE):
            self.pages.pop(page, None)

    def sync(self) -> None:
        self.syncs += 1

    def release(self) -> None:
        self.released = True
        self.pages.clear()


class FakeContext(Context):
    def __init__(self, platform: FakePlatform) -> None:
        self.platform = platform
        self.regs = memoryview(bytearray(8 * NREGS)).cast("Q")
        self.stop = STOP_NONE
        self.fault_addr = self.fault_access = self.signo = self.code = 0
        self.message = ""
        self.owner: object = None
        self.program: Program = iter(())
        self.fpstate = bytes(platform.xstate_size)
        self.interrupted = False
        self.released = False
        self.constant_results: dict[int, int] = {}
        """Remembered for tests; every system call is a stop all the same."""

    def resume(self, address_space: AddressSpace) -> None:
        self.stop = STOP_NONE
        self.platform.running.append(self)

    def interrupt(self) -> None:
        self.interrupted = True

    def get_fpstate(self) -> bytes:
        return self.fpstate

    def set_fpstate(self, state: bytes) -> None:
        self.fpstate = state

    def set_constant_results(self, results: Mapping[int, int]) -> None:
        self.constant_results = dict(results)

    def release(self) -> None:
        self.released = True

    def advance(self) -> bool:
        """Run to the next stop; False if the program has none and spins."""
        if self.interrupted:
            self.interrupted = False
            self.stop = STOP_INTERRUPTED
            return True
        step = next(self.program, None)
        if step is None:
            return False
        for key, value in step.items():
            if key.startswith("r"):
                self.regs[int(key[1:])] = value
            else:
                setattr(self, key, value)
        return True


class FakePlatform(Platform):
    name = "fake"
    address_range = (0x10000, 0x7FFF_FFFF_0000)
    xstate_size = 832
    xstate_features = 7

    def __init__(self) -> None:
        self.running: deque[FakeContext] = deque()
        self.kicks: queue.Queue[None] = queue.Queue()
        self.waits = 0
        self.closed = False

    @property
    def constant_results(self) -> bool:
        return True

    @classmethod
    def probe(cls) -> Probe:
        return Probe(True, "a fake one")

    def new_address_space(self) -> FakeAddressSpace:
        return FakeAddressSpace()

    def new_context(self) -> FakeContext:
        return FakeContext(self)

    def wait(self, timeout_ns: int | None = None) -> FakeContext | None:
        self.waits += 1
        for _ in range(len(self.running)):
            context = self.running.popleft()
            if context.advance():
                return context
            self.running.append(context)
        with suppress(queue.Empty):
            self.kicks.get(timeout=None if timeout_ns is None else timeout_ns / 1e9)
        return None

    def kick(self) -> None:
        self.kicks.put(None)

    def read_tsc(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True
