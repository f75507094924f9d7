"""`pysandbox run`: every option does what its help says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import COMMAND, environment, pysandbox, start


def sh(script: str, *options: str, **how: object) -> subprocess.CompletedProcess[bytes]:
    return pysandbox("run", *options, "--", "/bin/sh", "-c", script, **how)  # type: ignore[arg-type]


def test_standard_streams_are_the_programs() -> None:
    ended = sh("cat; echo wrong >&2", stdin=b"through\0\xff")
    assert ended.stdout == b"through\0\xff"
    assert ended.stderr == b"wrong\n"
    assert ended.returncode == 0


@pytest.mark.parametrize("status", [0, 1, 42, 125, 255])
def test_the_exit_status_is_the_programs(status: int) -> None:
    assert sh(f"exit {status}").returncode == status


@pytest.mark.parametrize(("signal", "status"), [("KILL", 137), ("TERM", 143), ("SEGV", 139)])
def test_the_exit_status_after_a_signal(signal: str, status: int) -> None:
    assert sh(f"kill -{signal} $$").returncode == status


@pytest.mark.parametrize("name", ["nosuchprogram", "/bin/nosuchprogram", "/etc/passwd/x", "./x"])
def test_a_program_that_is_not_there(name: str) -> None:
    ended = pysandbox("run", "--", name)
    assert ended.returncode == 127
    assert ended.stderr.startswith(f"pysandbox: {name}: command not found".encode())
    assert ended.stderr.count(b"\n") == 1


def test_programs_that_can_not_be_executed(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    not_elf = tmp_path / "not_elf"
    not_elf.write_bytes(b"\x7fELF but no further")
    not_elf.chmod(0o755)
    lost = tmp_path / "lost"
    lost.write_text("#!/no/such/interpreter\n")
    lost.chmod(0o755)
    for path, status, text in (
        (plain, 126, b"Permission denied"),
        (tmp_path, 126, b"Permission denied"),
        (not_elf, 126, b"Exec format error"),
        (lost, 127, b"command not found"),
    ):
        ended = pysandbox("run", "--", str(path))
        assert (path.name, ended.returncode) == (path.name, status)
        assert text in ended.stderr and ended.stderr.count(b"\n") == 1


def test_the_program_is_looked_up_in_its_own_path(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    assert pysandbox("run", "--", "tool").returncode == 127
    assert pysandbox("run", "--env", f"PATH=/nowhere:{tmp_path}", "--", "tool").stdout == b"found\n"


def test_only_what_is_asked_for_is_in_the_environment() -> None:
    caller = {"SECRET": "x", "SHOWN": "from the caller"}
    ended = pysandbox(
        "run", "--env", "A=1", "--env", "SHOWN", "--env", "MISSING", "--env", "A=2", "--", "env",
        env=caller,
    )  # fmt: skip
    home = "/root" if os.getuid() == 0 else "/"
    assert sorted(ended.stdout.decode().splitlines()) == [
        "A=2",
        f"HOME={home}",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SHOWN=from the caller",
    ]


def test_a_default_can_be_taken_out_of_the_environment() -> None:
    ended = pysandbox("run", "--env", "HOME", "--", "/usr/bin/env", env={"HOME": "/somewhere"})
    assert b"HOME=/somewhere\n" in ended.stdout


def test_the_working_directory_is_the_callers(tmp_path: Path) -> None:
    assert sh("pwd -P", cwd=tmp_path).stdout.decode().strip() == str(tmp_path.resolve())
    assert sh("pwd", "--workdir", "/usr").stdout == b"/usr\n"


def test_a_working_directory_that_is_missing(tmp_path: Path) -> None:
    ended = sh("pwd", "--workdir", "/no/such/directory")
    assert ended.returncode == 125
    assert b"working directory /no/such/directory" in ended.stderr
    ended = sh("pwd", "--workdir", "/bin/sh")
    assert ended.returncode == 125
    assert b"working directory /bin/sh" in ended.stderr and b"ENOTDIR" in ended.stderr
    # not asked for, so no error: the caller's own may be hidden by a mount
    assert sh("pwd", "--tmpfs", "/tmp", cwd=tmp_path).stdout == b"/\n"


def test_nothing_that_is_written_reaches_the_host(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("as it was")
    ended = sh("echo changed > kept; echo new > new; rm -r * ; ls", cwd=tmp_path)
    assert ended.returncode == 0
    assert kept.read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_binds(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("the host's\n")
    read_only = sh("cat /b/file; echo x > /b/new", "--bind", f"{tmp_path}:/b")
    assert read_only.stdout == b"the host's\n"
    assert b"Read-only file system" in read_only.stderr
    written = sh("echo written > /b/new", "--bind", f"{tmp_path}:/b:rw")
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "new").read_text() == "written\n"
    single = sh("cat /b", "--bind", f"{tmp_path / 'file'}:/b")
    assert single.stdout == b"the host's\n"


@pytest.mark.parametrize("source", ["/proc", "/proc/self/status", "/sys"])
def test_interfaces_of_the_hosts_kernel_are_no_binds(source: str) -> None:
    """Nothing would be seen of them."""
    ended = sh("ls /b", "--bind", f"{source}:/b")
    assert ended.returncode == 125
    assert ended.stdout == b""
    words = f"pysandbox: bind source {source} is an interface of the host's kernel".encode()
    assert ended.stderr.startswith(words)


@pytest.mark.parametrize("mode", ["ro", "rw"])
def test_mounts_in_mounts(mode: str, tmp_path: Path) -> None:
    """The deeper one is seen, in whatever order they are given: a tmpfs hides what a bind shows."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("the host's")
    (tmp_path / "file").write_text("a file\n")
    script = "ls /b /b/secret; touch /b/secret/new; cat /b/secret/f"
    options = [
        ("--bind", f"{tmp_path / 'file'}:/b/secret/f"),
        ("--tmpfs", "/b/secret"),
        ("--bind", f"{tmp_path}:/b:{mode}"),
    ]
    for order in (options, options[::-1]):
        ended = sh(script, *[word for option in order for word in option])
        expected = b"/b:\nfile\nsecret\n\n/b/secret:\nf\na file\n"
        assert (ended.stdout, ended.stderr) == (expected, b"")
    assert [path.name for path in (tmp_path / "secret").iterdir()] == ["key"]


