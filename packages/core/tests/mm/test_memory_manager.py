"""The memory manager against a model of pages, seen through the fake platform's page tables."""

from __future__ import annotations

import os
from errno import E2BIG, EEXIST, EFAULT, EINVAL, ENAMETOOLONG, ENOMEM, EPERM
from struct import Struct
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from mm_fakes import (
    SIGSEGV,
    HostFile,
    MemoryFileDescription,
    Program,
    Segfault,
    errno_of,
    new_kernel,
    new_mm,
)
from pysandbox_core.abi.mman import (
    MADV_DONTNEED,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_PRIVATE,
    MAP_SHARED,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    SEGV_ACCERR,
    SEGV_MAPERR,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.mm import remap
from pysandbox_core.mm.advice import advise
from pysandbox_core.mm.mappable import MemoryMappable
from pysandbox_platform import PAGE_SIZE, PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE

RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS
BASE = 0x40000000


def test_anonymous_memory_is_zero_and_keeps_what_is_written(mm):
    program = Program(mm)
    addr = mm.mmap(None, 0, 3 * PAGE_SIZE, RW, ANON)
    assert program.read(addr, 3 * PAGE_SIZE) == bytes(3 * PAGE_SIZE)
    program.write(addr + PAGE_SIZE - 2, b"abcd")
    assert mm.read(addr + PAGE_SIZE - 2, 4) == b"abcd"
    mm.write(addr + 2 * PAGE_SIZE - 1, b"xy")
    assert program.read(addr + 2 * PAGE_SIZE - 1, 2) == b"xy"
    assert program.faults == 0  # small mappings are there from the start


def test_large_memory_comes_in_large_pieces(mm):
    program = Program(mm)
    addr = mm.mmap(None, 0, 64 << 20, RW, ANON)
    for at in range(addr, addr + (64 << 20), PAGE_SIZE * 16):
        program.write(at, b"x")
    assert program.faults <= 20
    assert len(mm.pages) <= 6


def test_reservations_cost_nothing(mm):
    before = mm.memory_file.granted
    addr = mm.mmap(None, 0, 8 << 40, PROT_NONE, ANON)
    assert mm.memory_file.granted == before
    assert mm.address_space.calls == []
    assert len(mm.vmas) == 1
    with pytest.raises(Segfault) as caught:
        Program(mm).read(addr, 1)
    assert caught.value.args == (SIGSEGV, SEGV_ACCERR)


def test_neighbours_merge_in_vmas_and_pages(mm):
    first = mm.mmap(None, 0, 4 * PAGE_SIZE, RW, ANON)
    second = mm.mmap(None, 0, 4 * PAGE_SIZE, RW, ANON)
    assert second == first - 4 * PAGE_SIZE
    assert len(mm.vmas) == len(mm.pages) == 1
    mm.mprotect(second, second + PAGE_SIZE, PROT_READ)
    assert len(mm.vmas) == 2
    mm.mprotect(second, second + PAGE_SIZE, RW)
    assert len(mm.vmas) == len(mm.pages) == 1


def test_signal_codes(mm):
    program = Program(mm)
    addr = mm.mmap(None, 0, PAGE_SIZE, PROT_READ, ANON)
    for access, where, expected in (
        (program.read, addr - PAGE_SIZE, SEGV_MAPERR),
        (lambda at, _: program.write(at, b"x"), addr, SEGV_ACCERR),
    ):
        with pytest.raises(Segfault) as caught:
            access(where, 1)
        assert caught.value.args == (SIGSEGV, expected)


def test_write_only_memory_can_be_read(mm):
    addr = mm.mmap(None, 0, PAGE_SIZE, PROT_WRITE, ANON)
    Program(mm).write(addr, b"w")
    assert Program(mm).read(addr, 1) == mm.read(addr, 1) == b"w"


def test_fixed_mappings(mm):
    mm.mmap(None, BASE, 4 * PAGE_SIZE, RW, ANON | MAP_FIXED)
    program = Program(mm)
    program.write(BASE, b"a" * 4 * PAGE_SIZE)
    mm.mmap(None, BASE + PAGE_SIZE, PAGE_SIZE, RW, ANON | MAP_FIXED)
    assert program.read(BASE + PAGE_SIZE - 1, 2) == b"a\0"
    assert program.read(BASE + 2 * PAGE_SIZE - 1, 2) == b"\0a"
    noreplace = ANON | MAP_FIXED_NOREPLACE
    assert errno_of(mm.mmap, None, BASE, PAGE_SIZE, RW, noreplace) == EEXIST
    assert errno_of(mm.mmap, None, 0x1000, PAGE_SIZE, RW, ANON | MAP_FIXED) == EPERM
    assert errno_of(mm.mmap, None, BASE + 1, PAGE_SIZE, RW, ANON | MAP_FIXED) == EINVAL
    assert errno_of(mm.mmap, None, 1 << 47, PAGE_SIZE, RW, ANON | MAP_FIXED) == ENOMEM
    assert errno_of(mm.mmap, None, 0, 1 << 48, RW, ANON) == ENOMEM
    assert errno_of(mm.mmap, None, 0, PAGE_SIZE, RW, MAP_ANONYMOUS) == EINVAL


def test_user_access_honours_protection(mm):
    addr = mm.mmap(None, 0, 2 * PAGE_SIZE, RW, ANON)
    mm.write(addr, b"abc\0def")
    mm.mprotect(addr, addr + PAGE_SIZE, PROT_READ)
    assert mm.read(addr, 3) == b"abc"
    assert errno_of(mm.write, addr, b"x") == EFAULT
    mm.mprotect(addr, addr + PAGE_SIZE, PROT_NONE)
    assert errno_of(mm.read, addr, 1) == EFAULT
    assert errno_of(mm.read, (1 << 64) - 1, 8) == EFAULT
    assert errno_of(mm.read_u64, addr + PAGE_SIZE - 4) == EFAULT


def test_strings(mm):
    addr = mm.mmap(None, 0, 3 * PAGE_SIZE, RW, ANON)
    end = addr + 2 * PAGE_SIZE
    mm.munmap(end, PAGE_SIZE)
    mm.write(end - 4, b"abc\0")
    assert mm.read_cstring(end - 4, 4) == b"abc"
    assert errno_of(mm.read_cstring, end - 4, 3) == ENAMETOOLONG
    mm.write(end - 1, b"d")
    assert errno_of(mm.read_cstring, end - 4, 100) == EFAULT
    long = b"p" * 4095
    mm.write(addr, long + b"\0")
    assert mm.read_path(addr) == long
    mm.write(addr, long + b"pp")
    assert errno_of(mm.read_path, addr) == ENAMETOOLONG
    mm.pack(addr, Struct("<QQ"), addr + 16, 0)
    mm.write(addr + 16, b"one\0")
    assert mm.read_string_array(addr, 100) == ([b"one"], 88)
    assert mm.unpack(addr, Struct("<QQ")) == (addr + 16, 0)


def test_a_long_array_of_strings_is_read_with_pauses(mm):
    addr = mm.mmap(None, 0, 4 * PAGE_SIZE, RW, ANON)
    count = 3 * PAGE_SIZE // 8 - 1
    mm.write(addr + 4, addr.to_bytes(8, "little") * count)  # from no address of a word's
    pauses = []
    found, left = mm.read_string_array(addr + 4, 9 * count, lambda: pauses.append(1))
    assert (len(found), left) == (count, 0)
    assert len(pauses) > 3
    assert errno_of(mm.read_string_array, addr + 4, 9 * count - 1) == E2BIG


def test_the_end_of_an_array_of_strings_may_be_the_end_of_memory(mm):
    addr = mm.mmap(None, 0, 2 * PAGE_SIZE, RW, ANON)
    mm.munmap(addr + PAGE_SIZE, PAGE_SIZE)
    mm.pack(addr + PAGE_SIZE - 16, Struct("<QQ"), addr, 0)
    assert mm.read_string_array(addr + PAGE_SIZE - 16, 100) == ([b""], 91)
    assert errno_of(mm.read_string_array, addr + PAGE_SIZE - 12, 100) == EFAULT


def test_pages_that_are_mapped_in_disorder_are_counted_together(mm, monkeypatch):
    """Asked for each, the host would go through the data behind it every time."""
    count = 32
    pages = MemoryMappable(mm.memory_file, count * PAGE_SIZE)
    file = MemoryFileDescription(pages)
    in_order = mm.mmap(None, 0, count * PAGE_SIZE, RW, MAP_SHARED, file)
    mm.write(in_order, b"x" * count * PAGE_SIZE)
    start = mm.mmap(None, 0, count * PAGE_SIZE, PROT_NONE, ANON)
    for page in range(count):
        at, offset = start + page * PAGE_SIZE, (count - 1 - page) * PAGE_SIZE
        mm.mmap(None, at, PAGE_SIZE, RW, MAP_SHARED | MAP_FIXED, file, offset)
        mm.read(at, 1)
    asked = []
    data_ranges = mm.memory_file.data_ranges

    def count_calls(offset: int, length: int) -> list[tuple[int, int]]:
        asked.append(length)
        return data_ranges(offset, length)

    monkeypatch.setattr(mm.memory_file, "data_ranges", count_calls)
    assert mm.resident(start, start + count * PAGE_SIZE) == count * PAGE_SIZE
    assert asked == [count * PAGE_SIZE]
    mm.release()
    pages.decref()


def test_page_tables_are_counted_where_a_program_makes_the_host_keep_many(kernel, mm):
    """One page of memory, mapped far apart: each mapping has a page table to itself."""
    pages = MemoryMappable(kernel.memory_file, PAGE_SIZE)
    file = MemoryFileDescription(pages)
    before = mm.host_bytes()
    count, apart = 100, 2 << 20
    for number in range(count):
        at = mm.mmap(None, BASE + number * apart, PAGE_SIZE, RW, MAP_SHARED | MAP_FIXED, file, 0)
        Program(mm).read(at, 1)
    assert 1 <= (mm.host_bytes() - before) / (count * PAGE_SIZE) < 1.2
    mm.munmap(BASE, count * apart)
    assert mm.host_bytes() == before
    mm.mmap(None, BASE, count * PAGE_SIZE, RW, ANON | MAP_FIXED)
    for at in range(BASE, BASE + count * PAGE_SIZE, 2 * PAGE_SIZE):
        mm.mmap(None, at, PAGE_SIZE, RW, MAP_SHARED | MAP_FIXED, file, 0)
        Program(mm).read(at, 1)
    assert len(mm.pages) == count
    assert mm.host_bytes() - before < count * PAGE_SIZE // 5
    mm.release()
    pages.decref()


def test_page_tables_of_what_is_mapped_again_and_again_are_counted(
    kernel, mm, tmp_path, monkeypatch
):
    """A file has its pages once, but tables in each mapping; what is announced is as much."""
    announced: list[int] = []
    monkeypatch.setattr(kernel.memory, "announce", announced.append)
    size, count = 64 << 20, 20
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", size)
    file = HostFile(tmp_path / "file")
    before = mm.host_bytes()
    for at in range(BASE, BASE + count * size, size):
        mm.mmap(None, at, size, PROT_READ, MAP_SHARED | MAP_FIXED, file, 0)
        Program(mm).read(at, 1)
    tables = count * size >> 21
    assert 1 <= (mm.host_bytes() - before) / (tables * PAGE_SIZE) < 1.1
    assert 1 <= sum(announced) / (tables * PAGE_SIZE) < 1.1
    mm.release()
    file.decref()


def test_a_file_of_holes_is_mapped_where_it_is_reached(mm, tmp_path):
    """A tebibyte would have two gibibytes of page tables."""
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 1 << 40)
    file = HostFile(tmp_path / "file")
    before = mm.host_bytes()
    at = mm.mmap(None, 0, 1 << 40, PROT_READ, MAP_SHARED, file, 0)
    for offset in (0, 1 << 39, (1 << 40) - 1):
        assert Program(mm).read(at + offset, 1) == b"\0"
    assert 0 < mm.host_bytes() - before < 1 << 20
    mm.release()
    file.decref()


