"""RangeMap: half-open integer ranges [start, end) that do not overlap, each with a value.

Interface: neighbours that touch and have equal values are one range, always, so equality of values
is what decides about merging. A value must therefore not depend on where its range starts: what
does (an offset into a file) is kept as a difference to the address, which a split leaves as it is.

VMAs, the pages behind them, the reference counts of frames and the pages of a tmpfs file are all
RangeMaps. Linux has a maple tree where this has sorted lists: with a few thousand ranges, bisect
and a short memmove in C are faster than any tree written in Python.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

_FEW = 8
"""Ranges that are better cleared one by one."""
_NONE = (1 << 65, 1 << 65, None)
"""Behind all addresses."""


class RangeMap(Generic[T]):
    """Ranges in three parallel lists, lowest first. Callers may read the lists, never change
    them."""

    __slots__ = ("ends", "starts", "values")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.values: list[T] = []

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int, T]]:
        return zip(tuple(self.starts), tuple(self.ends), tuple(self.values), strict=True)

    def copy(self) -> RangeMap[T]:
        other: RangeMap[T] = RangeMap()
        other.starts = self.starts[:]
        other.ends = self.ends[:]
        other.values = self.values[:]
        return other

    def find(self, point: int) -> int:
        """Index of the range that holds `point`, -1 if none does."""
        index = bisect_right(self.starts, point) - 1
        return index if index >= 0 and point < self.ends[index] else -1

    def get(self, point: int) -> T | None:
        """The value at `point`."""
        index = bisect_right(self.starts, point) - 1
        return self.values[index] if index >= 0 and point < self.ends[index] else None

    def __contains__(self, point: int) -> bool:
        return self.find(point) >= 0

    def first_after(self, point: int) -> int:
        """Index of the first range that ends after `point`: the one that holds it, else the next;
        `len(self)` if there is none."""
        return bisect_right(self.ends, point)

    def overlaps(self, start: int, end: int) -> bool:
        """Is anything in [start, end)?"""
        index = bisect_right(self.ends, start)
        return index < len(self.starts) and self.starts[index] < end

    def covers(self, start: int, end: int) -> bool:
        """Is everything of [start, end) in some range?"""
        index = bisect_right(self.starts, start) - 1
        if index < 0:
            return start >= end
        starts, ends = self.starts, self.ends
        while start < end:
            if index == len(starts) or not starts[index] <= start < ends[index]:
                return False
            start = ends[index]
            index += 1
        return True

    def within(self, start: int, end: int) -> list[tuple[int, int, T]]:
        """The ranges in [start, end), clipped to it."""
        first = bisect_right(self.ends, start)
        last = bisect_left(self.starts, end)
        if first >= last or start >= end:
            return []
        found = list(
            zip(
                self.starts[first:last], self.ends[first:last], self.values[first:last], strict=True
            )
        )
        if found[0][0] < start:
            found[0] = (start, found[0][1], found[0][2])
        if found[-1][1] > end:
            found[-1] = (found[-1][0], end, found[-1][2])
        return found

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of [start, end) is in no range."""
        found = []
        for range_start, range_end, _ in self.within(start, end):
            if range_start > start:
                found.append((start, range_start))
            start = range_end
        if start < end:
            found.append((start, end))
        return found

    def gap_around(self, point: int, start: int, end: int) -> tuple[int, int]:
        """The gap that holds `point`, clipped to [start, end). `point` is in no range."""
        index = bisect_right(self.starts, point)
        if index > 0 and self.ends[index - 1] > start:
            start = self.ends[index - 1]
        if index < len(self.starts) and self.starts[index] < end:
            end = self.starts[index]
        return start, end

    def set(self, start: int, end: int, value: T) -> None:
        """Give [start, end) the value `value`, whatever was there."""
        starts, ends, values = self.starts, self.ends, self.values
        first = bisect_right(ends, start)
        last = bisect_left(starts, end)
        new_starts, new_ends, new_values = [start], [end], [value]
        if first < last:
            left, right = starts[first], ends[last - 1]
            if left < start:
                if values[first] == value:
                    new_starts[0] = left
                else:
                    new_starts.insert(0, left)
                    new_ends.insert(0, start)
                    new_values.insert(0, values[first])
            if right > end:
                if values[last - 1] == value:
                    new_ends[-1] = right
                else:
                    new_starts.append(end)
                    new_ends.append(right)
                    new_values.append(values[last - 1])
        if first > 0 and ends[first - 1] == new_starts[0] and values[first - 1] == new_values[0]:
            first -= 1
            new_starts[0] = starts[first]
        if last < len(starts) and starts[last] == new_ends[-1] and values[last] == new_values[-1]:
            new_ends[-1] = ends[last]
            last += 1
        starts[first:last] = new_starts
        ends[first:last] = new_ends
        values[first:last] = new_values

    def clear(self, start: int, end: int) -> None:
        """Leave nothing in [start, end)."""
        starts, ends, values = self.starts, self.ends, self.values
        first = bisect_right(ends, start)
        last = bisect_left(starts, end)
        if first >= last:
            return
        new_starts, new_ends, new_values = [], [], []
        if starts[first] < start:
            new_starts.append(starts[first])
            new_ends.append(start)
            new_values.append(values[first])
        if ends[last - 1] > end:
            new_starts.append(end)
            new_ends.append(ends[last - 1])
            new_values.append(values[last - 1])
        starts[first:last] = new_starts
        ends[first:last] = new_ends
        values[first:last] = new_values

    def clear_each(self, gone: Sequence[tuple[int, int, T]]) -> None:
        """Clear the ranges of `gone`, lowest first, each of them all or a part of one that is here.
        In one pass, where to `clear` them one by one would move what is behind each time."""
        if len(gone) <= _FEW:
            for start, end, _ in gone:
                self.clear(start, end)
            return
        first, last = self.find(gone[0][0]), self.find(gone[-1][0]) + 1
        starts: list[int] = []
        ends: list[int] = []
        values: list[T] = []
        cuts = iter(gone)
        cut_start, cut_end, _ = next(cuts)
        for index in range(first, last):
            start, end, value = self.starts[index], self.ends[index], self.values[index]
            while cut_start < end:
                if start < cut_start:
                    starts.append(start)
                    ends.append(cut_start)
                    values.append(value)
                start = cut_end
                cut_start, cut_end, _ = next(cuts, _NONE)
            if start < end:
                starts.append(start)
                ends.append(end)
                values.append(value)
        self.starts[first:last] = starts
        self.ends[first:last] = ends
        self.values[first:last] = values

    def take(self, start: int, end: int) -> list[tuple[int, int, T]]:
        """Clear [start, end) and return what was in it."""
        found = self.within(start, end)
        if found:
            self.clear(start, end)
        return found
