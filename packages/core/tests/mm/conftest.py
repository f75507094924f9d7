"""A kernel that has memory alone, and an address space of it."""

from __future__ import annotations

import pytest
from mm_fakes import new_kernel, new_mm


@pytest.fixture
def kernel():
    made = new_kernel()
    yield made
    made.memory_file.close()


@pytest.fixture
def mm(kernel):
    made = new_mm(kernel)
    yield made
    if made.users:
        made.release()
    assert kernel.memory_file.granted == 0