def test_letting_go_of_a_file_looks_at_no_other(kernel, mm):
    """A program may have 65530 of them mapped, and take all away with one call."""

    class NeverSearched(dict):
        def __iter__(self):
            raise AssertionError("it is searched")

    pages = MemoryMappable(kernel.memory_file, PAGE_SIZE)
    other = MemoryMappable(kernel.memory_file, PAGE_SIZE)
    mm.backing_bytes = NeverSearched()
    addresses = []
    for mappable in (pages, pages, other):  # the first of them opened twice
        mappable.incref()
        file = MemoryFileDescription(mappable)
        addresses.append(mm.mmap(None, 0, PAGE_SIZE, RW, MAP_SHARED, file, 0))
        file.decref()
    mm.munmap(addresses[0], PAGE_SIZE)
    assert mm in pages.mappings
    Program(mm).write(addresses[1], b"x")
    pages.resize(0)
    with pytest.raises(Segfault):
        Program(mm).read(addresses[1], 1)
    mm.munmap(addresses[1], PAGE_SIZE)
    assert mm not in pages.mappings
    mm.munmap(addresses[2], PAGE_SIZE)
    mm.backing_bytes = {}
    for mappable in (pages, other):
        mappable.decref()


def test_sinks_and_sources_end_at_a_bad_address(mm):
    addr = mm.mmap(None, 0, 2 * PAGE_SIZE, RW, ANON)
    mm.munmap(addr + PAGE_SIZE, PAGE_SIZE)
    sink = mm.sink(addr + PAGE_SIZE - 3, 10)
    assert sink.write(b"12345") == 3
    assert mm.source(addr + PAGE_SIZE - 3, 10).read() == b"123"
    assert errno_of(mm.sink(addr + PAGE_SIZE, 10).write, b"x") == EFAULT
    assert errno_of(mm.source(addr + PAGE_SIZE, 10).read) == EFAULT
    assert mm.sink(addr + PAGE_SIZE, 0).write(b"") == 0
    assert errno_of(mm.sink, 1 << 47, 1) == EFAULT
    source = mm.source(addr + PAGE_SIZE - 3, 3)
    assert source.read(2) == b"12"
    source.undo(1)
    assert (source.remaining, source.peek(1), source.read()) == (2, b"2", b"23")


