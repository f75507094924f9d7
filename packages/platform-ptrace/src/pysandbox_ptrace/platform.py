"""PtracePlatform: the Python side of the ptrace platform, one foreign call per stop.

A stub process stands for each address space, its threads run contexts; see `csrc/pt_internal.h` for
how, and `pysandbox_platform.interface` for what the methods promise.

Interface: the objects of a platform belong to the thread that made it. C holds the state; what is
here converts errors to PlatformError and stops to attributes. `resume` and `wait` are the hot path
and do nothing that could be done elsewhere.
"""

from __future__ import annotations

import errno
import os
import signal

from pysandbox_platform.interface import AddressSpace, Context, Platform
from pysandbox_platform.types import (
    STOP_KILLED,
    STOP_NONE,
    STOP_SYSCALL,
    PlatformError,
    PlatformUnavailableError,
    Probe,
)

from pysandbox_ptrace._native import ffi, lib

_wait = lib.pt_wait
_resume = lib.pt_resume
_NOTHING = lib.PT_NOTHING
_REGS_SIZE = 27 * 8
_LOWEST_ADDRESS = 0x10000


def _lowest_address() -> int:
    """What mmap(2) lets an ordinary process have; the default where /proc is not mounted."""
    try:
        with open("/proc/sys/vm/mmap_min_addr", encoding="ascii") as file:
            return max(int(file.read()), _LOWEST_ADDRESS)
    except (OSError, ValueError):
        return _LOWEST_ADDRESS


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


class PtraceContext(Context):
    """A register file and, once it has run, a stub thread."""

    __slots__ = (
        "_native",
        "_platform",
        "_space",
        "code",
        "fault_access",
        "fault_addr",
        "message",
        "owner",
        "regs",
        "signo",
        "stop",
    )

    def __init__(self, platform: PtracePlatform) -> None:
        native = lib.pt_context_new(platform._native)
        if native == ffi.NULL:
            raise platform._error(0)
        self._native = ffi.gc(native, lib.pt_context_free)
        self._platform = platform
        self._space: PtraceAddressSpace | None = None
        self.regs = memoryview(ffi.buffer(self._native, _REGS_SIZE)).cast("Q")
        self.stop = STOP_NONE
        self.fault_addr = self.fault_access = self.signo = self.code = 0
        self.message = ""
        self.owner = None

    def resume(self, address_space: PtraceAddressSpace) -> None:  # type: ignore[override]
        self.stop = STOP_NONE
        result = _resume(self._native, address_space._native)
        if result:
            raise self._platform._error(result)

    def describe(self, stop: int) -> None:
        """Takes over what C knows of a stop that is no system call."""
        native = self._native
        self.fault_addr = native.fault_addr
        self.fault_access = native.fault_access
        self.signo = native.signo
        self.code = native.code
        if stop == STOP_KILLED:
            self.message = _death(native.exit_status)

    def interrupt(self) -> None:
        self._platform._check(lib.pt_interrupt(self._native))

    def get_fpstate(self) -> bytes:
        size = self._platform.xstate_size
        state = ffi.new("uint8_t[]", size)
        self._platform._check(lib.pt_xstate_get(self._native, state, size))
        return bytes(ffi.buffer(state, size))

    def set_fpstate(self, state: bytes) -> None:
        result = lib.pt_xstate_set(self._native, ffi.from_buffer(state), len(state))
        if result == -errno.EINVAL:
            raise ValueError("an extended state that the processor would refuse")
        self._platform._check(result)

    def cpu_time_ns(self) -> int:
        return lib.pt_context_cpu_ns(self._native)

    def release(self) -> None:
        contexts = self._platform._contexts
        index = self._native.index
        if index < len(contexts) and contexts[index] is self:
            contexts[index] = None
            lib.pt_context_release(self._native)

    @property
    def stub_tid(self) -> int:
        """The host's thread id of the stub thread; 0 while there is none. For tests and reports."""
        return lib.pt_context_tid(self._native)


