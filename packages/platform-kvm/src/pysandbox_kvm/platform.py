"""KvmPlatform: the Python side of the KVM platform, one foreign call per stop.

One virtual machine serves a sandbox, an address space is a tree of guest page tables, contexts run
in ring 3 of its vCPUs; see `csrc/kv_internal.h` for how, and `pysandbox_platform.interface` for
what the methods promise.

Interface: the objects of a platform belong to the thread that made it. C holds the state; what is
here converts errors to PlatformError and stops to attributes. `resume` and `wait` are the hot path
and do nothing that could be done elsewhere.
"""

from __future__ import annotations

import errno
import os

from pysandbox_platform.interface import AddressSpace, Context, Platform
from pysandbox_platform.types import (
    STOP_KILLED,
    STOP_NONE,
    STOP_SYSCALL,
    PlatformError,
    PlatformUnavailableError,
    Probe,
)

from pysandbox_kvm._native import ffi, lib

_wait = lib.kv_wait
_resume = lib.kv_resume
_NOTHING = lib.KV_NOTHING
_REGS_SIZE = 27 * 8
_LOWEST_ADDRESS = 0x10000
_FLAVOURS = ("unknown", "hardware", "PVM")


def _lowest_address() -> int:
    """What mmap(2) lets an ordinary process have; the default where /proc is not mounted."""
    try:
        with open("/proc/sys/vm/mmap_min_addr", encoding="ascii") as file:
            return max(int(file.read()), _LOWEST_ADDRESS)
    except (OSError, ValueError):
        return _LOWEST_ADDRESS


class KvmContext(Context):
    """A register file, and an extended state that may be in a vCPU."""

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

    def __init__(self, platform: KvmPlatform) -> None:
        native = lib.kv_context_new(platform._native)
        if native == ffi.NULL:
            raise platform._error(0)
        self._native = ffi.gc(native, lib.kv_context_free)
        self._platform = platform
        self._space: KvmAddressSpace | None = None
        self.regs = memoryview(ffi.buffer(self._native, _REGS_SIZE)).cast("Q")
        self.stop = STOP_NONE
        self.fault_addr = self.fault_access = self.signo = self.code = 0
        self.message = ""
        self.owner = None

    def resume(self, address_space: KvmAddressSpace) -> None:  # type: ignore[override]
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
            self.message = ffi.string(native.message).decode(errors="replace")

    def interrupt(self) -> None:
        self._platform._check(lib.kv_interrupt(self._native))

    def get_fpstate(self) -> bytes:
        size = self._platform.xstate_size
        state = ffi.new("uint8_t[]", size)
        self._platform._check(lib.kv_xstate_get(self._native, state, size))
        return bytes(ffi.buffer(state, size))

    def set_fpstate(self, state: bytes) -> None:
        result = lib.kv_xstate_set(self._native, ffi.from_buffer(state), len(state))
        if result == -errno.EINVAL:
            raise ValueError("an extended state that the processor would refuse")
        self._platform._check(result)

    def cpu_time_ns(self) -> int:
        return lib.kv_context_cpu_ns(self._native)

    def release(self) -> None:
        contexts = self._platform._contexts
        index = self._native.index
        if index < len(contexts) and contexts[index] is self:
            contexts[index] = None
            lib.kv_context_release(self._native)


class KvmAddressSpace(AddressSpace):
    """A tree of guest page tables."""

    __slots__ = ("_native", "_platform")

    def __init__(self, platform: KvmPlatform) -> None:
        native = lib.kv_space_new(platform._native)
        if native == ffi.NULL:
            raise platform._error(0)
        self._native = native
        self._platform = platform
        platform._spaces.add(self)

    def map(self, addr: int, length: int, prot: int, fd: int, offset: int) -> None:
        result = lib.kv_map(self._native, addr, length, prot, fd, offset)
        if result:
            raise self._platform._error(result)

    def protect(self, addr: int, length: int, prot: int) -> None:
        result = lib.kv_protect(self._native, addr, length, prot)
        if result:
            raise self._platform._error(result)

    def unmap(self, addr: int, length: int) -> None:
        result = lib.kv_unmap(self._native, addr, length)
        if result:
            raise self._platform._error(result)

    def sync(self) -> None:
        self._platform._check(lib.kv_sync(self._native))

    def release(self) -> None:
        if self in self._platform._spaces:
            self._platform._spaces.remove(self)
            lib.kv_space_release(self._native)
        self._native = ffi.NULL


class KvmPlatform(Platform):
    """Traps with KVM: guest kernel and monitor in one, no virtual hardware."""

    name = "kvm"
    precise_access = True

    def __init__(self) -> None:
        error = ffi.new("int *")
        message = ffi.new("char[]", 200)
        native = lib.kv_open(error, message, 200)
        if native == ffi.NULL:
            raise PlatformUnavailableError(ffi.string(message).decode(), -error[0])
        self._native = ffi.gc(native, lib.kv_free)
        self._contexts: list[KvmContext | None] = []
        self._spaces: set[KvmAddressSpace] = set()
        self._closed = False
        self.address_range = (_lowest_address(), lib.kv_space_end())
        self.xstate_size = lib.kv_xstate_size(native)
        self.xstate_features = lib.kv_xstate_features(native)

    def _error(self, result: int) -> PlatformError:
        if result == -errno.EBADF:
            return PlatformError("KVM platform: it was released or closed", errno.EBADF)
        reason = ffi.string(lib.kv_error(self._native)).decode(errors="replace")
        return PlatformError(f"KVM platform: {reason or os.strerror(-result)}", -result)

    def _check(self, result: int) -> None:
        if result < 0:
            raise self._error(result)

    @classmethod
    def probe(cls) -> Probe:
        from pysandbox_kvm.probe import probe

        return probe()

    def new_address_space(self) -> KvmAddressSpace:
        self._require_open()
        return KvmAddressSpace(self)

    def new_context(self) -> KvmContext:
        self._require_open()
        context = KvmContext(self)
        contexts = self._contexts
        index = context._native.index
        if index == len(contexts):
            contexts.append(context)
        else:
            contexts[index] = context
        return context

    def wait(self, timeout_ns: int | None = None) -> KvmContext | None:
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
        lib.kv_kick(self._native)

    def read_tsc(self) -> int:
        return lib.kv_read_tsc(self._native)

    @property
    def flavour(self) -> str:
        """How SYSCALL arrives here: "hardware", "PVM", or "unknown" before the first one."""
        return _FLAVOURS[lib.kv_flavour(self._native)]

    @property
    def vcpu_count(self) -> int:
        """vCPUs made so far. For tests and reports."""
        return lib.kv_vcpu_count(self._native)

    def _require_open(self) -> None:
        if self._closed:
            raise PlatformError("KVM platform: it is closed")

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for space in self._spaces:
            space._native = ffi.NULL  # C gives them back below
        self._spaces.clear()
        self._contexts.clear()
        lib.kv_close(self._native)
