"""The caller's terminal in the sandbox, played by a pty of the host's."""

from __future__ import annotations

import fcntl
import os
import signal
import termios
from collections.abc import Iterator
from errno import EAGAIN, EIO
from pathlib import Path

import pytest
from booted_kernel import Process, World
from pysandbox_core import terminal
from pysandbox_core.abi.termios import CSIZE, EXTPROC, TERMIOS, TIOCSTI
from pysandbox_core.errors import Interrupted, LinuxError
from pysandbox_core.fs.host_tty import HostTtyFile, attach, open_host_tty
from pysandbox_core.sessions import ProcessGroup
from pysandbox_core.waiting import POLLIN, POLLOUT


class Terminal:
    """A pty of the host's, and a process of the sandbox that has it as descriptors 0 to 2."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.master, self.slave = os.openpty()
        self.process = world.process()
        for fd in range(3):
            host_fd = os.dup(self.slave)
            file = open_host_tty(world.kernel, host_fd, os.O_RDWR)
            self.process.task.files.set(fd, file, cloexec=False)
        attach(self.process.task, self.process.task.files)

    @property
    def file(self) -> HostTtyFile:
        file = self.process.task.files.get(0)
        assert isinstance(file, HostTtyFile)
        return file

    def settings(self) -> list[object]:
        return termios.tcgetattr(self.slave)

    def set(self, words: list[int], cc: bytes) -> None:
        """tcsetattr by the sandboxed process: iflag, oflag, cflag, lflag."""
        data = TERMIOS.pack(*words, 0, cc)
        self.process.ioctl(self.file, termios.TCSETS, data)

    def get(self) -> tuple[list[int], bytes]:
        data = self.process.ioctl(self.file, termios.TCGETS, bytes(TERMIOS.size))
        *words, _, cc = TERMIOS.unpack(data)
        return words, cc


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Terminal]:
    actions = {signo: signal.getsignal(signo) for signo in (signal.SIGTTIN, signal.SIGTTOU)}
    with World(tmp_path) as world:
        host = Terminal(world)
        yield host
        for _, file in tuple(host.process.task.files.open_fds()):
            file.decref()
        os.close(host.master)
        os.close(host.slave)
    for signo, action in actions.items():
        signal.signal(signo, action)


def test_it_is_the_console_and_controls_the_session(host: Terminal) -> None:
    session = host.process.task.group.process_group.session
    assert session.tty is host.world.kernel.console
    assert host.process.readlink(b"/proc/self/fd/0") == b"/dev/console"
    assert host.process.open(b"/dev/console").stat().rdev == os.makedev(5, 1)
    status = host.process.open(b"/dev/tty").stat()
    assert status.rdev == os.makedev(5, 0)


def test_all_three_descriptors_are_one_terminal(host: Terminal) -> None:
    files = [file for _, file in host.process.task.files.open_fds()]
    assert len({file.tty for file in files if isinstance(file, HostTtyFile)}) == 1


def test_data_passes_both_ways(host: Terminal) -> None:
    os.write(host.master, b"typed\n")
    assert host.process.read_file(host.file) == b"typed\n"
    assert host.process.write_file(host.file, b"shown\n") == 6
    screen = b""
    while len(screen) < 14:
        screen += os.read(host.master, 100)
    assert screen == b"typed\r\nshown\r\n"


def test_without_anything_typed_a_read_would_block(host: Terminal) -> None:
    host.file.flags |= os.O_NONBLOCK
    with pytest.raises(LinuxError) as error:
        host.process.read_file(host.file)
    assert error.value.errno == EAGAIN
    assert host.file.poll() & (POLLIN | POLLOUT) == POLLOUT
    os.write(host.master, b"\x04")
    assert host.process.read_file(host.file) == b""


def test_nobody_elses_descriptor_becomes_nonblocking(host: Terminal) -> None:
    assert os.get_blocking(host.slave)


def test_settings_are_the_hosts(host: Terminal) -> None:
    words, cc = host.get()
    host.set([words[0], words[1], words[2], words[3] & ~termios.ECHO], cc)
    assert not termios.tcgetattr(host.slave)[3] & termios.ECHO


def test_the_wire_and_what_is_not_the_programs_stay(host: Terminal) -> None:
    before = termios.tcgetattr(host.slave)
    words, cc = host.get()
    host.set([words[0], words[1], words[2] & ~CSIZE, words[3] | EXTPROC], cc)
    after = termios.tcgetattr(host.slave)
    assert after[2] == before[2]
    assert not after[3] & EXTPROC


def test_the_window_size_is_the_hosts(host: Terminal) -> None:
    size = b"\x28\0\x64\0\0\0\0\0"
    fcntl.ioctl(host.slave, termios.TIOCSWINSZ, size)
    assert host.process.ioctl(host.file, termios.TIOCGWINSZ, bytes(8)) == size


def test_faking_input_is_refused(host: Terminal) -> None:
    with pytest.raises(LinuxError) as error:
        host.process.ioctl(host.file, TIOCSTI, b"x")
    assert error.value.errno == EIO


def test_jobs_are_the_sandboxs_own(host: Terminal) -> None:
    worker: Process = host.world.process()
    group = worker.task.group
    group.parent = host.process.task.group
    ProcessGroup(group.pid, host.process.task.group.process_group.session).add(group)
    os.write(host.master, b"line\n")
    with pytest.raises(Interrupted):
        worker.read_file(host.file)
    host.process.ioctl(host.file, termios.TIOCSPGRP, group.pid.to_bytes(4, "little"))
    assert worker.read_file(host.file) == b"line\n"


def test_a_terminal_that_is_gone_hangs_up(host: Terminal) -> None:
    host.process.task.sigmask = (1 << 64) - 1
    other = os.open(os.devnull, os.O_RDWR)
    os.dup2(other, host.master)  # closes it
    os.close(other)
    assert host.process.read_file(host.file) == b""


# Putting the terminal back.


def test_settings_are_put_back(host: Terminal) -> None:
    before = host.settings()
    restore = terminal.save((host.slave, host.master))
    words, cc = host.get()
    host.set([0, 0, words[2], 0], bytes(len(cc)))
    assert host.settings() != before
    restore()
    assert host.settings() == before


def test_without_a_terminal_there_is_nothing_to_put_back() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    terminal.save((reader, writer))()
    os.close(reader)