def test_tmpfs() -> None:
    ended = sh(
        "ls -A /usr; echo x > /usr/x && cat /usr/x", "--tmpfs", "/usr", "--tmpfs", "/new/one"
    )
    # without /usr there is no program left but the shell's own commands
    assert ended.returncode != 0
    ended = sh(
        "ls -A /srv /new/one; echo x > /srv/x; cat /srv/x", "--tmpfs", "/srv", "--tmpfs", "/new/one"
    )
    assert ended.stdout == b"/new/one:\n\n/srv:\nx\n"


def test_rootfs(tmp_path: Path) -> None:
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        pytest.skip("needs busybox-static: a root file system with one static program")
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "busybox").write_bytes(busybox.read_bytes())
    (root / "bin" / "busybox").chmod(0o755)
    ended = pysandbox("run", "--rootfs", str(root), "--", "/bin/busybox", "ls", "/")
    assert b"bin" in ended.stdout.split()
    assert b"etc" not in ended.stdout.split()


def test_users() -> None:
    own = sh("id -u; id -g").stdout.decode().split()
    assert own == [str(os.getuid()), str(os.getgid())]
    assert sh("id -u; id -g", "--user", "1234").stdout.split() == [b"1234", b"1234"]
    assert sh("id -u; id -g; id -G", "--user", "12:34").stdout.split() == [b"12", b"34", b"34"]


def test_hostname() -> None:
    assert sh("uname -n").stdout == b"pysandbox\n"
    assert sh("uname -n", "--hostname", "elsewhere").stdout == b"elsewhere\n"


def test_memory_limit() -> None:
    script = "python3 -c 'x = bytearray(300 << 20); print(len(x))'"
    assert sh(script).stdout == b"314572800\n"
    ended = sh(script, "--memory", "64M")
    assert ended.returncode != 0 and not ended.stdout


def test_pids_limit() -> None:
    ended = sh("(sleep 0; true) & (sleep 0; true) & wait; echo done", "--pids", "2")
    assert b"done" not in ended.stdout or b"ork" in ended.stderr
    assert sh("(true) & wait; echo done", "--pids", "8").stdout == b"done\n"


def test_timeout() -> None:
    for script in ("sleep 1000", "while :; do :; done"):
        ended = sh(script, "--timeout", "0.5")
        assert ended.returncode == 124
        assert ended.stderr == b"pysandbox: timed out after 0.5 s; the program was killed\n"
    assert sh("echo in time", "--timeout", "100").stdout == b"in time\n"


def test_a_program_that_stops_itself_does_not_stop_the_clock() -> None:
    """Without a terminal there is nobody to go on with it. A session of its own has none."""
    command = [sys.executable, "-m", "pysandbox", "run", "--timeout", "1", "--"]
    ended = subprocess.run(
        [*command, "sh", "-c", "kill -STOP $$"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, start_new_session=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 124
    assert b"timed out" in ended.stderr


def test_what_still_runs_ends_with_the_program() -> None:
    ended = sh("sleep 1000 & echo started")
    assert (ended.returncode, ended.stdout) == (0, b"started\n")


def test_closed_standard_streams() -> None:
    command = " ".join(COMMAND)
    for script, expected in (
        ("run -- /bin/echo x >&-", 1),
        ("run -- /bin/sh -c 'exit 3' <&-", 3),
        ("run -- /bin/sh -c 'exit 4' <&- >&- 2>&-", 4),
    ):
        ended = subprocess.run(
            ["/bin/sh", "-c", f"{command} {script}"],
            env=environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == expected, (script, ended.stderr)


def test_a_reader_that_goes_away() -> None:
    ended = subprocess.run(
        ["/bin/sh", "-c", f"{' '.join(COMMAND)} run -- /bin/sh -c 'yes; exit' | head -n 1"],
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout == b"y\n"


def test_arguments_are_bytes() -> None:
    ended = subprocess.run(
        [*COMMAND, "run", "--", "/bin/echo", b"\xff\xfe", "ü", ""],
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout == b"\xff\xfe \xc3\xbc \n"


def test_log_level() -> None:
    quiet = pysandbox("run", "--log-level", "error", "--", "/bin/true")
    assert quiet.stderr == b""


FLOOD = f"""
import mmap, os, signal
child = os.fork()
if child == 0:
    os.write(1, mmap.mmap(-1, {1 << 28}))
    os._exit(0)
while not os.fstat(1).st_size:
    pass
os.kill(child, signal.SIGKILL)
os._exit(0)
"""
"""A write that is to last, and somebody who ends it."""


def test_a_long_write_keeps_nobody_waiting(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with (
        output.open("wb") as file,
        start("run", "--", sys.executable, "-c", FLOOD, stdout=file) as process,
    ):
        assert process.wait(60) == 0
    assert output.stat().st_size < 1 << 28
