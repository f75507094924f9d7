"""What the tests share: a guest, and the reasons to skip a test.

Tests that the processor itself can't show are skipped: what they are about is tried natively. An
emulated processor may raise neither #AC nor exceptions of SSE arithmetic.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator

import pytest
from pysandbox_kvm.platform import KvmPlatform
from pysandbox_platform.conformance import Guest

RUN = """
import ctypes, mmap, sys
memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(bytes.fromhex(sys.argv[1]))
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
"""
"""Python, where a process of its own runs machine code and ends by the signal that it raises."""

MISALIGNED_LOAD = (
    "9c"  # pushfq
    "810c2400000400"  # orl $AC, (%rsp)
    "9d"  # popfq
    "488b442401"  # mov 1(%rsp), %rax
    "9c 812424fffffbff 9d"  # the same without AC
    "c3"
)
DIVSS_BY_ZERO = (
    "6a00 c70424801d0000"  # MXCSR 0x1f80 without ZM on the stack
    "0fae1424"  # ldmxcsr (%rsp)
    "b80000803f 660f6ec8"  # movd 1.0f, %xmm1
    "0f57c0"  # xorps %xmm0, %xmm0
    "f30f5ec8"  # divss %xmm0, %xmm1
    "c70424801f0000 0fae1424"  # the MXCSR that the C library expects
    "58 c3"
)

NEEDED = {
    "test_alignment_check": (MISALIGNED_LOAD, "raises no #AC"),
    "test_vector_division_by_zero": (DIVSS_BY_ZERO, "raises no #XM"),
}
"""Test -> machine code that ends by a signal where the processor is complete, and what it lacks if
not."""


@functools.cache
def goes_through(code: str) -> bool:
    """Natively, `code` runs to its end and no exception is raised."""
    done = subprocess.run([sys.executable, "-c", RUN, code], capture_output=True, check=False)
    return done.returncode == 0


def pytest_runtest_setup(item: pytest.Item) -> None:
    code, lacks = NEEDED.get(getattr(item, "originalname", ""), ("", ""))
    if code and goes_through(code):
        pytest.skip(f"this processor {lacks}, natively neither")


@pytest.fixture
def usable_kvm() -> None:
    """Skips a test where KVM can't be used."""
    probe = KvmPlatform.probe()
    if not probe.usable:
        pytest.skip(f"kvm can't be used here: {probe.reason}")


@pytest.fixture
def guest(usable_kvm: None) -> Iterator[Guest]:
    """A platform with a memory file, closed afterwards."""
    platform = KvmPlatform()
    guest = Guest(platform)
    yield guest
    platform.close()
    guest.close()
