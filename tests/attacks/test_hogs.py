"""Hogs: programs that take whatever they can get, each in a sandbox with limits and its jail on.

For each: it is refused with Linux's own error, or killed; the sentry lives and stays below a bound;
a neighbour in the sandbox goes on working; the caller is told which limit it was; and when the hog
is gone, the sandbox is as good as before.
"""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from pysandbox import PIPE, Process, RunTimeoutError, Sandbox
from sentries import anonymous_bytes, sentry_of

SOURCE = Path(__file__).with_name("hogs.c")
MEMORY = 128 << 20
PIDS = 60
SENTRY_BOUND = MEMORY + MEMORY // 2 + (48 << 20)
"""Bytes that the sentry's own memory may grow to: the limit, half of it again that the allocator
may keep of what was let go of, and 48 MiB for the kernel itself and its overdraft."""
PATIENCE_S = 120
"""For a hang, not for slowness."""

pytestmark = pytest.mark.skipif(
    not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists(),
    reason="the host's kernel does not list a process's children (CONFIG_PROC_CHILDREN)",
)


class Hog(NamedTuple):
    """What is to become of one."""

    name: str
    refused: tuple[int, ...] = ()
    """Errors with which it may be refused; 0: it has got all that it wants."""
    killed: bool = False
    """It may be killed."""
    limits: tuple[str | None, ...] = (None,)
    """What the caller may be told. How many descriptors there are is the host's to say, so that one
    hog may meet either of two limits."""
    pids: int = PIDS


FILES = (errno.ENFILE,)
HOGS = (
    Hog("anonymous", killed=True, limits=("memory",)),
    Hog("shared", killed=True, limits=("memory",)),
    Hog("memfd", (errno.ENOSPC,), True, ("memory", None)),
    Hog("tmpfs", (errno.ENOSPC,), limits=("tmpfs",)),
    Hog("stack", killed=True, limits=("memory",)),
    Hog("reserve", (errno.ENOMEM,)),
    Hog("remap", killed=True, limits=("memory",)),
    Hog("vmas", (errno.ENOMEM,)),
    Hog("page_tables", (errno.EAGAIN,), True, ("memory",)),
    Hog("vmas_forked", (errno.ENOMEM, errno.EAGAIN), True, ("memory", "pids")),
    Hog("forks", (errno.EAGAIN,), limits=("pids",)),
    Hog("bomb", (errno.EAGAIN,), limits=("pids",)),
    Hog("threads", (errno.EAGAIN,), limits=("pids",)),
    Hog("threads", killed=True, limits=("memory",), pids=1 << 20),
    Hog("futexes", (errno.EAGAIN,), limits=("pids",)),
    Hog("descriptors", FILES, True, ("files", "memory")),
    Hog("descriptors_forked", (errno.EAGAIN, *FILES), True, ("pids", "files", "memory")),
    Hog("high_descriptor", (errno.EAGAIN, errno.ENOMEM), True, ("memory", "pids")),
    Hog("pipes", FILES, True, ("memory", "files")),
    Hog("sockets", FILES, True, ("memory", "files")),
    Hog("datagrams", FILES, True, ("memory", "files")),
    Hog("in_flight", (errno.ETOOMANYREFS,)),
    Hog("backlog", FILES, True, ("files", "memory")),
    Hog("epolls", (0, *FILES), True, (None, "files", "memory")),
    Hog("nesting", (errno.ELOOP,)),
    Hog("inotifies", (errno.EMFILE, errno.ENOMEM, *FILES), True, ("memory", "files")),
    Hog("timers", (errno.EAGAIN,)),
    Hog("timerfds", FILES, True, ("files", "memory")),
    Hog("signals", (errno.EAGAIN,)),
    Hog("inodes", (errno.ENOSPC,), limits=("tmpfs",)),
    Hog("attributes", (errno.ENOSPC,), limits=("tmpfs",)),
    Hog("depth", (errno.ENOSPC,), limits=("tmpfs",)),
    Hog("links", (errno.ENOSPC,), limits=("tmpfs",)),
    Hog("missing", (0,)),
    Hog("listing", FILES, True, ("memory", "files")),
    Hog("messages", (errno.ENOMEM, errno.ENOSPC)),
    Hog("queues", (errno.EMFILE,)),
    Hog("segments", (errno.ENOSPC,)),
    Hog("semaphores", (errno.ENOSPC,)),
    Hog("locks", (errno.ENOLCK,)),
    Hog("arguments", (errno.E2BIG,)),
    Hog("entropy", (0, errno.EPERM)),
)


@pytest.fixture(scope="session")
def hogs(scratch: Path) -> Path:
    target = scratch / "hogs"
    compiler = os.environ.get("CC", "gcc")
    options = ["-std=gnu11", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *options, "-o", target, SOURCE, "-lrt"], check=True)
    return target


def wait_for_line(process: Process) -> bytes:
    """What it says; nothing if it ends without a word, whoever else has its standard output."""
    assert process.stdout is not None
    for _ in range(PATIENCE_S * 20):
        if select.select([process.stdout], [], [], 0.05)[0]:
            return os.read(process.stdout.fileno(), 4096)
        if process.poll() is not None:
            return b""
    raise AssertionError("it neither ends nor is refused")


def echo(neighbour: Process, text: bytes) -> bytes:
    """What `cat` answers."""
    assert neighbour.stdin is not None and neighbour.stdout is not None
    neighbour.stdin.write(text)
    assert select.select([neighbour.stdout], [], [], PATIENCE_S)[0], "the neighbour is stuck"
    return os.read(neighbour.stdout.fileno(), 4096)


