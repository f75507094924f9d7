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


_SYSTEM_CALLS = {
    "hardware": "leave the guest once each",
    "PVM": "arrive as a page fault; KVM emulates two instructions of the guest kernel for each",
}

_EXTENSIONS = {"svm": ("AMD SVM", "kvm_amd", "npt"), "vmx": ("Intel VMX", "kvm_intel", "ept")}
"""A flag in /proc/cpuinfo: what it stands for, the module that uses it, and the parameter of that
which says whether it uses nested paging."""


def _read(path: str) -> str:
    """The beginning of a file of the kernel's, "" where it can't be read."""
    try:
        with open(path, "rb") as file:
            return file.read(8192).decode("ascii", "replace")
    except OSError:
        return ""


def _flavour_in_words(flavour: str) -> str:
    """For `pysandbox doctor`: what runs the guest."""
    if flavour == "PVM":
        return "PVM: no hardware virtualisation; ring 3 runs natively, ring 0 is emulated"
    flags = _read("/proc/cpuinfo").partition("\nflags")[2].partition("\n")[0].split()
    for flag, (name, module, parameter) in _EXTENSIONS.items():
        if flag in flags:
            nested = _read(f"/sys/module/{module}/parameters/{parameter}").strip() in ("Y", "1")
            return f"hardware: {name}, {'nested paging' if nested else 'shadow page tables'}"
    return "hardware: by a processor that does not say how"


def _try_it() -> str:
    """The flavour of KVM, which only shows when a system call is made."""
    from pysandbox_platform.trial import run_one_syscall

    from pysandbox_kvm.platform import KvmPlatform

    platform = KvmPlatform()
    try:
        run_one_syscall(platform)
        return platform.flavour
    finally:
        platform.close()


def probe() -> Probe:
    """Tries it for real."""
    machine = os.uname().machine
    if sys.platform != "linux" or machine != "x86_64":
        return Probe(False, f"needs Linux on x86-64, not {sys.platform} on {machine}")
    try:
        flavour = _try_it()
    except PlatformError as error:
        return Probe(False, str(error))
    except Exception as error:
        return Probe(False, f"{type(error).__name__}: {error}")
    rank, reason = _WORDS[flavour]
    details = {
        "flavour": _flavour_in_words(flavour),
        "system calls": _SYSTEM_CALLS[flavour],
    }
    return Probe(True, reason, rank, details)
