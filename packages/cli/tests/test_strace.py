"""`--strace` beside the real strace: the same calls, and the same lines where nothing differs from
run to run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import pysandbox

STRACE = shutil.which("strace")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}

needs_strace = pytest.mark.skipif(STRACE is None, reason="needs strace to compare with")


def ours(tmp_path: Path, *command: str) -> list[str]:
    """The lines of `--strace=FILE`."""
    log = tmp_path / "ours"
    options = [f"--env={name}={value}" for name, value in ENVIRONMENT.items()]
    ended = pysandbox("run", *options, "--env", "HOME", f"--strace={log}", "--", *command)
    assert ended.returncode == 0, ended.stderr
    return log.read_text().splitlines()


def theirs(tmp_path: Path, *command: str) -> list[str]:
    """What strace itself says of a native run."""
    log = tmp_path / "theirs"
    assert STRACE is not None
    subprocess.run(
        [STRACE, "-f", "-qq", "-o", str(log), *command],
        check=True, timeout=60, env=ENVIRONMENT, stdout=subprocess.PIPE,
    )  # fmt: skip
    return log.read_text().splitlines()


def comparable(line: str) -> str:
    """A line without pid, addresses, inode-dependent sizes and random bytes."""
    line = re.sub(r"^\d+ +", "", line)
    line = re.sub(r"0x[0-9a-f]{5,}", "ADDRESS", line)
    line = re.sub(r'getrandom\("[^"]*"', "getrandom(RANDOM", line)
    line = re.sub(r"(set_tid_address\(ADDRESS\)) *= \d+", r"\1 = TID", line)
    return re.sub(r" +=", " =", line)


def names(lines: list[str]) -> list[str]:
    """The calls of a single-threaded program, in order."""
    found = (re.match(r"\d+ +(\w+)\(", line) for line in lines)
    return [match[1] for match in found if match]


@needs_strace
@pytest.mark.parametrize("command", ["/bin/true", "/bin/echo hello", "/bin/cat /etc/hostname"])
def test_the_same_calls_as_strace(tmp_path: Path, command: str) -> None:
    native = names(theirs(tmp_path, *command.split()))
    # the first execve is whoever started the program's, and not the program's own call
    assert names(ours(tmp_path, *command.split())) == native[1:]


@needs_strace
def test_the_same_lines_as_strace(tmp_path: Path) -> None:
    native = [comparable(line) for line in theirs(tmp_path, "/bin/cat", "/etc/hostname")][1:]
    sandboxed = [comparable(line) for line in ours(tmp_path, "/bin/cat", "/etc/hostname")]
    differing = [
        (one, other)
        for one, other in zip(native, sandboxed, strict=False)
        # rseq(2) has another answer in the sandbox; standard output is another pipe
        if one != other and not one.startswith(("rseq(", "newfstatat(1", "fstat(1"))
    ]
    assert not differing


def test_children_signals_and_ends(tmp_path: Path) -> None:
    lines = ours(
        tmp_path, "/bin/sh", "-c", "trap 'echo caught' USR1; kill -USR1 $$; (exit 3); /bin/true; :"
    )
    text = "\n".join(lines)
    pids = {line.split()[0] for line in lines}
    assert len(pids) == 3
    assert re.search(
        r"^\d+ +--- SIGUSR1 \{si_signo=SIGUSR1, si_code=SI_USER, si_pid=\d", text, re.M
    )
    assert re.search(r"^\d+ +\+\+\+ exited with 3 \+\+\+$", text, re.M)
    assert re.search(r"WIFEXITED\(s\) && WEXITSTATUS\(s\) == 3", text)
    assert text.endswith("+++ exited with 0 +++")


def test_calls_that_wait_are_shown_in_two_halves(tmp_path: Path) -> None:
    text = "\n".join(ours(tmp_path, "/bin/sh", "-c", "sleep 0.01; :"))
    assert re.search(r"wait4\(-1,  <unfinished \.\.\.>", text)
    assert re.search(r"<\.\.\. wait4 resumed>\[\{WIFEXITED", text)


def test_a_killed_program(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ended = pysandbox("run", f"--strace={log}", "--", "/bin/sh", "-c", "kill -KILL $$")
    assert ended.returncode == 137
    assert log.read_text().splitlines()[-1].endswith("+++ killed by SIGKILL +++")


def test_standard_error_has_no_pids_as_long_as_there_is_one_task() -> None:
    ended = pysandbox("run", "--strace", "--", "/bin/echo", "x")
    lines = ended.stderr.decode().splitlines()
    assert ended.stdout == b"x\n"
    assert 'write(1, "x\\n", 2)                      = 2' in lines
    assert lines[-1] == "+++ exited with 0 +++"


def test_an_unimplemented_call_has_its_name(tmp_path: Path) -> None:
    code = "import ctypes; ctypes.CDLL(None).syscall(425, 1, 0)"
    text = "\n".join(ours(tmp_path, "/usr/bin/python3", "-c", code))
    assert re.search(r"io_uring_setup\(.*\) += -1 E", text)
