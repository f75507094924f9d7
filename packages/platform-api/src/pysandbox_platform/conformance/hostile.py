"""Register values that no honest kernel would load: nothing raises, nothing hangs."""

from __future__ import annotations

import random
import signal

import pytest

from pysandbox_platform import registers_amd64 as reg
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE, DATA, Guest, PlatformTests
from pysandbox_platform.types import STOP_EXCEPTION, STOP_FAULT, STOP_SYSCALL

NOT_CANONICAL = [0x800000000000, 0x8000000000000000, 0xFFFF7FFFFFFFFFFF, 0x123456789ABCDEF0]
KERNEL_HALF = [0xFFFF800000000000, 0xFFFFFFFF81000000, 2**64 - 1]
ODD_SELECTORS = [
    0,
    1,
    3,
    0x10,
    0x18,
    0x23,
    0x28,
    0x30,
    0x33,
    0x3F,
    0x53,
    0x63,
    0x7F,
    0xFFFF,
    2**64 - 1,
]
SELECTORS = ["cs", "ss", "ds", "es", "fs", "gs"]


class HostileTests(PlatformTests):
    """`Context.regs` may hold anything."""

    def survives(self, guest: Guest) -> None:
        """The platform is as good as before."""
        guest.run_to_syscall(guest.context(), guest.space(asm.SYSCALL))

    @pytest.mark.parametrize("rip", NOT_CANONICAL + KERNEL_HALF)
    def test_rip(self, guest: Guest, rip: int) -> None:
        context = guest.run(guest.context(rip), guest.space(asm.SYSCALL))
        assert context.stop in (STOP_FAULT, STOP_EXCEPTION)
        assert context.signo == signal.SIGSEGV
        assert context.regs[reg.RIP] == rip
        self.survives(guest)

    @pytest.mark.parametrize("name", ["fs_base", "gs_base"])
    @pytest.mark.parametrize("base", NOT_CANONICAL)
    def test_base_that_is_not_canonical(self, guest: Guest, name: str, base: int) -> None:
        context = guest.run(guest.context(**{name: base}), guest.space(asm.SYSCALL))
        assert context.stop == STOP_EXCEPTION
        assert context.signo == signal.SIGSEGV
        self.survives(guest)

    @pytest.mark.parametrize("base", [*KERNEL_HALF, 0x7FFFFFFFFFFF, 0x7FFFFFFFF000])
    def test_base_in_the_kernel_half(self, guest: Guest, base: int) -> None:
        """WRFSBASE takes it; so it may come back in `regs` and must be loadable, or be a fault."""
        space = guest.space(asm.forever(asm.SYSCALL))
        context = guest.context(fs_base=base, gs_base=base, rdi=7)
        for _ in range(3):
            guest.run(context, space)
            if context.stop != STOP_SYSCALL:
                assert (context.stop, context.signo) == (STOP_EXCEPTION, signal.SIGSEGV)
                break
            assert context.regs[reg.FS_BASE] == context.regs[reg.GS_BASE] == base
            assert context.regs[reg.RDI] == 7
            context.regs[reg.RAX] = 0
        self.survives(guest)

    @pytest.mark.parametrize("rsp", NOT_CANONICAL + KERNEL_HALF)
    def test_rsp(self, guest: Guest, rsp: int) -> None:
        context = guest.run_to_syscall(guest.context(rsp=rsp), guest.space(asm.SYSCALL))
        assert context.regs[reg.RSP] == rsp

    @pytest.mark.parametrize("value", ODD_SELECTORS)
    def test_selectors(self, guest: Guest, value: int) -> None:
        """Each alone, then all at once; the program runs on in ring 3."""
        space = guest.space(asm.SYSCALL)
        for names in [*([name] for name in SELECTORS if name != "cs"), SELECTORS[1:]]:
            context = guest.context(**dict.fromkeys(names, value))
            guest.run_to_syscall(context, space)
            assert context.regs[reg.SS] == reg.USER_DS
            context.release()

    @pytest.mark.parametrize("value", ODD_SELECTORS)
    def test_code_selector(self, guest: Guest, value: int) -> None:
        """Always ring 3; what the 32-bit segment makes of the code is the program's affair."""
        context = guest.run(guest.context(cs=value), guest.space(asm.SYSCALL))
        assert context.stop in (STOP_SYSCALL, STOP_EXCEPTION, STOP_FAULT)
        assert context.regs[reg.CS] & 3 == 3
        self.survives(guest)

    def test_eflags(self, guest: Guest) -> None:
        """IOPL, VM, NT and the rest: only the program's own bits arrive."""
        # Without TF, which is a single step, and AC, which makes accesses trap.
        value = 2**64 - 1 & ~(reg.EFLAGS_TF | 1 << 18)
        context = guest.context(eflags=value, rsp=DATA + 64)
        space = guest.space(asm.PUSHFQ + asm.SYSCALL)
        offset = guest.map_data(space)
        guest.run_to_syscall(context, space)
        seen = guest.word(offset + 56)
        assert seen & ~(reg.EFLAGS_USER | reg.EFLAGS_FIXED) == 0
        assert seen & reg.EFLAGS_FIXED == reg.EFLAGS_FIXED
        assert seen & reg.EFLAGS_DF

    def test_every_single_eflags_bit(self, guest: Guest) -> None:
        space = guest.space(asm.SYSCALL)
        for bit in range(64):
            context = guest.run(guest.context(eflags=1 << bit), space)
            assert context.stop in (STOP_SYSCALL, STOP_EXCEPTION)
            flags = context.regs[reg.EFLAGS]
            assert flags & ~(reg.EFLAGS_USER | reg.EFLAGS_FIXED) == 0
            context.release()

    def test_any_27_words(self, guest: Guest) -> None:
        """Random registers; half of the contexts at least start where there is code."""
        chooser = random.Random(7)
        odd = [*NOT_CANONICAL, *KERNEL_HALF, *ODD_SELECTORS, CODE, DATA]
        space = guest.space(asm.SYSCALL)
        guest.map_data(space)
        for number in range(400):
            context = guest.context()
            for index in range(reg.NREGS):
                context.regs[index] = chooser.choice([*odd, chooser.getrandbits(64)])
            # A trap flag or a 32-bit segment may keep a program from stopping: not wanted here.
            context.regs[reg.CS] = reg.USER_CS
            if number % 2:
                context.regs[reg.RIP] = CODE
            guest.run(context, space)
            assert context.stop in (STOP_SYSCALL, STOP_EXCEPTION, STOP_FAULT)
            context.release()
        self.survives(guest)

    def test_any_extended_state(self, guest: Guest) -> None:
        """Random bytes in a good state: refused, or loaded and run with."""
        chooser = random.Random(8)
        space = guest.space(asm.forever(asm.SYSCALL))
        context = guest.context()
        good = context.get_fpstate()
        refused = 0
        for _ in range(300):
            state = bytearray(good)
            for _ in range(chooser.randrange(1, 8)):
                at = chooser.choice([chooser.randrange(len(good)), chooser.randrange(24, 32), 512])
                state[at] = chooser.getrandbits(8)
            try:
                context.set_fpstate(bytes(state[: chooser.choice([512, 576, len(good)])]))
            except ValueError:
                refused += 1
            guest.run_to_syscall(context, space)
        assert 0 < refused < 300

    def test_no_interrupts_off(self, guest: Guest) -> None:
        """POPFQ with IF and IOPL: ring 3 can't change them, and a spinning context still stops."""
        space = guest.space(asm.POPFQ + asm.PUSHFQ + asm.POP_RAX + asm.SPIN)
        offset = guest.map_data(space)
        guest.set_word(offset + 56, 0x3002 | 1 << 17)
        context = guest.context(rsp=DATA + 56)
        context.resume(space)
        assert guest.platform.wait(2_000_000) is None
        context.interrupt()
        assert guest.next_stop() is context
        assert context.regs[reg.RIP] in range(CODE, CODE + 8)
