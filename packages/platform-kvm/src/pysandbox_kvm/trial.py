"""The smallest program there is, run on the platform: SYSCALL, once.

Interface: `run_one_syscall()` raises where the platform does not work; it gives the flavour of KVM,
which only shows when a system call is made.
"""

from __future__ import annotations

import os
import time

from pysandbox_platform.registers_amd64 import ORIG_RAX, RAX, RIP
from pysandbox_platform.types import (
    PAGE_SIZE,
    PROT_EXEC,
    PROT_READ,
    STOP_KILLED,
    STOP_NAMES,
    STOP_SYSCALL,
    PlatformError,
)

from pysandbox_kvm.platform import KvmPlatform

_SYSCALL = b"\x0f\x05"
_ADDRESS = 0x10000000
_NUMBER = 0x1234
_TIMEOUT_NS = 2_000_000_000


def run_one_syscall() -> str:
    """A guest executes one SYSCALL, which must come back as a stop."""
    platform = KvmPlatform()
    fd = os.memfd_create("pysandbox-probe", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, PAGE_SIZE)
        os.pwrite(fd, _SYSCALL, 0)
        space = platform.new_address_space()
        space.map(_ADDRESS, PAGE_SIZE, PROT_READ | PROT_EXEC, fd, 0)
        context = platform.new_context()
        context.regs[RIP] = _ADDRESS
        context.regs[RAX] = _NUMBER
        context.resume(space)
        deadline_ns = time.monotonic_ns() + _TIMEOUT_NS
        while (stopped := platform.wait(_TIMEOUT_NS)) is None:
            if time.monotonic_ns() > deadline_ns:
                raise PlatformError("the probe guest does not stop")
        if stopped.stop == STOP_KILLED:
            raise PlatformError(f"the probe guest failed: {stopped.message}")
        if stopped.stop != STOP_SYSCALL or stopped.regs[ORIG_RAX] != _NUMBER:
            raise PlatformError(
                f"the probe guest's system call did not arrive but: {STOP_NAMES[stopped.stop]}"
            )
        return platform.flavour
    finally:
        os.close(fd)
        platform.close()
