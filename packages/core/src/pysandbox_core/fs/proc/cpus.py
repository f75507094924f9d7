"""The processors that the sandbox sees: those of the host that the sentry may run on.

Interface: `Cpus()` at boot. /proc/cpuinfo is made when it is first read: reading the host's costs
more than booting.
"""

from __future__ import annotations

from pysandbox_core.host_facts import host_facts
from pysandbox_core.scheduling import PROCESSORS

_KEPT = frozenset(
    (
        b"processor", b"vendor_id", b"cpu family", b"model", b"model name", b"stepping",
        b"microcode", b"cpu MHz", b"cache size", b"physical id", b"siblings", b"core id",
        b"cpu cores", b"apicid", b"initial apicid", b"fpu", b"fpu_exception", b"cpuid level",
        b"wp", b"flags", b"vmx flags", b"bugs", b"bogomips", b"TLB size", b"clflush size",
        b"cache_alignment", b"address sizes", b"power management",
    )
)  # fmt: skip
"""Fields of cpuinfo that are passed on: what proc(5) has for x86."""

_HIDDEN_FLAGS = frozenset((b"vmx", b"svm"))
"""Virtualisation is not the program's to use."""


class Cpus:
    """Numbers and features of the processors."""

    def __init__(self) -> None:
        self.online = PROCESSORS
        """Numbers of the processors, as getcpu(2) gives them."""
        self.count = len(self.online)
        self._text: bytes | None = None

    def list_text(self) -> bytes:
        """The numbers as sysfs and `Cpus_allowed_list` write them: b"0-3,8"."""
        return format_cpu_list(self.online)

    def cpuinfo(self) -> bytes:
        """/proc/cpuinfo, made on the first read."""
        if self._text is None:
            self._text = filter_cpuinfo(host_facts().read_cpuinfo(), self.online)
        return self._text


def filter_cpuinfo(host: bytes, online: tuple[int, ...]) -> bytes:
    """The host's cpuinfo reduced to the processors `online` and to the fields that are passed
    on."""
    found: dict[int, bytes] = {}
    for section in host.split(b"\n\n"):
        lines = []
        number = -1
        for line in section.splitlines():
            name, colon, value = line.partition(b":")
            field = name.strip()
            if not colon or field not in _KEPT:
                continue
            if field == b"processor":
                number = int(value)
            elif field in (b"flags", b"vmx flags"):
                value = b" " + b" ".join(w for w in value.split() if w not in _HIDDEN_FLAGS)
                if field == b"vmx flags":
                    continue
            lines.append(name + b":" + value + b"\n")
        if number >= 0:
            found[number] = b"".join(lines)
    return b"".join(found.get(number, b"processor\t: %d\n" % number) + b"\n" for number in online)


def format_cpu_list(numbers: tuple[int, ...]) -> bytes:
    """Ascending numbers as ranges: (0, 1, 2, 5) is b"0-2,5"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return b",".join(b"%d" % a if a == b else b"%d-%d" % (a, b) for a, b in ranges)


def format_cpu_mask(mask: int, width: int = 0) -> bytes:
    """A bit mask as `Cpus_allowed` writes it: groups of 32 bits in hex, the highest first.

    `width` is the number of possible processors; the first group is as long as they need."""
    width = max(width, mask.bit_length(), 1)
    groups = []
    for low in range(0, width, 32):
        digits = (min(width - low, 32) + 3) // 4
        groups.append(b"%0*x" % (digits, mask >> low & 0xFFFFFFFF))
    return b",".join(reversed(groups))
