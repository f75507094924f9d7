"""Can ptrace be used here? Asked by doing it: one stub, one system call stopped.

Interface: `probe()` never raises and leaves nothing behind.
"""

from __future__ import annotations

import os
import sys

from pysandbox_platform.types import Probe

RANK = 20
"""Below every platform that traps without two context switches per system call."""


def _advice() -> str:
    """Why ptrace may be refused, as far as the host says."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as file:
            scope = file.read().strip()
    except OSError:
        scope = "0"
    if scope == "3":
        return "the host forbids ptrace until it is restarted (kernel.yama.ptrace_scope is 3)"
    if scope == "2":
        return "the host allows ptrace to root only (kernel.yama.ptrace_scope is 2)"
    return "a container runtime's seccomp profile may deny ptrace (docker: --cap-add=SYS_PTRACE)"


def probe() -> Probe:
    """Tries it for real."""
    machine = os.uname().machine
    if sys.platform != "linux" or machine != "x86_64":
        return Probe(False, f"needs Linux on x86-64, not {sys.platform} on {machine}")
    try:
        from pysandbox_ptrace.trial import run_one_syscall

        run_one_syscall()
    except Exception as error:
        return Probe(False, f"{error}; {_advice()}")
    return Probe(True, "PTRACE_SYSEMU works; two context switches per system call", RANK)