class PtraceAddressSpace(AddressSpace):
    """A stub process; started by the first resume or sync."""

    __slots__ = ("_native", "_platform")

    def __init__(self, platform: PtracePlatform) -> None:
        native = lib.pt_space_new(platform._native)
        if native == ffi.NULL:
            raise platform._error(0)
        self._native = native
        self._platform = platform
        platform._spaces.add(self)

    def map(self, addr: int, length: int, prot: int, fd: int, offset: int) -> None:
        result = lib.pt_map(self._native, addr, length, prot, fd, offset)
        if result:
            raise self._platform._error(result)

    def protect(self, addr: int, length: int, prot: int) -> None:
        result = lib.pt_protect(self._native, addr, length, prot)
        if result:
            raise self._platform._error(result)

    def unmap(self, addr: int, length: int) -> None:
        result = lib.pt_unmap(self._native, addr, length)
        if result:
            raise self._platform._error(result)

    def sync(self) -> None:
        self._platform._check(lib.pt_sync(self._native))

    def release(self) -> None:
        if self in self._platform._spaces:
            self._platform._spaces.remove(self)
            lib.pt_space_release(self._native)
        self._native = ffi.NULL

    @property
    def stub_pid(self) -> int:
        """The host's process id of the stub; 0 while there is none. For tests and reports."""
        return lib.pt_space_pid(self._native) if self._native != ffi.NULL else 0


class PtracePlatform(Platform):
    """Traps with PTRACE_SYSEMU; runs wherever ptrace does."""

    name = "ptrace"
    precise_access = False

    def __init__(self) -> None:
        error = ffi.new("int *")
        message = ffi.new("char[]", 200)
        native = lib.pt_open(error, message, 200)
        if native == ffi.NULL:
            raise PlatformUnavailableError(ffi.string(message).decode(), -error[0])
        self._native = ffi.gc(native, lib.pt_free)
        self._contexts: list[PtraceContext | None] = []
        self._spaces: set[PtraceAddressSpace] = set()
        self._closed = False
        self.address_range = (_lowest_address(), lib.pt_space_end())
        self.xstate_size = lib.pt_xstate_size(native)
        self.xstate_features = lib.pt_xstate_features(native)

    def _error(self, result: int) -> PlatformError:
        if result == -errno.EBADF:
            return PlatformError("ptrace platform: it was released or closed", errno.EBADF)
        reason = ffi.string(lib.pt_error(self._native)).decode(errors="replace")
        return PlatformError(f"ptrace platform: {reason or os.strerror(-result)}", -result)

    def _check(self, result: int) -> None:
        if result < 0:
            raise self._error(result)

    @classmethod
    def probe(cls) -> Probe:
        from pysandbox_ptrace.probe import probe

        return probe()

    def new_address_space(self) -> PtraceAddressSpace:
        self._require_open()
        return PtraceAddressSpace(self)

    def new_context(self) -> PtraceContext:
        self._require_open()
        context = PtraceContext(self)
        contexts = self._contexts
        index = context._native.index
        if index == len(contexts):
            contexts.append(context)
        else:
            contexts[index] = context
        return context

    def wait(self, timeout_ns: int | None = None) -> PtraceContext | None:
        result = _wait(self._native, -1 if timeout_ns is None else timeout_ns)
        if result >= 0:
            context = self._contexts[result >> 3]
            assert context is not None
            context.stop = stop = result & 7
            if stop != STOP_SYSCALL:
                context.describe(stop)
            return context
        if result == _NOTHING:
            return None
        raise self._error(result)

    def kick(self) -> None:
        lib.pt_kick(self._native)

    def read_tsc(self) -> int:
        return lib.pt_read_tsc()

    def _require_open(self) -> None:
        if self._closed:
            raise PlatformError("ptrace platform: it is closed")

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for space in self._spaces:
            space._native = ffi.NULL  # C gives them back below
        self._spaces.clear()
        self._contexts.clear()
        lib.pt_close(self._native)