def sentry_pid(sandbox: Sandbox) -> int:
    assert sandbox._sentry is not None
    return sentry_of(sandbox._sentry.pid)


@pytest.mark.parametrize("hog", HOGS, ids=lambda hog: f"{hog.name}-{hog.pids}")
def test_a_hog_is_stopped(best_platform: str, hog: Hog, hogs: Path) -> None:
    with (
        Sandbox(platform=best_platform, memory=MEMORY, pids=hog.pids) as sandbox,
        sandbox.start(["cat"], stdin=PIPE, stdout=PIPE) as neighbour,
    ):
        assert echo(neighbour, b"before") == b"before"
        with sandbox.start([str(hogs), hog.name], stdin=PIPE, stdout=PIPE) as process:
            line = wait_for_line(process)
            assert anonymous_bytes(sentry_pid(sandbox)) < SENTRY_BOUND
            assert echo(neighbour, b"meanwhile") == b"meanwhile"
            if process.poll() is None:
                word, name, _ = line.splitlines()[0].decode().split()
                assert word == "refused"
                assert name in [errno.errorcode.get(code, "0") for code in hog.refused]
                process.kill()
                process.wait(PATIENCE_S)
            else:
                assert hog.killed and process.returncode == -9
            assert process.limit in hog.limits
        assert sandbox.run(["sh", "-c", "echo again | cat"]).stdout == b"again\n"
        assert echo(neighbour, b"after") == b"after"


@pytest.mark.parametrize("hog", ["processor", "calls"])
def test_cpu_time(best_platform: str, hog: str, hogs: Path) -> None:
    with Sandbox(platform=best_platform, cpu_time=0.5) as sandbox:
        result = sandbox.run([str(hogs), hog], timeout=PATIENCE_S)
        assert result.returncode == -24  # SIGXCPU
        assert result.limit == "cpu_time"


def test_wall_clock(best_platform: str, hogs: Path) -> None:
    with Sandbox(platform=best_platform) as sandbox:
        with pytest.raises(RunTimeoutError) as caught:
            sandbox.run([str(hogs), "processor"], timeout=0.5)
        assert caught.value.limit == "timeout"
        assert sandbox.run(["true"]).limit is None


def test_output(best_platform: str, hogs: Path) -> None:
    """256 MiB are written, and no more is kept than was asked for."""
    with Sandbox(platform=best_platform) as sandbox:
        result = sandbox.run([str(hogs), "output"], max_output=1000)
        assert result.returncode == 0
        assert len(result.stdout) == 1000 and result.stdout_truncated
        assert result.limit == "output"


def test_the_size_of_a_tmpfs(best_platform: str) -> None:
    """Given with the sandbox, it can't be raised from inside, not even by root."""
    with Sandbox(
        platform=best_platform, user="0:0", tmpfs=["/work:size=1M,nr_inodes=9"]
    ) as sandbox:
        fill = "head -c 2000000 /dev/zero > /work/file"
        assert sandbox.run(["sh", "-c", fill]).limit == "tmpfs"
        assert sandbox.run(["stat", "-c", "%s", "/work/file"]).stdout == b"1048576\n"
        raised = sandbox.run(["mount", "-o", "remount,size=2M", "/work"])
        assert raised.returncode != 0
        names = "rm /work/file; for i in 1 2 3 4 5 6 7 8 9; do : > /work/$i; done"
        assert sandbox.run(["sh", "-c", names]).limit == "tmpfs"
        assert sandbox.run(["sh", "-c", "rm /work/*; : > /work/file"]).limit is None


@pytest.mark.parametrize(
    ("options", "hog", "status", "told"),
    [
        (
            ["--memory", "64M"],
            "anonymous",
            137,
            "limit reached: memory: process 2 (hogs) was killed",
        ),
        (["--cpu-time", "0.5"], "processor", 152, "limit reached: cpu_time: 0.5 s are used up"),
        (["--timeout", "0.5"], "processor", 124, "timed out after 0.5 s"),
        (["--pids", "20"], "forks", 0, "limit reached: pids: 20 tasks"),
        (["--memory", "64M"], "inodes", 0, "limit reached: tmpfs: "),
    ],
)
def test_the_command_says_which_limit_it_was(
    best_platform: str, options: list[str], hog: str, status: int, told: str, hogs: Path
) -> None:
    command = [sys.executable, "-m", "pysandbox", "run", "--platform", best_platform, *options]
    done = subprocess.run(
        [*command, "--", str(hogs), hog],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert f"pysandbox: {told}" in done.stderr


def test_the_neighbour_is_not_chosen(
    best_platform: str, hogs: Path, new_workdir: Callable[[], Path]
) -> None:
    """Out of memory kills the biggest: not who asks for a page when there is none, and nobody with
    an oom_score_adj of -1000."""
    script = (
        "import os, subprocess, sys\n"
        "open('/proc/self/oom_score_adj', 'w').write('-1000')\n"
        "area = bytearray(40 << 20)\n"
        f"hog = subprocess.Popen([{str(hogs)!r}, 'anonymous'], stdin=subprocess.PIPE,\n"
        "    preexec_fn=lambda: open('/proc/self/oom_score_adj', 'w').write('0'))\n"
        "print(hog.wait(), len(area))\n"
    )
    with Sandbox(platform=best_platform, user="0:0", memory="128M") as sandbox:
        result = sandbox.run(["python3", "-c", script])
        assert result.stdout == b"-9 41943040\n", result.stderr
        assert result.returncode == 0
        assert result.limit == "memory"
