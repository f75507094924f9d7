"""System calls that the platform answers itself, where it can: `Context.set_constant_results`.

Interface: what a program sees of a call is the same whether it was answered or was a stop, which
the interface allows at any time; how many were stops is counted over many calls.
"""

from __future__ import annotations

import random
import signal

import pytest

from pysandbox_platform import registers_amd64 as reg
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE, DATA, Guest, PlatformTests, assert_syscall
from pysandbox_platform.conformance.state import GENERAL
from pysandbox_platform.interface import AddressSpace, Context
from pysandbox_platform.types import (
    PAGE_SIZE,
    STOP_EXCEPTION,
    STOP_FAULT,
    STOP_INTERRUPTED,
    STOP_SYSCALL,
)

NUMBER = 39
TRAP_TRACE = 2
ROOM = 8
"""Numbers that are answered at least."""
ROUNDS = 2000
FEW = ROUNDS // 10
"""Stops among as many calls that still count as now and then."""


def set_results(context: Context, results: dict[int, int]) -> None:
    """Sets them, and remembers them for `finish`."""
    context.set_constant_results(results)
    context.owner = results


def answer(context: Context) -> bool:
    """Is it stopped at a call that might have been answered? Then answers it."""
    if context.stop != STOP_SYSCALL or not isinstance(context.owner, dict):
        return False
    value = context.owner.get(context.regs[reg.ORIG_RAX] % 2**32)
    if value is None:
        return False
    context.regs[reg.RAX] = value
    return True


def finish(guest: Guest, context: Context, space: AddressSpace) -> int:
    """Runs to a stop that is no call to be answered; how many of those there were."""
    stops = 0
    while answer(guest.run(context, space)):
        stops += 1
    return stops


