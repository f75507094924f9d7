"""The smallest program there is, run on a platform: SYSCALL, once. For `Platform.probe`.

Interface: `run_one_syscall(platform)` raises PlatformError where the system call does not come back
as a stop. The platform is the caller's, to make and to close.
"""

from __future__ import annotations

import os
import time

from pysandbox_platform.interface import Platform
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

_SYSCALL = b"\x0f\x05"
_ADDRESS = 0x10000000
_NUMBER = 0x1234
_TIMEOUT_NS = 2_000_000_000


def run_one_syscall(platform: Platform) -> None:
    """Runs it in an address space and a context of its own."""
    fd = os.memfd_create("pysandbox-probe", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, PAGE_SIZE)
        os.pwrite(fd, _SYSCALL, 0)
        space = platform.new_address_space()
        space.map(_ADDRESS, PAGE_SIZE, PROT_READ | PROT_EXEC, fd, 0)
        context = platform.new_context()
        context.regs[RIP] = _ADDRESS
        context.regs[RAX] = _NUMBER
        deadline_ns = time.monotonic_ns() + _TIMEOUT_NS
        context.resume(space)
        while platform.wait(_TIMEOUT_NS) is None:
            if time.monotonic_ns() > deadline_ns:
                raise PlatformError("the probe's program does not stop")
    finally:
        os.close(fd)
    if context.stop == STOP_KILLED:
        raise PlatformError(f"the probe's program failed: {context.message}")
    if context.stop != STOP_SYSCALL or context.regs[ORIG_RAX] != _NUMBER:
        stop = STOP_NAMES[context.stop]
        raise PlatformError(f"the probe's system call did not arrive, but: {stop}")
