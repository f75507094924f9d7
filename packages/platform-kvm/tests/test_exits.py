"""How often the guest is left, counted by KVM itself: once for a system call, never to compute."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from pysandbox_kvm.platform import KvmPlatform
from pysandbox_kvm.statistics import VcpuStatistics, of_the_guest
from pysandbox_platform import registers_amd64 as reg
from pysandbox_platform.conformance import Guest
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE, DATA
from pysandbox_platform.interface import AddressSpace, Context
from pysandbox_platform.types import PAGE_SIZE, STOP_EXCEPTION, STOP_SYSCALL, PlatformError

CALLS = 200
UNKNOWN_CALL = 0x1234
"""Nothing answers it but the kernel."""
EXITS = {"hardware": 1, "PVM": 4}
"""Ways out of the guest in one round trip. PVM: one for SYSCALL, one for HLT, two for IRETQ."""
EMULATIONS = {"hardware": 1, "PVM": 2}
"""Instructions that KVM looks at, at most: HLT, where the processor does not say how long it is,
and IRETQ on PVM."""


class Count:
    """A guest, and what KVM counts while it runs."""

    def __init__(self, guest: Guest, platform: KvmPlatform) -> None:
        self.guest = guest
        self.platform = platform
        space = guest.space(asm.SYSCALL)
        guest.run_to_syscall(guest.context(), space)  # the flavour shows
        self.statistics = VcpuStatistics(platform)
        self.flavour = platform.flavour

    def run(self, context: Context, space: AddressSpace, rounds: int, stop: int) -> Counter[str]:
        """Counts `rounds` rounds that all end with `stop`, after one that warms up."""
        self.guest.run(context, space)
        before = self.statistics.read()
        for _ in range(rounds):
            context.regs[reg.RAX] = UNKNOWN_CALL
            self.guest.run(context, space)
            assert context.stop == stop
        return self.statistics.since(before)


@pytest.fixture
def count(usable_kvm: None) -> Iterator[Count]:
    platform = KvmPlatform()
    guest = Guest(platform)
    try:
        made = Count(guest, platform)
    except PlatformError as error:
        pytest.skip(str(error))
    yield made
    made.statistics.close()
    platform.close()
    guest.close()


def test_one_exit_for_a_system_call(count: Count) -> None:
    space = count.guest.space(asm.forever(asm.SYSCALL))
    counted = count.run(count.guest.context(), space, CALLS, STOP_SYSCALL)
    assert of_the_guest(counted) == CALLS * EXITS[count.flavour], counted
    assert counted["insn_emulation"] <= CALLS * EMULATIONS[count.flavour], counted
    assert counted["halt_exits"] == CALLS, counted


def test_one_exit_for_an_exception(count: Count) -> None:
    """One that KVM leaves to the guest: it wants to see #UD and #AC itself."""
    space = count.guest.space(asm.DIV_ECX)
    counted = count.run(count.guest.context(rcx=0), space, CALLS, STOP_EXCEPTION)
    assert of_the_guest(counted) <= CALLS * EXITS[count.flavour], counted
    assert counted["halt_exits"] == CALLS, counted


def test_no_exit_to_compute(count: Count) -> None:
    """A hundred million instructions, and the one exit of the system call at their end."""
    turns = 50_000_000
    space = count.guest.space(asm.count_down(turns) + asm.SYSCALL)
    before = count.statistics.read()
    count.guest.run_to_syscall(count.guest.context(), space)
    counted = count.statistics.since(before)
    # The first fetch from the code's page, on top of it: a fault that KVM mends by itself.
    assert of_the_guest(counted) <= EXITS[count.flavour] + counted["pf_taken"], counted
    assert counted["halt_exits"] == 1, counted


def test_no_exit_for_memory_that_is_known(count: Count) -> None:
    """Pages that were touched once are reached without KVM until they are changed."""
    pages = 64
    space = count.guest.space(asm.walk())
    count.guest.map_data(space, count=pages)
    end = DATA + pages * PAGE_SIZE
    context = count.guest.context(rdi=DATA, rsi=end)
    count.guest.run_to_syscall(context, space)
    before = count.statistics.read()
    count.guest.set(context, rip=CODE, rdi=DATA, rsi=end)
    count.guest.run_to_syscall(context, space)
    counted = count.statistics.since(before)
    assert of_the_guest(counted) == EXITS[count.flavour], counted


def test_statistics_leave_no_descriptor(count: Count) -> None:
    before = len(os.listdir("/proc/self/fd"))
    VcpuStatistics(count.platform).close()
    assert len(os.listdir("/proc/self/fd")) == before
