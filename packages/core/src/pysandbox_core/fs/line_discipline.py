"""N_TTY: what a terminal does between the wire and the program. termios(3), "Canonical and
noncanonical mode"

Interface: a `LineDiscipline` is fed by `receive` and read by `take`; output goes through `process`.
What it sends back down the wire (echoes, processed output) it hands to `wire.send`; signals and
flow control are `wire`'s business too. It never blocks: `receive` says how much it took.

Behaviour is Linux's, to the byte: tests compare it with the host's ptys. Positions (`head`,
`canon_head`, `tail`) count all bytes ever received; the buffer holds those from `tail` on.

Linux: drivers/tty/n_tty.c.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from pysandbox_core.abi.signal import SIGINT, SIGQUIT, SIGTSTP
from pysandbox_core.abi.termios import (
    ECHO,
    ECHOCTL,
    ECHOE,
    ECHOK,
    ECHOKE,
    ECHONL,
    ECHOPRT,
    EXTPROC,
    ICANON,
    ICRNL,
    IEXTEN,
    IGNCR,
    INLCR,
    ISIG,
    ISTRIP,
    IUCLC,
    IUTF8,
    IXANY,
    IXON,
    NOFLSH,
    OCRNL,
    OLCUC,
    ONLCR,
    ONLRET,
    ONOCR,
    OPOST,
    PARMRK,
    TABDLY,
    VEOF,
    VEOL,
    VEOL2,
    VERASE,
    VINTR,
    VKILL,
    VLNEXT,
    VMIN,
    VQUIT,
    VREPRINT,
    VSTART,
    VSTOP,
    VSUSP,
    VTIME,
    VWERASE,
    XTABS,
)
from pysandbox_core.fs.termios import Termios

BUFFER_SIZE = 4096
"""N_TTY_BUF_SIZE: one line is at most a byte less."""
ECHO_LIMIT = 4096
"""Echo operations that wait while output is stopped; beyond it the oldest are lost."""

_DISABLED = 0
"""_POSIX_VDISABLE; also what stands in the buffer for an end of file."""

# Echo operations that are not a byte: kept as numbers above 255.
_SET_CANON_COLUMN = 256
_MOVE_BACK = 257
_ERASE_TAB = 0x200
"""Or'ed with the columns since the last tab, and 0x80 if there was one."""
_CONTROL = 0x400
"""Or'ed with a control character, to be shown as ^X."""


class Wire(Protocol):
    """The side of the terminal that leads away from the program."""

    stopped: bool
    """Output is held up (^S)."""

    def send(self, data: bytes) -> None:
        """Put bytes on the wire. There is room, or else the wire drops them."""

    def room(self) -> int:
        """Bytes that `send` has room for."""

    def signal(self, signo: int) -> None:
        """A signal character was typed: tell the foreground process group."""

    def flushed(self) -> None:
        """A signal character dropped what was typed; what waits on the wire is to be dropped
        too."""

    def set_stopped(self, stopped: bool) -> None:
        """Output is to be held up, or to go on."""


def is_control(c: int) -> bool:
    """iscntrl() of the kernel."""
    return c < 32 or c == 127


def is_alnum(c: int) -> bool:
    """isalnum() of the kernel, whose characters are Latin-1's."""
    return 48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122 or (c >= 0xC0 and c not in (0xD7, 0xF7))


def to_lower(c: int) -> int:
    return c + 32 if 65 <= c <= 90 or (0xC0 <= c <= 0xDE and c != 0xD7) else c


def to_upper(c: int) -> int:
    return c - 32 if 97 <= c <= 122 or (0xDF <= c <= 0xFF and c != 0xF7) else c


