"""How system calls are declared: a decorated function whose annotations say what each argument is.

Interface:

    @syscall("pread64")
    def pread64(task: Task, fd: Fd, buf: UserAddr, count: Size, offset: Loff) -> Result: ...

- The annotations name argument types of this module. They are read as text, once, and give the
  decoder that runs per call, the strace line and the compatibility table.
- A handler returns what the program sees in RAX, a number >= 0, or raises LinuxError. None means
  that the registers are already as they should be (rt_sigreturn, execve).
- Handlers make no host calls but through file systems and the reactor, and block only through
  `task.block`.

A decoder is built on the first call of its system call, from generated source, so that a call costs
one Python function call more than its handler and start-up pays for no call that is not made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from pysandbox_platform.registers_amd64 import R8, R9, R10, RDI, RDX, RSI

from pysandbox_core.abi.numbers_amd64 import NUMBERS
from pysandbox_core.errors import KernelBug, LinuxError

if TYPE_CHECKING:
    from pysandbox_core.task import Task

Result: TypeAlias = int | None
Entry: TypeAlias = "Callable[[Task, memoryview], Result]"

# Argument types: what a register word means. All are plain integers.
Fd: TypeAlias = int
"""A file descriptor, a C int."""
DirFd: TypeAlias = int
"""A directory descriptor or AT_FDCWD, a C int."""
Int: TypeAlias = int
UInt: TypeAlias = int
Long: TypeAlias = int
ULong: TypeAlias = int
Size: TypeAlias = int
"""size_t, in bytes."""
Loff: TypeAlias = int
"""loff_t, signed 64 bits, in bytes."""
Pid: TypeAlias = int
Uid: TypeAlias = int
Gid: TypeAlias = int
Signo: TypeAlias = int
ClockId: TypeAlias = int
Mode: TypeAlias = int
"""umode_t, 16 bits of a file mode."""
OpenFlags: TypeAlias = int
AtFlags: TypeAlias = int
Prot: TypeAlias = int
MapFlags: TypeAlias = int
CloneFlags: TypeAlias = int
Hex: TypeAlias = int
"""Any other flag word, unsigned 64 bits."""
UserAddr: TypeAlias = int
"""An address in the program's memory, not yet checked."""
UserPath: TypeAlias = int
"""Address of a path, a NUL-terminated string of at most PATH_MAX bytes."""
UserString: TypeAlias = int
"""Address of another NUL-terminated string."""
UserBuffer: TypeAlias = int
"""Address of bytes that the call reads, as many as the next argument says."""
TimespecPtr: TypeAlias = int
TimevalPtr: TypeAlias = int
IovecPtr: TypeAlias = int
SigsetPtr: TypeAlias = int
SockaddrPtr: TypeAlias = int
StringArrayPtr: TypeAlias = int
"""Address of a NULL-terminated array of strings (argv, envp)."""

Kind: TypeAlias = Literal["s32", "u32", "s64", "u64", "u16"]
KINDS: dict[str, Kind] = {
    "Fd": "s32", "DirFd": "s32", "Int": "s32", "UInt": "u32", "Long": "s64", "ULong": "u64",
    "Size": "u64", "Loff": "s64", "Pid": "s32", "Uid": "u32", "Gid": "u32", "Signo": "s32",
    "ClockId": "s32", "Mode": "u16", "OpenFlags": "s32", "AtFlags": "s32", "Prot": "u64",
    "MapFlags": "u64", "CloneFlags": "u64", "Hex": "u64", "UserAddr": "u64", "UserPath": "u64",
    "UserString": "u64", "UserBuffer": "u64", "TimespecPtr": "u64", "TimevalPtr": "u64",
    "IovecPtr": "u64", "SigsetPtr": "u64", "SockaddrPtr": "u64", "StringArrayPtr": "u64",
}  # fmt: skip

ARGUMENT_REGISTERS = (RDI, RSI, RDX, R10, R8, R9)
"""Indexes of the registers that carry the arguments, x86-64 psABI appendix A.2.1."""

TABLE_SIZE = 512
"""Length of the table by number; every number of the ABI lies below it."""


class Declaration(NamedTuple):
    """One system call as declared: `handler` answers it, or every call fails with `errno`."""

    name: str
    number: int
    parameters: tuple[tuple[str, str], ...]
    """(name, argument type) of each argument."""
    handler: Callable[..., Result] | None
    errno: int = 0
    note: str = ""
    """For the compatibility table: what is missing, or why it is refused."""
    module: str = ""
    """Name of the module that declares it."""


DECLARATIONS: dict[int, Declaration] = {}
"""Every system call by number whose family has been imported; syscalls.declare_all imports them
all."""