class ConstantResultTests(PlatformTests):
    """Every platform may be asked; those that can answer do so, and exactly."""

    @pytest.fixture
    def answers(self, guest: Guest) -> Guest:
        """A platform that has the power; whether it has shows with a first system call."""
        context = guest.run_to_syscall(guest.context(), guest.space(asm.SYSCALL))
        context.release()
        if not guest.platform.constant_results:
            pytest.skip(f"{self.platform_class.name}: every system call is a stop here")
        return guest

    def test_the_call_is_the_same_answered_or_not(self, guest: Guest) -> None:
        """On any platform."""
        space = guest.space(asm.SYSCALL + asm.store(asm.RDI, asm.RAX) + asm.SYSCALL)
        offset = guest.map_data(space)
        context = guest.context(rax=NUMBER, rdi=DATA)
        set_results(context, {NUMBER: 1234})
        finish(guest, context, space)
        assert_syscall(context)
        assert context.regs[reg.ORIG_RAX] == 1234
        assert context.regs[reg.RIP] == CODE + 7
        assert guest.word(offset) == 1234

    def test_no_stop(self, answers: Guest) -> None:
        space = answers.space(asm.calls(ROUNDS, NUMBER))
        context = answers.context(rbx=7)
        set_results(context, {NUMBER: 7})
        assert finish(answers, context, space) < FEW
        assert_syscall(context)
        assert context.regs[reg.ORIG_RAX] == 0

    @pytest.mark.parametrize("value", [0, 1, 2**31, 2**32, 2**63, 2**64 - 1])
    def test_any_value(self, answers: Guest, value: int) -> None:
        context = answers.context(rbx=value)
        set_results(context, {NUMBER: value})
        finish(answers, context, answers.space(asm.calls(ROUNDS, NUMBER)))
        assert_syscall(context)

    def test_eight_numbers(self, answers: Guest) -> None:
        numbers = {100 * number: number for number in range(1, ROOM + 1)}
        for number, value in numbers.items():
            context = answers.context(rbx=value)
            set_results(context, numbers)
            space = answers.space(asm.calls(ROUNDS, number))
            assert finish(answers, context, space) < FEW
            assert_syscall(context)

    def test_more_numbers_than_there_is_room_for(self, answers: Guest) -> None:
        context = answers.context(rbx=5)
        set_results(context, dict.fromkeys(range(1, 500), 5))
        for number in (1, 250, 499):
            space = answers.space(asm.calls(20, number))
            answers.set(context, rip=CODE)
            finish(answers, context, space)
            assert_syscall(context)

    def test_other_numbers_stop(self, answers: Guest) -> None:
        """Also those whose low half is near; zero, which what is not used might stand for."""
        space = answers.space(asm.forever(asm.SYSCALL))
        context = answers.context()
        set_results(context, {NUMBER: 7, 2**31: 7})
        for number in (0, NUMBER - 1, NUMBER + 1, NUMBER | 1 << 30, NUMBER | 1 << 31, 2**32 - 1,
                       2**64 - 1, 0xFFFFFFFF00000000):  # fmt: skip
            context.regs[reg.RAX] = number
            answers.run_to_syscall(context, space)
            assert context.regs[reg.ORIG_RAX] == number

    @pytest.mark.parametrize("high", [1, 0x7FFFFFFF, 0xFFFFFFFF])
    def test_the_low_half_counts(self, answers: Guest, high: int) -> None:
        context = answers.context(rax=NUMBER | high << 32)
        set_results(context, {NUMBER: 7})
        finish(answers, context, answers.space(asm.SYSCALL + asm.SYSCALL))
        assert context.regs[reg.ORIG_RAX] == 7
        assert context.regs[reg.RIP] == CODE + 4

    def test_results_change(self, answers: Guest) -> None:
        """The next ones replace them all; without any, every call is a stop."""
        space = answers.space(asm.forever(asm.SYSCALL))
        context = answers.context()
        for turn in range(1, 20):
            set_results(context, {NUMBER + turn: turn})
            context.regs[reg.RAX] = NUMBER + turn
            finish(answers, context, space)
            assert context.regs[reg.ORIG_RAX] == turn
            context.regs[reg.RAX] = NUMBER + turn - 1
            answers.run_to_syscall(context, space)
            assert context.regs[reg.ORIG_RAX] == NUMBER + turn - 1
        context.set_constant_results({})
        for number in (NUMBER + 19, 0):
            context.regs[reg.RAX] = number
            answers.run_to_syscall(context, space)
            assert context.regs[reg.ORIG_RAX] == number

    def test_a_new_context_has_none(self, answers: Guest) -> None:
        """Also when it takes the place of one that had some."""
        space = answers.space(asm.SYSCALL + asm.SYSCALL)
        for turn in range(4):
            context = answers.context(rax=NUMBER)
            answers.run_to_syscall(context, space)
            assert context.regs[reg.ORIG_RAX] == NUMBER
            assert context.regs[reg.RIP] == CODE + 2
            answers.set(context, rip=CODE, rax=NUMBER)
            set_results(context, {NUMBER: turn})
            finish(answers, context, space)
            assert context.regs[reg.ORIG_RAX] == turn
            context.release()

    def test_registers(self, answers: Guest) -> None:
        """None but RAX, RCX and R11 changes; RCX and R11 are the instruction's."""
        values = {name: 0x0101010101010101 * n for n, name in enumerate(GENERAL, 1)}
        values |= {"rdi": DATA, "rsi": DATA + 8}
        code = asm.SYSCALL + asm.store(asm.RDI, asm.RCX) + asm.store(asm.RSI, asm.R11) + asm.SYSCALL
        space = answers.space(code)
        offset = answers.map_data(space)
        context = answers.context(rax=NUMBER, rcx=1, r11=2, **values)
        set_results(context, {NUMBER: 7})
        finish(answers, context, space)
        assert_syscall(context)
        assert context.regs[reg.ORIG_RAX] == 7
        for name, value in values.items():
            assert context.regs[reg.REGISTER_NAMES.index(name)] == value, name
        assert answers.word(offset) == CODE + 2
        assert answers.word(offset + 8) == reg.EFLAGS_FIXED

    @pytest.mark.parametrize("bit", [0, 2, 4, 6, 7, 10, 11, 14, 18, 21])
    def test_flags(self, answers: Guest, bit: int) -> None:
        """CF PF AF ZF SF DF OF NT AC ID: in R11, and after the call as before it."""
        code = asm.PUSHFQ + asm.SYSCALL + asm.PUSHFQ + asm.store(asm.RDI, asm.R11) + asm.SYSCALL
        space = answers.space(code)
        offset = answers.map_data(space)
        flags = reg.EFLAGS_FIXED | 1 << bit
        context = answers.context(rax=NUMBER, eflags=flags, rdi=DATA, rsp=DATA + 64)
        set_results(context, {NUMBER: 7})
        finish(answers, context, space)
        assert context.regs[reg.ORIG_RAX] == 7
        before, after, r11 = (answers.word(offset + at) for at in (56, 48, 0))
        assert before in (flags, reg.EFLAGS_FIXED), "emulated processors may drop one"
        assert (after, r11, context.regs[reg.EFLAGS]) == (before, before, before)

    def test_bases(self, answers: Guest) -> None:
        """GS is what an operating system's entry swaps: it is the program's again."""
        code = asm.SYSCALL + asm.MOV_RAX_FS_0 + asm.store(asm.RDI, asm.RAX) + asm.MOV_RBX_GS_0
        space = answers.space(code + asm.SYSCALL)
        offset = answers.map_data(space)
        answers.set_word(offset + 64, 11)
        answers.set_word(offset + 128, 22)
        context = answers.context(rax=NUMBER, fs_base=DATA + 64, gs_base=DATA + 128, rdi=DATA)
        set_results(context, {NUMBER: 7})
        finish(answers, context, space)
        assert_syscall(context)
        assert (answers.word(offset), context.regs[reg.RBX]) == (11, 22)
        assert context.regs[reg.FS_BASE] == DATA + 64
        assert context.regs[reg.GS_BASE] == DATA + 128

    def test_single_step(self, answers: Guest) -> None:
        """A stop; the trap comes behind the instruction after it, where Linux has it."""
        space = answers.space(asm.SYSCALL + asm.NOP * 3)
        context = answers.context(rax=NUMBER, eflags=reg.EFLAGS_FIXED | reg.EFLAGS_TF)
        context.set_constant_results({NUMBER: 7})
        answers.run_to_syscall(context, space)
        assert context.regs[reg.ORIG_RAX] == NUMBER
        assert context.regs[reg.R11] & reg.EFLAGS_TF
        answers.run(context, space)
        assert (context.stop, context.signo) == (STOP_EXCEPTION, signal.SIGTRAP)
        assert (context.code, context.regs[reg.RIP]) == (TRAP_TRACE, CODE + 3)

    @pytest.mark.parametrize(
        "rsp", [0, 8, 0x800000000000, 0x8000000000000000, 0xFFFFFFFF00003000, 2**64 - 8]
    )
    def test_any_stack_pointer(self, answers: Guest, rsp: int) -> None:
        context = answers.context(rbx=7, rsp=rsp)
        set_results(context, {NUMBER: 7})
        finish(answers, context, answers.space(asm.calls(ROUNDS, NUMBER)))
        assert_syscall(context)
        assert context.regs[reg.RSP] == rsp

    def test_at_the_end_of_addresses(self, answers: Guest) -> None:
        """It returns to where nothing can be mapped: a fault of the program's, as without."""
        end = answers.platform.address_range[1]
        space = answers.platform.new_address_space()
        answers.map_code(space, bytes(PAGE_SIZE - 2) + asm.SYSCALL, end - PAGE_SIZE)
        context = answers.context(end - 2, rax=NUMBER)
        set_results(context, {NUMBER: 7})
        finish(answers, context, space)
        assert (context.stop, context.signo) in (
            (STOP_FAULT, signal.SIGSEGV),
            (STOP_EXCEPTION, signal.SIGSEGV),
        )
        assert context.regs[reg.RIP] == end
        assert context.regs[reg.RAX] == 7

    def test_contexts_in_turn(self, answers: Guest) -> None:
        """Each has its own, and one has none."""
        space = answers.space(asm.forever(asm.SYSCALL))
        contexts = [answers.context() for _ in range(6)]
        for value, context in enumerate(contexts[1:], 1):
            set_results(context, {NUMBER: value})
        for _ in range(5):
            for value, context in enumerate(contexts):
                context.regs[reg.RAX] = NUMBER
                finish(answers, context, space)
                assert_syscall(context)
                assert context.regs[reg.ORIG_RAX] == (value or NUMBER)

    def test_contexts_in_parallel(self, answers: Guest) -> None:
        """More of them than processors; each checks every result itself."""
        space = answers.space(asm.calls(50 * ROUNDS, NUMBER))
        contexts = [answers.context(rbx=1000 + n) for n in range(12)]
        for n, context in enumerate(contexts):
            set_results(context, {NUMBER: 1000 + n})
            context.resume(space)
        left = len(contexts)
        while left:
            context = answers.next_stop()
            if context.stop == STOP_INTERRUPTED or answer(context):
                context.resume(space)
            else:
                assert_syscall(context)
                left -= 1

    def test_interrupts(self, answers: Guest) -> None:
        """A program that does nothing but such calls is interrupted like any, wherever it is; no
        result is lost by it and none comes twice."""
        chooser = random.Random(1)
        space = answers.space(asm.calls(2**40, NUMBER))
        context = answers.context(rbx=7)
        set_results(context, {NUMBER: 7})
        last = 2**40
        for _ in range(300):
            context.resume(space)
            if answers.platform.wait(chooser.randrange(1, 200_000)) is None:
                context.interrupt()
                assert answers.next_stop() is context
            assert context.stop == STOP_INTERRUPTED or answer(context)
            left = context.regs[reg.RBP]
            if left:
                assert left <= last
                last = left
        assert last < 2**40
