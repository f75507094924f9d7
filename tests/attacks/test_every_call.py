"""Every system call from every state of a thread, and the host is watched meanwhile: none of the
program's calls reaches it.

Where tracefs can be used (host_watch.py) it shows every call that the host carries out for the
sandbox: the stubs' are the platform's own and no others, and what the program passed (MAGIC) is an
argument of none. Elsewhere what remains is the platform's own wall: a stub that makes a call that
is not the platform's is killed, and the sandbox with it; the program ends well.

That the watcher would notice is shown by taking the ptrace platform's walls down (walls_down.c).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from host_watch import Call, HostWatch, calls_in, reason_not_to_watch
from pysandbox_core.abi.numbers_amd64 import NUMBERS

HERE = Path(__file__).parent
STATES = (
    "main", "thread", "zombie-leader", "handler", "altstack", "vfork", "pending",
    "memory-changes", "other-ways",
)  # fmt: skip
LEAST_CALLS = {"main": 5000, "other-ways": 470}
TIMEOUT_S = 240

MAGIC = 0x50595342
MAGICS = {MAGIC, MAGIC << 32 | MAGIC}

SECCOMP = NUMBERS["seccomp"]
STUB = "pysandbox-stub"
OF_A_STUB = {NUMBERS[name] for name in ("mmap", "munmap", "mprotect", "clone", "exit")}


# two CPUs of which the reader took the later one first, and a python3 whose number was a stub's
# before it, under which the tracer still prints it
TRACE = """\
  pysandbox-stub-25042   [001] ...1. 11.000250: sys_enter: NR 257 (ffffff9c, 7f0000, 80000, 0, 8, 1)
         python3-25040   [000] ...1. 11.000100: task_newtask: pid=25042 comm=python3 clone_flags=4000 oom_score_adj=0
  pysandbox-stub-25042   [001] ...1. 11.000900: task_rename: pid=25042 oldcomm=python3 newcomm=pysandbox-stub oom_score_adj=0
  pysandbox-stub-25042   [001] ...1. 11.000901: sys_enter: NR 9 (0, 1000, 3, 22, ffffffff, 0)
"""  # noqa: E501


@pytest.fixture(scope="session")
def program(scratch: Path) -> Path:
    return compile_with(scratch / "every_call", "-static", "-pthread", HERE / "every_call.c")


@pytest.fixture(scope="session")
def walls_down(scratch: Path) -> Path:
    return compile_with(scratch / "walls_down.so", "-shared", "-fPIC", HERE / "walls_down.c")


def compile_with(target: Path, *options: str | Path) -> Path:
    compiler = os.environ.get("CC", "gcc")
    flags = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror")
    subprocess.run([compiler, *flags, "-o", target, *options], check=True)
    return target


def run(
    platform: str, argv: list[str], follow: Callable[[], None] | None = None, **env: str
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pysandbox", "run", "--platform", platform]
    return subprocess.run(
        [*command, "--timeout", str(TIMEOUT_S), "--", *argv],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=2 * TIMEOUT_S, check=False,
        env={**os.environ, **env}, preexec_fn=follow,
    )  # fmt: skip


def breaches(calls: list[Call]) -> list[Call]:
    """Calls that only the program can have meant. The first stub is no stub until it has confined
    itself; all others come from it and are confined from birth."""
    begun = {call.tid for call in calls if call.number == SECCOMP and call.comm == STUB}
    found = []
    for call in calls:
        if MAGICS & set(call.arguments):
            found.append(call)
        elif call.number == SECCOMP and call.tid in begun:
            begun.discard(call.tid)
        elif call.comm == STUB and call.tid not in begun and call.number not in OF_A_STUB:
            found.append(call)
    return found


@pytest.mark.parametrize("state", STATES)
def test_no_call_reaches_the_host(platform: str, program: Path, state: str) -> None:
    reason = reason_not_to_watch()
    if reason:
        ended = run(platform, [str(program), state])
    else:
        with HostWatch() as watch:
            ended = run(platform, [str(program), state], watch.follow)
            calls = watch.finish()
        assert breaches(calls) == []
        if platform == "ptrace":
            made = Counter(call.number for call in calls if call.comm == STUB)
            assert made[NUMBERS["mmap"]] > 0, "the stubs were not watched"
        assert len({call.tid for call in calls}) > 2, "the sentry was not watched"
    assert ended.returncode == 0, ended.stderr[-2000:]
    tried = ended.stderr.rpartition(b"tried ")[2].split()[0]
    assert int(tried) >= LEAST_CALLS.get(state, 2000)
    if reason:
        pytest.skip(f"not watched, but nothing was killed: {reason}")


def test_a_call_is_that_of_the_task_of_its_time() -> None:
    assert [(call.comm, call.number) for call in calls_in(TRACE)] == [("python3", 257), (STUB, 9)]


def test_a_wall_that_falls_is_noticed(program: Path, walls_down: Path) -> None:
    """Without SYSEMU and without the stub's filter, the program's call is the host's."""
    calls = watch_without("sysemu,filter", program, walls_down)[1]
    assert NUMBERS["getppid"] in {call.number for call in breaches(calls)}


def test_the_filter_stands_without_sysemu(program: Path, walls_down: Path) -> None:
    ended, calls = watch_without("sysemu", program, walls_down)
    assert breaches(calls) == []
    assert ended.returncode != 0


def test_sysemu_stands_without_the_filter(program: Path, walls_down: Path) -> None:
    ended, calls = watch_without("filter", program, walls_down)
    assert breaches(calls) == []
    assert ended.returncode == 0, ended.stderr


def watch_without(
    walls: str, program: Path, walls_down: Path
) -> tuple[subprocess.CompletedProcess[bytes], list[Call]]:
    reason = reason_not_to_watch()
    if reason:
        pytest.skip(reason)
    with HostWatch() as watch:
        ended = run(
            "ptrace", [str(program), "marker"], watch.follow,
            LD_PRELOAD=str(walls_down), WALLS_DOWN=walls,
        )  # fmt: skip
        return ended, watch.finish()
