"""Vma: what a virtual memory area is besides its range; the values of a memory manager's `vmas`.

Interface: immutable; a change makes another one (`_replace`). Equal ones that touch merge, which is
what decides how /proc/PID/maps looks. Nothing in a Vma depends on where its range starts: `delta`
is the file offset less the address.

Linux: struct vm_area_struct.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pysandbox_platform import PROT_EXEC, PROT_READ, PROT_WRITE

if TYPE_CHECKING:
    from pysandbox_core.fs.file_description import FileDescription
    from pysandbox_core.mm.mappable import Mappable

# Vma.flags: Linux's VM_* flags that are kept; the numbers are this kernel's own.
VM_SHARED: Final = 0x1
"""MAP_SHARED: writes reach the file, or everybody who shares the memory."""
VM_GROWSDOWN: Final = 0x2
VM_LOCKED: Final = 0x4
VM_LOCKONFAULT: Final = 0x8
VM_NORESERVE: Final = 0x10
VM_DONTFORK: Final = 0x20
"""madvise(MADV_DONTFORK): fork leaves it out."""
VM_WIPEONFORK: Final = 0x40
VM_DONTDUMP: Final = 0x80
VM_SEQUENTIAL: Final = 0x100
VM_RANDOM: Final = 0x200
VM_HUGEPAGE: Final = 0x400
VM_NOHUGEPAGE: Final = 0x800
VM_SEALED: Final = 0x1000
"""mseal(2)"""
VM_SPECIAL: Final = 0x2000
"""[vdso], [vvar]: the kernel's; may not be remapped in part, expanded or advised away."""
VM_MERGEABLE: Final = 0x4000

PROT_ALL: Final = PROT_READ | PROT_WRITE | PROT_EXEC

_WITHOUT_WRITE = PROT_READ | PROT_EXEC

HOST_PROT: Final = tuple(
    0 if not prot else (prot | PROT_READ) & (_WITHOUT_WRITE if cow else PROT_ALL)
    for cow in (False, True)
    for prot in range(8)
)
"""What the platform is told, by `prot + 8 * cow`. The processor has no page that can be written or
run but not read; one that is to be copied before it is written is mapped without PROT_WRITE."""


class Backing:
    """An open file that is mapped: keeps it and its pages alive for the address spaces that use
    it."""

    __slots__ = ("file", "mappable", "refs")

    def __init__(self, file: FileDescription | None, mappable: Mappable) -> None:
        """Takes over the caller's reference on `mappable`; takes one of its own on `file`, which is
        None for memory without a name."""
        self.file = file
        self.mappable = mappable
        self.refs = 0
        """Address spaces that have it mapped."""
        if file is not None:
            file.incref()


class Vma(NamedTuple):
    """What all pages of a range have in common."""

    prot: int
    """PROT_READ | PROT_WRITE | PROT_EXEC, as asked for."""
    flags: int
    """VM_* bits."""
    max_prot: int = PROT_ALL
    """What mprotect may set. Linux: VM_MAYREAD and its like."""
    backing: Backing | None = None
    """None: private anonymous memory."""
    delta: int = 0
    """File offset less address; 0 without a backing."""
    name: bytes = b""
    """As the last field of /proc/PID/maps, for what has no file: b"[vdso]", b"[anon:x]"."""


class Piece(NamedTuple):
    """Pages that are present: what the platform has mapped, or will have once its queue is run."""

    source: Mappable | None
    """The file whose pages they are; None for private copies and private anonymous memory."""
    delta: int
    """Offset less address: in the host file if that is what `source` maps, else in the memory
    file."""
    cow: bool
    """Not to be written before they are copied, or found to have no other owner."""
