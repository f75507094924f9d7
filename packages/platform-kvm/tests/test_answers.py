"""Constant results: no exit is what they cost, and a vCPU may be made to leave at any instruction
of the code that gives them.

The conformance kit has what programs see; here is what is KVM's own, with hardware virtualisation.
"""

from __future__ import annotations

import pytest
from pysandbox_kvm._native import ffi, lib
from pysandbox_kvm.platform import KvmPlatform
from pysandbox_kvm.statistics import VcpuStatistics, of_the_guest
from pysandbox_platform import registers_amd64 as reg
from pysandbox_platform.conformance import Guest
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE
from pysandbox_platform.interface import Context
from pysandbox_platform.types import PAGE_SIZE, STOP_INTERRUPTED, STOP_SYSCALL

NUMBER, VALUE = 39, 7
ROUNDS = 10_000

# Of the guest kernel; csrc/kv_guest.h.
ENTRY, ANSWERS, STUB_SIZE, SYSRETQ = 0x900, 8, 16, 7
STUBS = 0x950
COMPARISONS = [ENTRY + 9 + 8 * number for number in range(ANSWERS)]
BEFORE = [ENTRY, ENTRY + 7, *COMPARISONS, *(at + 6 for at in COMPARISONS), STUBS]
"""Where each instruction begins that the first of the answers meets, or one that is not answered,
up to its SYSRETQ."""


@pytest.fixture
def guest(guest: Guest) -> Guest:
    """Has made a system call, which shows what KVM it is."""
    context = guest.run_to_syscall(guest.context(), guest.space(asm.SYSCALL))
    context.release()
    assert isinstance(guest.platform, KvmPlatform)
    if guest.platform.flavour == "PVM":
        pytest.skip("with PVM every system call is an exit")
    return guest


def asking(guest: Guest, number: int = NUMBER) -> Context:
    """A context whose calls of NUMBER are answered."""
    context = guest.context(rax=number, rbx=VALUE, rcx=1, r11=2)
    context.set_constant_results({NUMBER: VALUE})
    return context


def loop_at(guest: Guest, at: int) -> None:
    """The guest kernel gets no further than the instruction at `at`, so that a vCPU which has to
    leave can only leave there."""
    platform = guest.platform
    assert isinstance(platform, KvmPlatform)
    image = ffi.buffer(lib.kv_guest_image(platform._native), PAGE_SIZE)
    image[at : at + len(asm.SPIN)] = asm.SPIN


def leave(guest: Guest, context: Context) -> None:
    """Runs the context until it is there, and makes it leave: by the end of a wait, or, if that is
    no stop, by an interrupt."""
    space = guest.space(asm.SYSCALL + asm.SPIN)
    context.resume(space)
    while guest.platform.wait(5_000_000) is None:
        context.interrupt()
        assert guest.next_stop() is context
        if context.regs[reg.RIP] != CODE:  # it has begun
            break
        context.resume(space)


def test_no_exit(guest: Guest) -> None:
    platform = guest.platform
    assert isinstance(platform, KvmPlatform)
    space = guest.space(asm.calls(ROUNDS, NUMBER))
    counted = VcpuStatistics(platform)
    before = counted.read()
    context = asking(guest)
    while guest.run_to_syscall(context, space).regs[reg.ORIG_RAX] == NUMBER:
        context.regs[reg.RAX] = VALUE
    assert of_the_guest(counted.since(before)) < ROUNDS // 10
    counted.close()


@pytest.mark.parametrize("at", BEFORE)
def test_left_before_it_is_answered(guest: Guest, at: int) -> None:
    """It is a system call like any other."""
    loop_at(guest, at)
    answered = at in (ENTRY, ENTRY + 7, COMPARISONS[0], COMPARISONS[0] + 6, STUBS)
    number = NUMBER if answered else NUMBER + 1
    context = asking(guest, number)
    leave(guest, context)
    assert context.stop == STOP_SYSCALL
    assert context.regs[reg.ORIG_RAX] == number
    assert context.regs[reg.RIP] == context.regs[reg.RCX] == CODE + 2
    assert context.regs[reg.R11] == context.regs[reg.EFLAGS] == reg.EFLAGS_FIXED
    assert context.regs[reg.RBX] == VALUE


def test_left_before_any_call_was_a_stop(guest: Guest) -> None:
    """That KVM has an entry is known all the same: the probe makes one call and asks."""
    platform = KvmPlatform()
    fresh = Guest(platform)
    loop_at(fresh, ENTRY)
    context = asking(fresh)
    leave(fresh, context)
    assert context.stop == STOP_SYSCALL
    assert platform.flavour == "hardware"
    platform.close()
    fresh.close()


def test_left_when_it_is_answered(guest: Guest) -> None:
    """The call has been made: the program goes on behind it."""
    loop_at(guest, STUBS + SYSRETQ)
    context = asking(guest)
    leave(guest, context)
    assert context.stop == STOP_INTERRUPTED
    assert context.regs[reg.RAX] == VALUE
    assert context.regs[reg.RIP] == context.regs[reg.RCX] == CODE + 2
    assert context.regs[reg.R11] == context.regs[reg.EFLAGS] == reg.EFLAGS_FIXED
    assert (context.regs[reg.CS], context.regs[reg.SS]) == (reg.USER_CS, reg.USER_DS)
    assert context.regs[reg.RBX] == VALUE
