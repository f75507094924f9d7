"""System calls that need no exit, beside one that does: the KVM platform's constant results, the
vDSO, and a call that the kernel has to answer.

Usage: python benchmarks/kvm_answers.py. Prints the tables of RESULTS.md's section on answers. The
calls are made by one C program (`answers.c`), in turns in one run: their ratios are what counts,
and hold on a slow or an emulated machine too. Exits are KVM's own statistics.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from pysandbox_kvm.platform import KvmPlatform
from pysandbox_kvm.statistics import VcpuStatistics, of_the_guest
from pysandbox_platform.conformance import Guest
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.registers_amd64 import ORIG_RAX, RAX
from run import build, microseconds

ROUNDS = 100_000
NUMBER = 39
STOPPING = "getpgid"
SLOW_CLOCK = """
from pysandbox_core.time import vdso_page
vdso_page.MAX_WINDOW_NS = 1_000_000
from pysandbox.__main__ import main
raise SystemExit(main())
"""
"""`pysandbox`, but for how exact its time has to be: on an emulated machine reading the host's
clocks takes so long that the vDSO would never be trusted and always ask the kernel."""
WHO = {
    "getpid": "the guest kernel",
    "clock_gettime": "the vDSO",
    STOPPING: "the kernel, in Python",
}


def times(command: list[str | Path]) -> dict[str, float]:
    """Nanoseconds of each call."""
    output = subprocess.run(command, check=True, timeout=900, capture_output=True, text=True)
    return {name: float(ns) for name, ns in map(str.split, output.stdout.splitlines())}


def exits_of_an_answer() -> tuple[str, float]:
    """Which KVM it is, and how many exits a call takes whose result is constant."""
    platform = KvmPlatform()
    guest = Guest(platform)
    space = guest.space(asm.calls(ROUNDS, NUMBER))
    context = guest.context(rbx=7)
    context.set_constant_results({NUMBER: 7})
    counted = VcpuStatistics(platform)
    before = counted.read()
    while guest.run_to_syscall(context, space).regs[ORIG_RAX] == NUMBER:
        context.regs[RAX] = 7
    exits = of_the_guest(counted.since(before)) / ROUNDS
    flavour = platform.flavour
    counted.close()
    platform.close()
    guest.close()
    return flavour, exits


def main() -> None:
    flavour, exits = exits_of_an_answer()
    print(f"KVM: {flavour}. A call whose result is constant takes {exits:.3f} exits.\n")
    sandbox = [sys.executable, "-c", SLOW_CLOCK, "run", "--platform", "kvm", "--"]
    with tempfile.TemporaryDirectory(prefix="pysandbox-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        program = build("answers", directory)
        native, sandboxed = times([program]), times([*sandbox, program])
    print("| call | answered by | native | sandboxed | of getpgid |")
    print("| --- | --- | ---: | ---: | ---: |")
    for call, who in WHO.items():
        if exits >= 1:
            who = who.replace("guest kernel", "kernel, in Python")
        print(
            f"| {call} | {who} | {microseconds(native[call])} | {microseconds(sandboxed[call])} "
            f"| 1/{sandboxed[STOPPING] / sandboxed[call]:.0f} |"
        )


if __name__ == "__main__":
    main()
