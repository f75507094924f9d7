"""Declarations and the decoders generated from them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysandbox_core import declare
from pysandbox_core.declare import KINDS, Declaration, build_entry, decode_arguments
from pysandbox_core.errors import KernelBug, LinuxError
from pysandbox_platform.registers_amd64 import NREGS

WORDS = st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6)
TYPES = st.lists(st.sampled_from(sorted(KINDS)), min_size=0, max_size=6)


def expected(kind: str, word: int) -> int:
    bits = int(KINDS[kind][1:])
    value = word % (1 << bits)
    return value - (1 << bits) if KINDS[kind][0] == "s" and value >> (bits - 1) else value


class NoFiles:
    """A table of descriptors, none of them open."""

    def __init__(self, users: int) -> None:
        self.users = users

    def find(self, fd: int) -> None:
        return None


@given(WORDS, TYPES)
def test_decoder_agrees_with_c_conversions(words: list[int], types: list[str]) -> None:
    regs = memoryview(bytearray(8 * NREGS)).cast("Q")
    for register, word in zip(declare.ARGUMENT_REGISTERS, words, strict=True):
        regs[register] = word
    want = tuple(expected(kind, word) for kind, word in zip(types, words, strict=False))
    seen: list[tuple[int, ...]] = []
    parameters = tuple((f"a{number}", kind) for number, kind in enumerate(types))
    declaration = Declaration("test", 0, parameters, lambda task, *args: seen.append(args) or 7)
    entry = build_entry(declaration)
    for users in (1, 2):
        assert entry(SimpleNamespace(files=NoFiles(users)), regs) == 7
    assert seen == [want] * 2
    assert decode_arguments(declaration, regs) == want


def test_refused_call_raises_its_errno() -> None:
    entry = build_entry(Declaration("test", 0, (), None, 38))
    with pytest.raises(LinuxError) as error:
        entry(None, memoryview(b""))
    assert error.value.errno == 38


def test_unknown_argument_type_is_a_bug() -> None:
    def handler(task, what):  # type: ignore[no-untyped-def]
        return 0

    handler.__annotations__ = {"task": "Task", "what": "Whatever", "return": "Result"}
    with pytest.raises(KernelBug, match="what has unknown type 'Whatever'"):
        declare.syscall("getpid")(handler)
