"""Frames: counts, limits, and what goes back to the host."""

from __future__ import annotations

import os
from errno import ENOMEM

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysandbox_core.errors import LinuxError
from pysandbox_core.mm.extents import EXTENT_SIZE
from pysandbox_core.mm.memory_file import MemoryFile
from pysandbox_platform import PAGE_SIZE


@pytest.fixture
def memory_file():
    made = MemoryFile()
    yield made
    made.close()


def test_fresh_frames_are_zero_also_when_used_before(memory_file):
    offset = memory_file.allocate(4)
    memory_file.view[offset : offset + 5] = b"dirty"
    memory_file.decref(offset, 4 * PAGE_SIZE)
    for _ in range(3):
        again = memory_file.allocate(4)
        assert memory_file.mapping[again : again + 5] == bytes(5)


def test_frames_with_two_owners_stay_until_both_let_go(memory_file):
    offset = memory_file.allocate(3)
    memory_file.view[offset] = 7
    memory_file.incref(offset, 2 * PAGE_SIZE)
    assert memory_file.is_shared(offset)
    assert not memory_file.is_shared(offset + 2 * PAGE_SIZE)
    assert memory_file.owners(offset, 3 * PAGE_SIZE) == (2, 2 * PAGE_SIZE)
    memory_file.decref(offset, 3 * PAGE_SIZE)
    memory_file.flush()
    assert memory_file.view[offset] == 7
    assert memory_file.granted == 2 * PAGE_SIZE
    memory_file.decref(offset, 2 * PAGE_SIZE)
    assert memory_file.granted == 0


def test_freed_memory_goes_back_to_the_host(memory_file):
    offset = memory_file.allocate(256)
    memory_file.view[offset : offset + 256 * PAGE_SIZE] = b"x" * (256 * PAGE_SIZE)
    assert memory_file.usage() >= 256 * PAGE_SIZE
    memory_file.decref(offset, 256 * PAGE_SIZE)
    assert memory_file.usage() < 64 * PAGE_SIZE


def test_an_extent_is_used_again_once_empty(memory_file):
    extent = memory_file.take_extent()
    assert memory_file.claim(extent + PAGE_SIZE, PAGE_SIZE)
    assert not memory_file.claim(extent, 2 * PAGE_SIZE)
    memory_file.release_extent(extent)
    assert memory_file.take_extent() != extent
    memory_file.decref(extent + PAGE_SIZE, PAGE_SIZE)
    assert memory_file.take_extent() == extent


def test_more_than_an_extent_is_contiguous(memory_file):
    offset = memory_file.allocate(EXTENT_SIZE // PAGE_SIZE + 1)
    assert memory_file.owners(offset, 2 * EXTENT_SIZE) == (1, EXTENT_SIZE + PAGE_SIZE)
    memory_file.decref(offset, EXTENT_SIZE + PAGE_SIZE)
    assert memory_file.granted == 0


def test_a_large_allocation_is_not_shared_out_when_freed_with_its_neighbour():
    """A file's pages from the end of a shared extent and from a large allocation behind it are one
    run. What was handed out twice would be two programs' memory."""
    memory_file = MemoryFile()
    quarter = EXTENT_SIZE // 4
    for _ in range(3):
        memory_file.allocate(quarter // PAGE_SIZE)
    small = memory_file.allocate(quarter // PAGE_SIZE)
    large = memory_file.allocate(3 * quarter // PAGE_SIZE)
    assert large == small + quarter
    memory_file.decref(small, 4 * quarter)
    assert memory_file.allocate(quarter // PAGE_SIZE) == small
    memory_file.decref(memory_file.allocate(quarter // PAGE_SIZE), quarter)
    taken = set()
    for _ in range(2):
        extent = memory_file.take_extent()
        assert memory_file.claim(extent, EXTENT_SIZE)
        taken |= {extent + at for at in range(0, EXTENT_SIZE, quarter)}
    for _ in range(4):
        assert memory_file.allocate(quarter // PAGE_SIZE) not in taken
    memory_file.close()


def test_limit():
    memory_file = MemoryFile(64 * PAGE_SIZE)
    first = memory_file.allocate(40)
    assert not memory_file.tight
    memory_file.allocate(20)
    assert memory_file.tight
    with pytest.raises(LinuxError) as caught:
        memory_file.allocate(5)
    assert caught.value.errno == ENOMEM
    memory_file.decref(first, 40 * PAGE_SIZE)
    memory_file.allocate(44)
    memory_file.close()


def test_copy_keeps_holes(memory_file):
    source, target = memory_file.allocate(64), memory_file.allocate(64)
    at = source + 20 * PAGE_SIZE
    memory_file.view[at : at + 3] = b"abc"
    before = memory_file.usage()
    memory_file.copy(source, target, 64 * PAGE_SIZE)
    assert memory_file.mapping[target + 20 * PAGE_SIZE : target + 20 * PAGE_SIZE + 3] == b"abc"
    assert memory_file.usage() - before <= 2 * PAGE_SIZE


@pytest.mark.parametrize("npages", [1, 2, 15, 16, 17, 40])
def test_where_data_ends(memory_file, npages):
    offset = memory_file.allocate(64) + PAGE_SIZE
    memory_file.view[offset : offset + npages * PAGE_SIZE] = b"x" * npages * PAGE_SIZE
    memory_file.view[offset + 60 * PAGE_SIZE] = 1
    whole = (offset, npages * PAGE_SIZE)
    assert memory_file.data_ranges(offset - PAGE_SIZE, 50 * PAGE_SIZE) == [whole]
    assert memory_file.data_ranges(offset, npages * PAGE_SIZE) == [whole]
    assert memory_file.data_ranges(offset, PAGE_SIZE) == [(offset, PAGE_SIZE)]


def test_the_host_is_not_sent_through_data_behind_a_page(memory_file, monkeypatch):
    offset = memory_file.allocate(64)
    memory_file.view[offset : offset + 64 * PAGE_SIZE] = b"x" * 64 * PAGE_SIZE
    lseek = os.lseek

    def data_only(fd: int, position: int, whence: int) -> int:
        assert whence == os.SEEK_DATA
        return lseek(fd, position, whence)

    monkeypatch.setattr(os, "lseek", data_only)
    assert memory_file.data_ranges(offset + PAGE_SIZE, 8 * PAGE_SIZE) == [
        (offset + PAGE_SIZE, 8 * PAGE_SIZE)
    ]


def test_memory_is_measured_once_for_an_allocation_that_fails():
    memory_file = MemoryFile(64 * PAGE_SIZE)
    measured = []
    memory_file.remeasure = lambda: measured.append(1)
    with pytest.raises(LinuxError):
        memory_file.allocate(65)
    assert len(measured) == 1
    memory_file.close()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9)), max_size=40))
def test_no_two_allocations_overlap(steps):
    memory_file = MemoryFile()
    live: list[tuple[int, int]] = []
    for npages, victim in steps:
        if victim < len(live):
            offset, length = live.pop(victim)
            memory_file.decref(offset, length)
        offset = memory_file.allocate(npages)
        assert all(offset + npages * PAGE_SIZE <= s or s + n <= offset for s, n in live)
        live.append((offset, npages * PAGE_SIZE))
    assert memory_file.granted == sum(length for _, length in live)
    memory_file.close()
