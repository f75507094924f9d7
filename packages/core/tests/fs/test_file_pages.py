"""The content of files in memory, against a bytearray that does the same."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.file_pages import FilePages, SpaceLimit
from pysandbox_core.mm.io_buffer import BytesSink, BytesSource
from pysandbox_core.mm.mappable import HostFileMappable
from vfs_harness import SmallMemoryFile

PAGE = 4096
SIZE = 6 * PAGE

offsets = st.integers(0, SIZE)
operation = st.one_of(
    st.tuples(st.just("write"), offsets, st.integers(1, 3 * PAGE)),
    st.tuples(st.just("resize"), offsets, st.just(0)),
    st.tuples(st.just("zero"), offsets, st.integers(1, 3 * PAGE)),
    st.tuples(st.just("allocate"), offsets, st.integers(1, 3 * PAGE)),
    st.tuples(st.just("map"), offsets, st.just(0)),
)


def read_all(pages: FilePages) -> bytes:
    sink = BytesSink(1 << 20)
    pages.read(sink, 0, sink.remaining)
    return sink.data


@settings(max_examples=150, deadline=None)
@given(st.lists(operation, max_size=12), st.booleans())
def test_like_a_bytearray(operations: list[tuple[str, int, int]], over_a_host_file: bool) -> None:
    memory = SmallMemoryFile()
    space = SpaceLimit()
    start = b"abcdefg" * 1500 if over_a_host_file else b""
    lower = None
    if over_a_host_file:
        fd = os.memfd_create("lower")
        os.write(fd, start)
        lower = HostFileMappable(fd)
    pages = FilePages(memory, space, lower, len(start))
    model = bytearray(start)
    for number, (kind, offset, length) in enumerate(operations):
        if kind == "write":
            data = bytes((number + 1,)) * length
            pages.put(data, offset)
            model.extend(bytes(max(0, offset - len(model))))
            model[offset : offset + length] = data
        elif kind == "resize":
            pages.resize(offset)
            del model[offset:]
            model.extend(bytes(offset - len(model)))
        elif kind == "zero":
            pages.zero_range(offset, offset + length)
            end = min(offset + length, len(model))
            model[offset:end] = bytes(max(0, end - offset))
        elif kind == "allocate":
            pages.allocate_range(offset, offset + length)
        elif offset < len(model):
            page = offset & -PAGE
            for fd, at, size, in_memory in pages.frames(page, PAGE, False):
                assert in_memory
                assert fd == memory.fd
                shown = memory.mapping[at : at + size]
                assert shown[: len(model) - page] == bytes(model[page : page + size])
        assert read_all(pages) == bytes(model)
        assert pages.size == len(model)
    pages.decref()
    assert space.pages == 0
    assert memory.granted == 0
    memory.close()


def test_holes_take_no_space(tmp_path: Path) -> None:
    memory = SmallMemoryFile()
    pages = FilePages(memory, SpaceLimit())
    pages.resize(1 << 40)
    pages.put(b"x", 1 << 39)
    assert pages.blocks == 8
    assert pages.seek(0, True) == 1 << 39
    assert pages.seek(1 << 39, False) == (1 << 39) + PAGE
    assert pages.seek((1 << 39) + PAGE, False) == (1 << 39) + PAGE


def test_limits_are_enospc() -> None:
    space = SpaceLimit(max_pages=2)
    pages = FilePages(SmallMemoryFile(), space)
    with pytest.raises(LinuxError) as info:
        pages.put(bytes(3 * PAGE), 0)
    assert info.value.errno == 28
    pages.put(bytes(2 * PAGE), 0)
    assert space.pages == 2
    source = BytesSource(bytes(PAGE))
    with pytest.raises(LinuxError):
        pages.write(source, 2 * PAGE, PAGE)
    assert pages.size == 2 * PAGE
    pages.resize(PAGE + 1)
    assert pages.write(BytesSource(bytes(4 * PAGE)), PAGE + 1, 4 * PAGE) == PAGE - 1


@pytest.mark.parametrize("call", ["resize", "zero_range"])
def test_what_there_is_no_room_for_changes_nothing(call: str) -> None:
    fd = os.memfd_create("lower")
    os.write(fd, b"abcd" * PAGE)
    memory = SmallMemoryFile()
    pages = FilePages(memory, SpaceLimit(max_pages=1), HostFileMappable(fd), 4 * PAGE)
    pages.put(b"mine", 2 * PAGE)
    before = read_all(pages)
    with pytest.raises(LinuxError, match="ENOSPC"):
        if call == "resize":
            pages.resize(100)
        else:
            pages.zero_range(0, 4 * PAGE)
    assert read_all(pages) == before
    pages.decref()
    assert memory.granted == 0


def test_collapse_and_insert() -> None:
    pages = FilePages(SmallMemoryFile(), SpaceLimit())
    pages.put(b"a" * PAGE + b"b" * PAGE + b"c" * PAGE, 0)
    pages.collapse(PAGE, 2 * PAGE)
    assert read_all(pages) == b"a" * PAGE + b"c" * PAGE
    pages.insert(PAGE, PAGE)
    assert read_all(pages) == b"a" * PAGE + bytes(PAGE) + b"c" * PAGE


def test_what_could_not_be_read_is_no_page_of_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SmallMemoryFile()
    space = SpaceLimit()
    fd = os.memfd_create("lower")
    os.write(fd, b"x" * 3 * PAGE)
    pages = FilePages(memory, space, HostFileMappable(fd), 3 * PAGE)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "a bad disk")

    with monkeypatch.context() as bad, pytest.raises(LinuxError) as error:
        bad.setattr(os, "preadv", fail)
        pages.put(b"new", PAGE + 1)
    assert error.value.errno == errno.EIO
    assert space.pages == 0
    pages.put(b"new", PAGE + 1)
    assert read_all(pages) == b"x" * (PAGE + 1) + b"new" + b"x" * (2 * PAGE - 4)
