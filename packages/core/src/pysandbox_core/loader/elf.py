"""ELF programs: reading the headers and mapping the segments. Linux: fs/binfmt_elf.c

Interface: `read_program` checks what Linux checks before it gives up the old program; `map_program`
and `map_interpreter` fill a new address space. The file is hostile: every number in it is taken
once and bounded where it is used, nothing is read but the headers, and segments cost mappings, not
memory.

The headers are two fixed structures, so they are unpacked here: importing a library for it would
take a fifth of the time that a whole `true` may. The tests compare this with pyelftools.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, EIO, ENOEXEC, ENOMEM
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_platform import PAGE_SIZE, PROT_EXEC, PROT_READ, PROT_WRITE

from pysandbox_core.abi.elf import (
    EHDR,
    ELFMAG,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    PF_R,
    PF_W,
    PF_X,
    PHDR,
    PT_GNU_STACK,
    PT_INTERP,
    PT_LOAD,
)
from pysandbox_core.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_PRIVATE
from pysandbox_core.errors import LinuxError
from pysandbox_core.mm.io_buffer import BytesSink
from pysandbox_core.mm.layout import (
    BRK_RANDOM_BYTES,
    MMAP_RANDOM_BITS,
    find_range,
    random_bytes_below,
)

if TYPE_CHECKING:
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.mm.memory_manager import MemoryManager
    from pysandbox_core.task import Task

PATH_MAX = 4096
_MAX_PHDR_BYTES = 65536
_PAGE_MASK = -PAGE_SIZE
_RW = PROT_READ | PROT_WRITE


class Phdr(NamedTuple):
    """Elf64_Phdr."""

    p_type: int
    p_flags: int
    p_offset: int
    p_vaddr: int
    p_paddr: int
    p_filesz: int
    p_memsz: int
    p_align: int

    @property
    def prot(self) -> int:
        """The protection that p_flags ask for."""
        flags = self.p_flags
        return (
            (PROT_READ if flags & PF_R else 0)
            | (PROT_WRITE if flags & PF_W else 0)
            | (PROT_EXEC if flags & PF_X else 0)
        )


class ElfProgram:
    """The headers of a program or an interpreter, checked. Does not own `file`."""

    __slots__ = ("e_entry", "e_phnum", "e_phoff", "e_type", "file", "phdrs")

    def __init__(
        self, file: FileDescription, e_type: int, e_entry: int, e_phoff: int, phdrs: list[Phdr]
    ) -> None:
        self.file = file
        self.e_type = e_type
        self.e_entry = e_entry
        self.e_phoff = e_phoff
        self.e_phnum = len(phdrs)
        self.phdrs = phdrs

    @property
    def segments(self) -> list[Phdr]:
        """The PT_LOAD headers, in the file's order."""
        return [phdr for phdr in self.phdrs if phdr.p_type == PT_LOAD]

    @property
    def stack_prot(self) -> int:
        """How the stack is to be mapped: executable only if PT_GNU_STACK asks for it."""
        for phdr in self.phdrs:
            if phdr.p_type == PT_GNU_STACK:
                return _RW | PROT_EXEC if phdr.p_flags & PF_X else _RW
        return _RW


class Placement(NamedTuple):
    """Where an ElfProgram went."""

    bias: int
    """Address less p_vaddr."""
    entry: int
    phdr: int
    """Address of the program headers in memory, for AT_PHDR; 0 if they are in no segment."""


def read_at(task: Task | None, file: FileDescription, offset: int, length: int) -> bytes:
    """Up to `length` bytes of a file."""
    sink = BytesSink(length)
    while sink.remaining and file.read(task, sink, offset + sink.moved):  # type: ignore[arg-type]
        pass
    return sink.data


