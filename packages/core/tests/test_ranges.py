"""RangeMap against a dict of points."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysandbox_core import ranges as ranges_module
from pysandbox_core.ranges import RangeMap

POINTS = 40

ranges = (
    st.tuples(st.integers(0, POINTS), st.integers(0, POINTS))
    .map(sorted)
    .filter(lambda pair: pair[0] < pair[1])
)
operations = st.lists(st.tuples(ranges, st.sampled_from(["a", "b", "c", None])), max_size=30)


def build(steps):
    actual, model = RangeMap(), {}
    for (start, end), value in steps:
        for point in range(start, end):
            model.pop(point, None)
            if value is not None:
                model[point] = value
        if value is None:
            actual.clear(start, end)
        else:
            actual.set(start, end, value)
    return actual, model


@given(operations)
def test_holds_what_was_set(steps):
    actual, model = build(steps)
    assert {p: v for s, e, v in actual for p in range(s, e)} == model
    for point in range(POINTS + 1):
        assert actual.get(point) == model.get(point)
        assert (point in actual) == (point in model)


@given(operations)
def test_ranges_are_sorted_and_merged(steps):
    actual, _ = build(steps)
    triples = list(actual)
    for start, end, _ in triples:
        assert start < end
    for (_, end, value), (start, _, next_value) in itertools.pairwise(triples):
        assert end < start or (end == start and value != next_value)


@given(operations, ranges)
def test_queries_of_a_range(steps, window):
    actual, model = build(steps)
    start, end = window
    inside = {p: v for p, v in model.items() if start <= p < end}
    assert {p: v for s, e, v in actual.within(start, end) for p in range(s, e)} == inside
    assert {p for s, e in actual.gaps(start, end) for p in range(s, e)} == (
        set(range(start, end)) - set(inside)
    )
    assert actual.overlaps(start, end) == bool(inside)
    assert actual.covers(start, end) == (len(inside) == end - start)
    for point in range(start, end):
        if point not in model:
            low, high = actual.gap_around(point, start, end)
            assert set(range(low, high)) & set(model) == set()
            assert low == start or low - 1 in model
            assert high == end or high in model
    taken = actual.take(start, end)
    assert {p for s, e, _ in taken for p in range(s, e)} == set(inside)
    assert not actual.overlaps(start, end)


@given(operations, st.sets(st.integers(0, POINTS)), st.integers(0, 12))
def test_many_are_cleared_at_once(steps, points, few):
    """As one by one; whole ranges, parts of them, and neighbours."""
    actual, model = build(steps)
    gone = [
        (max(start, low), min(end, high), value)
        for start, end, value in actual
        for low, high in runs(points)
        if max(start, low) < min(end, high)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges_module, "_FEW", few)
        actual.clear_each(gone)
    kept = {point: value for point, value in model.items() if point not in points}
    assert {p: v for s, e, v in actual for p in range(s, e)} == kept
    for (_, end, value), (start, _, next_value) in itertools.pairwise(list(actual)):
        assert end < start or (end == start and value != next_value)


def runs(points):
    """The half-open ranges of neighbouring points."""
    found = []
    for point in sorted(points):
        if found and found[-1][1] == point:
            found[-1] = (found[-1][0], point + 1)
        else:
            found.append((point, point + 1))
    return found


def test_nothing_is_in_an_empty_range():
    """Not even where one lies within something: mlock(2) of no bytes met that."""
    some = RangeMap()
    some.set(10, 20, "a")
    assert some.within(15, 15) == []
    assert some.take(15, 15) == []
    assert list(some) == [(10, 20, "a")]
