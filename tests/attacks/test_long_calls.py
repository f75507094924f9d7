"""Calls without end: while one program's is carried out, the others and the caller are served.

All calls are served by one thread. One that takes minutes lets others have it in between, and ends
when its program is killed; so a neighbour is answered before the call is done, and no timeout is
late.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
from pathlib import Path

import pytest
from pysandbox import PIPE, RunTimeoutError, Sandbox

SOURCE = Path(__file__).with_name("long_calls.c")
CALLS = re.findall(r'\{"([a-z-]+)", ', SOURCE.read_text())
PATIENCE_S = 30
"""For a hang, not for slowness."""


@pytest.fixture(scope="session")
def long_calls(scratch: Path) -> Path:
    target = scratch / "long_calls"
    compiler = os.environ.get("CC", "gcc")
    command = [compiler, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-o", target, SOURCE], check=True)
    return target


@pytest.mark.parametrize("call", CALLS)
def test_others_are_served_meanwhile(best_platform: str, call: str, long_calls: Path) -> None:
    with (
        Sandbox(platform=best_platform, memory="128M", user="0:0") as sandbox,
        sandbox.start(["cat"], stdin=PIPE, stdout=PIPE) as neighbour,
        sandbox.start([str(long_calls), call], stdout=PIPE) as process,
    ):
        assert process.stdout is not None
        assert neighbour.stdin is not None and neighbour.stdout is not None
        assert os.read(process.stdout.fileno(), 100) == b"now\n"
        neighbour.stdin.write(b"hello")
        assert select.select([neighbour.stdout], [], [], PATIENCE_S)[0], "the neighbour is stuck"
        assert os.read(neighbour.stdout.fileno(), 100) == b"hello"
        assert not select.select([process.stdout], [], [], 0)[0], "the call was done first"
        process.kill()
        assert process.wait(PATIENCE_S) == -9


@pytest.mark.parametrize("call", CALLS)
def test_a_timeout_ends_them(best_platform: str, call: str, long_calls: Path) -> None:
    """And the sandbox is as good as before."""
    with Sandbox(platform=best_platform, memory="128M", user="0:0") as sandbox:
        with pytest.raises(RunTimeoutError):
            sandbox.run([str(long_calls), call], timeout=2)
        assert sandbox.run(["echo", "again"]).stdout == b"again\n"
