"""ELF headers against pyelftools, segments against what the file says, and hostile files."""

from __future__ import annotations

import os
from errno import EIO, ENOEXEC

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st
from mm_fakes import BytesFile, HostFile, Program, new_kernel, new_mm
from pysandbox_core.abi.elf import EHDR, EM_X86_64, ET_DYN, ET_EXEC, PHDR, PT_INTERP, PT_LOAD
from pysandbox_core.errors import LinuxError
from pysandbox_core.loader import elf
from pysandbox_platform import PAGE_SIZE

BASE = 0x400000
HEADERS = EHDR.size + PHDR.size


def make_elf(
    phdrs, *, e_type=ET_EXEC, entry=BASE, size=0, machine=EM_X86_64, phentsize=56
) -> bytes:
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = EHDR.pack(
        ident, e_type, machine, 1, entry, EHDR.size, 0, 0, 64, phentsize, len(phdrs), 0, 0, 0
    )
    content = header + b"".join(PHDR.pack(*phdr) for phdr in phdrs)
    return content.ljust(size, b"\xcc")


def load_phdr(offset=0, vaddr=BASE, filesz=PAGE_SIZE, memsz=None, flags=5, align=PAGE_SIZE):
    return (PT_LOAD, flags, offset, vaddr, vaddr, filesz, filesz if memsz is None else memsz, align)


@pytest.fixture
def kernel():
    made = new_kernel()
    yield made
    assert made.memory_file.granted == 0
    made.memory_file.close()


def load(kernel, content, **options):
    """Read and map; (mm, placement). The caller releases mm."""
    file = BytesFile(kernel, content)
    try:
        program = elf.read_program(None, file, content[:1024])
        path = elf.interpreter_path(None, program)
        mm = new_mm(kernel)
        try:
            return mm, elf.map_program(
                None, mm, program, has_interpreter=path is not None, randomize=True
            )
        except BaseException:
            mm.release()
            raise
    finally:
        file.decref()


def errno_of(kernel, content) -> int:
    with pytest.raises(LinuxError) as caught:
        load(kernel, content)
    return caught.value.errno


@pytest.mark.parametrize("path", ["/bin/true", "/bin/sh", "/lib64/ld-linux-x86-64.so.2"])
def test_headers_are_those_that_pyelftools_reads(path):
    if not os.path.exists(path):
        pytest.skip(f"no {path} here")
    file = HostFile(path)
    head = elf.read_at(None, file, 0, 1024)
    program = elf.read_program(None, file, head)
    with open(path, "rb") as stream:
        expected = ELFFile(stream)
        assert program.e_entry == expected["e_entry"]
        assert program.e_phoff == expected["e_phoff"]
        segments = list(expected.iter_segments())
        assert len(program.phdrs) == len(segments)
        for phdr, segment in zip(program.phdrs, segments, strict=True):
            for field in ("p_flags", "p_offset", "p_vaddr", "p_filesz", "p_memsz", "p_align"):
                assert getattr(phdr, field) == segment[field], field
        interpreters = [s.get_interp_name() for s in segments if s["p_type"] == "PT_INTERP"]
    found = elf.interpreter_path(None, program)
    assert [found.decode()] == interpreters if found else not interpreters
    file.decref()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x7fELF",
        b"not an elf",
        make_elf([load_phdr()])[:100],
        make_elf([]),
        make_elf([load_phdr()], e_type=1),
        make_elf([load_phdr()], machine=183),
        make_elf([load_phdr()], machine=3),
        make_elf([load_phdr()], phentsize=32),
        make_elf([load_phdr()] * 1171),
        make_elf([(PT_INTERP, 4, 0, 0, 0, 1, 1, 1)]),
        make_elf([(PT_INTERP, 4, 0, 0, 0, 4097, 4097, 1)], size=5000),
        make_elf([(PT_INTERP, 4, 0, 0, 0, 3, 3, 1)]),
    ],
)
def test_what_is_no_program(kernel, content):
    assert errno_of(kernel, content) == ENOEXEC


def test_interpreter_beyond_the_end(kernel):
    assert errno_of(kernel, make_elf([(PT_INTERP, 4, 4000, 0, 0, 64, 64, 1)])) == EIO


