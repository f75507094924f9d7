"""<elf.h>: what a loader of 64-bit programs needs. Names are the ELF specification's."""

from __future__ import annotations

from struct import Struct
from typing import Final

EHDR: Final = Struct("<16sHHIQQQIHHHHHH")
"""Elf64_Ehdr: e_ident e_type e_machine e_version e_entry e_phoff e_shoff e_flags e_ehsize
e_phentsize e_phnum e_shentsize e_shnum e_shstrndx"""
PHDR: Final = Struct("<IIQQQQQQ")
"""Elf64_Phdr: p_type p_flags p_offset p_vaddr p_paddr p_filesz p_memsz p_align"""

ELFMAG: Final = b"\x7fELF"
ET_EXEC: Final = 2
ET_DYN: Final = 3
EM_X86_64: Final = 62

PT_LOAD: Final = 1
PT_INTERP: Final = 3
PT_GNU_STACK: Final = 0x6474E551

PF_X: Final = 1
PF_W: Final = 2
PF_R: Final = 4

# The auxiliary vector, getauxval(3).
AT_NULL: Final = 0
AT_PHDR: Final = 3
AT_PHENT: Final = 4
AT_PHNUM: Final = 5
AT_PAGESZ: Final = 6
AT_BASE: Final = 7
AT_FLAGS: Final = 8
AT_ENTRY: Final = 9
AT_UID: Final = 11
AT_EUID: Final = 12
AT_GID: Final = 13
AT_EGID: Final = 14
AT_PLATFORM: Final = 15
AT_HWCAP: Final = 16
AT_CLKTCK: Final = 17
AT_SECURE: Final = 23
AT_RANDOM: Final = 25
AT_HWCAP2: Final = 26
AT_RSEQ_FEATURE_SIZE: Final = 27
AT_RSEQ_ALIGN: Final = 28
AT_EXECFN: Final = 31
AT_SYSINFO_EHDR: Final = 33
AT_MINSIGSTKSZ: Final = 51
