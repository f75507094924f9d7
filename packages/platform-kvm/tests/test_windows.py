"""What the memory is that spaces map pieces of: part of this process, in which much else lies."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator

import pytest
from pysandbox_platform import registers_amd64 as reg
from pysandbox_platform.conformance import Guest
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE, DATA
from pysandbox_platform.types import PAGE_SIZE, PROT_NONE, PROT_READ, PROT_WRITE, PlatformError

READ_WRITE = PROT_READ | PROT_WRITE
STALE_AT_MOST = 128
"""MAX_STALE in csrc/kv_internal.h."""
WINDOW = 16 << 20
"""Of a file as large as these; csrc/windows.c."""
ARENA = 256 << 20
APART = 32 * PAGE_SIZE
"""Pages that are given up one by one; csrc/stale.c."""
MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MAP_FIXED_NOREPLACE = 2, 0x20, 0x4000, 0x100000
USER_END = 0x7FFFFFFFF000
SYS_MLOCK, SYS_MUNLOCK = 149, 150
"""By their numbers: a sanitizer has functions of these names that do nothing."""

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
]  # fmt: skip
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.syscall.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t]


@pytest.fixture
def large_file() -> Iterator[int]:
    fd = os.memfd_create("large", os.MFD_CLOEXEC)
    os.ftruncate(fd, 4 * ARENA)
    yield fd
    os.close(fd)


def take(addr: int, length: int, prot: int) -> None:
    """Maps anonymous memory of this process where nothing is."""
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE
    if libc.mmap(addr, length, prot, flags, -1, 0) != addr:
        raise OSError(ctypes.get_errno(), f"mmap at {addr:#x}")


def host_ranges(name: str = "") -> list[tuple[int, int, int]]:
    """(start, end, offset) of this process's mappings whose line has `name` in it."""
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            addresses, _, offset, *_ = line.split()
            start, end = (int(part, 16) for part in addresses.split("-"))
            if name in line and end <= USER_END:
                found.append((start, end, int(offset, 16)))
    return found


def host_address(name: str, offset: int) -> int:
    """Where this process has the byte at `offset` of a file."""
    for start, end, first in host_ranges(name):
        if first <= offset < first + end - start:
            return start + offset - first
    raise LookupError(f"{name} is not mapped at {offset:#x}")


def leave_one_hole(hole: int, size: int) -> list[tuple[int, int]]:
    """Takes all addresses of this process that a mapping of `size` bytes would fit, but the hole,
    which ends where something is; what was taken."""
    taken = []
    at = PAGE_SIZE * 16
    for start, end, _ in [*host_ranges(), (USER_END, USER_END, 0)]:
        last = hole if start == hole + size else start
        if last - at >= size:
            take(at, last - at, PROT_NONE)
            taken.append((at, last - at))
        at = end
    return taken


def test_what_kvm_keeps_for_arenas_counts_and_is_given_back(guest: Guest, large_file: int) -> None:
    """A window for each page: a program can have them by the thousand."""
    platform, code = guest.platform, asm.load(asm.RBX, asm.RDI) + asm.SYSCALL
    os.ftruncate(large_file, 1 << 40)
    for number in range(3):
        os.pwrite(large_file, bytes([number]), number * 800 * WINDOW)
    before = platform.host_bytes()
    assert before < 2 << 20
    for _ in range(2):
        space = guest.space(code)
        for number in range(1600):
            space.map(DATA + number * PAGE_SIZE, PAGE_SIZE, READ_WRITE, large_file, number * WINDOW)
        assert platform.host_bytes() - before > 1600 * WINDOW // PAGE_SIZE * 8
        for number in range(2):
            context = guest.context(rdi=DATA + number * 800 * PAGE_SIZE)
            guest.run_to_syscall(context, space)
            assert context.regs[reg.RBX] & 0xFF == number
            context.release()
        space.release()
        assert platform.host_bytes() - before < 8 << 20


def test_what_lies_between_two_arenas_is_left_alone(guest: Guest, large_file: int) -> None:
    """A page of this process's own has one arena right above it and another one right below, and
    the pages of these that are next to it are given up together."""
    space = guest.space(asm.store(asm.RDI, asm.RAX) + asm.store(asm.RSI, asm.RAX) + asm.SYSCALL)
    guest.map_data(space)
    context = guest.context(rdi=DATA, rsi=DATA)
    guest.run_to_syscall(context, space)  # now all threads are there
    before = ARENA // WINDOW - 1  # that find room beside the guest's own file
    count = before + ARENA // WINDOW
    for number in range(count):
        addr = DATA + (1 + number) * PAGE_SIZE
        space.map(addr, PAGE_SIZE, READ_WRITE, large_file, number * WINDOW)
    above, below = DATA + (1 + before) * PAGE_SIZE, DATA
    own = host_address("memfd:large", before * WINDOW) - PAGE_SIZE
    take(own, PAGE_SIZE, READ_WRITE)
    ctypes.memmove(own, b"whole", 5)
    taken = leave_one_hole(own - ARENA, ARENA)
    try:
        for number in range(count, count + ARENA // WINDOW):
            end = (number + 1) * WINDOW
            space.map(below, PAGE_SIZE, READ_WRITE, large_file, end - PAGE_SIZE)
    finally:
        for addr, length in taken:
            libc.munmap(addr, length)
    assert host_address("memfd:large", end - PAGE_SIZE) == own - PAGE_SIZE
    guest.set(context, rip=CODE, rdi=above, rsi=below)
    guest.run_to_syscall(context, space)
    space.unmap(above, PAGE_SIZE)
    space.unmap(below, PAGE_SIZE)
    space.sync()
    assert ctypes.string_at(own, 5) == b"whole"
    libc.munmap(own, PAGE_SIZE)


def test_what_could_not_be_taken_away_is_not_forgotten(guest: Guest) -> None:
    """A page that is locked into memory stays within reach of vCPUs, and the list of those to be
    taken away is emptied before anybody asks for it."""
    count = STALE_AT_MOST + 1
    space = guest.space(asm.walk())
    fd = os.memfd_create("locked", os.MFD_CLOEXEC)
    os.ftruncate(fd, count * APART)
    for number in range(count):
        space.map(DATA + number * PAGE_SIZE, PAGE_SIZE, READ_WRITE, fd, number * APART)
    context = guest.context(rdi=DATA, rsi=DATA + count * PAGE_SIZE)
    guest.run_to_syscall(context, space)
    locked = host_address("memfd:locked", 0)
    if libc.syscall(SYS_MLOCK, locked, PAGE_SIZE):
        pytest.skip(f"mlock: {os.strerror(ctypes.get_errno())}")
    space.unmap(DATA, count * PAGE_SIZE)
    libc.syscall(SYS_MUNLOCK, locked, PAGE_SIZE)
    for _ in range(2):
        with pytest.raises(PlatformError, match="MADV_DONTNEED") as caught:
            space.sync()
        assert caught.value.errno == errno.EINVAL
    with pytest.raises(PlatformError, match="MADV_DONTNEED"):
        context.resume(space)
    os.close(fd)
