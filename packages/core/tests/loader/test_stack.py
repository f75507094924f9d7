"""The initial stack, read back as a program's start-up code reads it."""

from __future__ import annotations

from errno import E2BIG
from struct import unpack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mm_fakes import new_kernel, new_mm
from pysandbox_core.abi.elf import AT_EXECFN, AT_NULL, AT_PAGESZ, AT_PLATFORM, AT_RANDOM
from pysandbox_core.errors import LinuxError
from pysandbox_core.loader.stack import build_stack, check_strings

TOP = 0x7FFFFFFFF000
RW = 3
texts = st.lists(st.binary(max_size=300).filter(lambda text: b"\0" not in text), max_size=8)


def read_pointers(mm, addr):
    found = []
    while pointer := mm.read_u64(addr):
        found.append(mm.read_cstring(pointer, 1 << 17))
        addr += 8
    return found, addr + 8


@settings(deadline=None, max_examples=50)
@given(texts, texts, st.booleans())
def test_program_finds_its_arguments(argv, envp, randomize):
    kernel = new_kernel()
    mm = new_mm(kernel)
    auxv = [(AT_PAGESZ, 4096), (AT_RANDOM, 0), (AT_EXECFN, 0), (AT_PLATFORM, 0)]
    sp = build_stack(mm, TOP, RW, b"/bin/x", argv, envp, auxv, randomize=randomize)
    assert sp % 16 == 0
    assert mm.read_u64(sp) == len(argv)
    found, addr = read_pointers(mm, sp + 8)
    assert found == argv
    found, addr = read_pointers(mm, addr)
    assert found == envp
    assert mm.read(addr, len(mm.auxv)) == mm.auxv
    vector = dict(unpack("<QQ", mm.auxv[at : at + 16]) for at in range(0, len(mm.auxv), 16))
    assert list(vector) == [AT_PAGESZ, AT_RANDOM, AT_EXECFN, AT_PLATFORM, AT_NULL]
    assert mm.read_cstring(vector[AT_EXECFN], 100) == b"/bin/x"
    assert mm.read_cstring(vector[AT_PLATFORM], 100) == b"x86_64"
    assert mm.read(vector[AT_RANDOM], 16) != bytes(16)
    assert mm.read(mm.arg_start, mm.arg_end - mm.arg_start) == b"".join(t + b"\0" for t in argv)
    assert mm.read(mm.env_start, mm.env_end - mm.env_start) == b"".join(t + b"\0" for t in envp)
    assert mm.read(TOP - 8, 8) == bytes(8)
    mm.release()
    kernel.memory_file.close()


def test_arguments_have_a_limit():
    check_strings([b"x" * 1000] * 100, [], 8 << 20)
    with pytest.raises(LinuxError) as caught:
        check_strings([b"x" * 1000] * 2200, [], 8 << 20)
    assert caught.value.errno == E2BIG
    with pytest.raises(LinuxError):
        check_strings([b""] * 15000, [], 0)  # the pointers count
