"""Scripts: the line that names an interpreter. Linux: fs/binfmt_script.c, load_script()

Interface: `parse` looks at the first BINPRM_BUF_SIZE bytes of a file, as many as Linux looks at.
"""

from __future__ import annotations

from errno import ENOEXEC
from typing import NamedTuple

from pysandbox_core.errors import LinuxError

BINPRM_BUF_SIZE = 256

_BLANKS = b" \t"


class Shebang(NamedTuple):
    """#!interpreter argument"""

    interpreter: bytes
    argument: bytes | None
    """All that follows the interpreter, blanks inside included; None if nothing does."""


def parse(head: bytes) -> Shebang | None:
    """The interpreter that a file beginning with `head` asks for, None if it is no script.

    ENOEXEC if the line names none, or might be cut off within its name; a longer argument is cut.
    """
    if head[:2] != b"#!":
        return None
    buffer = head[2:BINPRM_BUF_SIZE].ljust(BINPRM_BUF_SIZE - 2, b"\0")
    newline = buffer.find(b"\n")
    if newline >= 0:
        line = buffer[:newline]
    else:
        line = buffer[:-1]  # Linux keeps the last byte for a NUL
        if not _has_terminator(buffer.lstrip(_BLANKS)):
            raise LinuxError(ENOEXEC)
    line = line.rstrip(_BLANKS).lstrip(_BLANKS)
    end = next((at for at, byte in enumerate(line) if byte in b" \t\0"), len(line))
    interpreter, rest = line[:end], line[end:]
    if not interpreter and not rest:
        raise LinuxError(ENOEXEC)
    argument = b""
    if rest[:1] != b"\0":
        argument = rest.lstrip(_BLANKS).split(b"\0", 1)[0]
    return Shebang(interpreter, argument or None)


def _has_terminator(text: bytes) -> bool:
    """Does the interpreter's name certainly end in what was read?"""
    return bool(text) and any(byte in b" \t\0" for byte in text)
