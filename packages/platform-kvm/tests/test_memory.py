"""What is KVM's own about address spaces: tables that are kept or collected, windows, file ends."""

from __future__ import annotations

import os
import signal

import pytest
from pysandbox_kvm._native import lib
from pysandbox_kvm.platform import KvmPlatform
from pysandbox_platform import registers_amd64 as reg
from pysandbox_platform.conformance import Guest
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE, DATA, assert_syscall
from pysandbox_platform.types import (
    ACCESS_WRITE,
    PAGE_SIZE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    STOP_FAULT,
    PlatformError,
)

TABLE_REACH = 512 * PAGE_SIZE
READ_WRITE = PROT_READ | PROT_WRITE


def tables(guest: Guest) -> int:
    """Page tables in use."""
    platform = guest.platform
    assert isinstance(platform, KvmPlatform)
    return lib.kv_table_count(platform._native)


def anonymous_pages() -> int:
    """Of this process's memory, those that it has for itself. proc_pid_statm(5)"""
    with open("/proc/self/statm") as statm:
        _, resident, shared, _ = statm.read().split(" ", 3)
    return int(resident) - int(shared)


def test_the_tables_of_small_spaces_are_collected(guest: Guest) -> None:
    """Also while others run, which notice nothing."""
    spinning = guest.space(asm.forever(asm.increment(asm.RDI)))
    offset = guest.map_data(spinning, count=3)
    for number in range(3):
        guest.context(rdi=DATA + number * PAGE_SIZE).resume(spinning)
    code = guest.pages(asm.SYSCALL)
    most = 0
    for _ in range(400):
        space = guest.platform.new_address_space()
        space.map(CODE, PAGE_SIZE, PROT_READ | PROT_EXEC, guest.fd, code)
        context = guest.run_to_syscall(guest.context(), space)
        context.release()
        space.release()
        most = max(most, tables(guest))
    assert most < 600
    before = [guest.word(offset + number * PAGE_SIZE) for number in range(3)]
    for number in range(3):
        while guest.word(offset + number * PAGE_SIZE) == before[number]:
            assert guest.platform.wait(1_000_000) is None


def test_the_tables_of_large_spaces_are_collected(guest: Guest) -> None:
    """And what their addresses showed in KVM's shadows is gone: the next spaces see their own."""
    count = 600
    page = guest.pages()
    most = 0
    for value in range(1, 13):
        space = guest.space(asm.load(asm.RBX, asm.RDI) + asm.SYSCALL)
        own = guest.pages(value.to_bytes(8, "little"))
        for number in range(count):
            space.map(DATA + number * TABLE_REACH, PAGE_SIZE, PROT_READ, guest.fd, page)
        space.map(DATA + 7 * TABLE_REACH, PAGE_SIZE, PROT_READ, guest.fd, own)
        context = guest.run_to_syscall(guest.context(rdi=DATA + 7 * TABLE_REACH), space)
        assert context.regs[reg.RBX] == value
        context.release()
        space.release()
        most = max(most, tables(guest))
    assert most < 12 * count


def test_the_tables_of_what_was_unmapped_are_collected(guest: Guest) -> None:
    """Also those of a space that lives on, while contexts run in it, which notice nothing."""
    space = guest.space(asm.forever(asm.increment(asm.RDI)))
    guest.map_code(space, asm.load(asm.RBX, asm.RDI) + asm.SYSCALL, CODE + PAGE_SIZE)
    offset = guest.map_data(space, count=3)
    for number in range(3):
        guest.context(rdi=DATA + number * PAGE_SIZE).resume(space)
    context = guest.context()
    before = tables(guest)
    most = 0
    for number in range(1, 12_001):
        addr = DATA + number * TABLE_REACH
        space.map(addr, PAGE_SIZE, PROT_READ, guest.fd, offset)
        if number % 3000 == 0:
            page = guest.pages(number.to_bytes(8, "little"))
            space.map(addr, PAGE_SIZE, PROT_READ, guest.fd, page)
            guest.set(context, rip=CODE + PAGE_SIZE, rdi=addr)
            guest.run_to_syscall(context, space)
            assert context.regs[reg.RBX] == number
        space.unmap(addr, PAGE_SIZE)
        most = max(most, tables(guest))
    assert before < most < 6000
    last = [guest.word(offset + number * PAGE_SIZE) for number in range(3)]
    for number in range(3):
        while guest.word(offset + number * PAGE_SIZE) == last[number]:
            assert guest.platform.wait(1_000_000) is None


def test_a_space_is_released_while_tables_of_others_are_looked_at(guest: Guest) -> None:
    """Each of its tables is freed once: of two spaces made after it, each sees its own."""
    page = guest.pages()
    large, small = guest.platform.new_address_space(), guest.platform.new_address_space()
    for number in range(5000):
        large.map(DATA + number * TABLE_REACH, PAGE_SIZE, PROT_READ, guest.fd, page)
    for number in range(500):
        small.map(DATA + number * TABLE_REACH, PAGE_SIZE, PROT_READ, guest.fd, page)
    small.release()
    spaces = [guest.space(asm.load(asm.RBX, asm.RDI) + asm.SYSCALL) for _ in range(2)]
    for number in range(500):
        for space in spaces:
            space.map(DATA + number * TABLE_REACH, PAGE_SIZE, PROT_READ, guest.fd, page)
    for value, space in enumerate(spaces, 1):
        own = guest.pages(value.to_bytes(8, "little"))
        for number in (0, 499):
            space.map(DATA + number * TABLE_REACH, PAGE_SIZE, PROT_READ, guest.fd, own)
    for value, space in enumerate(spaces, 1):
        for number in (0, 499):
            context = guest.context(rdi=DATA + number * TABLE_REACH)
            guest.run_to_syscall(context, space)
            assert context.regs[reg.RBX] == value