def test_vectors(mm):
    addr = mm.mmap(None, 0, PAGE_SIZE, RW, ANON)
    layout = Struct("<6Q")
    mm.pack(addr, layout, addr + 100, 3, 0, 0, addr + 200, 4)
    sink = mm.sink_iov(addr, 3)
    assert sink.remaining == 7
    assert sink.write(b"abcdefgh") == 7
    assert mm.read(addr + 100, 3) + mm.read(addr + 200, 4) == b"abcdefg"
    source = mm.source_iov(addr, 3)
    assert (source.read(5), source.read()) == (b"abcde", b"fg")
    assert errno_of(mm.sink_iov, addr, 1025) == EINVAL
    assert errno_of(mm.sink_iov, addr, -1) == EINVAL
    mm.pack(addr, layout, addr, 1 << 63, 0, 0, 0, 0)
    assert errno_of(mm.source_iov, addr, 1) == EINVAL
    assert mm.sink_iov(0, 0).remaining == 0


def test_fork_copies_on_write_and_the_last_owner_copies_nothing(kernel, mm):
    addr = mm.mmap(None, 0, 8 * PAGE_SIZE, RW, ANON)
    shared = mm.mmap(None, 0, PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS)
    parent = Program(mm)
    parent.write(addr, b"p" * 8 * PAGE_SIZE)
    parent.write(shared, b"before")
    child_mm = mm.fork(kernel.platform.new_address_space())
    child = Program(child_mm)
    assert child.read(addr, 8 * PAGE_SIZE) == b"p" * 8 * PAGE_SIZE
    child.write(addr + PAGE_SIZE, b"child")
    mm.write(addr + 2 * PAGE_SIZE, b"parent")
    assert parent.read(addr + PAGE_SIZE, 5) == b"ppppp"
    assert child_mm.read(addr + 2 * PAGE_SIZE, 6) == b"pppppp"
    child.write(shared, b"after!")
    assert parent.read(shared, 6) == b"after!"
    assert mm.frame_of(shared) == child_mm.frame_of(shared)
    assert mm.frame_of(addr) != child_mm.frame_of(addr)
    child_mm.release()
    granted = kernel.memory_file.granted
    parent.write(addr, b"q" * 8 * PAGE_SIZE)
    assert kernel.memory_file.granted == granted


