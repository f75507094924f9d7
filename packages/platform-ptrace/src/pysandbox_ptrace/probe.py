"""Can ptrace be used here? Asked by doing it: one stub, one system call stopped.

Interface: `probe()` never raises and leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import sys

from pysandbox_platform.types import PlatformError, Probe

RANK = 20
"""Below every platform that traps without two context switches per system call."""


def _ptrace_scope() -> str:
    """Yama's restriction of ptrace; "0", none, where the host has no Yama."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "0"


def _advice() -> str:
    """Why ptrace may be refused, as far as the host says."""
    scope = _ptrace_scope()
    if scope == "3":
        return "the host forbids ptrace until it is restarted (kernel.yama.ptrace_scope is 3)"
    if scope == "2":
        return "the host allows ptrace to root only (kernel.yama.ptrace_scope is 2)"
    return "a container runtime's seccomp profile may deny ptrace (docker: --cap-add=SYS_PTRACE)"


def _try_it() -> None:
    from pysandbox_platform.trial import run_one_syscall

    from pysandbox_ptrace.platform import PtracePlatform

    platform = PtracePlatform()
    try:
        run_one_syscall(platform)
    finally:
        platform.close()


def probe() -> Probe:
    """Tries it for real."""
    machine = os.uname().machine
    if sys.platform != "linux" or machine != "x86_64":
        return Probe(False, f"needs Linux on x86-64, not {sys.platform} on {machine}")
    try:
        _try_it()
    except PlatformError as error:
        refused = error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS)
        return Probe(False, f"{error}; {_advice()}" if refused else str(error))
    except Exception as error:
        return Probe(False, f"{type(error).__name__}: {error}")
    reason = "PTRACE_SYSEMU works; two context switches per system call"
    return Probe(True, reason, RANK, {"kernel.yama.ptrace_scope": _ptrace_scope()})
