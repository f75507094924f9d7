"""Can KVM be used here? Asked by doing it: a virtual machine, one system call in it.

Interface: `probe()` never raises and leaves nothing behind.
"""

from __future__ import annotations

import os
import sys

from pysandbox_platform.types import PlatformError, Probe

RANK_HARDWARE = 60
RANK_PVM = 10
"""Below ptrace: where ring 0 is emulated a system call costs several times what it costs there."""

_WORDS = {
    "hardware": (RANK_HARDWARE, "KVM works, with the processor's virtualisation"),
    "PVM": (
        RANK_PVM,
        "KVM works, without hardware virtualisation (PVM): system calls are slow",
    ),
}


def probe() -> Probe:
    """Tries it for real."""
    machine = os.uname().machine
    if sys.platform != "linux" or machine != "x86_64":
        return Probe(False, f"needs Linux on x86-64, not {sys.platform} on {machine}")
    try:
        from pysandbox_kvm.trial import run_one_syscall

        flavour = run_one_syscall()
    except PlatformError as error:
        return Probe(False, str(error))
    except Exception as error:
        return Probe(False, f"{type(error).__name__}: {error}")
    rank, reason = _WORDS[flavour]
    return Probe(True, reason, rank, {"kvm": flavour})
