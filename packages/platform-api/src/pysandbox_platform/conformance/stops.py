"""Why a context stops: system calls, faults, exceptions, and what the registers say then."""

from __future__ import annotations

import signal

import pytest

from pysandbox_platform import registers_amd64 as reg
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE, DATA, Guest, PlatformTests, assert_syscall
from pysandbox_platform.interface import Context
from pysandbox_platform.types import (
    ACCESS_EXEC,
    ACCESS_READ,
    ACCESS_WRITE,
    PAGE_SIZE,
    STOP_EXCEPTION,
    STOP_FAULT,
)

# si_code, <asm-generic/siginfo.h>.
SI_KERNEL = 0x80
ILL_ILLOPN = 2
FPE_INTDIV = 1
FPE_FLTDIV = 3
TRAP_TRACE = 2
BUS_ADRALN = 1
VSYSCALL = 0xFFFFFFFFFF600000

ARGUMENTS = (reg.RDI, reg.RSI, reg.RDX, reg.R10, reg.R8, reg.R9)


class StopTests(PlatformTests):
    """Every kind of stop that a program can cause."""

    def exception(self, guest: Guest, code: bytes, **registers: int) -> Context:
        """The exception that `code` ends in."""
        context = guest.run(guest.context(**registers), guest.space(code))
        assert context.stop == STOP_EXCEPTION
        return context

    def test_syscall_with_six_arguments(self, guest: Guest) -> None:
        values = [2**64 - 1, 0x8000000000000000, 0x100000000, 3, 0x7FFFFFFFFFFF, 0]
        names = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
        context = guest.context(rax=257, **dict(zip(names, values, strict=True)))
        guest.run_to_syscall(context, guest.space(asm.SYSCALL))
        assert context.regs[reg.ORIG_RAX] == 257
        assert [context.regs[index] for index in ARGUMENTS] == values

    @pytest.mark.parametrize(
        "number", [0, 335, 0xFFFFFFFF, 0x40000000, 2**63, 2**64 - 1, 2**64 - 512]
    )
    def test_any_syscall_number(self, guest: Guest, number: int) -> None:
        context = guest.context(rax=number)
        guest.run_to_syscall(context, guest.space(asm.SYSCALL))
        assert context.regs[reg.ORIG_RAX] == number

    def test_syscall_leaves_rip_and_flags_in_rcx_and_r11(self, guest: Guest) -> None:
        context = guest.context(rcx=1, r11=2, eflags=reg.EFLAGS_FIXED | 0x41 | reg.EFLAGS_DF)
        guest.run_to_syscall(context, guest.space(asm.NOP + asm.SYSCALL))
        assert context.regs[reg.RIP] == CODE + 3
        assert context.regs[reg.RCX] == CODE + 3
        assert context.regs[reg.R11] == context.regs[reg.EFLAGS]
        assert context.regs[reg.EFLAGS] == reg.EFLAGS_FIXED | 0x41 | reg.EFLAGS_DF

    def test_the_answer_is_what_the_kernel_writes(self, guest: Guest) -> None:
        """RAX, RCX and R11 are the caller's to set before the context goes on."""
        space = guest.space(asm.SYSCALL + asm.store(asm.RDI, asm.RAX) + asm.SYSCALL)
        offset = guest.map_data(space)
        context = guest.run_to_syscall(guest.context(rax=39, rdi=DATA), space)
        guest.set(context, rax=-14, rcx=5, r11=6)
        guest.run_to_syscall(context, space)
        assert guest.word(offset) == 2**64 - 14

    @pytest.mark.parametrize("answer", [-512, -513, -514, -516, -4, -38])
    def test_restart_numbers_are_plain_values(self, guest: Guest, answer: int) -> None:
        """What means "restart" inside a host kernel must not make the host go back two bytes."""
        space = guest.space(asm.SYSCALL + asm.store(asm.RDI, asm.RAX) + asm.SYSCALL)
        offset = guest.map_data(space)
        context = guest.run_to_syscall(guest.context(rax=39, rdi=DATA), space)
        guest.set(context, rax=answer)
        guest.run_to_syscall(context, space)
        assert context.regs[reg.RIP] == CODE + 2 + 3 + 2
        assert guest.word(offset) == answer % 2**64

    def test_a_thousand_syscalls(self, guest: Guest) -> None:
        space = guest.space(asm.forever(asm.SYSCALL))
        context = guest.context(rax=0)
        for number in range(1000):
            guest.run_to_syscall(context, space)
            assert context.regs[reg.ORIG_RAX] == number
            context.regs[reg.RAX] = number + 1

    def test_resume_without_a_change(self, guest: Guest) -> None:
        space = guest.space(asm.SYSCALL + asm.SYSCALL)
        context = guest.run_to_syscall(guest.context(rax=39), space)
        assert context.regs[reg.RIP] == CODE + 2
        guest.run_to_syscall(context, space)
        assert context.regs[reg.RIP] == CODE + 4

    def test_a_system_call_may_move_the_program(self, guest: Guest) -> None:
        """As sigreturn and execve do."""
        space = guest.space(asm.SYSCALL + asm.UD2)
        guest.map_code(space, asm.SYSCALL, DATA)
        context = guest.run_to_syscall(guest.context(), space)
        guest.set(context, rip=DATA, rsp=DATA + 512)
        guest.run_to_syscall(context, space)
        assert context.regs[reg.RIP] == DATA + 2
        assert context.regs[reg.RSP] == DATA + 512

    @pytest.mark.parametrize("addr", [0, 8, 0x12345678, 0x7FFFF0000000])
    def test_read_fault(self, guest: Guest, addr: int) -> None:
        context = guest.run(guest.context(rdi=addr), guest.space(asm.load(asm.RAX, asm.RDI)))
        assert (context.stop, context.fault_addr) == (STOP_FAULT, addr)
        assert context.fault_access == ACCESS_READ
        assert context.signo == signal.SIGSEGV
        assert context.regs[reg.RIP] == CODE

    def test_write_fault(self, guest: Guest) -> None:
        context = guest.run(guest.context(rdi=DATA + 24), guest.space(asm.store(asm.RDI, asm.RAX)))
        assert (context.stop, context.fault_addr) == (STOP_FAULT, DATA + 24)
        imprecise = not guest.platform.precise_access
        assert context.fault_access == ACCESS_WRITE or (
            imprecise and context.fault_access == ACCESS_READ
        )

    def test_jump_into_nothing(self, guest: Guest) -> None:
        context = guest.run(guest.context(rax=DATA + 5), guest.space(asm.JMP_RAX))
        assert (context.stop, context.fault_addr) == (STOP_FAULT, DATA + 5)
        assert context.fault_access == ACCESS_EXEC
        assert context.regs[reg.RIP] == DATA + 5

    def test_fault_is_tried_again(self, guest: Guest) -> None:
        space = guest.space(asm.store(asm.RDI, asm.RSI) + asm.SYSCALL)
        context = guest.run(guest.context(rdi=DATA, rsi=42), space)
        assert context.stop == STOP_FAULT
        offset = guest.map_data(space)
        guest.run_to_syscall(context, space)
        assert guest.word(offset) == 42

    def test_divide_by_zero(self, guest: Guest) -> None:
        context = self.exception(guest, asm.DIV_ECX, rcx=0)
        assert (context.signo, context.code) == (signal.SIGFPE, FPE_INTDIV)
        assert context.fault_addr == context.regs[reg.RIP] == CODE

    def test_undefined_instruction(self, guest: Guest) -> None:
        context = self.exception(guest, asm.NOP + asm.UD2)
        assert (context.signo, context.code) == (signal.SIGILL, ILL_ILLOPN)
        assert context.fault_addr == context.regs[reg.RIP] == CODE + 1

    def test_breakpoint(self, guest: Guest) -> None:
        context = self.exception(guest, asm.INT3)
        assert (context.signo, context.code) == (signal.SIGTRAP, SI_KERNEL)
        assert context.regs[reg.RIP] == CODE + 1, "INT3 is a trap: RIP is behind it"

    @pytest.mark.parametrize("code", [asm.HLT, asm.CLI, asm.IN_AL_16, asm.MOV_RAX_CR0, asm.WRMSR])
    def test_privileged_instruction(self, guest: Guest, code: bytes) -> None:
        """#GP."""
        context = self.exception(guest, code)
        assert (context.signo, context.code) == (signal.SIGSEGV, SI_KERNEL)
        assert context.regs[reg.RIP] == CODE

    def test_address_that_is_not_canonical(self, guest: Guest) -> None:
        context = self.exception(guest, asm.load(asm.RAX, asm.RDI), rdi=0x8000000000000000)
        assert (context.signo, context.code) == (signal.SIGSEGV, SI_KERNEL)
        assert context.regs[reg.RIP] == CODE

    @pytest.mark.parametrize("addr", [0xFFFF888000000000, 0xFFFFFFFF81000000, 2**64 - 8])
    def test_kernel_address(self, guest: Guest, addr: int) -> None:
        context = guest.run(guest.context(rdi=addr), guest.space(asm.load(asm.RAX, asm.RDI)))
        assert context.stop == STOP_FAULT
        assert context.fault_addr == addr

    def test_single_step(self, guest: Guest) -> None:
        space = guest.space(asm.NOP * 3 + asm.SYSCALL)
        context = guest.context(eflags=reg.EFLAGS_FIXED | reg.EFLAGS_TF)
        for step in (1, 2, 3):
            guest.run(context, space)
            assert context.stop == STOP_EXCEPTION
            assert (context.signo, context.code) == (signal.SIGTRAP, TRAP_TRACE)
            assert context.regs[reg.RIP] == CODE + step
            assert context.regs[reg.EFLAGS] & reg.EFLAGS_TF
        context.regs[reg.EFLAGS] &= ~reg.EFLAGS_TF
        guest.run_to_syscall(context, space)

    def test_int_80_is_no_system_call(self, guest: Guest) -> None:
        """As on Linux without 32-bit emulation: #GP, and nothing reaches the host."""
        context = self.exception(guest, asm.INT_80, rax=1, rcx=7, rbx=3)
        assert (context.signo, context.code) == (signal.SIGSEGV, SI_KERNEL)
        assert context.regs[reg.RIP] == CODE
        assert (context.regs[reg.RAX], context.regs[reg.RCX]) == (1, 7)

    def test_sysenter_is_no_system_call(self, guest: Guest) -> None:
        """#GP or #UD, by the processor; RIP need not be kept, SYSENTER does not save it."""
        space = guest.space(asm.SYSENTER)
        guest.map_data(space)
        context = guest.run(guest.context(rax=39, rsp=DATA + 256, rbp=DATA + 256), space)
        assert context.stop in (STOP_EXCEPTION, STOP_FAULT)
        assert context.signo in (signal.SIGSEGV, signal.SIGILL)

    def test_vsyscall_page_is_not_there(self, guest: Guest) -> None:
        """The host's legacy page must not run for the program: time(2) at its third entry."""
        for entry in (0, 0x400, 0x800):
            space = guest.space(asm.CALL_RAX + asm.SYSCALL)
            offset = guest.map_data(space)
            context = guest.context(rax=VSYSCALL + entry, rdi=0, rsi=0, rsp=DATA + 64)
            guest.run(context, space)
            assert (context.stop, context.fault_addr) == (STOP_FAULT, VSYSCALL + entry)
            assert context.fault_access == ACCESS_EXEC
            assert context.regs[reg.RIP] == VSYSCALL + entry
            assert context.regs[reg.RSP] == DATA + 56
            assert guest.word(offset + 56) == CODE + 2

    def test_vector_division_by_zero(self, guest: Guest) -> None:
        space = guest.space(
            asm.LDMXCSR_RDI + asm.XORPS_XMM0_XMM0 + asm.vector_load(16, 1)
            + asm.DIVSS_XMM1_XMM0 + asm.SYSCALL
        )  # fmt: skip
        unmasked, one = 0x1F80 & ~0x200, 0x3F800000
        guest.map_data(space, content=(unmasked | one << 32).to_bytes(8, "little"))
        context = guest.run(guest.context(rdi=DATA), space)
        assert context.stop == STOP_EXCEPTION
        assert context.signo == signal.SIGFPE

    def test_x87_division_by_zero(self, guest: Guest) -> None:
        space = guest.space(
            asm.FLDCW_RDI + asm.FLD1 + asm.FLDZ + asm.FDIVP + asm.FWAIT + asm.SYSCALL
        )
        guest.map_data(space, content=(0x37F & ~4).to_bytes(2, "little"))
        context = guest.run(guest.context(rdi=DATA), space)
        assert context.stop == STOP_EXCEPTION
        assert (context.signo, context.code) == (signal.SIGFPE, FPE_FLTDIV)

    def test_alignment_check(self, guest: Guest) -> None:
        space = guest.space(asm.load(asm.RAX, asm.RDI) + asm.SYSCALL)
        guest.map_data(space)
        alignment_check = 1 << 18
        context = guest.context(rdi=DATA + 1, eflags=reg.EFLAGS_FIXED | alignment_check)
        guest.run(context, space)
        assert context.stop == STOP_EXCEPTION
        assert (context.signo, context.code) == (signal.SIGBUS, BUS_ADRALN)

    def test_time_stamp_counter(self, guest: Guest) -> None:
        before = guest.platform.read_tsc()
        context = guest.run(guest.context(), guest.space(asm.RDTSC + asm.SYSCALL))
        after = guest.platform.read_tsc()
        if not before:
            pytest.skip("contexts have no usable time-stamp counter")
        assert_syscall(context)
        assert before <= after
        # RAX is lost to SYSCALL; RDX, the upper half, is enough to see that it is the same clock.
        assert before >> 32 <= context.regs[reg.RDX] <= after >> 32

    def test_cpuid(self, guest: Guest) -> None:
        context = guest.context(rax=0)
        guest.run_to_syscall(context, guest.space(asm.CPUID + asm.SYSCALL))
        vendor = b"".join(context.regs[i].to_bytes(4, "little") for i in (reg.RBX, reg.RDX))
        assert vendor.isascii()

    def test_two_faults_at_the_end_of_a_page(self, guest: Guest) -> None:
        """An access across two pages faults at the first byte that can't be reached."""
        space = guest.space(asm.load(asm.RAX, asm.RDI) + asm.SYSCALL)
        guest.map_data(space)
        context = guest.run(guest.context(rdi=DATA + PAGE_SIZE - 4), space)
        assert (context.stop, context.fault_addr) == (STOP_FAULT, DATA + PAGE_SIZE)
