"""What a context carries from stop to stop: general registers, bases, extended state."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pysandbox_platform import registers_amd64 as reg
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE, DATA, Guest, PlatformTests
from pysandbox_platform.interface import Context, Platform
from pysandbox_platform.types import STOP_NONE

GENERAL = [
    name
    for name in reg.REGISTER_NAMES[:15]
    if name not in ("rax", "rcx", "r11")  # SYSCALL's own
]
MXCSR_AT = 24
XSTATE_BV_AT = 512
LEGACY_SIZE = 512
AVX, AVX512 = 1 << 2, 7 << 5
VECTORS = {16: 3, 32: AVX, 64: AVX512}
"""Width of a vector register -> the components of XCR0 it needs."""


def has_fsgsbase() -> bool:
    """Does the processor have RDFSBASE, and has Linux switched it on?"""
    return " fsgsbase " in Path("/proc/cpuinfo").read_text().partition("\nflags")[2] + " "


class StateTests(PlatformTests):
    """Registers and XSAVE state stay what they were, and stay apart."""

    def test_new_context(self, platform: Platform) -> None:
        context = platform.new_context()
        assert context.stop == STOP_NONE
        special = (reg.CS, reg.SS, reg.EFLAGS, reg.ORIG_RAX)
        zeros = [context.regs[index] for index in range(reg.NREGS) if index not in special]
        assert not any(zeros)
        assert context.regs[reg.CS] == reg.USER_CS
        assert context.regs[reg.SS] == reg.USER_DS
        assert context.regs[reg.EFLAGS] == reg.EFLAGS_FIXED

    def test_registers_are_kept(self, guest: Guest) -> None:
        space = guest.space(asm.forever(asm.SYSCALL))
        values = {name: 0x0101010101010101 * n for n, name in enumerate(GENERAL, 1)}
        context = guest.context(**values)
        for _ in range(3):
            guest.run_to_syscall(context, space)
            for name, value in values.items():
                assert context.regs[reg.REGISTER_NAMES.index(name)] == value, name

    def test_contexts_are_apart(self, guest: Guest) -> None:
        space = guest.space(asm.forever(asm.SYSCALL))
        contexts = [guest.context(**dict.fromkeys(GENERAL, n)) for n in range(8)]
        for _ in range(3):
            for n, context in enumerate(contexts):
                guest.run_to_syscall(context, space)
                assert {context.regs[reg.REGISTER_NAMES.index(name)] for name in GENERAL} == {n}

    def test_bases_are_used_and_kept(self, guest: Guest) -> None:
        space = guest.space(
            asm.forever(
                asm.MOV_RAX_FS_0 + asm.store(asm.RDI, asm.RAX) + asm.MOV_RBX_GS_0 + asm.SYSCALL
            )
        )
        offset = guest.map_data(space)
        guest.set_word(offset + 64, 11)
        guest.set_word(offset + 128, 22)
        context = guest.context(fs_base=DATA + 64, gs_base=DATA + 128, rdi=DATA)
        for _ in range(3):
            guest.set_word(offset, 0)
            guest.run_to_syscall(context, space)
            assert guest.word(offset) == 11
            assert context.regs[reg.RBX] == 22
            assert context.regs[reg.FS_BASE] == DATA + 64
            assert context.regs[reg.GS_BASE] == DATA + 128

    def test_bases_that_the_program_sets(self, guest: Guest) -> None:
        if not has_fsgsbase():
            pytest.skip("the processor has no FSGSBASE instructions")
        code = asm.WRFSBASE_RAX + asm.WRGSBASE_RBX + asm.SYSCALL + asm.SYSCALL
        context = guest.context(rax=0x7000_0000_1234, rbx=0x1111)
        space = guest.space(code)
        guest.run_to_syscall(context, space)
        assert context.regs[reg.FS_BASE] == 0x7000_0000_1234
        assert context.regs[reg.GS_BASE] == 0x1111
        context.regs[reg.RAX] = 0
        guest.run_to_syscall(context, space)
        assert context.regs[reg.FS_BASE] == 0x7000_0000_1234

    def test_initial_extended_state(self, guest: Guest) -> None:
        """FNSTCW and STMXCSR of a context that has not run, in a thread that ran another."""
        dirty = guest.space(asm.FLDCW_RDI + asm.LDMXCSR_RDI + asm.vector_load(16, 0) + asm.SYSCALL)
        guest.map_data(dirty, content=(0x1FBF).to_bytes(4, "little") + b"secret secret")
        for _ in range(3):
            context = guest.run_to_syscall(guest.context(rdi=DATA), dirty)
            context.release()
        guest.map_code(dirty, asm.FNSTCW_RDI + asm.SYSCALL, CODE)
        guest.map_code(dirty, asm.STMXCSR_RDI + asm.SYSCALL, CODE + 0x1000)
        guest.map_code(dirty, asm.vector_store(16, 0) + asm.SYSCALL, CODE + 0x2000)
        offset = guest.map_data(dirty)
        for page, expected in ((0, 0x37F), (1, 0x1F80), (2, 0)):
            guest.set_word(offset, 0)
            context = guest.context(CODE + page * 0x1000, rdi=DATA)
            guest.run_to_syscall(context, dirty)
            assert guest.word(offset) == expected
            context.release()

    def vectors(self, platform: Platform, width: int) -> None:
        """Skips the test where contexts lack vectors of this width."""
        needed = VECTORS[width]
        if platform.xstate_features & needed != needed:
            pytest.skip(f"the host has no vectors of {width * 8} bits")

    @pytest.mark.parametrize("width", VECTORS)
    def test_vectors_are_kept(self, guest: Guest, width: int) -> None:
        self.vectors(guest.platform, width)
        contexts = []
        space = guest.space(
            b"".join(asm.vector_load(width, n) for n in range(8))
            + asm.SYSCALL * 2
            + b"".join(asm.vector_store(width, n) for n in range(8))
            + asm.SYSCALL
        )
        for n in range(3):
            content = os.urandom(width)
            offset = guest.map_data(space, DATA + n * 0x1000, content)
            context = guest.context(rdi=DATA + n * 0x1000)
            contexts.append((context, offset, content))
        for _ in range(2):
            for context, _, _ in contexts:
                guest.run_to_syscall(context, space)
        for context, offset, content in contexts:
            guest.memory[offset : offset + width] = bytes(width)
            guest.run_to_syscall(context, space)
            assert guest.memory[offset : offset + width] == content

    @pytest.mark.parametrize("width", VECTORS)
    def test_extended_state_moves_to_another_context(self, guest: Guest, width: int) -> None:
        """As fork and signal delivery do."""
        self.vectors(guest.platform, width)
        content = os.urandom(width)
        space = guest.space(asm.vector_load(width, 3) + asm.SYSCALL)
        guest.map_data(space, content=content)
        first = guest.run_to_syscall(guest.context(rdi=DATA), space)
        state = first.get_fpstate()
        assert len(state) == guest.platform.xstate_size
        other = guest.space(asm.vector_store(width, 3) + asm.SYSCALL)
        offset = guest.map_data(other)
        second = guest.context(rdi=DATA)
        second.set_fpstate(state)
        assert second.get_fpstate() == state
        guest.run_to_syscall(second, other)
        assert guest.memory[offset : offset + width] == content

    @pytest.mark.parametrize("width", VECTORS)
    def test_context_moves_to_another_space(self, guest: Guest, width: int) -> None:
        self.vectors(guest.platform, width)
        content = os.urandom(width)
        space = guest.space(asm.vector_load(width, 5) + asm.SYSCALL)
        guest.map_data(space, content=content)
        context = guest.run_to_syscall(guest.context(rdi=DATA, rbp=0x1234), space)
        space.release()
        other = guest.space(asm.vector_store(width, 5) + asm.SYSCALL)
        offset = guest.map_data(other)
        context.regs[reg.RIP] = CODE
        guest.run_to_syscall(context, other)
        assert guest.memory[offset : offset + width] == content
        assert context.regs[reg.RBP] == 0x1234

    def test_legacy_area_alone(self, guest: Guest) -> None:
        context = guest.context(rdi=DATA)
        state = bytearray(context.get_fpstate()[:LEGACY_SIZE])
        state[160:176] = b"sixteen bytes xx"
        context.set_fpstate(bytes(state))
        space = guest.space(asm.vector_store(16, 0) + asm.SYSCALL)
        offset = guest.map_data(space)
        guest.run_to_syscall(context, space)
        assert guest.memory[offset : offset + 16] == b"sixteen bytes xx"

    def refuses(self, context: Context, state: bytes) -> None:
        """`set_fpstate` raises ValueError and changes nothing."""
        before = context.get_fpstate()
        with pytest.raises(ValueError, match="state"):
            context.set_fpstate(state)
        assert context.get_fpstate() == before

    def test_hostile_extended_state(self, guest: Guest) -> None:
        space = guest.space(asm.forever(asm.SYSCALL))
        context = guest.context()
        for _ in range(2):  # before it has run, and after
            good = context.get_fpstate()
            self.refuses(context, good[:511])
            self.refuses(context, good[:513])
            self.refuses(context, good + bytes(64))
            self.refuses(context, b"")
            for at, value in (
                (MXCSR_AT, 0xFFFFFFFF),  # reserved bits of MXCSR
                (XSTATE_BV_AT, 1 << 62),  # a component that does not exist
                (XSTATE_BV_AT, 1 << 17),  # AMX, which a context never has
                (XSTATE_BV_AT + 8, 1 << 63),  # the compacted form
                (XSTATE_BV_AT + 16, 1),  # reserved
            ):
                bad = bytearray(good)
                bad[at : at + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")
                if value >> 32:
                    bad[at + 4 : at + 8] = (value >> 32).to_bytes(4, "little")
                self.refuses(context, bytes(bad))
            context.set_fpstate(good)
            guest.run_to_syscall(context, space)
