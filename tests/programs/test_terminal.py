"""A shell on a real terminal, natively and in the sandbox: the same keys, the same screen.

The dialogues wait for what the screen has to show before the next key is pressed, so no time is
assumed: `cat` gives a line back when it reads the terminal, a prompt means that a job was stopped
or has ended.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import sys
import termios
import time
from types import TracebackType

import pytest

TIMEOUT_S = 90
PROMPT = "P> "
SHELL = ["/bin/bash", "--norc", "--noediting", "-i"]
ENVIRONMENT = {
    "PS1": PROMPT, "TERM": "dumb", "HISTFILE": "", "LC_ALL": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
}  # fmt: skip

Dialogue = list[tuple[str, str]]
"""What is typed, and what the screen must show after that."""

JOB_CONTROL: Dialogue = [
    ("cat\r", "cat\r\n"),
    ("one\r", "one\r\none\r\n"),
    ("\x1a", f"Stopped                 cat\r\n{PROMPT}"),
    ("jobs\r", f"Stopped                 cat\r\n{PROMPT}"),
    ("fg\r", "cat\r\n"),
    ("two\r", "two\r\ntwo\r\n"),
    ("\x03", PROMPT),
    ("echo rc=$?\r", f"\nrc=130\r\n{PROMPT}"),
    ("cat | cat\r", "cat\r\n"),
    ("three\r", "three\r\nthree\r\n"),
    ("\x1a", PROMPT),
    ("fg\r", "cat | cat\r\n"),
    ("\x04", PROMPT),
    ("(trap 'echo caught; exit 5' INT; cat)\r", "cat)\r\n"),
    ("four\r", "four\r\nfour\r\n"),
    ("\x03", f"caught\r\n{PROMPT}"),
    ("echo rc=$?\r", f"\nrc=5\r\n{PROMPT}"),
    ("cat\r", "cat\r\n"),
    ("five\r", "five\r\nfive\r\n"),
    ("\x1c", PROMPT),
    ("exit 3\r", "exit\r\n"),
]

SETTINGS: Dialogue = [
    ("stty -echo; echo off\r", f"\noff\r\n{PROMPT}"),
    ("echo hidden\r", f"hidden\r\n{PROMPT}"),
    ("stty echo; stty rows 40 cols 100; stty size\r", f"40 100\r\n{PROMPT}"),
    ("stty -icanon min 3 -echo; echo ready; head -c 3; stty sane; echo\r", "\nready\r\n"),
    ("abc", f"abc\r\n{PROMPT}"),
    ("stty -echo; echo ready; read x < /dev/tty; stty echo; echo got $x\r", "\nready\r\n"),
    ("secret\r", f"got secret\r\n{PROMPT}"),
    ("test -t 0 && test -t 1 && test -c $(tty) && echo a terminal\r", f"a terminal\r\n{PROMPT}"),
    ("exit\r", "exit\r\n"),
]


class Screen:
    """A program on a terminal of its own, and what it has shown."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execve(argv[0], argv, environment)
        self.text = ""
        self.status: int | None = None

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        if self.status is None:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        os.close(self.master)

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def show(self, expected: str, start: int) -> None:
        """Wait until `expected` is on the screen after position `start`."""
        end = time.monotonic() + TIMEOUT_S
        while expected not in self.text[start:]:
            left = end - time.monotonic()
            ready, _, _ = select.select([self.master], [], [], max(0, left))
            data = self._read() if ready else b""
            if not data:
                pytest.fail(f"waiting for {expected!r}, the screen shows {self.text[start:]!r}")
            self.text += data.decode("utf-8", "backslashreplace")

    def _read(self) -> bytes:
        try:
            return os.read(self.master, 4096)
        except OSError:  # the last process that had the terminal is gone
            return b""

    def wait(self) -> int:
        while data := self._read():
            self.text += data.decode("utf-8", "backslashreplace")
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status


def play(argv: list[str], dialogue: Dialogue) -> tuple[int, str]:
    """The exit status, and the whole screen with what is different each time taken out."""
    with Screen(argv, {**os.environ, **ENVIRONMENT}) as screen:
        screen.show(PROMPT, 0)
        for keys, expected in dialogue:
            start = len(screen.text)
            screen.type(keys)
            screen.show(expected, start)
        status = screen.wait()
    return status, re.sub(r"\[\d+\] \d+", "[job] pid", screen.text)


def in_sandbox(platform: str, argv: list[str]) -> list[str]:
    command = [sys.executable, "-m", "pysandbox", "run", "--platform", platform]
    for name, value in ENVIRONMENT.items():
        command += ["--env", f"{name}={value}"]
    return [*command, "--", *argv]


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize("dialogue", [JOB_CONTROL, SETTINGS], ids=["job control", "settings"])
def test_a_shell_on_the_callers_terminal(platform: str, dialogue: Dialogue) -> None:
    assert play(in_sandbox(platform, SHELL), dialogue) == play(SHELL, dialogue)


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize("dialogue", [JOB_CONTROL, SETTINGS], ids=["job control", "settings"])
def test_a_shell_on_a_terminal_of_the_sandbox(platform: str, dialogue: Dialogue) -> None:
    """python3's pty module makes a terminal inside and copies between the two."""
    spawn = f"import pty, os, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn({SHELL!r})))"
    argv = ["/usr/bin/python3", "-c", spawn]
    if not os.path.exists(argv[0]):
        pytest.skip("the distribution's python3 is not installed")
    assert play(in_sandbox(platform, argv), dialogue) == play(argv, dialogue)


def test_the_command_stops_and_goes_on_with_its_program(platform: str) -> None:
    """^Z stops the command for the shell that started it, fg continues both."""
    command = " ".join(in_sandbox(platform, ["cat"])).replace(f"PS1={PROMPT}", "A=b")
    with Screen(SHELL, {**os.environ, **ENVIRONMENT}) as screen:
        screen.show(PROMPT, 0)
        for keys, expected in (
            (f"c() {{ {command}; }}\r", PROMPT),
            ("c\r", "c\r\n"),
            ("one\r", "one\r\none\r\n"),
            ("\x1a", PROMPT),
            ("jobs\r", "Stopped"),
            ("fg\r", "cat\r\n"),
            ("two\r", "two\r\ntwo\r\n"),
            ("\x03", PROMPT),
            ("echo rc=$?\r", "\nrc=130\r\n"),
            ("exit 0\r", "exit"),
        ):
            start = len(screen.text)
            screen.type(keys)
            screen.show(expected, start)
        assert screen.wait() == 0


def test_the_terminal_is_put_back(platform: str) -> None:
    """Also when the program leaves it raw and is killed."""
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    argv = in_sandbox(platform, ["/bin/sh", "-c", "stty raw -echo; kill -9 $$"])
    pid = os.fork()
    if pid == 0:
        os.login_tty(slave)
        os.execv(argv[0], argv)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + 9
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)