def test_the_memory_of_tables_goes_back_to_the_host(guest: Guest) -> None:
    count = 20_000
    page = guest.pages()
    before = anonymous_pages()
    space = guest.platform.new_address_space()
    for number in range(count):
        space.map(DATA + number * TABLE_REACH, PAGE_SIZE, PROT_READ, guest.fd, page)
    assert anonymous_pages() > before + count // 2
    space.release()
    assert anonymous_pages() < before + count // 2


def test_a_file_that_grows(guest: Guest) -> None:
    """Two pages beyond its end are found at once; the one that was not asked for may be there by
    the time it is."""
    fd = os.memfd_create("grows", os.MFD_CLOEXEC)
    space = guest.space(asm.load(asm.RBX, asm.RDI) + asm.SYSCALL)
    space.map(DATA, 2 * PAGE_SIZE, READ_WRITE, fd, 0)
    context = guest.context(rdi=DATA + 8)
    for _ in range(2):
        guest.run(context, space)
        assert (context.stop, context.fault_addr) == (STOP_FAULT, DATA + 8)
        assert context.signo == signal.SIGBUS
    os.pwrite(fd, b"\x05", PAGE_SIZE + 8)
    guest.run_to_syscall(context, space)
    assert context.regs[reg.RBX] == 0
    guest.set(context, rip=CODE, rdi=DATA + PAGE_SIZE + 8)
    guest.run_to_syscall(context, space)
    assert context.regs[reg.RBX] == 5
    os.close(fd)


def test_a_file_that_is_truncated_while_it_is_mapped(guest: Guest) -> None:
    fd = os.memfd_create("shrinks", os.MFD_CLOEXEC)
    os.ftruncate(fd, PAGE_SIZE)
    space = guest.space(asm.store(asm.RDI, asm.RSI) + asm.SYSCALL)
    space.map(DATA, PAGE_SIZE, READ_WRITE, fd, 0)
    context = guest.run_to_syscall(guest.context(rdi=DATA), space)
    os.ftruncate(fd, 0)
    context.regs[reg.RIP] = CODE
    guest.run(context, space)
    assert (context.stop, context.fault_addr) == (STOP_FAULT, DATA)
    assert (context.signo, context.fault_access) == (signal.SIGBUS, ACCESS_WRITE)
    os.close(fd)


def test_a_read_only_descriptor_gives_no_writable_page(guest: Guest) -> None:
    fd = os.open(f"/proc/self/fd/{guest.fd}", os.O_RDONLY | os.O_CLOEXEC)
    space = guest.platform.new_address_space()
    with pytest.raises(PlatformError, match="not open for that"):
        space.map(DATA, PAGE_SIZE, READ_WRITE, fd, 0)
    space.map(DATA, PAGE_SIZE, PROT_READ, fd, 0)
    with pytest.raises(PlatformError, match="not open for that"):
        space.protect(DATA, PAGE_SIZE, READ_WRITE)
    os.close(fd)


def test_hundreds_of_files(guest: Guest) -> None:
    """More than are kept when nothing maps them any more."""
    space = guest.space(asm.load(asm.RBX, asm.RDI) + asm.SYSCALL)
    for turn in range(2):
        for number in range(200):
            fd = os.memfd_create("one", os.MFD_CLOEXEC)
            os.write(fd, (turn * 1000 + number).to_bytes(8, "little"))
            space.map(DATA, PAGE_SIZE, PROT_READ, fd, 0)
            space.sync()
            os.close(fd)
            context = guest.run_to_syscall(guest.context(rdi=DATA), space)
            assert context.regs[reg.RBX] == turn * 1000 + number
            context.release()


def test_the_guest_kernel_is_out_of_reach(guest: Guest) -> None:
    """Reading, writing and running any of its pages is a fault, its SYSCALL entry included."""
    base = lib.kv_guest_kernel()
    space = guest.space(asm.load(asm.RBX, asm.RDI) + asm.SYSCALL)
    guest.map_code(space, asm.store(asm.RDI, asm.RSI) + asm.SYSCALL, CODE + PAGE_SIZE)
    guest.map_code(space, asm.JMP_RAX, CODE + 2 * PAGE_SIZE)
    for addr in (base, base + 0x820, base + 0x1000, base + 0x2000, base + 0x2900, base + 0x3000):
        for page in range(3):
            context = guest.context(CODE + page * PAGE_SIZE, rdi=addr, rax=addr)
            guest.run(context, space)
            assert (context.stop, context.fault_addr) == (STOP_FAULT, addr)
            assert context.signo == signal.SIGSEGV
    guest.run_to_syscall(guest.context(rdi=CODE), space)


def test_more_contexts_than_virtual_processors(guest: Guest) -> None:
    """They spin until the last of them has had its turn."""
    count = 40
    space = guest.space(asm.poll(1))
    flag = guest.map_data(space)
    progress = guest.map_data(space, DATA + PAGE_SIZE)
    contexts = [guest.context(rdi=DATA, rsi=DATA + PAGE_SIZE + 8 * n) for n in range(count)]
    for context in contexts:
        context.resume(space)
    while not all(guest.word(progress + 8 * n) for n in range(count)):
        guest.platform.wait(5_000_000)
    guest.set_word(flag, 1)
    for _ in contexts:
        assert_syscall(guest.next_stop())