def read_program(task: Task | None, file: FileDescription, head: bytes) -> ElfProgram:
    """The headers of `file`, whose first bytes are `head`. ENOEXEC; EIO where it ends too early."""
    if head[:4] != ELFMAG or len(head) < EHDR.size:
        raise LinuxError(ENOEXEC)
    (_, e_type, e_machine, _, e_entry, e_phoff, _, _, _, e_phentsize, e_phnum, _, _, _) = (
        EHDR.unpack_from(head)
    )
    if e_type not in (ET_EXEC, ET_DYN) or e_machine != EM_X86_64:
        raise LinuxError(ENOEXEC)
    size = e_phnum * PHDR.size
    if e_phentsize != PHDR.size or not 0 < size <= _MAX_PHDR_BYTES:
        raise LinuxError(ENOEXEC)
    if e_phoff + size <= len(head):
        table = head[e_phoff : e_phoff + size]
    else:
        table = read_at(task, file, e_phoff, size) if e_phoff < 1 << 63 else b""
    if len(table) < size:
        raise LinuxError(ENOEXEC)
    phdrs = [Phdr._make(fields) for fields in PHDR.iter_unpack(table)]
    return ElfProgram(file, e_type, e_entry, e_phoff, phdrs)


def interpreter_path(task: Task | None, program: ElfProgram) -> bytes | None:
    """The path in PT_INTERP, None if there is none. ENOEXEC, EIO"""
    for phdr in program.phdrs:
        if phdr.p_type == PT_INTERP:
            if not 2 <= phdr.p_filesz <= PATH_MAX:
                raise LinuxError(ENOEXEC)
            if phdr.p_offset >= 1 << 63:
                raise LinuxError(EINVAL)
            text = read_at(task, program.file, phdr.p_offset, phdr.p_filesz)
            if len(text) < phdr.p_filesz:
                raise LinuxError(EIO)
            if text[-1] != 0:
                raise LinuxError(ENOEXEC)
            return text[: text.index(0)]
    return None


