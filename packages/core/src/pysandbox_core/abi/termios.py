"""Terminal constants: include/uapi/asm-generic/{termbits,termbits-common,ioctls}.h, termios.h."""

from __future__ import annotations

from struct import Struct
from typing import Final

# Indexes of c_cc.
VINTR: Final = 0
VQUIT: Final = 1
VERASE: Final = 2
VKILL: Final = 3
VEOF: Final = 4
VTIME: Final = 5
VMIN: Final = 6
VSWTC: Final = 7
VSTART: Final = 8
VSTOP: Final = 9
VSUSP: Final = 10
VEOL: Final = 11
VREPRINT: Final = 12
VDISCARD: Final = 13
VWERASE: Final = 14
VLNEXT: Final = 15
VEOL2: Final = 16
NCCS: Final = 19

# c_iflag
IGNBRK: Final = 0x1
BRKINT: Final = 0x2
IGNPAR: Final = 0x4
PARMRK: Final = 0x8
INPCK: Final = 0x10
ISTRIP: Final = 0x20
INLCR: Final = 0x40
IGNCR: Final = 0x80
ICRNL: Final = 0x100
IUCLC: Final = 0x200
IXON: Final = 0x400
IXANY: Final = 0x800
IXOFF: Final = 0x1000
IMAXBEL: Final = 0x2000
IUTF8: Final = 0x4000

# c_oflag
OPOST: Final = 0x1
OLCUC: Final = 0x2
ONLCR: Final = 0x4
OCRNL: Final = 0x8
ONOCR: Final = 0x10
ONLRET: Final = 0x20
OFILL: Final = 0x40
OFDEL: Final = 0x80
TABDLY: Final = 0x1800
XTABS: Final = 0x1800

# c_cflag
CBAUD: Final = 0x100F
B38400: Final = 0xF
CSIZE: Final = 0x30
CS8: Final = 0x30
CREAD: Final = 0x80
PARENB: Final = 0x100
HUPCL: Final = 0x400
CLOCAL: Final = 0x800

# c_lflag
ISIG: Final = 0x1
ICANON: Final = 0x2
XCASE: Final = 0x4
ECHO: Final = 0x8
ECHOE: Final = 0x10
ECHOK: Final = 0x20
ECHONL: Final = 0x40
NOFLSH: Final = 0x80
TOSTOP: Final = 0x100
ECHOCTL: Final = 0x200
ECHOPRT: Final = 0x400
ECHOKE: Final = 0x800
FLUSHO: Final = 0x1000
PENDIN: Final = 0x4000
IEXTEN: Final = 0x8000
EXTPROC: Final = 0x10000

# Requests of ioctl_tty(2).
TCGETS: Final = 0x5401
TCSETS: Final = 0x5402
TCSETSW: Final = 0x5403
TCSETSF: Final = 0x5404
TCGETA: Final = 0x5405
TCSETA: Final = 0x5406
TCSETAW: Final = 0x5407
TCSETAF: Final = 0x5408
TCSBRK: Final = 0x5409
TCXONC: Final = 0x540A
TCFLSH: Final = 0x540B
TIOCEXCL: Final = 0x540C
TIOCNXCL: Final = 0x540D
TIOCSCTTY: Final = 0x540E
TIOCGPGRP: Final = 0x540F
TIOCSPGRP: Final = 0x5410
TIOCOUTQ: Final = 0x5411
TIOCSTI: Final = 0x5412
TIOCGWINSZ: Final = 0x5413
TIOCSWINSZ: Final = 0x5414
TIOCGSOFTCAR: Final = 0x5419
FIONREAD: Final = 0x541B
TIOCCONS: Final = 0x541D
TIOCPKT: Final = 0x5420
TIOCNOTTY: Final = 0x5422
TIOCSETD: Final = 0x5423
TIOCGETD: Final = 0x5424
TCSBRKP: Final = 0x5425
TIOCSBRK: Final = 0x5427
TIOCCBRK: Final = 0x5428
TIOCGSID: Final = 0x5429
TCGETS2: Final = 0x802C542A
TCSETS2: Final = 0x402C542B
TCSETSW2: Final = 0x402C542C
TCSETSF2: Final = 0x402C542D
TIOCGPTN: Final = 0x80045430
TIOCSPTLCK: Final = 0x40045431
TIOCGDEV: Final = 0x80045432
TIOCSIG: Final = 0x40045436
TIOCVHANGUP: Final = 0x5437
TIOCGPKT: Final = 0x80045438
TIOCGPTLCK: Final = 0x80045439
TIOCGEXCL: Final = 0x80045440
TIOCGPTPEER: Final = 0x5441

# TCFLSH, TCXONC
TCIFLUSH: Final = 0
TCOFLUSH: Final = 1
TCIOFLUSH: Final = 2
TCOOFF: Final = 0
TCOON: Final = 1
TCIOFF: Final = 2
TCION: Final = 3

# Packet mode, ioctl_tty(2) TIOCPKT.
TIOCPKT_DATA: Final = 0
TIOCPKT_FLUSHREAD: Final = 1
TIOCPKT_FLUSHWRITE: Final = 2
TIOCPKT_STOP: Final = 4
TIOCPKT_START: Final = 8
TIOCPKT_NOSTOP: Final = 16
TIOCPKT_DOSTOP: Final = 32
TIOCPKT_IOCTL: Final = 64

TERMIO: Final = Struct("<4HB8sx")
"""struct termio: the four flag words' low halves, c_line, c_cc[8]."""
TERMIOS: Final = Struct("<4IB19s")
"""struct termios: c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc"""
TERMIOS2: Final = Struct("<4IB19s2I")
"""struct termios2: the same and c_ispeed, c_ospeed"""
WINSIZE: Final = Struct("<4H")
"""struct winsize: ws_row, ws_col, ws_xpixel, ws_ypixel"""