class LineDiscipline:
    """The input side, with its echo, and output processing, of one terminal."""

    def __init__(self, termios: Termios, wire: Wire) -> None:
        self.wire = wire
        self.buffer = bytearray()
        """What was received and not yet read."""
        self.tail = 0
        self.canon_head = 0
        """End of the last complete line."""
        self.line_ends: deque[int] = deque()
        """Positions of the last bytes of complete lines."""
        self.pushed = False
        """The last "line" is what was there when canonical mode began."""
        self.lnext = False
        """The next character is taken literally (^V)."""
        self.erasing = False
        """In the middle of what ECHOPRT shows between \\ and /."""
        self.column = 0
        self.canon_column = 0
        """Where the line that is typed began."""
        self.echoes: list[int] = []
        self.termios = termios
        self.special = self._special_characters()

    @property
    def head(self) -> int:
        return self.tail + len(self.buffer)

    @property
    def canonical(self) -> bool:
        return self.termios.c_lflag & (ICANON | EXTPROC) == ICANON

    # Settings.

    def set_termios(self, new: Termios) -> None:
        """n_tty_set_termios()"""
        old = self.termios
        if (old.c_lflag ^ new.c_lflag) & (ICANON | EXTPROC):
            self.line_ends.clear()
            if not new.c_lflag & ICANON or not self.buffer:
                self.canon_head = self.tail
                self.pushed = False
            else:
                self.line_ends.append(self.head - 1)
                self.canon_head = self.head
                self.pushed = True
            self.erasing = self.lnext = False
        self.termios = new
        self.special = self._special_characters()
        if old.c_iflag & IXON and not new.c_iflag & IXON and self.wire.stopped:
            self.wire.set_stopped(False)
            self.flush_echoes()

    def _special_characters(self) -> frozenset[int] | None:
        """Characters that `receive` has to look at; None: the terminal is raw, there are none."""
        t = self.termios
        iflag, lflag, cc = t.c_iflag, t.c_lflag, t.c_cc
        if not (
            iflag & (ISTRIP | IUCLC | IGNCR | ICRNL | INLCR | IXON | PARMRK)
            or lflag & (ICANON | ISIG | ECHO)
        ):
            return None
        found = set()
        if iflag & (IGNCR | ICRNL):
            found.add(13)
        if iflag & INLCR:
            found.add(10)
        if lflag & ICANON:
            found.update((cc[VERASE], cc[VKILL], cc[VEOF], 10, cc[VEOL]))
            if lflag & IEXTEN:
                found.update((cc[VWERASE], cc[VLNEXT], cc[VEOL2]))
                if lflag & ECHO:
                    found.add(cc[VREPRINT])
        if iflag & IXON:
            found.update((cc[VSTART], cc[VSTOP]))
        if lflag & ISIG:
            found.update((cc[VINTR], cc[VQUIT], cc[VSUSP]))
        found.discard(_DISABLED)
        return frozenset(found)

    # Input.

    def receive(self, data: bytes) -> int:
        """Take bytes from the wire; how many there was room for.

        A line that has no room left goes on losing its last byte, so that its end can still be
        typed.
        """
        done = 0
        while done < len(data):
            room = BUFFER_SIZE - len(self.buffer)
            if self.termios.c_iflag & PARMRK:
                room = -(-room // 3)
            room -= 1
            if room <= 0:
                if not (self.termios.c_lflag & ICANON and self.canon_head == self.tail):
                    break
                if room < 0:
                    del self.buffer[-1]
                room = 1
            self._receive(data[done : done + room])
            done += min(room, len(data) - done)
        return done

    def _receive(self, data: bytes) -> None:
        if self.special is None or (
            self.termios.c_lflag & EXTPROC and not self.termios.c_iflag & (ISTRIP | IUCLC)
        ):
            self.buffer += data
            return
        for c in data:
            self._receive_char(c)
        self.flush_echoes()

    def _receive_char(self, c: int) -> None:
        t = self.termios
        iflag, lflag = t.c_iflag, t.c_lflag
        if self.lnext:
            self.lnext = False
            if iflag & ISTRIP:
                c &= 0x7F
            if iflag & IUCLC and lflag & IEXTEN:
                c = to_lower(c)
            self._ordinary(c)
            return
        if iflag & ISTRIP:
            c &= 0x7F
        if iflag & IUCLC and lflag & IEXTEN:
            c = to_lower(c)
        if lflag & EXTPROC:
            self.buffer.append(c)
        elif self.special is not None and c in self.special:
            self._special_char(c)
        else:
            self._ordinary(c)

    def _restart_output(self) -> None:
        """IXANY: any character ends the stop."""
        if self.wire.stopped and self.termios.c_iflag & (IXON | IXANY) == IXON | IXANY:
            self.wire.set_stopped(False)
            self.flush_echoes()

    def _ordinary(self, c: int) -> None:
        """n_tty_receive_char()"""
        self._restart_output()
        self._echo_typed(c)
        self._put(c)

    def _echo_typed(self, c: int) -> None:
        if self.termios.c_lflag & ECHO:
            self._finish_erasing()
            if self.canon_head == self.head:
                self.echoes.append(_SET_CANON_COLUMN)
            self._echo(c)

    def _put(self, c: int) -> None:
        if c == 0xFF and self.termios.c_iflag & PARMRK:
            self.buffer.append(c)
        self.buffer.append(c)

    def _special_char(self, c: int) -> None:
        """n_tty_receive_char_special()"""
        t = self.termios
        iflag, lflag, cc = t.c_iflag, t.c_lflag, t.c_cc
        if iflag & IXON and c in (cc[VSTART], cc[VSTOP]):
            # as n_tty_receive_char_flow_ctrl(): START first, should both be the same character
            self.wire.set_stopped(c != cc[VSTART])
            self.flush_echoes()
            return
        if lflag & ISIG and c in (cc[VINTR], cc[VQUIT], cc[VSUSP]):
            signo = SIGINT if c == cc[VINTR] else SIGQUIT if c == cc[VQUIT] else SIGTSTP
            self._signal_char(c, signo)
            return
        self._restart_output()
        if c == 13:
            if iflag & IGNCR:
                return
            if iflag & ICRNL:
                c = 10
        elif c == 10 and iflag & INLCR:
            c = 13
        if lflag & ICANON and self._canonical_char(c):
            return
        if c == 10 and lflag & ECHO:
            self._finish_erasing()
            self._echo_raw(c)
        else:
            self._echo_typed(c)
        self._put(c)

    def _signal_char(self, c: int, signo: int) -> None:
        """n_tty_receive_signal_char()"""
        self.wire.signal(signo)
        if not self.termios.c_lflag & NOFLSH:
            self.echoes.clear()
            self.wire.flushed()
            self.flush()
        if self.termios.c_iflag & IXON and self.wire.stopped:
            self.wire.set_stopped(False)
        if self.termios.c_lflag & ECHO:
            self._echo(c)
        else:
            self.flush_echoes()

    def _canonical_char(self, c: int) -> bool:
        """n_tty_receive_char_canon(): True if `c` was dealt with."""
        lflag, cc = self.termios.c_lflag, self.termios.c_cc
        extended = lflag & IEXTEN
        if c in (cc[VERASE], cc[VKILL]) or (c == cc[VWERASE] and extended):
            self._erase(c)
        elif c == cc[VLNEXT] and extended:
            self.lnext = True
            if lflag & ECHO:
                self._finish_erasing()
                if lflag & ECHOCTL:
                    self.echoes += b"^\b"
        elif c == cc[VREPRINT] and lflag & ECHO and extended:
            self._finish_erasing()
            self._echo(c)
            self._echo_raw(10)
            for typed in self.buffer[self.canon_head - self.tail :]:
                self._echo(typed)
        elif c == 10:
            if lflag & (ECHO | ECHONL):
                self._echo_raw(10)
            self._end_line(c)
        elif c == cc[VEOF]:
            self._end_line(_DISABLED)
        elif c == cc[VEOL] or (c == cc[VEOL2] and extended):
            if lflag & ECHO:
                if self.canon_head == self.head:
                    self.echoes.append(_SET_CANON_COLUMN)
                self._echo(c)
            if c == 0xFF and self.termios.c_iflag & PARMRK:
                self.buffer.append(c)
            self._end_line(c)
        else:
            return False
        return True

    def _end_line(self, c: int) -> None:
        self.line_ends.append(self.head)
        self.buffer.append(c)
        self.canon_head = self.head

    # Erasing.

    def _is_continuation(self, c: int) -> bool:
        return bool(self.termios.c_iflag & IUTF8) and c & 0xC0 == 0x80

    def _finish_erasing(self) -> None:
        if self.erasing:
            self._echo_raw(ord("/"))
            self.erasing = False

    def _erase(self, c: int) -> None:
        """eraser(): one character, one word or the whole line."""
        lflag, cc = self.termios.c_lflag, self.termios.c_cc
        if self.head == self.canon_head:
            return
        one = c == cc[VERASE]
        word = not one and c == cc[VWERASE]
        if not one and not word:
            if not lflag & ECHO:
                self._drop_to(self.canon_head)
                return
            if lflag & (ECHOK | ECHOKE | ECHOE) != ECHOK | ECHOKE | ECHOE:
                self._drop_to(self.canon_head)
                self._finish_erasing()
                self._echo(cc[VKILL])
                if lflag & ECHOK:
                    self._echo_raw(10)
                return
        seen_alnum = False
        while self.head != self.canon_head:
            erased = self._last_character()
            if self._is_continuation(erased[0]):
                break  # not a whole character
            if word:
                if is_alnum(erased[0]) or erased[0] == ord("_"):
                    seen_alnum = True
                elif seen_alnum:
                    break
            del self.buffer[-len(erased) :]
            if lflag & ECHO:
                self._echo_erased(erased, one)
            if one:
                break
        if self.head == self.canon_head and lflag & ECHO:
            self._finish_erasing()

    def _drop_to(self, position: int) -> None:
        del self.buffer[position - self.tail :]

    def _last_character(self) -> bytes:
        """The last character typed, all of its bytes, but not beyond the line's start."""
        start = len(self.buffer)
        first = self.canon_head - self.tail
        while True:
            start -= 1
            if not self._is_continuation(self.buffer[start]) or start == first:
                return bytes(self.buffer[start:])

    def _echo_erased(self, erased: bytes, one: bool) -> None:
        """Show that a character is gone."""
        lflag = self.termios.c_lflag
        c = erased[0]
        if lflag & ECHOPRT:
            if not self.erasing:
                self._echo_raw(ord("\\"))
                self.erasing = True
            self._echo(c)
            for byte in erased[1:]:
                self._echo_raw(byte)
                self.echoes.append(_MOVE_BACK)
        elif one and not lflag & ECHOE:
            self._echo(self.termios.c_cc[VERASE])
        elif c == 9:
            self._erase_tab()
        else:
            if is_control(c) and lflag & ECHOCTL:
                self.echoes += b"\b \b"
            if not is_control(c) or lflag & ECHOCTL:
                self.echoes += b"\b \b"

    def _erase_tab(self) -> None:
        """Count the columns since the tab before, or since the line's start."""
        columns = after_tab = 0
        for c in reversed(self.buffer[self.canon_head - self.tail :]):
            if c == 9:
                after_tab = 0x80
                break
            if is_control(c):
                if self.termios.c_lflag & ECHOCTL:
                    columns += 2
            elif not self._is_continuation(c):
                columns += 1
        self.echoes.append(_ERASE_TAB | columns & 7 | after_tab)

    # Echo.

    def _echo(self, c: int) -> None:
        """Echo a character, a control character as ^X if so set."""
        if self.termios.c_lflag & ECHOCTL and is_control(c) and c != 9:
            self.echoes.append(_CONTROL | c)
        else:
            self.echoes.append(c)

    def _echo_raw(self, c: int) -> None:
        self.echoes.append(c)

    def flush_echoes(self) -> None:
        """Bring the echoes onto the wire, as far as it takes them. __process_echoes()"""
        if not self.echoes:
            return
        if self.wire.stopped:
            del self.echoes[:-ECHO_LIMIT]
            return
        out = bytearray()
        done = 0
        room = self.wire.room()
        post = self.termios.c_oflag & OPOST
        for operation in self.echoes:
            if room - len(out) < 8:
                break  # a tab may need that much
            done += 1
            if operation == 0xFF:  # Linux's own escape byte: shown as it is
                out.append(operation)
                self.column += 1
            elif operation < 256:
                if post:
                    self._output_char(operation, out)
                else:
                    out.append(operation)
            elif operation == _SET_CANON_COLUMN:
                self.canon_column = self.column
            elif operation == _MOVE_BACK:
                self.column = max(0, self.column - 1)
            elif operation & _CONTROL:
                out += b"^%c" % (operation & 0xFF ^ 0o100)
                self.column += 2
            else:
                columns = operation & 0xFF
                if not columns & 0x80:
                    columns += self.canon_column
                back = 8 - (columns & 7)
                out += b"\b" * back
                self.column = max(0, self.column - back)
        del self.echoes[:done]
        del self.echoes[:-ECHO_LIMIT]
        if out:
            self.wire.send(bytes(out))

    # Output.

    def process(self, data: bytes, room: int) -> tuple[bytes, int]:
        """Output processing: what goes on the wire, at most `room` bytes, and how many bytes of
        `data` that is. do_output_char()"""
        oflag = self.termios.c_oflag
        if not oflag & OPOST:
            return data[:room], min(len(data), room)
        if oflag & (ONLCR | OLCUC | OCRNL | ONOCR | ONLRET | TABDLY) == ONLCR:
            data = data[: room // 2]
            self._advance_column(data)
            return data.replace(b"\n", b"\r\n"), len(data)
        out = bytearray()
        done = 0
        for c in data:
            if room - len(out) < 8:
                break
            self._output_char(c, out)
            done += 1
        return bytes(out), done

    def _advance_column(self, data: bytes) -> None:
        """What `_output_char` does to the columns, for the common settings."""
        start = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if start:
            self.column = self.canon_column = 0
        for c in data[start:]:
            if c == 9:
                self.column += 8 - (self.column & 7)
            elif c == 8:
                self.column = max(0, self.column - 1)
            elif not is_control(c) and not self._is_continuation(c):
                self.column += 1

    def _output_char(self, c: int, out: bytearray) -> None:
        oflag = self.termios.c_oflag
        if c == 10:
            if oflag & ONLRET:
                self.column = 0
            if oflag & ONLCR:
                self.canon_column = self.column = 0
                out += b"\r\n"
                return
            self.canon_column = self.column
        elif c == 13:
            if oflag & ONOCR and self.column == 0:
                return
            if oflag & OCRNL:
                c = 10
                if oflag & ONLRET:
                    self.canon_column = self.column = 0
            else:
                self.canon_column = self.column = 0
        elif c == 9:
            spaces = 8 - (self.column & 7)
            self.column += spaces
            if oflag & TABDLY == XTABS:
                out += b" " * spaces
                return
        elif c == 8:
            self.column = max(0, self.column - 1)
        elif not is_control(c):
            if oflag & OLCUC:
                c = to_upper(c)
            if not self._is_continuation(c):
                self.column += 1
        out.append(c)

    # Reading.

    def available(self, poll: bool = False) -> bool:
        """Can a read go on? For poll(2), VMIN bytes must be there if VTIME is 0.
        input_available_p()"""
        if self.canonical:
            return self.canon_head != self.tail
        cc = self.termios.c_cc
        wanted = cc[VMIN] if poll and not cc[VTIME] and cc[VMIN] else 1
        return len(self.buffer) >= wanted

    def take(self, limit: int) -> bytes:
        """The next bytes for a reader: at most one line in canonical mode; b"" for an end of file,
        or if nothing is there. canon_copy_from_read_buf(), copy_from_read_buf()"""
        if not self.canonical:
            data = bytes(self.buffer[:limit])
            self._consume(len(data))
            return data
        if not self.line_ends:
            data = bytes(self.buffer[: min(limit, self.canon_head - self.tail)])
            self._consume(len(data))
            return data
        end = self.line_ends[0] - self.tail
        last = self.buffer[end]
        if last == _DISABLED and limit >= end:
            data = bytes(self.buffer[:end])  # the mark of an end of file is not data
            self.line_ends.popleft()
            self._consume(end + 1)
        elif limit > end:
            data = bytes(self.buffer[: end + 1])
            self.line_ends.popleft()
            self._consume(end + 1)
        else:
            data = bytes(self.buffer[:limit])
            self._consume(limit)
        return data

    def _consume(self, count: int) -> None:
        del self.buffer[:count]
        self.tail += count

    def queued(self) -> int:
        """FIONREAD: what a read could get."""
        if not self.canonical:
            return len(self.buffer)
        count = self.canon_head - self.tail
        return count - sum(self.buffer[end - self.tail] == _DISABLED for end in self.line_ends)

    def flush(self) -> None:
        """Drop what was received and not read. reset_buffer_flags()"""
        self.tail = self.head
        self.buffer.clear()
        self.canon_head = self.tail
        self.line_ends.clear()
        self.erasing = self.pushed = False
