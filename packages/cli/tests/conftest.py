"""What the command's tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
from command_line import children_of_this_test


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No test leaves a process behind, of the sandbox's or of its platform's."""
    before = children_of_this_test()
    yield
    left = children_of_this_test() - before
    for pid, _ in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # so that one failure is one
    assert not left, f"still there: {left}"
