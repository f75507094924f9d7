"""The line discipline beside the host's: the same bytes through a real pty, the same results."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import termios

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysandbox_core.abi.termios import (
    ECHO,
    ECHOCTL,
    ECHOE,
    ECHOK,
    ECHOKE,
    ECHONL,
    ECHOPRT,
    ICANON,
    ICRNL,
    IEXTEN,
    IGNCR,
    INLCR,
    ISTRIP,
    IUCLC,
    IUTF8,
    IXANY,
    IXON,
    OCRNL,
    OLCUC,
    ONLCR,
    ONLRET,
    ONOCR,
    OPOST,
    PARMRK,
    TERMIOS,
    VEOL,
    VEOL2,
    VMIN,
    XTABS,
)
from pysandbox_core.fs.line_discipline import BUFFER_SIZE, LineDiscipline
from pysandbox_core.fs.termios import Termios


class FakeWire:
    """Keeps what is sent; has room without end."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.stopped = False
        self.signals: list[int] = []

    def send(self, data: bytes) -> None:
        self.sent += data

    def room(self) -> int:
        return 0 if self.stopped else 1 << 20

    def signal(self, signo: int) -> None:
        self.signals.append(signo)

    def flushed(self) -> None:
        self.sent.clear()

    def set_stopped(self, stopped: bool) -> None:
        self.stopped = stopped


def settings_of(**fields: int | bytes) -> Termios:
    """The usual settings, changed."""
    new = Termios()
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def feed(chunks: list[bytes], setting: Termios) -> tuple[list[bytes], bytes]:
    """What a program reads (each read apart) and what comes back on the wire."""
    wire = FakeWire()
    discipline = LineDiscipline(Termios(), wire)
    discipline.set_termios(setting)
    reads = []
    for chunk in chunks:
        assert discipline.receive(chunk) == len(chunk)
        while discipline.available():
            reads.append(discipline.take(100))
    return reads, bytes(wire.sent)


class HostPty:
    """A pty of the host's with the same settings; nobody's controlling terminal."""

    def __init__(self, setting: Termios) -> None:
        self.master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TCSETS, setting.pack(TERMIOS))
        os.set_blocking(self.slave, False)
        os.set_blocking(self.master, False)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)

    def type(self, chunk: bytes) -> None:
        """Write, and wait until the line discipline has it: what it echoes comes after.

        FIONREAD of the slave runs the host's pending work, so that what it says is final.
        """
        os.write(self.master, chunk)
        fcntl.ioctl(self.slave, termios.FIONREAD, array.array("i", [0]))
        select.select([self.slave], [], [], 0)

    def reads(self) -> list[bytes]:
        found: list[bytes] = []
        while True:
            try:
                data = os.read(self.slave, 100)
            except BlockingIOError:
                return found
            found.append(data)
            if len(found) > 1000:
                return found

    def output(self) -> bytes:
        data = b""
        while True:
            try:
                data += os.read(self.master, 4096)
            except BlockingIOError:
                return data
            except OSError as error:
                assert error.errno == errno.EIO
                return data


def feed_host(chunks: list[bytes], setting: Termios) -> tuple[list[bytes], bytes]:
    host = HostPty(setting)
    try:
        reads = []
        for chunk in chunks:
            host.type(chunk)
            reads += host.reads()
        return reads, host.output()
    finally:
        host.close()


# Characters that mean something, and some that do not; ^C and its like need somebody to be told.
TYPED = st.binary(max_size=24) | st.lists(
    st.sampled_from(
        [b"a", b"b1", b"_", b" ", b"-", b"\t", b"\n", b"\r", b"\x7f", b"\x15", b"\x17", b"\x16",
         b"\x12", b"\x04", b"\x08", b"\x01", b"\x1b[A", b"\xc3\xa9", b"\xff", b"Z", b"\0", b";"]
    ),
    max_size=24,
).map(b"".join)  # fmt: skip

IFLAGS = st.sets(
    st.sampled_from([ICRNL, INLCR, IGNCR, ISTRIP, IUCLC, IUTF8, IXON, IXANY, PARMRK])
).map(sum)
OFLAGS = st.sets(st.sampled_from([OPOST, ONLCR, OCRNL, ONOCR, ONLRET, OLCUC, XTABS])).map(sum)
LFLAGS = st.sets(
    st.sampled_from([ICANON, ECHO, ECHOE, ECHOK, ECHOKE, ECHOCTL, ECHOPRT, ECHONL, IEXTEN])
).map(sum)
USUAL = settings_of()


@settings(max_examples=300, deadline=None)
@given(chunks=st.lists(TYPED, max_size=3))
def test_usual_settings_are_as_the_hosts(chunks: list[bytes]) -> None:
    setting = settings_of(c_lflag=USUAL.c_lflag & ~termios.ISIG, c_iflag=ICRNL | IUTF8)
    assert feed(chunks, setting) == feed_host(chunks, setting)


