"""Address spaces: map, protect, unmap, sync, and the order of what is queued."""

from __future__ import annotations

import os
import random

from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE, DATA, Guest, PlatformTests, assert_syscall
from pysandbox_platform.interface import AddressSpace, Context
from pysandbox_platform.registers_amd64 import RAX, RBX, RDI, RIP
from pysandbox_platform.types import (
    ACCESS_EXEC,
    ACCESS_READ,
    ACCESS_WRITE,
    PAGE_SIZE,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    STOP_FAULT,
    STOP_SYSCALL,
)

READ_WRITE = PROT_READ | PROT_WRITE
READER = asm.load(asm.RBX, asm.RDI) + asm.SYSCALL
WRITER = asm.store(asm.RDI, asm.RSI) + asm.SYSCALL


def word(value: int) -> bytes:
    """A 64-bit word as it lies in memory."""
    return value.to_bytes(8, "little")


class MemoryTests(PlatformTests):
    """`AddressSpace` as its docstrings say."""

    def read(self, guest: Guest, space: AddressSpace, addr: int) -> int:
        """What a program in the space reads at `addr`."""
        guest.map_code(space, READER, CODE + PAGE_SIZE)
        context = guest.context(CODE + PAGE_SIZE, rdi=addr)
        guest.run_to_syscall(context, space)
        value = context.regs[RBX]
        context.release()
        return value

    def fault(self, guest: Guest, space: AddressSpace, code: bytes, addr: int) -> Context:
        """The fault that `code`, with rdi = `addr`, ends in."""
        guest.map_code(space, code, CODE + PAGE_SIZE)
        context = guest.run(guest.context(CODE + PAGE_SIZE, rdi=addr, rsi=1), space)
        assert context.stop == STOP_FAULT
        assert context.fault_addr == addr
        assert context.regs[RIP] == CODE + PAGE_SIZE, "RIP is at the instruction"
        return context

    def test_map_shows_the_file(self, guest: Guest) -> None:
        space = guest.platform.new_address_space()
        guest.map_data(space, content=word(0x1122334455667788))
        assert self.read(guest, space, DATA) == 0x1122334455667788

    def test_map_is_shared_with_the_file(self, guest: Guest) -> None:
        space = guest.space(WRITER)
        offset = guest.map_data(space)
        guest.run_to_syscall(guest.context(rdi=DATA + 16, rsi=77), space)
        assert guest.word(offset + 16) == 77

    def test_map_takes_an_offset(self, guest: Guest) -> None:
        space = guest.platform.new_address_space()
        offset = guest.pages(count=3)
        guest.set_word(offset + 2 * PAGE_SIZE, 5)
        space.map(DATA, PAGE_SIZE, PROT_READ, guest.fd, offset + 2 * PAGE_SIZE)
        assert self.read(guest, space, DATA) == 5

    def test_map_replaces_what_was_there(self, guest: Guest) -> None:
        space = guest.platform.new_address_space()
        guest.map_data(space, DATA, word(1), count=3)
        assert self.read(guest, space, DATA) == 1
        guest.map_data(space, DATA + PAGE_SIZE, word(2))
        assert self.read(guest, space, DATA + PAGE_SIZE) == 2
        assert self.read(guest, space, DATA) == 1
        assert self.read(guest, space, DATA + 2 * PAGE_SIZE) == 0

    def test_one_page_of_the_file_at_two_addresses(self, guest: Guest) -> None:
        space = guest.space(WRITER)
        offset = guest.map_data(space)
        space.map(DATA + 0x100000, PAGE_SIZE, PROT_READ, guest.fd, offset)
        guest.run_to_syscall(guest.context(rdi=DATA, rsi=9), space)
        assert self.read(guest, space, DATA + 0x100000) == 9

    def test_two_spaces_are_two(self, guest: Guest) -> None:
        spaces = [guest.platform.new_address_space() for _ in range(2)]
        for value, space in enumerate(spaces, 1):
            guest.map_data(space, content=word(value))
        assert [self.read(guest, space, DATA) for space in spaces] == [1, 2]

    def test_whole_address_range(self, guest: Guest) -> None:
        low, high = guest.platform.address_range
        assert low % PAGE_SIZE == 0
        assert high % PAGE_SIZE == 0
        space = guest.platform.new_address_space()
        guest.map_data(space, low, word(3))
        guest.map_data(space, high - PAGE_SIZE, word(4))
        assert self.read(guest, space, low) == 3
        assert self.read(guest, space, high - PAGE_SIZE) == 4

    def test_empty_space_faults_at_the_first_instruction(self, guest: Guest) -> None:
        context = guest.run(guest.context(CODE), guest.platform.new_address_space())
        assert (context.stop, context.fault_addr) == (STOP_FAULT, CODE)
        assert context.fault_access == ACCESS_EXEC

    def test_unmap(self, guest: Guest) -> None:
        space = guest.platform.new_address_space()
        guest.map_data(space)
        self.read(guest, space, DATA)
        space.unmap(DATA, PAGE_SIZE)
        assert self.fault(guest, space, READER, DATA).fault_access == ACCESS_READ

    def test_unmap_the_middle(self, guest: Guest) -> None:
        space = guest.platform.new_address_space()
        guest.map_data(space, count=3)
        space.unmap(DATA + PAGE_SIZE, PAGE_SIZE)
        self.fault(guest, space, READER, DATA + PAGE_SIZE)
        assert self.read(guest, space, DATA) == 0
        assert self.read(guest, space, DATA + 2 * PAGE_SIZE) == 0

    def test_unmap_of_nothing_is_no_error(self, guest: Guest) -> None:
        space = guest.platform.new_address_space()
        guest.map_data(space, DATA + PAGE_SIZE)
        space.unmap(DATA, 16 * PAGE_SIZE)
        space.unmap(DATA, 16 * PAGE_SIZE)
        space.sync()
        self.fault(guest, space, READER, DATA + PAGE_SIZE)

    def test_protect_read_only(self, guest: Guest) -> None:
        space = guest.platform.new_address_space()
        offset = guest.map_data(space, content=word(6))
        space.protect(DATA, PAGE_SIZE, PROT_READ)
        assert self.read(guest, space, DATA) == 6
        assert self.fault(guest, space, WRITER, DATA).fault_access == ACCESS_WRITE
        assert guest.word(offset) == 6

    def test_protect_none(self, guest: Guest) -> None:
        space = guest.platform.new_address_space()
        guest.map_data(space)
        space.protect(DATA, PAGE_SIZE, PROT_NONE)
        assert self.fault(guest, space, READER, DATA).fault_access == ACCESS_READ

    def test_protect_gives_back(self, guest: Guest) -> None:
        space = guest.space(WRITER)
        offset = guest.pages()
        space.map(DATA, PAGE_SIZE, PROT_NONE, guest.fd, offset)
        context = guest.run(guest.context(rdi=DATA, rsi=8), space)
        assert context.stop == STOP_FAULT
        space.protect(DATA, PAGE_SIZE, READ_WRITE)
        guest.run_to_syscall(context, space)  # the same instruction again
        assert guest.word(offset) == 8

    def test_protect_passes_over_holes(self, guest: Guest) -> None:
        space = guest.platform.new_address_space()
        for page in (1, 2, 5):
            guest.map_data(space, DATA + page * PAGE_SIZE)
        space.protect(DATA, 8 * PAGE_SIZE, PROT_READ)
        for page in (1, 2, 5):
            addr = DATA + page * PAGE_SIZE
            assert self.fault(guest, space, WRITER, addr).fault_access == ACCESS_WRITE
        for page in (0, 3, 7):
            addr = DATA + page * PAGE_SIZE
            assert self.fault(guest, space, READER, addr).fault_access == ACCESS_READ

    def test_not_executable(self, guest: Guest) -> None:
        space = guest.platform.new_address_space()
        guest.map_data(space, content=asm.SYSCALL)
        context = guest.run(guest.context(DATA), space)
        assert (context.stop, context.fault_addr) == (STOP_FAULT, DATA)
        assert context.fault_access == ACCESS_EXEC
        space.protect(DATA, PAGE_SIZE, PROT_READ | PROT_EXEC)
        guest.run_to_syscall(context, space)

    def test_code_that_writes_to_itself(self, guest: Guest) -> None:
        """A read-only page that may be executed: the write is a write, though RIP is on the
        page."""
        space = guest.space(WRITER)
        context = guest.run(guest.context(rdi=CODE, rsi=1), space)
        assert (context.stop, context.fault_addr) == (STOP_FAULT, CODE)
        assert context.fault_access == ACCESS_WRITE

    def test_instruction_across_two_pages(self, guest: Guest) -> None:
        space = guest.platform.new_address_space()
        offset = guest.pages(count=2)
        code = asm.mov(asm.RBX, 1) + asm.SYSCALL
        guest.memory[offset + PAGE_SIZE - 4 : offset + PAGE_SIZE - 4 + len(code)] = code
        space.map(CODE, PAGE_SIZE, PROT_READ | PROT_EXEC, guest.fd, offset)
        context = guest.run(guest.context(CODE + PAGE_SIZE - 4), space)
        assert (context.stop, context.fault_addr) == (STOP_FAULT, CODE + PAGE_SIZE)
        assert context.fault_access == ACCESS_EXEC
        space.map(CODE + PAGE_SIZE, PAGE_SIZE, PROT_READ | PROT_EXEC, guest.fd, offset + PAGE_SIZE)
        guest.run_to_syscall(context, space)

    def test_beyond_the_end_of_the_file(self, guest: Guest) -> None:
        from signal import SIGBUS

        fd = os.memfd_create("short", os.MFD_CLOEXEC)
        os.ftruncate(fd, PAGE_SIZE)
        space = guest.platform.new_address_space()
        space.map(DATA, 2 * PAGE_SIZE, PROT_READ, fd, 0)
        assert self.read(guest, space, DATA) == 0
        context = self.fault(guest, space, READER, DATA + PAGE_SIZE)
        assert context.signo == SIGBUS
        os.close(fd)

    def test_queued_changes_keep_their_order(self, guest: Guest) -> None:
        space = guest.platform.new_address_space()
        guest.map_data(space, content=word(1))
        space.unmap(DATA, PAGE_SIZE)
        guest.map_data(space, content=word(2))
        space.protect(DATA, PAGE_SIZE, PROT_NONE)
        guest.map_data(space, content=word(3))
        space.protect(DATA, PAGE_SIZE, PROT_READ)
        assert self.read(guest, space, DATA) == 3
        assert self.fault(guest, space, WRITER, DATA).fault_access == ACCESS_WRITE

    def test_a_thousand_changes_at_once(self, guest: Guest) -> None:
        space = guest.platform.new_address_space()
        count = 1000
        offset = guest.pages(count=count)
        for page in range(count):
            guest.set_word(offset + page * PAGE_SIZE, page)
            # Backwards in the file, so that no two can be merged.
            at = DATA + (count - 1 - page) * PAGE_SIZE
            space.map(at, PAGE_SIZE, PROT_READ, guest.fd, offset + page * PAGE_SIZE)
        for page in (0, 1, 255, 256, 500, 998, 999):
            assert self.read(guest, space, DATA + (count - 1 - page) * PAGE_SIZE) == page

    def test_neighbours_are_what_they_were_mapped_as(self, guest: Guest) -> None:
        """Adjacent changes may be merged by a platform, but only where that makes no difference."""
        space = guest.platform.new_address_space()
        offset = guest.pages(count=4)
        for page in range(4):
            guest.set_word(offset + page * PAGE_SIZE, page + 1)
        for at, page, prot in ((0, 0, PROT_READ), (1, 1, READ_WRITE), (2, 3, READ_WRITE)):
            space.map(DATA + at * PAGE_SIZE, PAGE_SIZE, prot, guest.fd, offset + page * PAGE_SIZE)
        assert [self.read(guest, space, DATA + at * PAGE_SIZE) for at in range(3)] == [1, 2, 4]
        assert self.fault(guest, space, WRITER, DATA).fault_access == ACCESS_WRITE

    def test_sync_lets_go_of_the_descriptor(self, guest: Guest) -> None:
        fd = os.memfd_create("own", os.MFD_CLOEXEC)
        os.write(fd, word(12))
        space = guest.platform.new_address_space()
        space.map(DATA, PAGE_SIZE, PROT_READ, fd, 0)
        space.sync()
        os.close(fd)
        assert self.read(guest, space, DATA) == 12

    def test_sync_takes_from_a_running_context(self, guest: Guest) -> None:
        space = guest.space(asm.forever(asm.increment(asm.RDI)))
        offset = guest.map_data(space)
        context = guest.context(rdi=DATA)
        context.resume(space)
        while guest.word(offset) == 0:
            assert guest.platform.wait(1_000_000) is None
        space.unmap(DATA, PAGE_SIZE)
        space.sync()
        before = guest.word(offset)
        assert guest.next_stop() is context
        assert (context.stop, context.fault_addr) == (STOP_FAULT, DATA)
        assert guest.word(offset) == before, "nothing was written after sync returned"

    def test_sync_gives_to_a_running_context(self, guest: Guest) -> None:
        space = guest.space(asm.poll(1))
        guest.map_data(space)
        progress = guest.map_data(space, DATA + PAGE_SIZE)
        context = guest.context(rdi=DATA, rsi=DATA + PAGE_SIZE)
        context.resume(space)
        while guest.word(progress) == 0:
            assert guest.platform.wait(1_000_000) is None
        guest.map_data(space, content=word(1))
        space.sync()
        assert guest.next_stop() is context
        assert_syscall(context)

    def test_many_walk_while_pages_come_and_go(self, guest: Guest) -> None:
        """Contexts fault on pages that are mapped for them and taken from them again, with a sync
        after each change; every page is visited exactly as often as it was walked over."""
        count, pages, rounds = 4, 24, 6
        chooser = random.Random(1)
        space = guest.space(asm.walk())
        files = [guest.pages(count=pages) for _ in range(count)]
        starts = [DATA + n * 0x1000000 for n in range(count)]
        left = dict.fromkeys(range(count), rounds)
        for start in starts:
            context = guest.context(rdi=start, rsi=start + pages * PAGE_SIZE)
            context.owner = starts.index(start)
            context.resume(space)
        while any(left.values()):
            context = guest.next_stop()
            number = context.owner
            assert isinstance(number, int)
            if context.stop == STOP_FAULT:
                page = (context.fault_addr - starts[number]) // PAGE_SIZE
                at = starts[number] + page * PAGE_SIZE
                space.map(at, PAGE_SIZE, READ_WRITE, guest.fd, files[number] + page * PAGE_SIZE)
                other = chooser.randrange(count)
                space.unmap(starts[other] + chooser.randrange(pages) * PAGE_SIZE, PAGE_SIZE)
                space.sync()
            elif context.stop == STOP_SYSCALL:
                left[number] -= 1
                if not left[number]:
                    continue
                guest.set(context, rip=CODE, rdi=starts[number])
            context.resume(space)
        for file in files:
            assert [guest.word(file + page * PAGE_SIZE) for page in range(pages)] == [
                rounds
            ] * pages

    def test_changes_beside_a_running_context(self, guest: Guest) -> None:
        """The queue is carried out for the context that is resumed, the other one goes on."""
        space = guest.space(asm.poll(1))
        flag = guest.map_data(space)
        progress = guest.map_data(space, DATA + PAGE_SIZE)
        runner = guest.context(rdi=DATA, rsi=DATA + PAGE_SIZE)
        runner.resume(space)
        guest.map_code(space, READER, CODE + PAGE_SIZE)
        other = guest.context(CODE + PAGE_SIZE)
        for page in range(2, 40):
            guest.map_data(space, DATA + page * PAGE_SIZE)
            other.regs[RIP] = CODE + PAGE_SIZE
            other.regs[RDI] = DATA + page * PAGE_SIZE
            other.regs[RAX] = 1
            other.resume(space)
            assert guest.next_stop() is other
            assert_syscall(other)
        guest.set_word(flag, 1)
        assert guest.next_stop() is runner
        assert_syscall(runner)
        assert guest.word(progress) > 0
