"""Where the time of a system call goes on the KVM platform, and what its start-up costs.

Usage: python benchmarks/kvm_call.py. Prints the tables of RESULTS.md's section on KVM. The same
system call, getpgid(0), is measured at several depths, and the differences are the parts:

- in the sandbox, by a C program: everything;
- `resume` and `wait` of the platform in a loop of Python, without a kernel;
- the C functions behind these in a loop of C;
- KVM_RUN, by a clock put around ioctl() for this (`ioctl_clock.c`), and within it the way to ring
  3 and back, by the time-stamp counter that the program in the guest notes.

The depths take turns and the best of many short runs counts, since the machine may have other
things to do; ptrace's stands beside it. Start-up is what a sandbox waits for before its program
runs: the platform opened, the first address space and context made, the first stop there; the two
platforms take turns, the median counts.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pysandbox_kvm._native import ffi, lib
from pysandbox_kvm.platform import KvmPlatform
from pysandbox_kvm.statistics import VcpuStatistics, of_the_guest
from pysandbox_platform import discovery
from pysandbox_platform.interface import Platform
from pysandbox_platform.registers_amd64 import RAX, RDI, RIP
from pysandbox_platform.types import PAGE_SIZE, PROT_EXEC, PROT_READ, PROT_WRITE
from run import build, microseconds, run

HERE = Path(__file__).parent
CODE, DATA = 0x10000000, 0x20000000
ROUNDS = 20
RUNS = 1500
"""Short runs and many: few of them are disturbed, however busy the machine is."""
SANDBOX_ROUNDS = 1000
SANDBOX_RUNS = 15
CLOCK = "PYSANDBOX_IOCTL_CLOCK"
"""In the environment: the clock's library, once it is preloaded."""
START_RUNS = 25
CALL = "getpgid"

READ_TSC = bytes.fromhex("0f31 48c1e220 4809d0")
"""rdtsc; shl rdx, 32; or rax, rdx"""
PROGRAM = READ_TSC + bytes.fromhex("488907") + READ_TSC + bytes.fromhex("48894708 0f05 ebe3")
"""begin: time to [rdi]; time to [rdi+8]; syscall; jmp begin"""


class Part(NamedTuple):
    """One line of the table."""

    what: str
    ns: float


class Inside(NamedTuple):
    """Nanoseconds of KVM_RUN: all of it, until ring 3, and from there on back."""

    whole: float
    entering: float
    leaving: float


class Depths:
    """One context, whose program notes its times, and ways to run it to its next system call, each
    timed from within: nanoseconds of a round."""

    def __init__(self, platform: KvmPlatform) -> None:
        self.library = ctypes.CDLL(os.environ[CLOCK])
        self.library.tick_ns.restype = ctypes.c_double
        self.library.round_trips.restype = self.library.empty_runs.restype = ctypes.c_int64
        self.tick_ns = float(self.library.tick_ns())
        self.platform = platform
        fd = os.memfd_create("kvm-call", os.MFD_CLOEXEC)
        os.ftruncate(fd, 2 * PAGE_SIZE)
        os.pwrite(fd, PROGRAM, 0)
        self.space = platform.new_address_space()
        self.space.map(CODE, PAGE_SIZE, PROT_READ | PROT_EXEC, fd, 0)
        self.space.map(DATA, PAGE_SIZE, PROT_READ | PROT_WRITE, fd, PAGE_SIZE)
        self.context = platform.new_context()
        self.context.regs[RIP], self.context.regs[RDI] = CODE, DATA
        self.times = ctypes.c_char.from_buffer(mmap.mmap(fd, PAGE_SIZE, offset=PAGE_SIZE))

    def round_trips(self) -> float:
        """By the C functions, from C."""

        def address(what: object) -> ctypes.c_void_p:
            return ctypes.c_void_p(int(ffi.cast("uintptr_t", what)))

        ticks = self.library.round_trips(
            address(ffi.addressof(lib, "kv_resume")),
            address(ffi.addressof(lib, "kv_wait")),
            address(self.platform._native),
            address(self.context._native),
            address(self.space._native),
            ctypes.c_int64(ROUNDS),
        )
        assert ticks >= 0
        return float(ticks) * self.tick_ns / ROUNDS

    def python(self) -> float:
        """By the platform's methods, as a kernel's loop does it."""
        context, space, wait = self.context, self.space, self.platform.wait
        regs = context.regs
        started = time.perf_counter_ns()
        for _ in range(ROUNDS):
            context.resume(space)
            while wait() is None:
                pass
            regs[RAX] = 1
        return (time.perf_counter_ns() - started) / ROUNDS

    def empty(self) -> float:
        """KVM_RUN without entering the guest."""
        ticks = self.library.empty_runs(ctypes.c_int64(ROUNDS))
        assert ticks >= 0
        return float(ticks) * self.tick_ns / ROUNDS

    def inside(self) -> Inside:
        """Nanoseconds of a KVM_RUN, and of its parts."""
        sums = (ctypes.c_uint64 * 4)()
        self.library.clock_set(ctypes.byref(self.times))
        self.round_trips()
        self.library.clock_read(sums)
        self.library.clock_set(None)
        runs, *ticks = sums
        return Inside(*(value * self.tick_ns / runs for value in ticks))

    def measure(self) -> tuple[float, float, float, Inside]:
        """The best of Python, C, and KVM_RUN without and with the guest."""
        found = [
            (self.python(), self.round_trips(), self.empty(), self.inside()) for _ in range(RUNS)
        ]
        python, c, empty, inside = zip(*found, strict=True)
        return min(python), min(c), min(empty), min(inside)


