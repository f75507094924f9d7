"""Signals, and every way in which the command can end before its program does."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from command_line import COMMAND, children_of_this_test, environment, start


def started(*words: str, **how: bool) -> subprocess.Popen[bytes]:
    """A command whose program has said that it runs."""
    process = start("run", "--", *words, **how)  # type: ignore[arg-type]
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


HANDLER = "trap 'echo got {0}; exit 7' {0}; echo ready; while :; do sleep 1000 & wait; done"


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2"])
def test_signals_sent_to_the_command_reach_the_program(name: str) -> None:
    process = started("/bin/sh", "-c", HANDLER.format(name))
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert finish(process) == (7, f"got {name}\n".encode(), b"")


@pytest.mark.parametrize("name", ["HUP", "INT", "TERM", "USR1"])
def test_a_program_that_does_not_handle_them_ends(name: str) -> None:
    process = started("/bin/sh", "-c", "echo ready; exec sleep 1000")
    number = getattr(signal, f"SIG{name}")
    process.send_signal(number)
    assert finish(process)[0] == 128 + number


def test_what_the_caller_ignores_the_program_ignores() -> None:
    """As nohup(1) does it, and a shell that starts a command with `&`."""
    ignoring = ("/bin/sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh", *COMMAND, "run", "--")
    process = subprocess.Popen(
        [*ignoring, "/bin/sh", "-c", "echo ready; read line; echo $line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    assert process.communicate(b"still there\n", timeout=60)[0] == b"still there\n"
    assert process.returncode == 0


def test_a_signal_reaches_a_program_that_computes() -> None:
    process = started("/bin/sh", "-c", "echo ready; while :; do :; done")
    process.terminate()
    assert finish(process)[0] == 143


@pytest.mark.parametrize(
    "script",
    [
        "echo ready; exec sleep 1000",
        "echo ready; while :; do :; done",
        "(while :; do :; done) & (sleep 1000) & echo ready; wait",
    ],
)
def test_killing_the_command_leaves_nothing(script: str) -> None:
    process = started("/bin/sh", "-c", script)
    assert len(children_of_this_test()) >= 2, "the front and the sentry at least"
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    wait_until_gone()


def test_killing_the_sentry_is_reported_and_leaves_nothing() -> None:
    process = started("/bin/sh", "-c", "echo ready; (while :; do :; done) & wait")
    with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
        (sentry,) = map(int, file.read().split())
    os.kill(sentry, signal.SIGKILL)
    status, _, stderr = finish(process)
    assert status == 125
    assert stderr == b"pysandbox: the sandbox was killed by signal 9 (Killed)\n"
    wait_until_gone()


def test_a_caller_that_ignores_its_children() -> None:
    process = subprocess.run(
        ["/bin/sh", "-c", 'trap "" CHLD; exec "$@"', "sh", *_command("exit 5")],
        timeout=60,
        check=False,
    )
    assert process.returncode == 5


def _command(script: str) -> list[str]:
    from command_line import COMMAND

    return [*COMMAND, "run", "--", "/bin/sh", "-c", script]


def wait_until_gone() -> None:
    """The host takes a moment to end what was killed."""
    deadline = time.monotonic() + 30
    while children_of_this_test():
        assert time.monotonic() < deadline, children_of_this_test()
        time.sleep(0.01)