def test_fork_copies_the_hot_part_of_the_stack(kernel, mm):
    stack = mm.mmap(None, BASE, 32 * PAGE_SIZE, RW, ANON | MAP_FIXED | MAP_GROWSDOWN)
    parent = Program(mm)
    parent.write(stack, b"s" * 32 * PAGE_SIZE)
    faults = parent.faults
    pointer = stack + 20 * PAGE_SIZE + 100
    child_mm = mm.fork(kernel.platform.new_address_space(), hot_addresses=[pointer])
    child = Program(child_mm)
    child.write(pointer - 8, b"child")
    parent.write(pointer - 8, b"parnt")
    assert (child.faults, parent.faults) == (0, faults)
    assert child.read(pointer - 8, 5) == b"child"
    assert parent.read(pointer - 8, 5) == b"parnt"
    assert child.read(stack, 18 * PAGE_SIZE) == b"s" * 18 * PAGE_SIZE
    child_mm.release()


def test_fork_learns_what_is_written_after_it(kernel, mm):
    addr = mm.mmap(None, 0, 64 * PAGE_SIZE, RW, ANON)
    parent = Program(mm)
    for expected in (2, 0):
        parent.write(addr, b"p" * 64 * PAGE_SIZE)
        faults = parent.faults
        child_mm = mm.fork(kernel.platform.new_address_space())
        child = Program(child_mm)
        for program in (parent, child):
            program.write(addr + 30 * PAGE_SIZE, b"new")
        assert parent.faults - faults + child.faults == expected
        child_mm.release()


