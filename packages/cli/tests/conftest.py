"""What the command's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from command_line import children_of_this_test


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No test leaves a process behind, of the sandbox's or of its platform's."""
    before = children_of_this_test()
    yield
    left = children_of_this_test() - before
    assert not left, f"still there: {left}"
