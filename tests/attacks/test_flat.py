"""The sentry's own memory stays flat: what a program makes and lets go of leaves nothing behind.

Each action of flat.c is done some times to warm up, then COUNT times; a leak of LEAK bytes each
time fails. `PYSANDBOX_FLAT_COUNT=1000000` is the full run, which may grow by no more than the short
one; what takes milliseconds each (SLOW) is done a tenth as often.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sentries import anonymous_bytes, open_descriptors, sentry_of

SOURCE = Path(__file__).with_name("flat.c")
ACTIONS = re.findall(r'\{"([a-z-]+)", do_', SOURCE.read_text())
SLOW = {"exec", "thread", "session", "fault"}
COUNT = int(os.environ.get("PYSANDBOX_FLAT_COUNT", "10000"))
LEAK = 100
"""Bytes: losing so much each time fails the test, and so does less in a longer run."""
MOST_COUNTED = 10_000

pytestmark = pytest.mark.skipif(
    not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists(),
    reason="the host's kernel does not list a process's children (CONFIG_PROC_CHILDREN)",
)


@pytest.fixture(scope="session")
def flat(scratch: Path) -> Path:
    target = scratch / "flat"
    compiler = os.environ.get("CC", "gcc")
    command = [compiler, "-std=gnu11", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-o", target, SOURCE], check=True)
    return target


@pytest.mark.parametrize("action", ACTIONS)
def test_memory_stays_where_it_was(best_platform: str, action: str, flat: Path) -> None:
    count = max(COUNT // 10, 5000) if action in SLOW else COUNT
    command = [sys.executable, "-m", "pysandbox", "run", "--platform", best_platform, "--"]
    with subprocess.Popen(
        [*command, str(flat), action, str(count // 4), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as front:
        assert front.stdin is not None and front.stdout is not None
        assert front.stdout.readline() == b"warm\n"
        sentry = sentry_of(front.pid)
        before, descriptors = anonymous_bytes(sentry), open_descriptors(sentry)
        front.stdin.write(b"\n")
        front.stdin.flush()
        assert front.stdout.readline() == b"done\n"
        grown = anonymous_bytes(sentry) - before
        assert open_descriptors(sentry) <= descriptors
        front.stdin.write(b"\n")
        front.stdin.close()
        assert front.wait() == 0
    assert grown < LEAK * min(count, MOST_COUNTED), f"{grown / count:.0f} bytes a time"
