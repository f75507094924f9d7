"""However a sandbox's processes are killed, at whatever moment: nothing is left, and the caller is
told.

Whatever a sandbox leaves behind becomes this process's child (PR_SET_CHILD_SUBREAPER), so that
waiting for all children shows that there is none; a process that did not end would make it hang,
and the alarm fail. `PYSANDBOX_KILLS` is how often each process is killed; the default suits a test
run.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROUNDS = int(os.environ.get("PYSANDBOX_KILLS", "12"))
LONGEST_S = 0.6
"""Kills come at random moments up to this: half of them while the sandbox starts."""
DEADLINE_S = 60

PR_SET_CHILD_SUBREAPER = 36

BUSY = (
    "import os, threading\n"
    "def work():\n"
    "    while True: os.getppid()\n"
    "threading.Thread(target=work, daemon=True).start()\n"
    "while True:\n"
    "    if os.fork() == 0: os._exit(0)\n"
    "    os.wait()\n"
)
"""Forks, threads and system calls without end."""

ASLEEP = (
    "import os, sys, time\nif os.fork(): os.wait()\nprint('asleep', flush=True)\ntime.sleep(3600)\n"
)
"""Two processes that need nothing of the platform for an hour."""

SDK = (
    "import sys\n"
    "from pysandbox import Sandbox\n"
    "with Sandbox(platform=sys.argv[1]) as sandbox:\n"
    "    try: sandbox.run([sys.argv[2], '-c', sys.argv[3]])\n"
    "    except Exception as error: print(f'{type(error).__name__}: {error}')\n"
)


@pytest.fixture
def nursery() -> Iterator[None]:
    """This process adopts what loses its parent, and at the end there is nothing to adopt."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def children(pid: int) -> list[int]:
    """proc_pid_task_children(5), of every thread."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in path.read_text().split()]
        except OSError:  # ended meanwhile
            continue
    return found


def descendants(pid: int) -> list[int]:
    found = children(pid)
    for each in found:
        found += children(each)
    return found


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def wait_for_all() -> None:
    """Until this process has no child. The alarm ends what would not end."""

    def too_long(signo: int, frame: object) -> None:
        left = descendants(os.getpid())
        for pid in left:
            kill(pid)
        raise AssertionError(f"left behind: {left}")

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(DEADLINE_S)
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


class Host:
    """What a sandbox could leave on the host, to compare before and after."""

    def __init__(self, temporary: Path) -> None:
        self.temporary = temporary

    def state(self) -> tuple[object, ...]:
        mounts = Path("/proc/self/mountinfo").read_text()
        memory = sorted(os.listdir("/dev/shm"))
        return mounts, memory, sorted(os.listdir("/proc/self/fd")), os.listdir(self.temporary)


def start(argv: list[str], temporary: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
    )


def end_of(process: subprocess.Popen[bytes], target: int) -> tuple[int, bytes, bytes]:
    """Who was killed in the end, and what was said. What goes on without `target`, for that was a
    child's stub or a helper of the start, is killed as well; but not before `target` has been
    waited for."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return (target, *process.communicate(timeout=3))
        except subprocess.TimeoutExpired:
            if target in children(process.pid) and time.monotonic() < deadline:
                continue
            assert target not in children(process.pid)
            kill(process.pid)
            return (process.pid, *process.communicate(timeout=DEADLINE_S))


@pytest.mark.usefixtures("nursery")
@pytest.mark.parametrize("victim", ["front", "sentry", "stub"])
def test_the_command(platform: str, victim: str, tmp_path: Path) -> None:
    chance = random.Random(f"{platform} {victim}")
    host = Host(tmp_path)
    before = host.state()
    command = [sys.executable, "-m", "pysandbox", "run", "--platform", platform]
    for _ in range(ROUNDS):
        process = start([*command, "--", "/usr/bin/python3", "-c", BUSY], tmp_path)
        time.sleep(chance.uniform(0, LONGEST_S))  # a random moment is what is tested
        sentries = children(process.pid)
        stubs = [pid for sentry in sentries for pid in descendants(sentry)]
        targets = {"front": [process.pid], "sentry": sentries, "stub": stubs}[victim]
        target = chance.choice(targets) if targets else process.pid  # it has not got that far
        kill(target)
        target, output, errors = end_of(process, target)
        wait_for_all()
        assert output == b""
        if target == process.pid:
            assert process.returncode == -signal.SIGKILL, errors.decode()
        else:
            assert process.returncode == 125, errors.decode()
            assert errors.startswith(b"pysandbox: "), errors
            assert errors.count(b"\n") == 1, errors.decode()
    assert host.state() == before


@pytest.mark.usefixtures("nursery")
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_while_the_program_sleeps(platform: str, victim: int, tmp_path: Path) -> None:
    """The stub that others are cloned from, and those of two processes: the caller is told at
    once, not when one of them is needed again."""
    host = Host(tmp_path)
    before = host.state()
    command = [sys.executable, "-m", "pysandbox", "run", "--platform", platform]
    process = start([*command, "--", "/usr/bin/python3", "-c", ASLEEP], tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == b"asleep\n"
    stubs = [pid for sentry in children(process.pid) for pid in descendants(sentry)]
    if not stubs:
        kill(process.pid)
        process.communicate(timeout=DEADLINE_S)
        wait_for_all()
        pytest.skip(f"platform {platform} runs programs in no process but the sentry")
    kill(stubs[victim])
    output, errors = process.communicate(timeout=DEADLINE_S)
    wait_for_all()
    assert process.returncode == 125
    assert errors.startswith(b"pysandbox: the platform failed: "), errors
    assert b"the stub process was killed" in errors
    assert errors.count(b"\n") == 1
    assert output == b""
    assert host.state() == before


@pytest.mark.usefixtures("nursery")
@pytest.mark.parametrize("victim", ["caller", "guard", "sentry", "stub"])
def test_the_sdk(platform: str, victim: str, tmp_path: Path) -> None:
    chance = random.Random(f"{platform} {victim} sdk")
    host = Host(tmp_path)
    before = host.state()
    for _ in range(ROUNDS):
        argv = [sys.executable, "-c", SDK, platform, "/usr/bin/python3", BUSY]
        process = start(argv, tmp_path)
        time.sleep(chance.uniform(0.3, 0.3 + LONGEST_S))  # a random moment is what is tested
        guards = children(process.pid)
        sentries = [pid for guard in guards for pid in children(guard)]
        stubs = [pid for sentry in sentries for pid in descendants(sentry)]
        targets = {"caller": [], "guard": guards, "sentry": sentries, "stub": stubs}[victim]
        target = chance.choice(targets) if targets else process.pid
        kill(target)
        target, output, errors = end_of(process, target)
        wait_for_all()
        if target == process.pid:
            assert process.returncode == -signal.SIGKILL, errors.decode()
        else:
            told = output + errors
            clear = re.search(rb"\b(KernelFailure|Sandbox|PlatformChoice)Error: ", told)
            assert clear, told.decode()
    assert host.state() == before
