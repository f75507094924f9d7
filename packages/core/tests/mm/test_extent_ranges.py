"""ExtentRanges: the same as one RangeMap, in pieces that stay small."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from pysandbox_core.mm.extents import EXTENT_SIZE, ExtentRanges
from pysandbox_core.mm.memory_file import MemoryFile
from pysandbox_core.ranges import RangeMap
from pysandbox_platform import PAGE_SIZE

UNIT = EXTENT_SIZE // 4
RANGES = st.tuples(st.integers(0, 20), st.integers(1, 9)).map(
    lambda drawn: (drawn[0] * UNIT, (drawn[0] + drawn[1]) * UNIT)
)


def joined(ranges: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """With neighbours that have the same value as one."""
    model: RangeMap[int] = RangeMap()
    for start, end, value in ranges:
        model.set(start, end, value)
    return list(model)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(RANGES, st.integers(0, 2)), max_size=20), RANGES)
def test_it_is_one_map(steps: list[tuple[tuple[int, int], int]], asked: tuple[int, int]) -> None:
    model: RangeMap[int] = RangeMap()
    ranges: ExtentRanges[int] = ExtentRanges()
    for (start, end), value in steps:
        for each in (model, ranges):
            if value:
                each.set(start, end, value)
            else:
                each.clear(start, end)
    start, end = asked
    assert joined(ranges.within(start, end)) == model.within(start, end)
    assert ranges.overlaps(start, end) == model.overlaps(start, end)
    assert ranges.get(start) == model.get(start)
    if start in model:
        assert ranges.end_of(start, end) == min(end, model.ends[model.find(start)])
    assert ranges.order == sorted(ranges.maps)
    assert all(map(len, ranges.maps.values()))


def test_no_list_becomes_long_however_memory_is_scattered() -> None:
    """A list of a million takes half a millisecond for each frame that is let go of."""
    memory_file = MemoryFile()
    count = 8 * EXTENT_SIZE // PAGE_SIZE
    pages = [memory_file.allocate(1) for _ in range(count)]
    for offset in pages[::2]:
        memory_file.decref(offset, PAGE_SIZE)
    for kept in (memory_file._refs, memory_file._pool):
        assert sum(map(len, kept.maps.values())) >= count // 2
        assert max(map(len, kept.maps.values())) <= EXTENT_SIZE // PAGE_SIZE
    again = {memory_file.allocate(1) for _ in range(count // 2)}
    assert again == set(pages[::2])
    for offset in pages:
        memory_file.decref(offset, PAGE_SIZE)
    assert memory_file.granted == 0
    memory_file.close()