def least(command: Sequence[str | Path], call: str) -> float:
    """Nanoseconds of a call, by a program that makes it again and again."""
    return min(run(command, call, SANDBOX_ROUNDS) for _ in range(SANDBOX_RUNS))


def sandboxed(chosen: str, program: Path, call: str = CALL) -> float:
    """Nanoseconds of a call in a sandbox."""
    words = [sys.executable, "-m", "pysandbox", "run", "--platform", chosen, "--"]
    return least([*words, program], call)


def exits(platform: KvmPlatform, rounds: Callable[[], float]) -> Counter[str]:
    """What KVM counts for `ROUNDS` round trips."""
    counted = VcpuStatistics(platform)
    before = counted.read()
    rounds()
    since = counted.since(before)
    counted.close()
    return since


def parts(program: Path) -> tuple[str, list[Part], list[Part]]:
    """The table's lines, from the guest outwards; and what is good to know beside them."""
    platform = KvmPlatform()
    depths = Depths(platform)
    depths.round_trips()
    counted = exits(platform, depths.round_trips)
    in_python, in_c, empty, inside = depths.measure()
    in_sandbox = sandboxed("kvm", program)
    ring_3 = inside.whole - inside.entering - inside.leaving
    lines = [
        Part("guest: ring 3 between its two looks at the clock", ring_3),
        Part("exit: KVM_RUN until ring 3, IRETQ included", inside.entering),
        Part("exit: SYSCALL and HLT until KVM_RUN is back", inside.leaving),
        Part("C: the platform's loop, `resume` and `wait`", in_c - inside.whole),
        Part("Python: the platform's `resume` and `wait`", in_python - in_c),
        Part("Python: the kernel", in_sandbox - in_python),
        Part(f"{CALL} in the sandbox, all of it", in_sandbox),
    ]
    beside = [
        Part("KVM_RUN that does not enter the guest", empty),
        Part("getpid in the sandbox, a constant result", sandboxed("kvm", program, "getpid")),
        Part(f"{CALL} in the sandbox with ptrace", sandboxed("ptrace", program)),
        Part(f"{CALL} natively", least([program], CALL)),
    ]
    words = (
        f"KVM: {platform.flavour}. KVM counts {of_the_guest(counted) / ROUNDS:.2f} exits a call "
        f"that the guest causes, and {counted['insn_emulation'] / ROUNDS:.2f} instructions that it "
        "emulates."
    )
    platform.close()
    return words, lines, beside


def first_stop(make: type[Platform], fd: int) -> float:
    """Nanoseconds from nothing to the first stop of the first context."""
    started = time.perf_counter_ns()
    platform = make()
    space = platform.new_address_space()
    space.map(CODE, PAGE_SIZE, PROT_READ | PROT_EXEC, fd, 0)
    context = platform.new_context()
    context.regs[RIP] = CODE
    context.regs[RAX] = 0x1234
    context.resume(space)
    while platform.wait() is None:
        pass
    taken = time.perf_counter_ns() - started
    platform.close()
    return taken


def start_up() -> tuple[float, float]:
    """Nanoseconds to the first stop, with ptrace and with KVM."""
    ptrace = discovery.require("ptrace")
    fd = os.memfd_create("start", os.MFD_CLOEXEC)
    os.ftruncate(fd, PAGE_SIZE)
    os.pwrite(fd, b"\x0f\x05", 0)
    pairs = [(first_stop(ptrace, fd), first_stop(KvmPlatform, fd)) for _ in range(START_RUNS)]
    os.close(fd)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def with_clock(directory: Path) -> None:
    """This program once more, with the clock in it."""
    library = directory / "ioctl_clock.so"
    source = HERE / "ioctl_clock.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    environment = {**os.environ, CLOCK: str(library), "LD_PRELOAD": str(library)}
    subprocess.run([sys.executable, __file__], env=environment, check=True)


def report(directory: Path) -> None:
    """Prints the tables."""
    os.environ.pop("LD_PRELOAD", None)  # the sandboxes do without
    words, lines, beside = parts(build("syscalls", directory))
    all_of_it = lines[-1].ns
    print(words, "", "| where | time | share |", "| --- | ---: | ---: |", sep="\n")
    for what, ns in lines:
        print(f"| {what} | {microseconds(ns)} | {100 * ns / all_of_it:.0f} % |")
    print("", "| beside it | time | ratio |", "| --- | ---: | ---: |", sep="\n")
    for what, ns in beside:
        print(f"| {what} | {microseconds(ns)} | {ns / all_of_it:.2f} |")
    ptrace, kvm = start_up()
    print(
        "",
        f"From nothing to the first stop of a first context: ptrace {microseconds(ptrace)}, kvm "
        f"{microseconds(kvm)}, {(kvm - ptrace) / 1e6:.1f} ms more; medians of {START_RUNS}.",
        sep="\n",
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pysandbox-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        if CLOCK in os.environ:
            report(directory)
        else:
            with_clock(directory)


if __name__ == "__main__":
    main()
