"""Pseudoterminals and job control: pty(7), ioctl_tty(2), credentials(7)."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Iterator
from errno import EAGAIN, EINVAL, EIO, ENOENT, ENOTTY, ENXIO, EPERM, ESRCH
from pathlib import Path
from struct import pack, unpack

import pytest
from booted_kernel import Process, World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pysandbox_core import sessions
from pysandbox_core.abi.termios import (
    ICANON,
    TERMIOS,
    TIOCGPKT,
    TIOCGPTLCK,
    TIOCGPTN,
    TIOCGSID,
    TIOCPKT,
    TIOCSIG,
    TIOCSPTLCK,
    TIOCSTI,
    TOSTOP,
    VMIN,
    VTIME,
)
from pysandbox_core.errors import Interrupted, LinuxError
from pysandbox_core.fs.pty import OUTPUT_LIMIT, PENDING_LIMIT, MasterFile
from pysandbox_core.fs.termios import Termios
from pysandbox_core.fs.tty import TtyFile
from pysandbox_core.waiting import POLLERR, POLLHUP, POLLIN, POLLOUT

RDWR = os.O_RDWR | os.O_NONBLOCK
WAIT = bytes(4)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


def refused(errno: int) -> pytest.RaisesExc[LinuxError]:
    return pytest.raises(LinuxError, check=lambda error: error.errno == errno)


class Pair:
    """Both sides of a pty: the master held by one process, the slave opened by another."""

    def __init__(self, world: World, flags: int = os.O_NOCTTY) -> None:
        self.holder = world.process()
        master = self.holder.open(b"/dev/ptmx", RDWR)
        assert isinstance(master, MasterFile)
        self.master = master
        self.holder.ioctl(master, TIOCSPTLCK, bytes(4))
        self.user = world.process()
        slave = self.user.open(b"/dev/pts/0", RDWR | flags)
        assert isinstance(slave, TtyFile)
        self.slave = slave

    def type(self, data: bytes) -> None:
        assert self.holder.write_file(self.master, data) == len(data)

    def screen(self) -> bytes:
        try:
            return self.holder.read_file(self.master)
        except LinuxError as error:
            assert error.errno == EAGAIN
            return b""

    def read(self, limit: int = 1000) -> bytes:
        return self.user.read_file(self.slave, limit)

    def set(self, **fields: object) -> None:
        setting = Termios()
        for name, value in fields.items():
            setattr(setting, name, value)
        self.user.ioctl(self.slave, termios.TCSETS, setting.pack(TERMIOS))


def pending(process: Process) -> set[int]:
    mask = process.task.group.pending.mask | process.task.pending.mask
    return {signo for signo in range(1, 65) if mask >> (signo - 1) & 1}


def new_job(leader: Process, process: Process) -> sessions.ProcessGroup:
    """Make `process` a child of `leader`, in the same session, in a job of its own."""
    session = leader.task.group.process_group.session
    group = process.task.group
    group.parent = leader.task.group
    sessions.ProcessGroup(group.pid, session).add(group)
    return group.process_group


# The pair.


def test_a_new_pty_is_locked_until_it_is_unlocked(world: World) -> None:
    process = world.process()
    master = process.open(b"/dev/ptmx", RDWR)
    assert process.ioctl(master, TIOCGPTN, WAIT) == pack("i", 0)
    assert process.ioctl(master, TIOCGPTLCK, WAIT) == pack("i", 1)
    with refused(EIO):
        process.open(b"/dev/pts/0", RDWR)
    process.ioctl(master, TIOCSPTLCK, pack("i", 0))
    process.open(b"/dev/pts/0", RDWR)


def test_the_slave_belongs_to_who_opened_the_master(world: World) -> None:
    process = world.process(uid=1234)
    process.open(b"/dev/ptmx", RDWR)
    status = process.open(b"/dev/pts").inode.lookup(process.task, b"0").stat()  # type: ignore[union-attr]
    assert (status.uid, status.gid, status.mode & 0o777) == (1234, 5, 0o620)
    assert status.rdev == os.makedev(136, 0)


def test_numbers_are_reused_when_the_master_is_closed(world: World) -> None:
    process = world.process()
    first = process.open(b"/dev/ptmx", RDWR)
    second = process.open(b"/dev/pts/ptmx", RDWR)
    assert process.names(b"/dev/pts") == [b".", b"..", b"ptmx", b"0", b"1"]
    first.decref()
    assert process.names(b"/dev/pts") == [b".", b"..", b"ptmx", b"1"]
    with refused(ENOENT):
        process.open(b"/dev/pts/0")
    third = process.open(b"/dev/ptmx", RDWR)
    assert process.ioctl(third, TIOCGPTN, WAIT) == pack("i", 0)
    second.decref()


def test_what_is_typed_is_echoed_and_read_as_a_line(world: World) -> None:
    pair = Pair(world)
    pair.type(b"hel\x7flo")
    with refused(EAGAIN):
        pair.read()
    pair.type(b"\r")
    assert pair.read() == b"helo\n"
    assert pair.screen() == b"hel\b \blo\r\n"


def test_what_is_written_has_its_newlines_completed(world: World) -> None:
    pair = Pair(world)
    assert pair.user.write_file(pair.slave, b"one\ntwo\n") == 8
    assert pair.screen() == b"one\r\ntwo\r\n"


def test_output_that_nobody_reads_is_limited(world: World) -> None:
    pair = Pair(world)
    pair.set(c_oflag=0)
    written = pair.user.write_file(pair.slave, b"x" * 100_000)
    assert OUTPUT_LIMIT - 8 <= written <= OUTPUT_LIMIT
    assert not pair.slave.poll() & POLLOUT
    with refused(EAGAIN):
        pair.user.write_file(pair.slave, b"x")
    assert len(pair.screen()) == written
    assert pair.slave.poll() & POLLOUT


def test_input_that_nobody_reads_is_limited(world: World) -> None:
    pair = Pair(world)
    pair.set(c_lflag=0, c_iflag=0)
    taken = pair.holder.write_file(pair.master, b"x" * 100_000)
    assert taken == PENDING_LIMIT + 4095
    assert not pair.master.poll() & POLLOUT
    total = b""
    while len(total) < taken:
        total += pair.read(5000)
    assert total == b"x" * taken


def test_the_master_reads_an_error_once_the_slave_is_closed_and_reads_on_when_reopened(
    world: World,
) -> None:
    pair = Pair(world)
    pair.user.write_file(pair.slave, b"last words")
    pair.slave.decref()
    assert pair.screen() == b"last words"
    assert pair.master.poll() & POLLHUP
    with refused(EIO):
        pair.holder.read_file(pair.master)
    again = pair.user.open(b"/dev/pts/0", RDWR)
    pair.user.write_file(again, b"!")
    assert pair.screen() == b"!"


def test_closing_the_master_hangs_the_slave_up(world: World) -> None:
    pair = Pair(world)
    pair.master.decref()
    assert pair.slave.poll() & (POLLHUP | POLLERR | POLLIN | POLLOUT)
    assert pair.read() == b""
    with refused(EIO):
        pair.user.write_file(pair.slave, b"x")
    with refused(EIO):
        pair.user.ioctl(pair.slave, termios.TCGETS, bytes(TERMIOS.size))


def test_the_window_size_is_shared_and_news_is_told(world: World) -> None:
    pair = Pair(world, flags=0)
    size = pack("4H", 50, 132, 0, 0)
    pair.user.task.sigmask = 1 << (signal.SIGWINCH - 1)
    pair.holder.ioctl(pair.master, termios.TIOCSWINSZ, size)
    assert pair.user.ioctl(pair.slave, termios.TIOCGWINSZ, bytes(8)) == size
    assert pending(pair.user) == {signal.SIGWINCH}


def test_settings_of_the_slave_are_seen_through_the_master(world: World) -> None:
    pair = Pair(world)
    pair.set(c_lflag=ICANON)
    data = pair.holder.ioctl(pair.master, termios.TCGETS, bytes(TERMIOS.size))
    assert TERMIOS.unpack(data)[3] == ICANON


def test_bytes_to_be_read_are_counted(world: World) -> None:
    pair = Pair(world)
    pair.type(b"abc\nde")
    assert unpack("i", pair.user.ioctl(pair.slave, termios.FIONREAD, WAIT)) == (4,)
    assert unpack("i", pair.holder.ioctl(pair.master, termios.FIONREAD, WAIT)) == (7,)


def test_flushing_drops_what_was_typed(world: World) -> None:
    pair = Pair(world)
    pair.type(b"abc\n")
    pair.user.ioctl(pair.slave, termios.TCFLSH, termios.TCIFLUSH)
    with refused(EAGAIN):
        pair.read()
    with refused(EINVAL):
        pair.user.ioctl(pair.slave, termios.TCFLSH, 9)


def test_faking_input_is_refused(world: World) -> None:
    pair = Pair(world)
    with refused(EIO):
        pair.user.ioctl(pair.slave, TIOCSTI, b"x")


def test_unknown_requests_are_no_terminals(world: World) -> None:
    pair = Pair(world)
    for request in (0x5499, 0xDEAD, 0):
        with refused(ENOTTY):
            pair.user.ioctl(pair.slave, request, 0)


def test_packet_mode_tells_of_data_and_of_flow_control(world: World) -> None:
    pair = Pair(world)
    pair.holder.ioctl(pair.master, TIOCPKT, pack("i", 1))
    assert pair.holder.ioctl(pair.master, TIOCGPKT, WAIT) == pack("i", 1)
    pair.user.write_file(pair.slave, b"data")
    assert pair.screen() == b"\0data"
    pair.user.ioctl(pair.slave, termios.TCXONC, termios.TCOOFF)
    assert pair.screen() == b"\4"
    pair.user.ioctl(pair.slave, termios.TCXONC, termios.TCOON)
    assert pair.screen() == b"\x08"
    pair.user.ioctl(pair.slave, termios.TCFLSH, termios.TCIFLUSH)
    assert pair.screen() == b"\1"


@pytest.mark.parametrize(("minimum", "tenths"), [(0, 0), (0, 1)])
def test_without_a_minimum_a_read_gives_up(world: World, minimum: int, tenths: int) -> None:
    pair = Pair(world)
    cc = bytearray(Termios().c_cc)
    cc[VMIN], cc[VTIME] = minimum, tenths
    pair.set(c_lflag=0, c_iflag=0, c_cc=bytes(cc))
    if tenths:
        with refused(EAGAIN):  # it would wait
            pair.read()
    else:
        assert pair.read() == b""
    pair.type(b"x")
    assert pair.read() == b"x"


# Sessions and jobs.


def test_opening_a_terminal_gives_it_to_a_session_leader_without_one(world: World) -> None:
    pair = Pair(world, flags=0)
    session = pair.user.task.group.process_group.session
    assert session.tty is pair.slave.tty
    assert pair.user.open(b"/dev/tty", RDWR).stat().rdev == os.makedev(5, 0)
    assert unpack("i", pair.user.ioctl(pair.slave, TIOCGSID, WAIT)) == (session.sid,)
    assert unpack("i", pair.user.ioctl(pair.slave, termios.TIOCGPGRP, WAIT)) == (pair.user.pid,)


def test_noctty_leaves_the_session_without_a_terminal(world: World) -> None:
    pair = Pair(world)
    with refused(ENXIO):
        pair.user.open(b"/dev/tty")
    with refused(ENOTTY):
        pair.user.ioctl(pair.slave, termios.TIOCGPGRP, WAIT)
    pair.user.ioctl(pair.slave, termios.TIOCSCTTY, 0)
    pair.user.open(b"/dev/tty")


def test_a_terminal_of_another_session_can_not_be_taken(world: World) -> None:
    pair = Pair(world, flags=0)
    other, root = world.process(), world.process(uid=0)
    file = root.open(b"/dev/pts/0", RDWR)
    with refused(EPERM):
        other.ioctl(file, termios.TIOCSCTTY, 1)
    root.ioctl(file, termios.TIOCSCTTY, 1)
    assert pair.user.task.group.process_group.session.tty is None
    assert root.task.group.process_group.session.tty is pair.slave.tty


@pytest.mark.parametrize(
    ("key", "signo"),
    [(b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT), (b"\x1a", signal.SIGTSTP)],
)
def test_signal_keys_reach_the_foreground_job(world: World, key: bytes, signo: int) -> None:
    pair = Pair(world, flags=0)
    worker = world.process()
    job = new_job(pair.user, worker)
    pair.user.ioctl(pair.slave, termios.TIOCSPGRP, pack("i", job.pgid))
    for process in (pair.user, worker):
        process.task.sigmask = ~0 & (1 << 64) - 1
    pair.type(key)
    assert pending(worker) == {signo}
    assert pending(pair.user) == set()


def test_the_foreground_job_is_one_of_the_session(world: World) -> None:
    pair = Pair(world, flags=0)
    stranger = world.process()
    for pgid, errno in ((stranger.pid, EPERM), (99999, ESRCH), (-1, EINVAL)):
        with refused(errno):
            pair.user.ioctl(pair.slave, termios.TIOCSPGRP, pack("i", pgid))


def test_reading_from_the_background_stops_the_job(world: World) -> None:
    pair = Pair(world, flags=0)
    worker = world.process()
    new_job(pair.user, worker)
    pair.type(b"line\n")
    with pytest.raises(Interrupted):
        worker.read_file(pair.slave)
    assert pending(worker) == {signal.SIGTTIN}


def test_reading_from_the_background_fails_for_who_blocks_the_signal(world: World) -> None:
    pair = Pair(world, flags=0)
    worker = world.process()
    new_job(pair.user, worker)
    worker.task.sigmask = 1 << (signal.SIGTTIN - 1)
    with refused(EIO):
        worker.read_file(pair.slave)


def test_reading_from_an_orphaned_job_fails(world: World) -> None:
    pair = Pair(world, flags=0)
    worker = world.process()
    new_job(pair.user, worker)
    worker.task.group.parent = world.kernel.init
    with refused(EIO):
        worker.read_file(pair.slave)


def test_writing_from_the_background_is_stopped_only_with_tostop(world: World) -> None:
    pair = Pair(world, flags=0)
    worker = world.process()
    new_job(pair.user, worker)
    assert worker.write_file(pair.slave, b"x") == 1
    pair.set(c_lflag=Termios().c_lflag | TOSTOP)
    with pytest.raises(Interrupted):
        worker.write_file(pair.slave, b"x")
    assert pending(worker) == {signal.SIGTTOU}


def test_changing_settings_from_the_background_stops_the_job(world: World) -> None:
    pair = Pair(world, flags=0)
    worker = world.process()
    new_job(pair.user, worker)
    with pytest.raises(Interrupted):
        worker.ioctl(pair.slave, termios.TCSETS, Termios().pack(TERMIOS))
    worker.task.sigmask = 1 << (signal.SIGTTOU - 1)
    worker.task.group.pending.mask = 0
    worker.ioctl(pair.slave, termios.TCSETS, Termios().pack(TERMIOS))


def test_hanging_up_tells_the_sessions_leader(world: World) -> None:
    pair = Pair(world, flags=0)
    pair.user.task.sigmask = (1 << 64) - 1
    pair.master.decref()
    assert pending(pair.user) == {signal.SIGHUP, signal.SIGCONT}
    with refused(ENXIO):
        pair.user.open(b"/dev/tty")


def test_the_leaders_exit_frees_the_terminal_and_tells_the_job(world: World) -> None:
    pair = Pair(world, flags=0)
    worker = world.process()
    job = new_job(pair.user, worker)
    pair.user.ioctl(pair.slave, termios.TIOCSPGRP, pack("i", job.pgid))
    worker.task.sigmask = (1 << 64) - 1
    sessions.leader_exited(pair.user.task.group)
    assert pending(worker) == {signal.SIGHUP, signal.SIGCONT}
    assert pair.slave.tty.session is None


def test_the_master_can_signal_the_job(world: World) -> None:
    pair = Pair(world, flags=0)
    pair.user.task.sigmask = (1 << 64) - 1
    pair.holder.ioctl(pair.master, TIOCSIG, signal.SIGINT)
    assert pending(pair.user) == {signal.SIGINT}
    with refused(EINVAL):
        pair.holder.ioctl(pair.master, TIOCSIG, signal.SIGKILL)


def test_giving_up_the_terminal(world: World) -> None:
    pair = Pair(world, flags=0)
    pair.user.task.sigmask = (1 << 64) - 1
    pair.user.ioctl(pair.slave, termios.TIOCNOTTY, 0)
    assert pending(pair.user) == {signal.SIGHUP, signal.SIGCONT}
    with refused(ENOTTY):
        pair.user.ioctl(pair.slave, termios.TIOCNOTTY, 0)


# Hostile programs.

REQUESTS = st.one_of(
    st.integers(0x5400, 0x5480),
    st.sampled_from([0x802C542A, 0x402C542B, 0x402C542D, TIOCSPTLCK, TIOCGPTN, TIOCSIG]),
    st.integers(0, 0xFFFFFFFF),
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.tuples(
            st.booleans(),
            st.one_of(st.binary(max_size=300), REQUESTS),
            st.one_of(st.binary(min_size=44, max_size=44), st.integers(0, (1 << 64) - 1)),
        ),
        max_size=12,
    )
)
def test_nothing_but_an_errno_comes_of_anything(
    world: World, steps: list[tuple[bool, bytes | int, bytes | int]]
) -> None:
    pair = Pair(world, flags=0)
    for process in (pair.holder, pair.user):
        process.task.sigmask = (1 << 64) - 1
    for through_master, what, argument in steps:
        process = pair.holder if through_master else pair.user
        file: MasterFile | TtyFile = pair.master if through_master else pair.slave
        try:
            if isinstance(what, bytes):
                process.write_file(file, what)
                file.poll()
                process.read_file(file, len(what))
            else:
                process.ioctl(file, what, argument)
        except LinuxError:
            pass
    pair.slave.decref()
    pair.master.decref()
    sessions.leader_exited(pair.user.task.group)