def test_stack_grows_to_its_limit():
    kernel = new_kernel()
    unlimited = (1 << 64) - 1
    limits = SimpleNamespace(stack=1 << 20, as_=unlimited, data=unlimited)
    mm = new_mm(kernel, limits)
    top = BASE + (1 << 24)
    mm.mmap(None, top - PAGE_SIZE, PAGE_SIZE, RW, ANON | MAP_FIXED | MAP_GROWSDOWN)
    program = Program(mm)
    program.write(top - 5 * PAGE_SIZE, b"deep")
    mm.write(top - (1 << 20), b"deepest")
    with pytest.raises(Segfault) as caught:
        program.write(top - (1 << 20) - 1, b"x")
    assert caught.value.args == (SIGSEGV, SEGV_MAPERR)
    assert errno_of(mm.read, top - (1 << 20) - 1, 1) == EFAULT
    mm.release()
    kernel.memory_file.close()


def test_brk(mm):
    mm.start_brk = mm.brk = BASE
    program = Program(mm)
    assert mm.set_brk(0) == BASE
    for size in (100, PAGE_SIZE, 10 * PAGE_SIZE, 300000):
        assert mm.set_brk(BASE + size) == BASE + size
        program.write(BASE + size - 1, b"x")
    assert len(mm.vmas) == len(mm.pages) == 1
    assert program.faults == 0
    assert mm.set_brk(BASE + 1) == BASE + 1
    assert mm.set_brk(BASE + 300000) == BASE + 300000
    assert program.read(BASE + 299999, 1) == b"\0"
    mm.mmap(None, BASE + (1 << 20), PAGE_SIZE, RW, ANON | MAP_FIXED)
    assert mm.set_brk(BASE + (1 << 20)) == BASE + 300000