@settings(max_examples=500, deadline=None)
@given(chunks=st.lists(TYPED, max_size=3), iflag=IFLAGS, oflag=OFLAGS, lflag=LFLAGS)
def test_any_settings_are_as_the_hosts(
    chunks: list[bytes], iflag: int, oflag: int, lflag: int
) -> None:
    cc = bytearray(USUAL.c_cc)
    cc[VEOL], cc[VEOL2], cc[VMIN] = ord(";"), ord("Z"), 1
    setting = settings_of(c_iflag=iflag, c_oflag=oflag, c_lflag=lflag, c_cc=bytes(cc))
    assert feed(chunks, setting) == feed_host(chunks, setting)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80), oflag=OFLAGS)
def test_output_is_as_the_hosts(data: bytes, oflag: int) -> None:
    setting = settings_of(c_oflag=oflag)
    host = HostPty(setting)
    try:
        os.write(host.slave, data)
        expected = host.output()
    finally:
        host.close()
    discipline = LineDiscipline(setting, FakeWire())
    assert discipline.process(data, 1 << 16) == (expected, len(data))


def test_switching_to_raw_gives_what_is_typed_so_far() -> None:
    discipline = LineDiscipline(Termios(), FakeWire())
    discipline.receive(b"abc")
    assert not discipline.available()
    discipline.set_termios(settings_of(c_lflag=0, c_iflag=0))
    assert discipline.take(100) == b"abc"


def test_switching_to_canonical_makes_a_line_of_what_is_there() -> None:
    discipline = LineDiscipline(settings_of(c_lflag=0), FakeWire())
    discipline.receive(b"abc")
    discipline.set_termios(Termios())
    assert discipline.available()
    discipline.receive(b"d\n")
    assert [discipline.take(100), discipline.take(100)] == [b"abc", b"d\n"]


def test_end_of_file_is_not_read_twice_when_the_reader_had_no_room() -> None:
    discipline = LineDiscipline(Termios(), FakeWire())
    discipline.receive(b"abc\x04")
    assert discipline.take(3) == b"abc"
    assert not discipline.available()


def test_end_of_file_on_an_empty_line_reads_as_nothing_once() -> None:
    discipline = LineDiscipline(Termios(), FakeWire())
    discipline.receive(b"\x04")
    assert discipline.available()
    assert discipline.take(100) == b""
    assert not discipline.available()


@pytest.mark.parametrize(("typed", "signo"), [(b"\x03", 2), (b"\x1c", 3), (b"\x1a", 20)])
def test_signal_characters_drop_the_line(typed: bytes, signo: int) -> None:
    wire = FakeWire()
    discipline = LineDiscipline(Termios(), wire)
    discipline.receive(b"half a li")
    discipline.receive(b"ne" + typed)
    discipline.receive(b"x\n")
    assert wire.signals == [signo]
    assert discipline.take(100) == b"x\n"
    assert bytes(wire.sent) == b"^" + bytes((typed[0] ^ 0x40,)) + b"x\r\n"


def test_stopped_output_holds_the_echo_back() -> None:
    wire = FakeWire()
    discipline = LineDiscipline(Termios(), wire)
    discipline.receive(b"\x13abc")
    assert wire.stopped
    assert bytes(wire.sent) == b""
    discipline.receive(b"\x11")
    assert not wire.stopped
    assert bytes(wire.sent) == b"abc"


def test_a_line_too_long_keeps_its_start_and_can_be_ended() -> None:
    discipline = LineDiscipline(Termios(), FakeWire())
    assert discipline.receive(b"a" * 5000) == 5000
    assert discipline.receive(b"\n") == 1
    assert discipline.take(10000) == b"a" * (BUFFER_SIZE - 1) + b"\n"


def test_raw_input_stops_when_the_buffer_is_full() -> None:
    discipline = LineDiscipline(settings_of(c_lflag=0, c_iflag=0), FakeWire())
    assert discipline.receive(b"a" * 5000) == BUFFER_SIZE - 1
    discipline.take(10)
    assert discipline.receive(b"b" * 100) == 10


def test_vmin_counts_for_poll_but_not_for_reading() -> None:
    cc = bytearray(Termios().c_cc)
    cc[VMIN] = 3
    discipline = LineDiscipline(settings_of(c_lflag=0, c_iflag=0, c_cc=bytes(cc)), FakeWire())
    discipline.receive(b"ab")
    assert discipline.available()
    assert not discipline.available(poll=True)


def test_default_settings_are_the_hosts() -> None:
    master, slave = os.openpty()
    try:
        data = bytearray(TERMIOS.size)
        fcntl.ioctl(slave, termios.TCGETS, data)
    finally:
        os.close(master)
        os.close(slave)
    assert Termios().pack(TERMIOS) == bytes(data)