def map_program(
    task: Task | None,
    mm: MemoryManager,
    program: ElfProgram,
    *,
    has_interpreter: bool,
    randomize: bool,
) -> Placement:
    """Map a program's segments and set `mm`'s code, data and heap positions.

    EINVAL, ENOMEM, EEXIST, EPERM for segments that can't be where they want to be.
    """
    bias = 0
    segments = program.segments
    if program.e_type == ET_DYN and segments:
        if has_interpreter:
            bias = (mm.task_size // 3 * 2) & _PAGE_MASK
            if randomize:
                bias += random_bytes_below(PAGE_SIZE << MMAP_RANDOM_BITS)
            bias &= -_maximum_alignment(segments)
            bias = (bias - segments[0].p_vaddr) & _PAGE_MASK
        else:
            bias = _free_bias(mm, segments)
    placement = _map_segments(task, mm, program, bias)
    _set_positions(mm, segments, bias)
    low_brk = program.e_type == ET_DYN and not has_interpreter
    _place_brk(mm, segments, bias, randomize=randomize, low=low_brk)
    return placement


def map_interpreter(task: Task | None, mm: MemoryManager, program: ElfProgram) -> Placement:
    """Map the dynamic linker, a position-independent one wherever there is room. ENOEXEC, EINVAL,
    ENOMEM"""
    segments = program.segments
    bias = _free_bias(mm, segments) if program.e_type == ET_DYN else 0
    return _map_segments(task, mm, program, bias)


def _maximum_alignment(segments: list[Phdr]) -> int:
    """The largest p_align that is a power of two; at least a page."""
    alignment = PAGE_SIZE
    for segment in segments:
        if segment.p_align and not segment.p_align & (segment.p_align - 1):
            alignment = max(alignment, segment.p_align)
    return alignment


def _free_bias(mm: MemoryManager, segments: list[Phdr]) -> int:
    """A bias with which all of the segments are in one free range. EINVAL, ENOMEM"""
    if not segments:
        raise LinuxError(EINVAL)
    start = segments[0].p_vaddr & _PAGE_MASK
    end = max(segment.p_vaddr + segment.p_memsz for segment in segments)
    length = (end - start + PAGE_SIZE - 1) & _PAGE_MASK
    if length <= 0:
        raise LinuxError(EINVAL)
    alignment = _maximum_alignment(segments)
    if alignment == PAGE_SIZE:
        return find_range(mm, 0, length, 0) - start
    found = find_range(mm, 0, length + alignment, 0)
    return ((found + alignment - 1) & -alignment) - start


def _map_segments(
    task: Task | None, mm: MemoryManager, program: ElfProgram, bias: int
) -> Placement:
    segments = program.segments
    if not segments:
        raise LinuxError(EINVAL)
    fixed = MAP_FIXED_NOREPLACE
    phdr_addr = 0
    for segment in segments:
        addr = segment.p_vaddr + bias
        _map_segment(task, mm, program.file, segment, addr, fixed)
        fixed = MAP_FIXED
        into = program.e_phoff - segment.p_offset
        if not phdr_addr and 0 <= into < segment.p_filesz:
            phdr_addr = addr + into
    entry = (program.e_entry + bias) & 0xFFFFFFFFFFFFFFFF
    return Placement(bias, entry, phdr_addr)


def _map_segment(
    task: Task | None,
    mm: MemoryManager,
    file: FileDescription,
    segment: Phdr,
    addr: int,
    fixed: int,
) -> None:
    """Map one segment at `addr`: the file's part, and zeros for what p_memsz has more.
    elf_load()"""
    filesz, memsz = segment.p_filesz, segment.p_memsz
    into_page = segment.p_vaddr % PAGE_SIZE
    start = addr - into_page
    if not 0 <= start < mm.task_size or filesz > memsz or memsz > mm.task_size - start:
        raise LinuxError(EINVAL if start >= 0 else ENOMEM)
    prot = segment.prot
    if filesz:
        offset = segment.p_offset - into_page
        if offset % PAGE_SIZE or not 0 <= offset < 1 << 62:
            raise LinuxError(EINVAL)
        length = (filesz + into_page + PAGE_SIZE - 1) & _PAGE_MASK
        mm.mmap(task, start, length, prot, MAP_PRIVATE | fixed, file, offset)
        zero_start, zero_end = start + length, addr + memsz
        tail = min(start + length, addr + memsz) - (addr + filesz)
        if memsz > filesz and tail > 0 and prot & PROT_WRITE:
            try:
                mm.write(addr + filesz, bytes(start + length - addr - filesz))
            except LinuxError as error:
                raise LinuxError(ENOMEM if error.errno == ENOMEM else EFAULT) from None
    else:
        zero_start, zero_end = start, addr + memsz
    zero_end = (zero_end + PAGE_SIZE - 1) & _PAGE_MASK
    if memsz > filesz and zero_end > zero_start:
        bss_prot = _RW | (prot & PROT_EXEC)
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
        mm.mmap(task, zero_start, zero_end - zero_start, bss_prot, flags)


def _set_positions(mm: MemoryManager, segments: list[Phdr], bias: int) -> None:
    """start_code and its like, as /proc/PID/stat shows them."""
    code = [segment for segment in segments if segment.p_flags & PF_X]
    mm.start_code = min(segment.p_vaddr for segment in segments) + bias
    mm.end_code = max((segment.p_vaddr + segment.p_filesz for segment in code), default=0) + bias
    mm.start_data = max(segment.p_vaddr for segment in segments) + bias
    mm.end_data = max(segment.p_vaddr + segment.p_filesz for segment in segments) + bias


def _place_brk(
    mm: MemoryManager, segments: list[Phdr], bias: int, *, randomize: bool, low: bool
) -> None:
    """The heap starts behind the program, at random; far below one that was put among the mappings,
    where it could not grow."""
    end = max(segment.p_vaddr + segment.p_memsz for segment in segments) + bias
    brk = (end + PAGE_SIZE - 1) & _PAGE_MASK
    if low:
        brk = (mm.task_size // 3 * 2) & _PAGE_MASK
    if randomize:
        brk += random_bytes_below(BRK_RANDOM_BYTES)
    mm.start_brk = mm.brk = brk
