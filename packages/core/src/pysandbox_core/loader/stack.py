"""The initial stack: strings, auxiliary vector, envp, argv, argc. System V ABI for AMD64, 3.4.1

    high   8 zero bytes
           path of the program, environment strings, argument strings (first lowest)
           random gap
           "x86_64", 16 random bytes
           auxiliary vector, envp, argv, argc                      <- stack pointer, 16-byte aligned
    low

Linux: setup_arg_pages() in fs/exec.c, create_elf_tables() in fs/binfmt_elf.c.
"""

from __future__ import annotations

import os
from errno import E2BIG, EFAULT, ENOMEM
from struct import pack
from typing import TYPE_CHECKING

from pysandbox_platform import PAGE_SIZE

from pysandbox_core.abi.elf import AT_EXECFN, AT_NULL, AT_PLATFORM, AT_RANDOM
from pysandbox_core.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_GROWSDOWN, MAP_PRIVATE
from pysandbox_core.errors import LinuxError
from pysandbox_core.mm.layout import STACK_RANDOM_BYTES, random_bytes_below

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pysandbox_core.mm.memory_manager import MemoryManager

STACK_EXPAND = 128 << 10
"""Bytes that the stack has below what is on it from the start."""
_ARGUMENTS_MAX = (8 << 20) // 4 * 3
_ARG_MAX = 128 << 10
_STRINGS_MAX = 0x7FFFFFFF
_PLATFORM = b"x86_64\0"


def strings_budget(stack_limit: int) -> int:
    """Bytes that arguments and environment may take together. bprm_stack_limits()"""
    return max(min(stack_limit // 4, _ARGUMENTS_MAX), _ARG_MAX)


def check_strings(argv: Sequence[bytes], envp: Sequence[bytes], stack_limit: int) -> None:
    """E2BIG if arguments and environment do not fit."""
    pointers = (max(len(argv), 1) + len(envp)) * 8
    size = sum(map(len, argv)) + sum(map(len, envp)) + len(argv) + len(envp)
    if len(argv) + len(envp) > _STRINGS_MAX or pointers + size > strings_budget(stack_limit):
        raise LinuxError(E2BIG)


def choose_stack_top(task_size: int, *, randomize: bool) -> int:
    """The end of the stack."""
    if not randomize:
        return task_size
    return task_size - random_bytes_below(STACK_RANDOM_BYTES + PAGE_SIZE)


def build_stack(
    mm: MemoryManager,
    top: int,
    prot: int,
    path: bytes,
    argv: Sequence[bytes],
    envp: Sequence[bytes],
    auxv: list[tuple[int, int]],
    *,
    randomize: bool,
) -> int:
    """Map the stack below `top`, write what belongs on it, and return the stack pointer.

    `auxv` is completed with what is on the stack itself. Sets the positions of `mm` that /proc
    shows.
    """
    strings = b"\0".join((*argv, *envp, path, b"")) + bytes(8)
    string_start = top - len(strings)
    # Hardware threads of one core have run into each other where all stacks were aligned alike.
    gap = int.from_bytes(os.urandom(2), "little") % 8192 if randomize else 0
    platform_addr = ((string_start - gap) & ~15) - len(_PLATFORM)
    random_addr = platform_addr - 16
    auxv = [*auxv, (AT_NULL, 0)]
    places = {AT_RANDOM: random_addr, AT_PLATFORM: platform_addr}
    places[AT_EXECFN] = top - 8 - len(path) - 1
    auxv = [(tag, places.get(tag, value)) for tag, value in auxv]
    words = 1 + len(argv) + 1 + len(envp) + 1
    sp = (random_addr - 8 * (words + 2 * len(auxv))) & ~15

    low = (sp & -PAGE_SIZE) - STACK_EXPAND
    if low < mm.min_address:
        raise LinuxError(ENOMEM)
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN
    mm.mmap(None, low, top - low, prot, flags)

    addr = string_start
    argument_words, mm.arg_start = [], addr
    for text in argv:
        argument_words.append(addr)
        addr += len(text) + 1
    mm.arg_end = mm.env_start = addr
    environment_words = []
    for text in envp:
        environment_words.append(addr)
        addr += len(text) + 1
    mm.env_end = addr
    mm.start_stack = sp
    mm.auxv = b"".join(pack("<QQ", tag, value) for tag, value in auxv)
    table = [len(argv), *argument_words, 0, *environment_words, 0]
    block = pack(f"<{len(table)}Q", *table) + mm.auxv
    block = block.ljust(random_addr - sp, b"\0") + os.urandom(16) + _PLATFORM
    block = block.ljust(string_start - sp, b"\0") + strings
    try:
        mm.write(sp, block)
    except LinuxError as error:
        raise LinuxError(ENOMEM if error.errno == EFAULT else error.errno) from None
    return sp
