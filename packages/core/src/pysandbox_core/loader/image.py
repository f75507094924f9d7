"""Loading a program: from a path to an address space that is ready to run. execve(2)

Interface: `open_program` finds out what is to run, following `#!` lines and PT_INTERP; whatever it
raises, the caller's old program goes on. `load` builds the new memory; Linux has given up the old
one by then, and kills the process with SIGSEGV if it fails. Both touch nothing of the task's.

Linux: fs/exec.c, fs/binfmt_elf.c.
"""

from __future__ import annotations

from errno import ELIBBAD, ELOOP, ENOENT, ENOEXEC
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_platform import PAGE_SIZE

from pysandbox_core.abi.elf import (
    AT_BASE,
    AT_CLKTCK,
    AT_EGID,
    AT_ENTRY,
    AT_EUID,
    AT_EXECFN,
    AT_FLAGS,
    AT_GID,
    AT_HWCAP,
    AT_HWCAP2,
    AT_MINSIGSTKSZ,
    AT_PAGESZ,
    AT_PHDR,
    AT_PHENT,
    AT_PHNUM,
    AT_PLATFORM,
    AT_RANDOM,
    AT_RSEQ_ALIGN,
    AT_RSEQ_FEATURE_SIZE,
    AT_SECURE,
    AT_SYSINFO_EHDR,
    AT_UID,
    PHDR,
)
from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.open_file import open_for_exec
from pysandbox_core.host_facts import host_facts
from pysandbox_core.loader import elf, script
from pysandbox_core.loader.stack import build_stack, check_strings, choose_stack_top
from pysandbox_core.loader.vdso import map_vdso
from pysandbox_core.mm.layout import ADDR_NO_RANDOMIZE, choose_mmap_base
from pysandbox_core.mm.memory_manager import MemoryManager

if TYPE_CHECKING:
    from pysandbox_core.credentials import Credentials
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.limits import ResourceLimits
    from pysandbox_core.task import Task

_MAX_SCRIPTS = 5
_RSEQ_FEATURE_SIZE = 28
_RSEQ_ALIGN = 32
_CLOCK_TICKS = 100


class Program:
    """What execve is about to run. Owns its files until `close`."""

    __slots__ = ("argv", "elf", "envp", "interpreter", "path")

    def __init__(self, path: bytes, argv: list[bytes], envp: list[bytes]) -> None:
        self.path = path
        """As execve was given it, of the script if it is one: AT_EXECFN."""
        self.argv = argv
        self.envp = envp
        self.elf: elf.ElfProgram = None  # type: ignore[assignment]  # set by open_program
        self.interpreter: elf.ElfProgram | None = None
        """The dynamic linker."""

    @property
    def file(self) -> FileDescription:
        """What runs: /proc/PID/exe."""
        return self.elf.file

    def close(self) -> None:
        """Give the files back."""
        self.elf.file.decref()
        if self.interpreter is not None:
            self.interpreter.file.decref()


class LoadedImage(NamedTuple):
    """A new address space and where to start in it."""

    mm: MemoryManager
    entry: int
    stack_pointer: int


def open_program(
    task: Task,
    file: FileDescription,
    path: bytes,
    argv: list[bytes],
    envp: list[bytes],
    *,
    reopenable: bool = True,
) -> Program:
    """Find what running `file`, opened for that from `path`, means; takes over the reference.

    `reopenable` false: a script's interpreter could not open `path` (close-on-exec descriptor).
    Errors: E2BIG; ENOEXEC no format; ELOOP scripts in scripts; ENOENT, EACCES, ... of interpreters;
    ELIBBAD a dynamic linker that is none; EIO.
    """
    stack_limit = task.group.limits.stack
    original = path
    argv = argv or [b""]
    try:
        check_strings(argv, [*envp, path], stack_limit)
        for depth in range(_MAX_SCRIPTS + 2):
            if depth > _MAX_SCRIPTS:
                raise LinuxError(ELOOP)
            head = elf.read_at(task, file, 0, 1024)
            shebang = script.parse(head)
            if shebang is None:
                break
            if not reopenable:
                raise LinuxError(ENOENT)
            argument = [] if shebang.argument is None else [shebang.argument]
            argv = [shebang.interpreter, *argument, path, *argv[1:]]
            path = shebang.interpreter
            check_strings(argv, [*envp, path], stack_limit)
            interpreter = open_for_exec(task, AT_FDCWD, path) if path else _no_file()
            file.decref()
            file = interpreter
        program = Program(original, argv, envp)
        program.elf = elf.read_program(task, file, head)
        program.interpreter = _open_interpreter(task, program.elf)
    except LinuxError:
        file.decref()
        raise
    return program


