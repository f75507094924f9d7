"""Processor time comes from the host's account of the stub threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pysandbox_platform.conformance import Guest
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import DATA
from pysandbox_ptrace.platform import PtracePlatform


@pytest.fixture
def guest() -> Iterator[Guest]:
    platform = PtracePlatform()
    guest = Guest(platform)
    yield guest
    platform.close()
    guest.close()


def test_a_spinning_context_uses_time(guest: Guest) -> None:
    space = guest.space(asm.forever(asm.increment(asm.RDI)))
    offset = guest.map_data(space)
    context = guest.context(rdi=DATA)
    context.resume(space)
    while guest.word(offset) < 1_000_000:
        guest.platform.wait(1_000_000)
    assert context.cpu_time_ns() > 100_000
    context.interrupt()
    guest.next_stop()


def test_a_thread_that_served_another_context_starts_anew(guest: Guest) -> None:
    space = guest.space(asm.poll(1))
    flag = guest.map_data(space)
    progress = guest.map_data(space, DATA + 0x1000)
    first = guest.context(rdi=DATA, rsi=DATA + 0x1000)
    first.resume(space)
    while guest.word(progress) < 1_000_000:
        guest.platform.wait(1_000_000)
    guest.set_word(flag, 1)
    assert guest.next_stop() is first
    used_ns = first.cpu_time_ns()
    first.release()
    second = guest.run_to_syscall(guest.context(rdi=DATA, rsi=DATA + 0x1000), space)
    assert 0 < second.cpu_time_ns() < used_ns
