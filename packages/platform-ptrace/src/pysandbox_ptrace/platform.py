"""PtracePlatform: the Python side of the ptrace platform, one foreign call per stop.

A stub process stands for each address space, its threads run contexts; see `csrc/pt_internal.h` for
how, and `pysandbox_platform.interface` for what the methods promise.

Interface: C holds the state; `pysandbox_platform.native` makes Python's objects of it, and has the
rules. Here is what is ptrace's own.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from pysandbox_platform.native import (
    NativeAddressSpace,
    NativeContext,
    NativeLibrary,
    NativePlatform,
    host_setting,
)
from pysandbox_platform.types import PlatformError, Probe

from pysandbox_ptrace._native import ffi, lib
from pysandbox_ptrace.host_calls import HOST_CALLS

if TYPE_CHECKING:
    from pysandbox_ptrace._native import PtContext

_OWN_MAPPINGS = 200
"""More than a stub has for itself, with what a batch of changes splits for a moment."""

_HOST_THREAD_BYTES = 28 << 10
"""A stub thread: its kernel stack (THREAD_SIZE is 16 KiB) and struct task_struct, of which the
extended state is the larger part."""


def _death(status: int) -> str:
    """A stub's wait status in words."""
    if status < 0:
        return "the stub process was killed"
    if os.WIFSIGNALED(status):
        signo = os.WTERMSIG(status)
        if signo == signal.SIGSYS:
            return "the stub process made a system call that is not the platform's (SIGSYS)"
        return f"the stub process was killed by {signal.Signals(signo).name}"
    return f"the stub process exited with status {os.WEXITSTATUS(status)}"


class PtraceContext(NativeContext):
    """A register file and, once it has run, a stub thread."""

    __slots__ = ()

    _native: PtContext

    def _cause_of_death(self) -> str:
        return _death(self._native.exit_status)

    @property
    def stub_tid(self) -> int:
        """The host's thread id of the stub thread; 0 while there is none. For tests and reports."""
        return lib.pt_context_tid(self._native)


class PtraceAddressSpace(NativeAddressSpace):
    """A stub process; started by the first resume or sync."""

    __slots__ = ()

    @property
    def stub_pid(self) -> int:
        """The host's process id of the stub; 0 while there is none. For tests and reports."""
        return lib.pt_space_pid(self._native) if self._native != ffi.NULL else 0


class PtracePlatform(NativePlatform):
    """Traps with PTRACE_SYSEMU; runs wherever ptrace does."""

    name = "ptrace"
    precise_access = False
    host_calls = HOST_CALLS
    library = NativeLibrary(ffi, lib, "pt")
    # A stub is a process of the host. Documentation/admin-guide/sysctl/vm.rst
    max_mappings = host_setting("vm/max_map_count", 65530) - _OWN_MAPPINGS

    def __init__(self) -> None:
        super().__init__()
        self.lost_fd = lib.pt_lost_fd(self._native)

    def host_bytes(self) -> int:
        return lib.pt_thread_count(self._native) * _HOST_THREAD_BYTES

    def check(self) -> None:
        status = ffi.new("int *")
        if lib.pt_lost(self._native, status):
            raise PlatformError(_death(status[0]))

    @classmethod
    def probe(cls) -> Probe:
        from pysandbox_ptrace.probe import probe

        return probe()

    def new_address_space(self) -> PtraceAddressSpace:
        return PtraceAddressSpace(self)

    def new_context(self) -> PtraceContext:
        return PtraceContext(self)
