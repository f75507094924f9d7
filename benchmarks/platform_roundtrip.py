"""What a platform adds to the least a system call can cost: round trips per second, as ratios.

Usage: python benchmarks/platform_roundtrip.py [PLATFORM]. Prints the bare PTRACE_SYSEMU round trip
in C (`bare_sysemu.c`, built with cc) beside `resume` + `wait` of the platform from Python, the same
with a changed register, with a change of the address space in each round, and a fault. The best of
five runs of each: the machine may have other things to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pysandbox_platform import discovery
from pysandbox_platform.interface import AddressSpace, Context, Platform
from pysandbox_platform.registers_amd64 import RAX, RDI, RIP
from pysandbox_platform.types import PAGE_SIZE, PROT_EXEC, PROT_READ, PROT_WRITE

ROUNDS = 20_000
RUNS = 5
CODE, DATA = 0x10000000, 0x20000000
SYSCALL_FOREVER = b"\x0f\x05\xeb\xfc"
LOAD_AND_SYSCALL = b"\x48\x8b\x07\x0f\x05"


def bare(mode: str) -> float:
    """Nanoseconds of one round trip in C."""
    source = Path(__file__).with_name("bare_sysemu.c")
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "bare_sysemu")
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)
        results = [
            subprocess.run([program, str(ROUNDS), mode], check=True, capture_output=True).stdout
            for _ in range(RUNS)
        ]
    return min(float(result) for result in results)


def best(rounds: Callable[[], None], count: int = ROUNDS) -> float:
    """Nanoseconds of one of the `count` rounds that `rounds` makes."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter_ns()
        rounds()
        times.append((time.perf_counter_ns() - started) / count)
    return min(times)


class Bench:
    """A program that makes system calls, on one platform."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.fd = os.memfd_create("bench", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, 3 * PAGE_SIZE)
        os.pwrite(self.fd, SYSCALL_FOREVER, 0)
        os.pwrite(self.fd, LOAD_AND_SYSCALL, PAGE_SIZE)
        self.space, self.context = self.make()

    def make(self) -> tuple[AddressSpace, Context]:
        """A space with the program in it, and a context at its start."""
        space = self.platform.new_address_space()
        space.map(CODE, 2 * PAGE_SIZE, PROT_READ | PROT_EXEC, self.fd, 0)
        context = self.platform.new_context()
        context.regs[RIP] = CODE
        return space, context

    def syscalls(self) -> None:
        """As a kernel's loop does it: an answer in RAX each time."""
        space, wait, context = self.space, self.platform.wait, self.context
        regs = context.regs
        for _ in range(ROUNDS):
            context.resume(space)
            while wait() is None:
                pass
            regs[RAX] = 1

    def with_timeout(self) -> None:
        """The same while some task sleeps: each wait has a deadline."""
        space, wait, context = self.space, self.platform.wait, self.context
        for _ in range(ROUNDS):
            context.resume(space)
            while wait(1_000_000_000) is None:
                pass

    def mappings(self) -> None:
        """One mapping changes before each resume."""
        space, wait, context = self.space, self.platform.wait, self.context
        for _ in range(ROUNDS):
            space.map(DATA, PAGE_SIZE, PROT_READ | PROT_WRITE, self.fd, 2 * PAGE_SIZE)
            context.resume(space)
            while wait() is None:
                pass

    def faults(self) -> None:
        """One fault in each round, not cured."""
        space, wait, context = self.space, self.platform.wait, self.context
        context.regs[RIP] = CODE + PAGE_SIZE
        context.regs[RDI] = 0
        for _ in range(ROUNDS):
            context.resume(space)
            while wait() is None:
                pass
        context.regs[RIP] = CODE

    def spaces(self, count: int = 200) -> None:
        """A space and a context made, run for one system call, released."""
        for _ in range(count):
            space, context = self.make()
            context.resume(space)
            while self.platform.wait() is None:
                pass
            context.release()
            space.release()


def main() -> None:
    """Prints the table."""
    name = sys.argv[1] if len(sys.argv) > 1 else "ptrace"
    pinned, free = bare("pinned"), bare("free")
    print(f"{'bare PTRACE_SYSEMU in C, one CPU':44} {pinned / 1000:8.2f} us  1.00")
    print(f"{'bare PTRACE_SYSEMU in C, any CPU':44} {free / 1000:8.2f} us {free / pinned:5.2f}")
    bench = Bench(discovery.require(name)())
    for title, rounds in (
        ("system call", bench.syscalls),
        ("system call, wait with a deadline", bench.with_timeout),
        ("system call and one mapping", bench.mappings),
        ("fault", bench.faults),
    ):
        taken = best(rounds)
        print(f"{name + ': ' + title:44} {taken / 1000:8.2f} us {taken / pinned:5.2f}")
    taken = best(bench.spaces, 200)
    print(f"{name + ': address space, made to released':44} {taken / 1000:8.2f} us")
    bench.platform.close()


if __name__ == "__main__":
    main()
