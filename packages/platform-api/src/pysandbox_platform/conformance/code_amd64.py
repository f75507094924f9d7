"""Just enough of an x86-64 assembler for the conformance kit's programs.

Interface: every function gives the bytes of one instruction; a program is their sum. Registers are
their numbers in the instruction encoding (Intel SDM volume 2, 2.1.5), which is not their place in
`Context.regs`.
"""

from __future__ import annotations

from typing import Final

RAX: Final = 0
RCX: Final = 1
RDX: Final = 2
RBX: Final = 3
RBP: Final = 5
RSI: Final = 6
RDI: Final = 7
R8: Final = 8
R9: Final = 9
R10: Final = 10
R11: Final = 11

SYSCALL: Final = b"\x0f\x05"
INT3: Final = b"\xcc"
INT_80: Final = b"\xcd\x80"
SYSENTER: Final = b"\x0f\x34"
UD2: Final = b"\x0f\x0b"
HLT: Final = b"\xf4"
CLI: Final = b"\xfa"
IN_AL_16: Final = b"\xe4\x10"
MOV_RAX_CR0: Final = b"\x0f\x20\xc0"
WRMSR: Final = b"\x0f\x30"
NOP: Final = b"\x90"
SPIN: Final = b"\xeb\xfe"
"""Jumps to itself."""
DIV_ECX: Final = b"\xf7\xf1"
CALL_RAX: Final = b"\xff\xd0"
JMP_RAX: Final = b"\xff\xe0"
RDTSC: Final = b"\x0f\x31"
CPUID: Final = b"\x0f\xa2"
PUSHFQ: Final = b"\x9c"
POPFQ: Final = b"\x9d"
POP_RAX: Final = b"\x58"
LDMXCSR_RDI: Final = b"\x0f\xae\x17"
STMXCSR_RDI: Final = b"\x0f\xae\x1f"
FLDCW_RDI: Final = b"\xd9\x2f"
FNSTCW_RDI: Final = b"\xd9\x3f"
FLDZ: Final = b"\xd9\xee"
FLD1: Final = b"\xd9\xe8"
FDIVP: Final = b"\xde\xf9"
FWAIT: Final = b"\x9b"
DIVSS_XMM1_XMM0: Final = b"\xf3\x0f\x5e\xc8"
XORPS_XMM0_XMM0: Final = b"\x0f\x57\xc0"
RDFSBASE_RAX: Final = b"\xf3\x48\x0f\xae\xc0"
RDGSBASE_RBX: Final = b"\xf3\x48\x0f\xae\xcb"
WRFSBASE_RAX: Final = b"\xf3\x48\x0f\xae\xd0"
WRGSBASE_RBX: Final = b"\xf3\x48\x0f\xae\xdb"
MOV_RAX_FS_0: Final = b"\x64\x48\x8b\x04\x25\x00\x00\x00\x00"
MOV_RBX_GS_0: Final = b"\x65\x48\x8b\x1c\x25\x00\x00\x00\x00"


def _rex(reg: int, base: int) -> int:
    return 0x48 | (reg >> 3) << 2 | base >> 3


def mov(reg: int, value: int) -> bytes:
    """mov reg, imm64"""
    return bytes([_rex(0, reg), 0xB8 | reg & 7]) + (value % 2**64).to_bytes(8, "little")


def load(reg: int, base: int) -> bytes:
    """mov reg, [base]; base is not rsp, rbp, r12 or r13"""
    return bytes([_rex(reg, base), 0x8B, (reg & 7) << 3 | base & 7])


def store(base: int, reg: int) -> bytes:
    """mov [base], reg; base is not rsp, rbp, r12 or r13"""
    return bytes([_rex(reg, base), 0x89, (reg & 7) << 3 | base & 7])


def increment(base: int) -> bytes:
    """inc qword [base]; base is not rsp, rbp, r12 or r13"""
    return bytes([_rex(0, base), 0xFF, base & 7])


def jump_back(body: bytes) -> bytes:
    """jmp to the start of `body`, which comes just before"""
    return b"\xe9" + (-(len(body) + 5) % 2**32).to_bytes(4, "little")


def forever(body: bytes) -> bytes:
    """`body` again and again"""
    return body + jump_back(body)


def count_down(rounds: int) -> bytes:
    """Two instructions, `rounds` times.

    loop:   dec rcx; jnz loop
    """
    return mov(RCX, rounds) + b"\x48\xff\xc9\x75\xfb"


def calls(rounds: int, number: int) -> bytes:
    """System call `number`, `rounds` times; UD2 where RAX is not rbx. Then SYSCALL with 0.

    loop:   mov eax, number; syscall; cmp rax, rbx; jne wrong; dec rbp; jnz loop
            xor eax, eax; syscall
    wrong:  ud2
    """
    loop = b"\xb8" + number.to_bytes(4, "little") + SYSCALL
    loop += b"\x48\x39\xd8\x75\x09\x48\xff\xcd\x75\xef"
    return mov(RBP, rounds) + loop + b"\x31\xc0" + SYSCALL + UD2


def ping_pong(rounds: int) -> bytes:
    """Waits for [rdi] to become rsi, adds 1 to it, expects 2 more; `rounds` times, then SYSCALL.

    loop:   mov rax, [rdi]; cmp rax, rsi; je mine; pause; jmp loop
    mine:   inc rax; mov [rdi], rax; add rsi, 2; dec rcx; jnz loop; syscall
    """
    loop = b"\x48\x8b\x07\x48\x39\xf0\x74\x04\xf3\x90\xeb\xf4"
    mine = b"\x48\xff\xc0\x48\x89\x07\x48\x83\xc6\x02\x48\xff\xc9\x75\xe5"
    return mov(RCX, rounds) + loop + mine + SYSCALL


def walk() -> bytes:
    """Adds 1 to the first word of every page from rdi up to rsi, then SYSCALL.

    loop:   inc qword [rdi]; add rdi, 4096; cmp rdi, rsi; jb loop; syscall
    """
    return b"\x48\xff\x07\x48\x81\xc7\x00\x10\x00\x00\x48\x39\xf7\x72\xf1" + SYSCALL


def poll(value: int) -> bytes:
    """Counts rounds in [rsi] until [rdi] is `value`, then SYSCALL.

    loop:   inc qword [rsi]; mov rax, [rdi]; cmp rax, rdx; jne loop; syscall
    """
    loop = b"\x48\xff\x06\x48\x8b\x07\x48\x39\xd0\x75\xf5"
    return mov(RDX, value) + loop + SYSCALL


def vector_load(width: int, register: int) -> bytes:
    """Loads `width` bytes from [rdi] into xmm (16), ymm (32) or zmm (64) `register`, 0 to 7."""
    return _vector(width, register, 0x6F)


def vector_store(width: int, register: int) -> bytes:
    """Stores `width` bytes of xmm, ymm or zmm `register`, 0 to 7, at [rdi]."""
    return _vector(width, register, 0x7F)


def _vector(width: int, register: int, opcode: int) -> bytes:
    """movdqu, vmovdqu, vmovdqu64"""
    prefix = {16: b"\xf3\x0f", 32: b"\xc5\xfe", 64: b"\x62\xf1\xfe\x48"}[width]
    return prefix + bytes([opcode, register << 3 | RDI])
