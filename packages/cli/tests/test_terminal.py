"""The command at a terminal: keys reach the program, and the caller's shell keeps its jobs."""

from __future__ import annotations

import fcntl
import os
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest
from command_line import COMMAND, environment


class Terminal:
    """A pseudo-terminal, and what runs on the other side of it."""

    def __init__(self) -> None:
        self.keys, self.screen = os.openpty()
        self.seen = b""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Run `pysandbox run -- WORDS` as the foreground job of a session of its own."""

        self.process = subprocess.Popen(
            ["setsid", "--ctty", *COMMAND, "run", "--", *words],
            stdin=self.screen,
            stdout=self.screen,
            stderr=self.screen,
            env=environment(),
        )
        return self.process

    def press(self, keys: bytes) -> None:
        os.write(self.keys, keys)

    def expect(self, text: bytes) -> bytes:
        """Read until `text` has been shown; all that was shown up to it."""
        while text not in self.seen:
            ready, _, _ = select.select([self.keys], [], [], 60)
            assert ready, f"{text!r} is not in {self.seen!r}"
            self.seen += os.read(self.keys, 4096)
        before, _, self.seen = self.seen.partition(text)
        return before

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.keys)
        os.close(self.screen)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


def test_the_program_has_a_terminal(terminal: Terminal) -> None:
    fcntl.ioctl(terminal.screen, termios.TIOCSWINSZ, struct.pack("HHHH", 11, 22, 0, 0))
    process = terminal.start("/bin/sh", "-c", "tty -s && stty size && echo $TERM && echo end")
    assert terminal.expect(b"end").split() == [b"11", b"22", b"xterm"]
    assert process.wait(60) == 0


def test_lines_are_typed_and_echoed(terminal: Terminal) -> None:
    process = terminal.start("/bin/sh", "-c", "echo ready; read line; echo got $line")
    terminal.expect(b"ready")
    terminal.press(b"wrong\x7f\x7f\x7f\x7f\x7fright\n")
    terminal.expect(b"got right")
    assert process.wait(60) == 0


def test_control_c_reaches_the_program(terminal: Terminal) -> None:
    script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 1000 & wait; done"
    process = terminal.start("/bin/sh", "-c", script)
    terminal.expect(b"ready")
    terminal.press(b"\x03")
    terminal.expect(b"caught")
    assert process.wait(60) == 5


def test_control_c_ends_a_program_that_does_not_handle_it(terminal: Terminal) -> None:
    process = terminal.start("/bin/sh", "-c", "echo ready; while :; do :; done")
    terminal.expect(b"ready")
    terminal.press(b"\x03")
    assert process.wait(60) == 128 + signal.SIGINT


def test_control_z_stops_the_command_and_it_can_be_continued(terminal: Terminal) -> None:
    process = terminal.start("/bin/sh", "-c", "echo ready; read line; echo got $line")
    terminal.expect(b"ready")
    terminal.press(b"\x1a")
    pid, status = os.waitpid(process.pid, os.WUNTRACED)
    assert pid == process.pid and os.WIFSTOPPED(status)
    os.killpg(process.pid, signal.SIGCONT)
    terminal.press(b"more\n")
    terminal.expect(b"got more")
    assert process.wait(60) == 0


def test_a_shell_with_jobs(terminal: Terminal) -> None:
    process = terminal.start("/bin/bash", "--norc", "--noprofile", "-i")
    terminal.press(b"sh -c 'echo run\"\"ning; exec sleep 1000'\n")
    terminal.expect(b"running")
    terminal.press(b"\x1a")
    terminal.expect(b"Stopped")
    terminal.press(b"jobs; kill %1; wait; exit 3\n")
    assert process.wait(60) == 3


def test_a_script_is_not_stopped_by_the_program(terminal: Terminal) -> None:
    """Nobody would go on with it, and the command's timeout would not pass."""
    command = [*COMMAND, "run", "--timeout", "1", "--", "/bin/sh", "-c", "kill -STOP $$"]
    script = f"import subprocess; print('status', subprocess.run({command!r}).returncode)"
    terminal.process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-c", script],
        stdin=terminal.screen,
        stdout=terminal.screen,
        stderr=terminal.screen,
        env=environment(),
    )
    terminal.expect(b"status 124")
    assert terminal.process.wait(60) == 0


def test_control_z_stops_a_script_and_the_command_with_it(terminal: Terminal) -> None:
    terminal.process = subprocess.Popen(
        ["setsid", "--ctty", "/bin/bash", "--norc", "--noprofile", "-i"],
        stdin=terminal.screen,
        stdout=terminal.screen,
        stderr=terminal.screen,
        env=environment(),
    )
    program = shlex.quote('echo run""ning; read line; echo got $line')
    script = shlex.quote(f"{shlex.join(COMMAND)} run -- /bin/sh -c {program}; exit 3")
    terminal.press(f"sh -c {script}; echo status $?\n".encode())
    terminal.expect(b"running")
    terminal.press(b"\x1a")
    terminal.expect(b"Stopped")
    terminal.expect(b"status 148")
    terminal.expect(b"# ")  # what is typed before a shell has set its terminal may be lost
    terminal.press(b"fg; echo status $?\n")
    terminal.press(b"more\n")
    terminal.expect(b"got more")
    terminal.expect(b"status 3")
    terminal.press(b"exit\n")
    assert terminal.process.wait(60) == 0


@pytest.mark.parametrize("script", ["read line", "stty tostop; echo x", "stty -echo"])
def test_a_job_in_the_background_is_stopped(script: str, terminal: Terminal) -> None:
    """Reading, changing settings, and writing with TOSTOP are for the foreground. tty(4)"""
    command = " ".join(COMMAND)
    shell = ("/bin/bash", "--norc", "--noprofile", "-i")
    terminal.process = subprocess.Popen(
        ["setsid", "--ctty", *shell],
        stdin=terminal.screen,
        stdout=terminal.screen,
        stderr=terminal.screen,
        env=environment(PS1=""),
    )
    terminal.press(f"{command} run -- sh -c '{script}; echo st\"\"art' & wait; jobs; fg\n".encode())
    terminal.expect(b"Stopped")
    terminal.expect(b"Stopped")  # wait(1) and jobs tell
    if script.startswith("read"):
        terminal.expect(b"echo st")  # fg
        terminal.press(b"a line\n")
    terminal.expect(b"start\r\n")
    terminal.press(b"exit 3\n")
    assert terminal.process.wait(60) == 3


def test_the_settings_are_put_back(terminal: Terminal) -> None:
    before = termios.tcgetattr(terminal.screen)
    process = terminal.start("/bin/sh", "-c", "stty raw -echo; kill -KILL $$")
    assert process.wait(60) == 137
    assert termios.tcgetattr(terminal.screen) == before


def test_output_that_a_program_has_stopped_goes_on(terminal: Terminal) -> None:
    """No key would start it again: not the one who writes next, but the caller would be stuck."""
    script = "import os, termios; termios.tcflow(1, termios.TCOOFF); os._exit(0)"
    process = terminal.start("python3", "-c", script)
    assert process.wait(60) == 0
    os.set_blocking(terminal.screen, False)  # it fails where it would wait
    os.write(terminal.screen, b"goes on")
    terminal.expect(b"goes on")
