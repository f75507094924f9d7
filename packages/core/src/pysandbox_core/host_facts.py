"""What the kernel asks its host about itself, once, while there is a /proc to ask.

Interface: `host_facts` reads on its first call and gives the same afterwards; the sentry calls it
before it enters its jail.
"""

from __future__ import annotations

import os
from contextlib import suppress

_VDSO_IMAGE = os.path.join(os.path.dirname(__file__), "vdso", "vdso.so")


class HostFacts:
    """Read once; nothing here changes while the host is up."""

    __slots__ = ("_cpuinfo", "_cpuinfo_fd", "auxv", "vdso_image")

    def __init__(self) -> None:
        self.auxv = _auxv()
        """This process's auxiliary vector, by type: what the processor can do. getauxval(3)"""
        self._cpuinfo = b""
        self._cpuinfo_fd = -1
        with suppress(OSError):  # a host without /proc
            self._cpuinfo_fd = os.open("/proc/cpuinfo", os.O_RDONLY | os.O_CLOEXEC)
        with open(_VDSO_IMAGE, "rb") as file:
            self.vdso_image = file.read()
        """The ELF image that every program has mapped; vdso/vdso_amd64.S."""

    def read_cpuinfo(self) -> bytes:
        """/proc/cpuinfo, through a descriptor that is kept until then: it takes long to read, and
        hardly anybody asks. Empty where there is none."""
        fd = self._cpuinfo_fd
        if fd >= 0:
            while chunk := os.pread(fd, 1 << 16, len(self._cpuinfo)):
                self._cpuinfo += chunk
            self._cpuinfo_fd = -1
            os.close(fd)
        return self._cpuinfo


def _auxv() -> dict[int, int]:
    try:
        with open("/proc/self/auxv", "rb") as file:
            words = memoryview(file.read()).cast("Q")
    except OSError:
        return {}
    return dict(zip(words[::2], words[1::2], strict=False))


_facts: HostFacts | None = None


def host_facts() -> HostFacts:
    """The facts about this host."""
    global _facts
    if _facts is None:
        _facts = HostFacts()
    return _facts
