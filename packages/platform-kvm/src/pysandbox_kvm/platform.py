"""KvmPlatform: the Python side of the KVM platform, one foreign call per stop.

One virtual machine serves a sandbox, an address space is a tree of guest page tables, contexts run
in ring 3 of its vCPUs; see `csrc/kv_internal.h` for how, and `pysandbox_platform.interface` for
what the methods promise.

Interface: C holds the state; `pysandbox_platform.native` makes Python's objects of it, and has the
rules. Here is what is KVM's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_platform.native import (
    NativeAddressSpace,
    NativeContext,
    NativeLibrary,
    NativePlatform,
)
from pysandbox_platform.types import Probe

from pysandbox_kvm._native import ffi, lib
from pysandbox_kvm.host_calls import HOST_CALLS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pysandbox_kvm._native import KvContext

_FLAVOURS = ("unknown", "hardware", "PVM")


class KvmContext(NativeContext):
    """A register file, and an extended state that may be in a vCPU."""

    __slots__ = ()

    _native: KvContext

    def set_constant_results(self, results: Mapping[int, int]) -> None:
        numbers, values = list(results), list(results.values())
        self._platform._check(lib.kv_constant_results(self._native, len(numbers), numbers, values))

    def _cause_of_death(self) -> str:
        return ffi.string(self._native.message).decode(errors="replace")


class KvmAddressSpace(NativeAddressSpace):
    """A tree of guest page tables."""

    __slots__ = ()


class KvmPlatform(NativePlatform):
    """Traps with KVM: guest kernel and monitor in one, no virtual hardware."""

    name = "kvm"
    precise_access = True
    runs_in_process = True
    host_files = (b"/dev/kvm",)
    host_calls = HOST_CALLS
    library = NativeLibrary(ffi, lib, "kv")

    @classmethod
    def probe(cls) -> Probe:
        from pysandbox_kvm.probe import probe

        return probe()

    def host_bytes(self) -> int:
        return lib.kv_host_bytes(self._native)

    def new_address_space(self) -> KvmAddressSpace:
        return KvmAddressSpace(self)

    def new_context(self) -> KvmContext:
        return KvmContext(self)

    @property
    def constant_results(self) -> bool:
        """Not with PVM, where SYSCALL runs nothing of the guest kernel. Which KVM it is shows with
        the first system call; results that were set before do no harm there."""
        return lib.kv_flavour(self._native) != lib.KV_FLAVOUR_PVM

    @property
    def flavour(self) -> str:
        """How SYSCALL arrives here: "hardware", "PVM", or "unknown" before the first one."""
        return _FLAVOURS[lib.kv_flavour(self._native)]

    @property
    def vcpu_count(self) -> int:
        """vCPUs made so far. For tests and reports."""
        return lib.kv_vcpu_count(self._native)