def test_untouched_memory_does_not_count_against_the_limit():
    kernel = new_kernel(256 * PAGE_SIZE)
    mm = new_mm(kernel)
    program = Program(mm)
    for _ in range(40):
        addr = mm.mmap(None, 0, 40 * PAGE_SIZE, RW, ANON)
        program.write(addr + 20 * PAGE_SIZE, b"x")
    child_mm = mm.fork(kernel.platform.new_address_space())
    assert Program(child_mm).read(addr + 20 * PAGE_SIZE, 1) == b"x"
    Program(child_mm).write(addr + 21 * PAGE_SIZE, b"y")
    assert kernel.memory_file.granted <= 256 * PAGE_SIZE
    child_mm.release()
    mm.release()
    assert kernel.memory_file.granted == 0
    kernel.memory_file.close()


def test_a_platform_takes_so_many_mappings(kernel):
    """mprotect(2) ENOMEM: too many distinct attributes. As many as the platform says, not more."""
    kernel.platform.max_mappings = 1000
    mm = new_mm(kernel)
    addr = mm.mmap(None, 0, 1000 * PAGE_SIZE, RW, ANON)
    Program(mm).write(addr, b"x" * 1000 * PAGE_SIZE)
    cuts = 0
    with pytest.raises(LinuxError) as caught:
        for cuts in range(500):
            page = addr + cuts * 2 * PAGE_SIZE
            mm.mprotect(page, page + PAGE_SIZE, PROT_READ)
    assert caught.value.errno == ENOMEM
    assert 100 < cuts < 500
    mm.munmap(addr, 1000 * PAGE_SIZE)
    mm.mmap(None, 0, PAGE_SIZE, RW, ANON)
    mm.release()


def test_the_limit_kills_with_a_note():
    kernel = new_kernel(64 * PAGE_SIZE)
    mm = new_mm(kernel)
    program = Program(mm)
    assert errno_of(mm.mmap, None, 0, 65 * PAGE_SIZE, RW, ANON) == ENOMEM
    first = mm.mmap(None, 0, 40 * PAGE_SIZE, RW, ANON)
    second = mm.mmap(None, 0, 40 * PAGE_SIZE, RW, ANON)
    program.write(first, b"x" * 40 * PAGE_SIZE)
    program.write(second, b"x" * 24 * PAGE_SIZE)
    with pytest.raises(Segfault) as caught:
        program.write(second + 24 * PAGE_SIZE, b"x")
    assert caught.value.args[0] == 9
    assert "out of memory" in kernel.messages[0]
    assert program.read(first, 1) == b"x"
    mm.release()
    kernel.memory_file.close()


PAGES = 24
places = st.integers(0, PAGES - 1)
lengths = st.integers(1, 8)
prots = st.sampled_from([PROT_NONE, PROT_READ, RW, RW, PROT_READ | PROT_EXEC])


class Page:
    """A page of the model: a private one's content is its own, a shared one's that of page `index`
    of `memory`."""

    def __init__(self, prot: int, memory: list[list[int]] | None = None, index: int = 0) -> None:
        self.prot = prot
        self.shared = memory is not None
        self.memory = memory
        self.index = index
        self.cell: list[int] | None = [0]
        if memory is not None:
            self.cell = memory[index] if index < len(memory) else None  # None: SIGBUS

    def forked(self) -> Page:
        copy = Page(self.prot, self.memory, self.index)
        if not self.shared:
            assert self.cell is not None
            copy.cell = self.cell[:]
        return copy

    def following(self, pages: int) -> Page:
        """What is mapped `pages` after this one when its mapping grows."""
        return Page(self.prot, self.memory, self.index + pages)


