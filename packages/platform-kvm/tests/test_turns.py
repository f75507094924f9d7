"""More contexts than vCPUs take turns, whatever the host's scheduler makes of the threads."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from pysandbox_platform.conformance import Guest
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE, DATA, PATIENCE_NS, assert_syscall
from pysandbox_platform.types import PAGE_SIZE

COUNT = 40


@pytest.fixture
def one_processor() -> Iterator[None]:
    """All threads share it, so that few of them have begun when a call returns."""
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    yield
    os.sched_setaffinity(0, processors)


@pytest.fixture
def guest(one_processor: None, guest: Guest) -> Guest:
    """Made where there is one processor."""
    return guest


def test_turns_when_all_begin_at_once(guest: Guest) -> None:
    """The first time there are no vCPU threads yet, the second time all of them sleep: the helper
    thread looks before any of them has taken a context."""
    space = guest.space(asm.poll(1))
    flag = guest.map_data(space)
    progress = guest.map_data(space, DATA + PAGE_SIZE)
    contexts = [guest.context() for _ in range(COUNT)]
    for _ in range(3):
        guest.set_word(flag, 0)
        for number, context in enumerate(contexts):
            guest.set_word(progress + 8 * number, 0)
            guest.set(context, rip=CODE, rdi=DATA, rsi=DATA + PAGE_SIZE + 8 * number)
            context.resume(space)
        assert guest.platform.wait(1_000_000) is None
        rounds = PATIENCE_NS // 20_000_000
        while not all(guest.word(progress + 8 * number) for number in range(COUNT)):
            assert guest.platform.wait(20_000_000) is None
            rounds -= 1
            assert rounds, "some contexts never run"
        guest.set_word(flag, 1)
        for _ in contexts:
            assert_syscall(guest.next_stop())
