"""Mapped files: pages that are shared or copied, and taken away again."""

from __future__ import annotations

import os
from contextlib import closing
from errno import EACCES, EFAULT

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mm_fakes import (
    SIGBUS,
    HostFile,
    MemoryFileDescription,
    Program,
    Segfault,
    errno_of,
    new_kernel,
    new_mm,
)
from pysandbox_core.abi.mman import (
    BUS_ADRERR,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
)
from pysandbox_core.errors import Interrupted
from pysandbox_core.mm import mappable as mappable_module
from pysandbox_core.mm.mappable import MemoryMappable
from pysandbox_platform import PAGE_SIZE, PROT_READ, PROT_WRITE

RW = PROT_READ | PROT_WRITE
BASE = 0x40000000


def test_private_file_pages_are_copied_when_written(kernel, mm, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"f" * 300000)
    file = HostFile(str(path))
    program = Program(mm)
    addr = mm.mmap(None, 0, 74 * PAGE_SIZE, RW, MAP_PRIVATE, file)
    assert program.read(addr, 10) == b"f" * 10
    program.write(addr + 100000, b"new")
    assert program.read(addr + 99999, 5) == b"fnewf"
    assert mm.read(addr + 99999, 5) == b"fnewf"
    assert path.read_bytes() == b"f" * 300000
    path.write_bytes(b"g" * 300000)
    assert program.read(addr, 3) == mm.read(addr, 3) == b"ggg"
    mm.munmap(addr, 300000)
    file.decref()


