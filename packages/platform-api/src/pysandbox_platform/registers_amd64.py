"""The register file of an x86-64 context: indexes into `Context.regs`.

Interface: `regs` is a writable memoryview of 27 unsigned 64-bit words, laid out as Linux's `struct
user_regs_struct` (`<sys/user.h>`, ptrace(2)), so that a platform may hand it to the host as it is.
The byte offset of a word is 8 times its index.
"""

from __future__ import annotations

from typing import Final

R15: Final = 0
R14: Final = 1
R13: Final = 2
R12: Final = 3
RBP: Final = 4
RBX: Final = 5
R11: Final = 6
R10: Final = 7
R9: Final = 8
R8: Final = 9
RAX: Final = 10
RCX: Final = 11
RDX: Final = 12
RSI: Final = 13
RDI: Final = 14
ORIG_RAX: Final = 15
RIP: Final = 16
CS: Final = 17
EFLAGS: Final = 18
RSP: Final = 19
SS: Final = 20
FS_BASE: Final = 21
GS_BASE: Final = 22
DS: Final = 23
ES: Final = 24
FS: Final = 25
GS: Final = 26

NREGS: Final = 27

REGISTER_NAMES: Final = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi",
    "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs",
    "gs",
)  # fmt: skip

USER_CS: Final = 0x33
USER_DS: Final = 0x2B

# EFLAGS bits, Intel SDM volume 1, 3.4.3.
EFLAGS_TF: Final = 1 << 8
EFLAGS_IF: Final = 1 << 9
EFLAGS_DF: Final = 1 << 10
EFLAGS_RF: Final = 1 << 16
EFLAGS_USER: Final = 0x250DD5
"""What a program may change: CF PF AF ZF SF TF DF OF RF AC ID."""
EFLAGS_FIXED: Final = 0x202
"""What is always set in ring 3: the reserved bit 1 and IF."""
