"""Termios: a terminal's settings, and how programs hand them over. termios(3)

Interface: `Termios` is one setting, changed only as a whole (`replaced_by`). Linux: struct
ktermios.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_core.abi.termios import (
    B38400,
    CBAUD,
    CREAD,
    CS8,
    CSIZE,
    ECHO,
    ECHOCTL,
    ECHOE,
    ECHOK,
    ECHOKE,
    ICANON,
    ICRNL,
    IEXTEN,
    ISIG,
    IXON,
    NCCS,
    ONLCR,
    OPOST,
    PARENB,
    TCGETA,
    TCGETS,
    TCGETS2,
    TCSETA,
    TCSETAF,
    TCSETAW,
    TCSETS,
    TCSETS2,
    TCSETSF,
    TCSETSF2,
    TCSETSW,
    TCSETSW2,
    TERMIO,
    TERMIOS,
    TERMIOS2,
)

if TYPE_CHECKING:
    from struct import Struct

    from pysandbox_core.task import Task

DEFAULT_CC = bytes((3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0))
"""^C ^\\ DEL ^U ^D, VTIME 0, VMIN 1, -, ^Q ^S ^Z, -, ^R ^O ^W ^V. Linux: INIT_C_CC"""

SPEEDS = (0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400)
"""Bits per second by the number in c_cflag; with CBAUDEX (0x1000) the higher ones follow."""
HIGH_SPEEDS = (
    0, 57600, 115200, 230400, 460800, 500000, 576000, 921600, 1000000, 1152000, 1500000, 2000000,
    2500000, 3000000, 3500000, 4000000,
)  # fmt: skip
BOTHER = 0x1000

SET_REQUESTS: dict[int, tuple[Struct, int]] = {
    TCSETS: (TERMIOS, 0), TCSETSW: (TERMIOS, 1), TCSETSF: (TERMIOS, 2),
    TCSETS2: (TERMIOS2, 0), TCSETSW2: (TERMIOS2, 1), TCSETSF2: (TERMIOS2, 2),
    TCSETA: (TERMIO, 0), TCSETAW: (TERMIO, 1), TCSETAF: (TERMIO, 2),
}  # fmt: skip
"""Request -> structure, and when: 0 now, 1 after the output is sent, 2 dropping the input too."""


class Termios:
    """The settings of one terminal. Field names are termios(3)'s."""

    __slots__ = (
        "c_cc",
        "c_cflag",
        "c_iflag",
        "c_ispeed",
        "c_lflag",
        "c_line",
        "c_oflag",
        "c_ospeed",
    )

    def __init__(self) -> None:
        """What a new pty has. Linux: tty_std_termios, and the pty driver's c_cflag."""
        self.c_iflag = ICRNL | IXON
        self.c_oflag = OPOST | ONLCR
        self.c_cflag = B38400 | CS8 | CREAD
        self.c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN
        self.c_line = 0
        self.c_cc = DEFAULT_CC
        self.c_ispeed = self.c_ospeed = 38400

    def pack(self, layout: Struct) -> bytes:
        """As TERMIO, TERMIOS or TERMIOS2."""
        flags = (self.c_iflag, self.c_oflag, self.c_cflag, self.c_lflag)
        if layout is TERMIO:
            return TERMIO.pack(*(flag & 0xFFFF for flag in flags), self.c_line, self.c_cc[:8])
        if layout is TERMIOS:
            return TERMIOS.pack(*flags, self.c_line, self.c_cc)
        return TERMIOS2.pack(*flags, self.c_line, self.c_cc, self.c_ispeed, self.c_ospeed)

    def replaced_by(self, layout: Struct, data: bytes) -> Termios:
        """The settings that a program hands over in `data`; what its structure does not have
        stays."""
        new = Termios()
        new.c_iflag, new.c_oflag, new.c_cflag, new.c_lflag, new.c_line, cc, *speeds = layout.unpack(
            data
        )
        new.c_cc = cc
        if layout is TERMIO:
            new.c_iflag |= self.c_iflag & ~0xFFFF
            new.c_oflag |= self.c_oflag & ~0xFFFF
            new.c_cflag |= self.c_cflag & ~0xFFFF
            new.c_lflag |= self.c_lflag & ~0xFFFF
            new.c_cc = cc + self.c_cc[8:]
        new.c_ispeed, new.c_ospeed = speeds or (self.c_ispeed, self.c_ospeed)
        baud = new.c_cflag & CBAUD
        if baud != BOTHER:
            new.c_ispeed = new.c_ospeed = (HIGH_SPEEDS if baud & BOTHER else SPEEDS)[baud & 15]
        return new

    def fit_pty(self) -> None:
        """Take away what a pty has not: other than eight bits, parity. pty_set_termios()"""
        self.c_cflag = self.c_cflag & ~(CSIZE | PARENB) | CS8 | CREAD
        assert len(self.c_cc) == NCCS


def get_termios(task: Task, termios: Termios, request: int, argument: int) -> bool:
    """Answer TCGETS and its like; False for any other request."""
    if request == TCGETS:
        task.mm.write(argument, termios.pack(TERMIOS))
    elif request == TCGETS2:
        task.mm.write(argument, termios.pack(TERMIOS2))
    elif request == TCGETA:
        task.mm.write(argument, termios.pack(TERMIO))
    else:
        return False
    return True
