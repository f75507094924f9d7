"""ExtentRanges: a RangeMap of offsets in the memory file, in pieces of one extent each.

Interface: as RangeMap's, but a range that reaches over the end of an extent is one for each. A
program may scatter what it lets go of so that there are millions of ranges in the file; a list of
so many takes half a millisecond for each that is put in or taken out, one extent's does not.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final, Generic, TypeVar

from pysandbox_core.ranges import RangeMap

EXTENT_SHIFT: Final = 24
EXTENT_SIZE: Final = 1 << EXTENT_SHIFT

T = TypeVar("T")


class ExtentRanges(Generic[T]):
    """Ranges by the extent that they are in."""

    __slots__ = ("maps", "order")

    def __init__(self) -> None:
        self.maps: dict[int, RangeMap[T]] = {}
        """Offset of an extent -> its ranges; none is empty."""
        self.order: list[int] = []
        """The extents, lowest first."""

    def get(self, point: int) -> T | None:
        """The value at `point`."""
        ranges = self.maps.get(point & -EXTENT_SIZE)
        return None if ranges is None else ranges.get(point)

    def end_of(self, point: int, end: int) -> int:
        """Up to where, at most `end`, the value is that at `point`, which is in some range."""
        first = self.maps[point & -EXTENT_SIZE]
        index = first.find(point)
        value, point = first.values[index], first.ends[index]
        while point < end:
            ranges = self.maps.get(point & -EXTENT_SIZE)
            index = -1 if ranges is None else ranges.find(point)
            if ranges is None or index < 0 or ranges.values[index] != value:
                return point
            point = ranges.ends[index]
        return end

    def overlaps(self, start: int, end: int) -> bool:
        """Is anything in [start, end)?"""
        for extent in range(start & -EXTENT_SIZE, end, EXTENT_SIZE):
            ranges = self.maps.get(extent)
            if ranges is not None and ranges.overlaps(start, end):
                return True
        return False

    def within(self, start: int, end: int) -> list[tuple[int, int, T]]:
        """The ranges in [start, end), clipped to it."""
        first = start & -EXTENT_SIZE
        if end - first <= EXTENT_SIZE:
            ranges = self.maps.get(first)
            return [] if ranges is None else ranges.within(start, end)
        found: list[tuple[int, int, T]] = []
        for extent in range(first, end, EXTENT_SIZE):
            ranges = self.maps.get(extent)
            if ranges is not None:
                found += ranges.within(start, end)
        return found

    def set(self, start: int, end: int, value: T) -> None:
        """Give [start, end) the value `value`, whatever was there."""
        first = start & -EXTENT_SIZE
        if end - first <= EXTENT_SIZE and (ranges := self.maps.get(first)) is not None:
            ranges.set(start, end, value)
            return
        for extent in range(first, end, EXTENT_SIZE):
            ranges = self.maps.get(extent)
            if ranges is None:
                ranges = self.maps[extent] = RangeMap()
                insort(self.order, extent)
            ranges.set(max(start, extent), min(end, extent + EXTENT_SIZE), value)

    def clear(self, start: int, end: int) -> None:
        """Leave nothing in [start, end)."""
        for extent in range(start & -EXTENT_SIZE, end, EXTENT_SIZE):
            ranges = self.maps.get(extent)
            if ranges is not None:
                ranges.clear(start, end)
                if not len(ranges):
                    del self.maps[extent]
                    del self.order[bisect_left(self.order, extent)]
