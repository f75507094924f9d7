"""Running the `pysandbox` command from tests, and seeing what processes it leaves.

Interface: `pysandbox(…)` runs the command to its end; `start(…)` returns while it runs. Both have
an environment of their own and a standard input that is empty unless the test gives one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

MARK = "PYSANDBOX_TEST_MARK"
"""In the environment of every process of the command's that a test starts: found in
/proc/PID/environ, also when the process is no child of ours any more."""
TIMEOUT_S = 60
"""For a test that hangs."""

COMMAND = (sys.executable, "-m", "pysandbox")


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, MARK: str(os.getpid()), **extra}


def pysandbox(
    *words: str,
    stdin: bytes = b"",
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    python: str | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run `pysandbox WORDS` and wait for it."""
    command = (python, "-m", "pysandbox") if python else COMMAND
    return subprocess.run(
        [*command, *words],
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=cwd,
        env=environment(**(env or {})),
    )


def start(
    *words: str,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
    new_session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start `pysandbox WORDS`."""
    return subprocess.Popen(
        [*COMMAND, *words],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment(),
        start_new_session=new_session,
    )


def children_of_this_test() -> set[tuple[int, str]]:
    """(pid, command line) of every process that the command has started for this test process."""
    found = set()
    mark = f"{MARK}={os.getpid()}".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdecimal() or int(entry) == os.getpid():
            continue
        try:
            variables = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
            line = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue  # gone meanwhile, or somebody else's
        if mark in variables or _descends(int(entry)):
            found.add((int(entry), line.decode(errors="replace")))
    return found


def _descends(pid: int) -> bool:
    """Is `pid` below this process? A platform's stubs may have no environment to be found by."""
    while pid > 1:
        try:
            # the name in parentheses may be any bytes
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return False
        if fields[0] == b"Z":
            return False  # ended; whoever started it has not looked yet
        pid = int(fields[1])
        if pid == os.getpid():
            return True
    return False
