"""The memory file's offsets: an address space has those behind addresses that it uses."""

from __future__ import annotations

import pytest
from mm_fakes import Program, new_kernel, new_mm
from pysandbox_core.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE
from pysandbox_core.mm.extents import EXTENT_SIZE
from pysandbox_core.mm.memory_file import MemoryFile
from pysandbox_platform import PAGE_SIZE, PROT_READ, PROT_WRITE

BASE = 0x40000000
COUNT = 8


@pytest.fixture
def mm(monkeypatch):
    """In a memory file that has few extents."""
    monkeypatch.setattr(MemoryFile, "SIZE", COUNT * EXTENT_SIZE)
    kernel = new_kernel()
    made = new_mm(kernel)
    yield made
    made.release()
    kernel.memory_file.close()


def use(mm, addr: int) -> None:
    """Maps a page there and writes to it."""
    kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    mm.mmap(None, addr, PAGE_SIZE, PROT_READ | PROT_WRITE, kind)
    Program(mm).write(addr, b"x")


def test_one_address_after_the_other(mm):
    for number in range(4 * COUNT):
        use(mm, BASE + number * EXTENT_SIZE)
        mm.munmap(BASE + number * EXTENT_SIZE, PAGE_SIZE)
    assert not mm.extents


def test_many_at_once(mm):
    for _ in range(4):
        for number in range(COUNT):
            use(mm, BASE + number * EXTENT_SIZE)
        mm.munmap(BASE, 1 << 46)
    assert not mm.extents


def test_an_extent_stays_while_one_of_its_addresses_is_mapped(mm):
    use(mm, BASE)
    use(mm, BASE + EXTENT_SIZE - PAGE_SIZE)
    before = dict(mm.extents)
    mm.munmap(BASE, PAGE_SIZE)
    assert mm.extents == before
    assert Program(mm).read(BASE + EXTENT_SIZE - PAGE_SIZE, 1) == b"x"


def test_a_child_keeps_what_its_parent_lets_go_of(mm):
    use(mm, BASE)
    child = mm.fork(mm.kernel.platform.new_address_space())
    mm.munmap(BASE, PAGE_SIZE)
    for number in range(1, 4 * COUNT):
        use(mm, BASE + number * EXTENT_SIZE)
        mm.munmap(BASE + number * EXTENT_SIZE, PAGE_SIZE)
    assert Program(child).read(BASE, 1) == b"x"
    child.release()