def test_a_process_with_many_mapped_files_can_exit(mm, tmp_path):
    """Nothing is carried out in an address space that has been released."""
    for number in range(40):
        path = tmp_path / str(number)
        path.write_bytes(b"x" * PAGE_SIZE)
        file = HostFile(str(path))
        mm.mmap(None, 0, PAGE_SIZE, PROT_READ, MAP_PRIVATE, file)
        file.decref()
    mm.release()
    assert mm.address_space.released


def test_memory_touched_while_it_is_taken_back_is_kept(kernel, mm):
    """Another space's call takes untouched pages back while a context of this one runs."""
    addr = mm.mmap(None, 0, 64 * PAGE_SIZE, RW, ANON)
    program = Program(mm)
    take_away = mm.address_space.unmap

    def touch_first(start: int, length: int) -> None:
        if start <= addr < start + length:
            program.write(addr + PAGE_SIZE, b"just in time")
        take_away(start, length)

    mm.address_space.unmap = touch_first
    kernel.memory_file.reclaim()
    mm.address_space.unmap = take_away
    assert program.read(addr + PAGE_SIZE, 12) == b"just in time"
    assert kernel.memory_file.granted < 64 * PAGE_SIZE


class Memory(RuleBasedStateMachine):
    """Several address spaces that fork from each other, each with a model: address -> Page."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = new_kernel()
        self.spaces = [(new_mm(self.kernel), {})]

    @staticmethod
    def _range(place, length):
        return BASE + place * PAGE_SIZE, min(length, PAGES - place) * PAGE_SIZE

    def _pick(self, which):
        return self.spaces[which % len(self.spaces)]

    @rule(which=places, place=places, length=lengths, prot=prots, shared=st.booleans())
    def map(self, which, place, length, prot, shared):
        mm, model = self._pick(which)
        addr, size = self._range(place, length)
        kind = MAP_SHARED if shared else MAP_PRIVATE
        mm.mmap(None, addr, size, prot, kind | MAP_ANONYMOUS | MAP_FIXED)
        memory = [[0] for _ in range(size // PAGE_SIZE)] if shared else None
        for index in range(size // PAGE_SIZE):
            model[addr + index * PAGE_SIZE] = Page(prot, memory, index)

    @rule(which=places, place=places, length=lengths)
    def unmap(self, which, place, length):
        mm, model = self._pick(which)
        addr, size = self._range(place, length)
        mm.munmap(addr, size)
        for page in range(addr, addr + size, PAGE_SIZE):
            model.pop(page, None)

    @rule(which=places, place=places, length=lengths, prot=prots)
    def protect(self, which, place, length, prot):
        mm, model = self._pick(which)
        addr, size = self._range(place, length)
        try:
            mm.mprotect(addr, addr + size, prot)
            failed = False
        except LinuxError:
            failed = True
        for page in range(addr, addr + size, PAGE_SIZE):
            if page not in model:
                assert failed
                return
            model[page].prot = prot
        assert not failed

    @rule(which=places, place=places, length=lengths, destination=places, new_length=lengths)
    def move(self, which, place, length, destination, new_length):
        mm, model = self._pick(which)
        addr, size = self._range(place, length)
        new_addr, new_size = self._range(destination, new_length)
        how = MREMAP_MAYMOVE | MREMAP_FIXED
        before = {
            page: model[page] for page in range(addr, addr + size, PAGE_SIZE) if page in model
        }
        try:
            assert remap.mremap(mm, addr, size, new_size, how, new_addr) == new_addr
        except LinuxError as error:
            if error.errno in (EINVAL, EFAULT) and addr not in model:
                return
            if addr < new_addr + new_size and new_addr < addr + size:
                assert error.errno == EINVAL
                return
            # several mappings in the range: what was to be replaced is gone all the same
            assert error.errno == EFAULT
            for page in range(new_addr, new_addr + new_size, PAGE_SIZE):
                model.pop(page, None)
            for page in range(addr + new_size, addr + size, PAGE_SIZE):
                model.pop(page, None)
            return
        first = before[addr]
        for page in range(addr, addr + size, PAGE_SIZE):
            model.pop(page, None)
        for page in range(new_addr, new_addr + new_size, PAGE_SIZE):
            moved = before.get(page - new_addr + addr)
            if moved is None:
                moved = first.following((page - new_addr) // PAGE_SIZE)
            model[page] = moved

    @rule(which=places, place=places, length=lengths)
    def dont_need(self, which, place, length):
        mm, model = self._pick(which)
        addr, size = self._range(place, length)
        try:
            advise(None, mm, addr, addr + size, MADV_DONTNEED)
        except LinuxError as error:
            assert error.errno == ENOMEM
        for page in range(addr, addr + size, PAGE_SIZE):
            if page in model and not model[page].shared:
                model[page].cell = [0]

    @rule(which=places, place=places, value=st.integers(1, 255), side=st.sampled_from("kpi"))
    def write(self, which, place, value, side):
        mm, model = self._pick(which)
        page = BASE + place * PAGE_SIZE
        allowed = page in model and model[page].prot & PROT_WRITE and model[page].cell is not None
        try:
            if side == "k":
                mm.write(page + 5, bytes([value]))
            else:
                Program(mm, precise=side == "p").write(page + 5, bytes([value]))
            assert allowed
            model[page].cell[0] = value
        except (LinuxError, Segfault):
            assert not allowed

    @rule(which=places, place=places, kernel_side=st.booleans())
    def read(self, which, place, kernel_side):
        mm, model = self._pick(which)
        page = BASE + place * PAGE_SIZE
        allowed = page in model and model[page].prot and model[page].cell is not None
        try:
            data = mm.read(page + 5, 1) if kernel_side else Program(mm).read(page + 5, 1)
            assert allowed
            assert data[0] == model[page].cell[0]
        except (LinuxError, Segfault):
            assert not allowed

    @precondition(lambda self: len(self.spaces) < 5)
    @rule(which=places, place=places)
    def fork(self, which, place):
        mm, model = self._pick(which)
        pointer = BASE + place * PAGE_SIZE
        child = mm.fork(self.kernel.platform.new_address_space(), hot_addresses=[pointer])
        self.spaces.append((child, {page: entry.forked() for page, entry in model.items()}))

    @precondition(lambda self: len(self.spaces) > 1)
    @rule(which=places)
    def exit(self, which):
        mm, _ = self.spaces.pop(which % len(self.spaces))
        mm.release()

    @rule()
    def reclaim(self):
        self.kernel.memory_file.reclaim()

    @invariant()
    def consistent(self):
        for mm, model in self.spaces:
            mapped = {p for s, e, _ in mm.vmas for p in range(s, e, PAGE_SIZE)}
            assert mapped == set(model)
            assert mm.total_bytes == len(model) * PAGE_SIZE
            writable = sum(1 for p in model.values() if p.prot & PROT_WRITE and not p.shared)
            assert mm.data_bytes == writable * PAGE_SIZE
            for page, (_, offset, prot) in mm.address_space.table.items():
                assert prot & ~(model[page].prot | PROT_READ) == 0
                if prot & PROT_WRITE and not model[page].shared:
                    assert not self.kernel.memory_file.is_shared(offset)

    def teardown(self):
        for mm, _ in self.spaces:
            mm.release()
        assert self.kernel.memory_file.granted == 0
        self.kernel.memory_file.close()


Memory.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestMemory = Memory.TestCase