def syscall(
    name: str, *, note: str = ""
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Declare the decorated function as the handler of system call `name`."""

    def declare(handler: Callable[..., Result]) -> Callable[..., Result]:
        parameters = tuple(
            (parameter, kind)
            for parameter, kind in handler.__annotations__.items()
            if parameter not in ("task", "return")
        )
        for parameter, kind in parameters:
            if kind not in KINDS:
                raise KernelBug(f"{name}: argument {parameter} has unknown type {kind!r}")
        module = handler.__module__
        _add(Declaration(name, NUMBERS[name], parameters, handler, note=note, module=module))
        return handler

    return declare


def refused(name: str, errno: int, note: str) -> None:
    """Declare that system call `name` always fails with `errno`, and why."""
    module = sys._getframe(1).f_globals["__name__"]
    _add(Declaration(name, NUMBERS[name], (), None, errno, note, module))


def _add(declaration: Declaration) -> None:
    if declaration.number in DECLARATIONS:
        raise KernelBug(f"{declaration.name} is declared twice")
    DECLARATIONS[declaration.number] = declaration


def sign32(value: int) -> int:
    """The C int in the low half of a register."""
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def sign64(value: int) -> int:
    """The C long in a register."""
    return (value ^ 0x8000000000000000) - 0x8000000000000000


_EXPRESSIONS: dict[Kind, str] = {
    "u64": "regs[{r}]",
    "s64": "(v if (v := regs[{r}]) < 0x8000000000000000 else v - 0x10000000000000000)",
    "u32": "regs[{r}] & 0xFFFFFFFF",
    "u16": "regs[{r}] & 0xFFFF",
    "s32": "(v if (v := regs[{r}]) < 0x80000000 else sign32(v))",
}

_factories: dict[tuple[tuple[Kind, ...], tuple[int, ...]], Callable[..., Entry]] = {}


def build_entry(declaration: Declaration) -> Entry:
    """What the loop calls for `declaration`: decode the registers, call the handler."""
    if declaration.handler is None:
        return _refusing_entry(declaration.errno)
    shape = tuple(KINDS[kind] for _, kind in declaration.parameters)
    fds = tuple(at for at, (_, kind) in enumerate(declaration.parameters) if kind == "Fd")
    factory = _factories.get((shape, fds))
    if factory is None:
        factory = _factories[shape, fds] = _make_factory(shape, fds)
    return factory(declaration.handler)


def _make_factory(shape: tuple[Kind, ...], fds: tuple[int, ...]) -> Callable[..., Entry]:
    """From a handler to its entry, for arguments of these kinds; those at `fds` are open files."""
    arguments = ", ".join(
        _EXPRESSIONS[kind].format(r=register)
        for kind, register in zip(shape, ARGUMENT_REGISTERS, strict=False)
    )
    source = ["def factory(handler):", " def entry(task, regs):"]
    if fds:
        numbers = ", ".join(_EXPRESSIONS["s32"].format(r=ARGUMENT_REGISTERS[at]) for at in fds)
        source += [
            "  if task.files.users != 1:",
            f"   return call_holding(({numbers},), handler, task, {arguments})",
        ]
    source += [f"  return handler(task, {arguments})", " return entry"]
    namespace: dict[str, Any] = {"sign32": sign32, "call_holding": _call_holding}
    exec("\n".join(source), namespace)  # the text is made of the constants above alone
    made: Callable[..., Entry] = namespace["factory"]
    return made


def _call_holding(
    fds: tuple[int, ...], handler: Callable[..., Result], task: Task, *arguments: int
) -> Result:
    """Call a handler while another thread may close the files that it works on: they stay as they
    are until it is done. Linux: fdget()"""
    files = task.files
    held = [file.incref() for fd in fds if (file := files.find(fd)) is not None]
    try:
        return handler(task, *arguments)
    finally:
        for file in held:
            file.decref()


def _refusing_entry(errno: int) -> Entry:
    def entry(task: Task, regs: memoryview) -> Result:
        raise LinuxError(errno)

    return entry


def decode_arguments(declaration: Declaration, regs: memoryview) -> tuple[int, ...]:
    """The arguments as the handler gets them: for hooks and strace lines, not for the hot path."""
    decoders: dict[Kind, Callable[[int], int]] = {
        "u64": int,
        "s64": sign64,
        "u32": lambda value: value & 0xFFFFFFFF,
        "u16": lambda value: value & 0xFFFF,
        "s32": sign32,
    }
    return tuple(
        decoders[KINDS[kind]](regs[register])
        for (_, kind), register in zip(declaration.parameters, ARGUMENT_REGISTERS, strict=False)
    )
