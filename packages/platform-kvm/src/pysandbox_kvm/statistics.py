"""KVM's own statistics of a platform's vCPUs: what tests and benchmarks count exits with.

The descriptor that KVM_GET_STATS_FD gives describes itself: a header, a descriptor for each counter
with its name, and the data (Documentation/virt/kvm/api.rst, 4.133). It stays readable when the
vCPU is gone.

Interface: `VcpuStatistics(platform).read()` gives the sums over all vCPUs that there are, by KVM's
names; a context's exits may lie on any of them, and on one that is made for it.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_platform.types import PlatformError

from pysandbox_kvm._native import lib

if TYPE_CHECKING:
    from pysandbox_kvm.platform import KvmPlatform

_HEADER = struct.Struct("=6I")
"""struct kvm_stats_header: flags, name_size, num_desc, and where id, descriptors and data begin."""
_DESCRIPTOR = struct.Struct("=IhHII")
"""struct kvm_stats_desc: flags, exponent, size in words, offset in the data, bucket size; the name
follows."""


class _Field(NamedTuple):
    """One counter of a descriptor. Histograms, which have more than one word, are left out."""

    name: str
    offset: int


def _fields(fd: int) -> list[_Field]:
    """What a descriptor has."""
    _, name_size, count, _, descriptors, data = _HEADER.unpack(os.pread(fd, _HEADER.size, 0))
    size = _DESCRIPTOR.size + name_size
    table = os.pread(fd, size * count, descriptors)
    fields = []
    for at in range(0, len(table), size):
        _, _, words, offset, _ = _DESCRIPTOR.unpack_from(table, at)
        name = table[at + _DESCRIPTOR.size : at + size].split(b"\0")[0].decode("ascii")
        if words == 1:
            fields.append(_Field(name, data + offset))
    return fields


class VcpuStatistics:
    """Owns a descriptor for each vCPU until `close`. PlatformError where KVM has none (Linux before
    5.14)."""

    def __init__(self, platform: KvmPlatform) -> None:
        self._platform = platform
        self._fds: list[int] = []
        self._open_new()
        self._layout = _fields(self._fds[0])

    def _open_new(self) -> None:
        """Descriptors of the vCPUs that were made since the last time."""
        for vcpu in range(len(self._fds), self._platform.vcpu_count):
            fd = lib.kv_stats_fd(self._platform._native, vcpu)
            if fd < 0:
                self.close()
                raise PlatformError("KVM has no statistics of its vCPUs", -fd)
            self._fds.append(fd)

    def read(self) -> Counter[str]:
        """All counters as they are now."""
        self._open_new()
        total: Counter[str] = Counter()
        for fd in self._fds:
            for name, offset in self._layout:
                total[name] += int.from_bytes(os.pread(fd, 8, offset), "little")
        return total

    def since(self, before: Counter[str]) -> Counter[str]:
        """What was added to the counters since `before` was read."""
        now = self.read()
        now.subtract(before)
        return now

    def close(self) -> None:
        """Give the descriptors back. Idempotent."""
        while self._fds:
            os.close(self._fds.pop())


def of_the_guest(counted: Counter[str]) -> int:
    """Exits that the guest caused: not those for the host's own interrupts, which come any time."""
    return counted["exits"] - counted["irq_exits"] - counted["signal_exits"]