def test_replacing_the_last_mapping_of_a_file_keeps_it_open(mm, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    file = HostFile(str(path))
    addr = mm.mmap(None, 0, PAGE_SIZE, PROT_READ, MAP_PRIVATE, file)
    file.decref()
    file = next(iter(mm.backings))
    mm.mmap(None, addr, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_FIXED, file)
    assert mm.read(addr, 3) == b"abc"
    assert file.refs == 1


def test_small_data_is_copied_at_once(mm, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"d" * 5000)
    file = HostFile(str(path))
    program = Program(mm)
    addr = mm.mmap(None, 0, 2 * PAGE_SIZE, RW, MAP_PRIVATE, file)
    program.write(addr, b"x")
    assert program.read(addr + 5000, 3) == bytes(3)
    assert program.faults == 0
    file.decref()


def test_shared_file_pages_are_the_file(mm, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"s" * 5000)
    file = HostFile(str(path), os.O_RDWR)
    program = Program(mm)
    addr = mm.mmap(None, 0, 3 * PAGE_SIZE, RW, MAP_SHARED, file)
    program.write(addr, b"one")
    mm.write(addr + 3, b"two")
    mm.write(addr + 4998, b"longer than the file")
    assert path.read_bytes() == b"onetwo" + b"s" * 4992 + b"lo"
    assert mm.read(addr + 4998, 4) == b"lo\0\0"
    for access in (
        lambda: program.read(addr + 2 * PAGE_SIZE, 1),
        lambda: program.write(addr + 9000, b"x"),
    ):
        with pytest.raises(Segfault) as caught:
            access()
        assert caught.value.args == (SIGBUS, BUS_ADRERR)
    assert errno_of(mm.read, addr + 2 * PAGE_SIZE, 1) == EFAULT
    os.truncate(path, 0)
    with pytest.raises(Segfault):
        program.read(addr, 1)
    assert errno_of(mm.read, addr, 1) == EFAULT
    file.decref()


def test_read_only_file_may_not_be_made_writable(mm, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    file = HostFile(str(path))
    assert errno_of(mm.mmap, None, 0, PAGE_SIZE, RW, MAP_SHARED, file) == EACCES
    addr = mm.mmap(None, 0, PAGE_SIZE, PROT_READ, MAP_SHARED, file)
    assert errno_of(mm.mprotect, addr, addr + PAGE_SIZE, RW) == EACCES
    file.decref()


@pytest.mark.parametrize("killed", [False, True])
def test_what_many_map_is_taken_away_in_turns(kernel, monkeypatch, killed):
    """Before a truncation, which does it at once: of what it finds then there is little left."""
    turns = []

    class TurnOfTheTest:
        def __init__(self, task):
            assert task == "task"

        def goes_on(self, *, killable_only):
            turns.append([mm.resident(0, mm.task_size) for mm in spaces])
            return not killed

    monkeypatch.setattr(mappable_module, "Turn", TurnOfTheTest)
    monkeypatch.setattr(mappable_module, "_MANY_PIECES", 6)
    pages = MemoryMappable(kernel.memory_file, 2 * PAGE_SIZE)
    file = MemoryFileDescription(pages)
    spaces = [new_mm(kernel) for _ in range(3)]
    shared = private = 0
    for mm in spaces:
        shared = mm.mmap(None, BASE, 2 * PAGE_SIZE, RW, MAP_SHARED | MAP_FIXED, file, 0)
        private = mm.mmap(None, BASE << 1, PAGE_SIZE, RW, MAP_PRIVATE | MAP_FIXED, file, 0)
        Program(mm).write(shared, b"s" * 2 * PAGE_SIZE)
        Program(mm).write(private, b"mine")
    before = [mm.resident(0, mm.task_size) for mm in spaces]
    if killed:
        with pytest.raises(Interrupted):
            pages.unmap_in_turns("task", PAGE_SIZE, 2 * PAGE_SIZE)
        assert len(turns) == 1
    else:
        pages.unmap_in_turns("task", PAGE_SIZE, 2 * PAGE_SIZE)
        assert [[b - now for b, now in zip(before, turn, strict=True)] for turn in turns] == [
            [PAGE_SIZE, 0, 0],
            [PAGE_SIZE, PAGE_SIZE, 0],
            [PAGE_SIZE, PAGE_SIZE, PAGE_SIZE],
        ]
    for mm in spaces:  # nobody sees a difference
        assert Program(mm).read(shared, 2 * PAGE_SIZE) == b"s" * 2 * PAGE_SIZE
        assert Program(mm).read(private, 4) == b"mine"
    monkeypatch.setattr(mappable_module, "_MANY_PIECES", 1000)
    turns.clear()
    pages.unmap_in_turns("task", 0, 2 * PAGE_SIZE)
    assert turns == []
    assert [mm.resident(0, mm.task_size) for mm in spaces] == before
    for mm in spaces:
        mm.release()
    pages.decref()


@given(
    at=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9), st.booleans()), max_size=30),
    written=st.sets(st.integers(0, 30)),
    window=st.tuples(st.integers(0, 10), st.integers(0, 10)),
    copies=st.booleans(),
)
def test_a_file_s_pages_are_taken_wherever_they_are(at, written, window, copies):
    """However a file is mapped, page by page: against a list of who has which page."""
    kernel = new_kernel()
    mm = new_mm(kernel)
    with closing(kernel.memory_file):
        pages = MemoryMappable(kernel.memory_file, 10 * PAGE_SIZE)
        file = MemoryFileDescription(pages)
        expected = {}
        for place, page, shared in at:
            addr = BASE + place * PAGE_SIZE
            flags = MAP_FIXED | (MAP_SHARED if shared else MAP_PRIVATE)
            mm.mmap(None, addr, PAGE_SIZE, RW, flags, file, page * PAGE_SIZE)
            expected[place] = (page, shared)
        program = Program(mm)
        for place in expected:
            if place in written:
                program.write(BASE + place * PAGE_SIZE, b"x")
            else:
                program.read(BASE + place * PAGE_SIZE, 1)
        present = {place for place in expected if BASE + place * PAGE_SIZE in mm.pages}
        start, end = sorted(window)
        pages.invalidate(start * PAGE_SIZE, end * PAGE_SIZE, copies=copies)
        gone = {
            place
            for place, (page, shared) in expected.items()
            if start <= page < end and (copies or shared or place not in written)
        }
        assert {p for p in expected if BASE + p * PAGE_SIZE in mm.pages} == present - gone
        told = {p for p in expected if BASE + p * PAGE_SIZE in mm.address_space.table}
        assert told == present - gone
        mm.release()
        pages.decref()


def test_truncation_of_memory_files_reaches_every_mapping(kernel, mm):
    pages = MemoryMappable(kernel.memory_file, 3 * PAGE_SIZE)
    file = MemoryFileDescription(pages)
    program = Program(mm)
    shared = mm.mmap(None, 0, 3 * PAGE_SIZE, RW, MAP_SHARED, file)
    private = mm.mmap(None, 0, 3 * PAGE_SIZE, RW, MAP_PRIVATE, file)
    program.write(shared, b"s" * 3 * PAGE_SIZE)
    assert program.read(private, 3) == b"sss"
    program.write(private + PAGE_SIZE, b"mine")
    assert program.read(shared + PAGE_SIZE, 4) == b"ssss"
    assert mm.frame_of(shared) != mm.frame_of(private)
    pages.resize(PAGE_SIZE + 2)
    assert program.read(shared + PAGE_SIZE, 4) == b"ss\0\0"
    for addr in (shared, private):
        with pytest.raises(Segfault) as caught:
            program.read(addr + 2 * PAGE_SIZE, 1)
        assert caught.value.args == (SIGBUS, BUS_ADRERR)
    pages.resize(3 * PAGE_SIZE)
    assert program.read(shared + 2 * PAGE_SIZE, 3) == bytes(3)
    pages.punch(0, PAGE_SIZE)
    assert program.read(shared, 3) == bytes(3)
    mm.release()
    pages.decref()