def _no_file() -> FileDescription:
    raise LinuxError(ENOENT)


def _open_interpreter(task: Task, program: elf.ElfProgram) -> elf.ElfProgram | None:
    path = elf.interpreter_path(task, program)
    if path is None:
        return None
    file = open_for_exec(task, AT_FDCWD, path) if path else _no_file()
    try:
        return elf.read_program(task, file, elf.read_at(task, file, 0, 1024))
    except LinuxError as error:
        file.decref()
        raise LinuxError(ELIBBAD if error.errno == ENOEXEC else error.errno) from None


def load(
    task: Task | None,
    kernel: Kernel,
    program: Program,
    creds: Credentials,
    limits: ResourceLimits,
    personality: int = 0,
) -> LoadedImage:
    """Build the memory of `program`; the files stay the caller's. Any errno of mmap; EINVAL."""
    mm = MemoryManager(kernel, limits, kernel.platform.new_address_space())
    randomize = not personality & ADDR_NO_RANDOMIZE
    try:
        mm.mmap_base = choose_mmap_base(mm.task_size, limits.stack, randomize=randomize)
        top = choose_stack_top(mm.task_size, randomize=randomize)
        interpreter = program.interpreter
        placed = elf.map_program(
            task, mm, program.elf, has_interpreter=interpreter is not None, randomize=randomize
        )
        entry, base = placed.entry, 0
        if interpreter is not None:
            linker = elf.map_interpreter(task, mm, interpreter)
            entry, base = linker.entry, linker.bias
        map_vdso(mm, top, randomize=randomize)
        auxv = _auxv(kernel, mm, program, placed, base, creds)
        stack_pointer = build_stack(
            mm, top, program.elf.stack_prot, program.path, program.argv, program.envp, auxv,
            randomize=randomize,
        )  # fmt: skip
        mm.set_exe_file(program.file)
    except LinuxError:
        mm.release()
        raise
    return LoadedImage(mm, entry, stack_pointer)


def _auxv(
    kernel: Kernel,
    mm: MemoryManager,
    program: Program,
    placed: elf.Placement,
    base: int,
    creds: Credentials,
) -> list[tuple[int, int]]:
    """The auxiliary vector in Linux's order; build_stack fills in what points to the stack."""
    from pysandbox_core.signal_frame_amd64 import minimum_stack_size

    hwcap, hwcap2 = _hardware_capabilities()
    vector = [(AT_SYSINFO_EHDR, mm.vdso)] if mm.vdso else []
    vector += [
        (AT_MINSIGSTKSZ, minimum_stack_size(kernel.platform.xstate_size)),
        (AT_HWCAP, hwcap),
        (AT_PAGESZ, PAGE_SIZE),
        (AT_CLKTCK, _CLOCK_TICKS),
        (AT_PHDR, placed.phdr),
        (AT_PHENT, PHDR.size),
        (AT_PHNUM, program.elf.e_phnum),
        (AT_BASE, base),
        (AT_FLAGS, 0),
        (AT_ENTRY, program.elf.e_entry + placed.bias),
        (AT_UID, creds.uid),
        (AT_EUID, creds.euid),
        (AT_GID, creds.gid),
        (AT_EGID, creds.egid),
        (AT_SECURE, 0),
        (AT_RANDOM, 0),
        (AT_HWCAP2, hwcap2),
        (AT_EXECFN, 0),
        (AT_PLATFORM, 0),
        (AT_RSEQ_FEATURE_SIZE, _RSEQ_FEATURE_SIZE),
        (AT_RSEQ_ALIGN, _RSEQ_ALIGN),
    ]
    return [(tag, value & 0xFFFFFFFFFFFFFFFF) for tag, value in vector]


def _hardware_capabilities() -> tuple[int, int]:
    """AT_HWCAP and AT_HWCAP2 of this processor: the host's own, since programs run on it
    directly."""
    auxv = host_facts().auxv
    return auxv.get(AT_HWCAP, 0), auxv.get(AT_HWCAP2, 0)