def test_segments_and_bss(kernel):
    content = make_elf(
        [
            load_phdr(),
            load_phdr(0x1100, BASE + 0x3100, 0x200, 0x3000, flags=6),
            load_phdr(0, BASE + 0x9000, 0, 0x1800, flags=6),
        ],
        size=0x2000,
    )
    mm, placed = load(kernel, content)
    program = Program(mm)
    assert placed == (0, BASE, BASE + EHDR.size)
    assert program.read(BASE, 4) == b"\x7fELF"
    assert program.read(BASE + 0x3100, 0x200) == b"\xcc" * 0x200
    assert program.read(BASE + 0x3300, 0x2E00) == bytes(0x2E00)
    assert program.read(BASE + 0x9000, 0x1800) == bytes(0x1800)
    ranges = [(start - BASE, end - BASE, vma.prot) for start, end, vma in mm.vmas]
    assert ranges == [
        (0, 0x1000, 5),
        (0x3000, 0x4000, 3),
        (0x4000, 0x7000, 3),
        (0x9000, 0xB000, 3),
    ]
    assert mm.start_brk >= BASE + 0xB000
    mm.release()


def test_position_independent_code_is_aligned_and_moved(kernel):
    interpreter = (PT_INTERP, 4, 8, 0, 0, 2, 2, 1)
    phdrs = [load_phdr(0, 0, align=1 << 21), interpreter]
    content = make_elf(phdrs, e_type=ET_DYN, entry=0x40, size=4096)
    bases = set()
    for _ in range(8):
        mm, placed = load(kernel, content)
        assert placed.bias % (1 << 21) == 0
        assert placed.entry == placed.bias + 0x40
        assert Program(mm).read(placed.bias, 4) == b"\x7fELF"
        bases.add(placed.bias)
        mm.release()
    assert len(bases) > 1


def test_huge_sizes_cost_nothing(kernel):
    huge = load_phdr(0, BASE, 1 << 45, 1 << 45)
    before = kernel.memory_file.granted
    mm, _ = load(kernel, make_elf([huge], size=4096))
    assert kernel.memory_file.granted - before < 1 << 22
    mm.release()


EDGES = (
    0, 1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, BASE, BASE + PAGE_SIZE, 1 << 46,
    (1 << 47) - PAGE_SIZE, 1 << 47, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - PAGE_SIZE,
    (1 << 64) - 1,
)  # fmt: skip
interesting = st.one_of(
    st.sampled_from(EDGES), st.integers(0, 1 << 24), st.integers(0, (1 << 64) - 1)
)
any_phdr = st.tuples(
    st.sampled_from([PT_LOAD, PT_LOAD, PT_LOAD, PT_INTERP, 0x6474E551, 2, 6]),
    st.integers(0, 15),
    interesting,
    interesting,
    interesting,
    interesting,
    interesting,
    interesting,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(any_phdr, min_size=1, max_size=6),
    st.sampled_from([ET_EXEC, ET_DYN]),
    interesting,
    st.integers(0, 3 * PAGE_SIZE),
)
def test_hostile_headers(phdrs, e_type, entry, size):
    kernel = new_kernel(64 << 20)
    try:
        mm, _ = load(kernel, make_elf(phdrs, e_type=e_type, entry=entry, size=size))
        mm.release()
    except LinuxError:
        pass
    assert kernel.memory_file.granted == 0
    kernel.memory_file.close()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0x3FF), st.integers(0, 255)), max_size=12), st.data())
def test_a_real_program_with_bytes_changed(changes, data):
    content = bytearray(REAL)
    for at, value in changes:
        content[at] = value
    length = data.draw(st.one_of(st.just(len(content)), st.integers(0, 2048)))
    kernel = new_kernel(64 << 20)
    try:
        mm, _ = load(kernel, bytes(content[:length]))
        mm.release()
    except LinuxError:
        pass
    assert kernel.memory_file.granted == 0
    kernel.memory_file.close()


def _real_program() -> bytes:
    with open("/bin/true", "rb") as file:
        return file.read()


REAL = _real_program()
