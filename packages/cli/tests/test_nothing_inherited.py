"""Nothing of the caller's is in the sandbox unless it was asked for: no descriptor, no variable, no
path, no name, no process; and nothing of the sentry's is in a stub's memory.

What the caller has is marked with words that occur nowhere else, so that a test can look for them
in all that a program can read of its kernel. Who looks into the sentry and the stubs from outside
has to be root: they can't be debugged by anybody else.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import COMMAND, MARK, environment
from pysandbox import Sandbox

LEAKED = 5
"""A descriptor that the caller has open by mistake."""
LEAKING = ("/bin/sh", "-c", f'exec "$@" {LEAKED}< /etc/passwd', "sh")
"""Runs the command that follows with it."""

READ_ALL_OF_PROC = """
find /proc /sys /dev -xdev -type f -readable ! -name kmsg ! -name '*random*' 2>/dev/null |
while read -r path; do
    echo "$path"; head -c 65536 "$path" 2>/dev/null
done
ls -lR /proc /sys /dev 2>/dev/null
env; id; uname -a; pwd
"""

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can look into the sentry")


def run(script: str, *options: str, **extra: str) -> str:
    """What `script` prints in a sandbox whose caller has a descriptor too many."""
    words = [*COMMAND, "run", *options, "--", "/bin/sh", "-c", script]
    ended = subprocess.run(
        [*LEAKING, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
        env=environment(**extra),
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.decode(errors="replace")


@contextmanager
def running(*options: str, **extra: str) -> Iterator[tuple[int, list[int]]]:
    """A sandbox with a program that waits: the sentry's pid and those of its stubs, which stay."""
    words = [*COMMAND, "run", *options, "--", "/bin/sh", "-c", "echo ready; read line"]
    process = subprocess.Popen(
        [*LEAKING, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(**extra),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (sentry,) = children(process.pid)
        yield sentry, children(sentry)
    finally:
        process.kill()
        process.communicate()


def children(pid: int) -> list[int]:
    return [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]


def test_no_descriptor_but_the_standard_ones() -> None:
    # 3 is the directory that ls has open
    assert run("ls /proc/self/fd").split() == ["0", "1", "2", "3"]
    assert "closed" in run(f"(: <&{LEAKED}) 2>/dev/null || echo closed")


def test_no_descriptor_with_the_sdk() -> None:
    fd = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        with Sandbox() as sandbox:
            assert sandbox.run(["ls", "/proc/self/fd"]).stdout.split() == [b"0", b"1", b"2", b"3"]
    finally:
        os.close(fd)


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 1), (0, 2), (0, 1, 2)])
def test_nothing_comes_to_lie_where_the_caller_has_closed_one(
    closed: tuple[int, ...], tmp_path: Path
) -> None:
    out = tmp_path / "open"
    redirections = " ".join(f"{fd}>&-" for fd in closed)
    command = (
        f"{' '.join(COMMAND)} run --bind {tmp_path}:/out:rw -- /bin/sh -c '{{}}' {redirections}"
    )
    out.touch()
    script = "exec 9> /out/open; for fd in 0 1 2; do test -e /proc/$$/fd/$fd && echo $fd >&9; done"
    ended = subprocess.run(
        ["/bin/sh", "-c", command.format(script)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
        env=environment(),
    )
    assert not ended.stderr
    assert [int(fd) for fd in out.read_text().split()] == sorted({0, 1, 2} - set(closed))


def test_no_word_of_the_callers_can_be_read_anywhere(tmp_path: Path) -> None:
    """Variables, arguments of the command, names of bound directories, the host's identity."""
    bound = tmp_path / "word-of-a-path"
    bound.mkdir()
    text = run(
        READ_ALL_OF_PROC,
        "--workdir", "/",
        "--bind", f"{bound}:/bound",
        "--log-level", "error",
        SECRET="word-of-a-variable",
    )  # fmt: skip
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    boot_line = Path("/proc/cmdline").read_text().strip()
    assert "/mountinfo\n" in text and " /bound " in text, "it did read something"
    for word in ("word-of-a-variable", "word-of-a-path", MARK, boot_id, boot_line):
        assert word not in text


def test_no_process_but_the_sandboxs() -> None:
    """1 is its init, 2 the program."""
    script = "echo /proc/[0-9]*; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'"
    text = run(script, SECRET="word-of-a-variable")
    assert text.splitlines()[0] == "/proc/1 /proc/2"
    assert "pysandbox" not in text.replace("HOSTNAME=pysandbox", "")
    assert "word-of-a-variable" not in text
    host_pid = os.getpid()
    assert "no" in run(f"kill -0 {host_pid} 2>/dev/null || echo no")


def test_proc_speaks_of_the_program() -> None:
    assert run("readlink /proc/self/exe") == os.path.realpath("/bin/readlink") + "\n"
    assert run("cat /proc/self/cmdline | tr '\\0' ' '") == "cat /proc/self/cmdline "
    variables = run("tr '\\0' '\\n' < /proc/self/environ").splitlines()
    assert {line.partition("=")[0] for line in variables} <= {"HOME", "PATH", "PWD", "TERM"}


def test_mounts_are_the_sandboxs() -> None:
    points = {line.split()[4] for line in run("cat /proc/self/mountinfo").splitlines()}
    assert points == {"/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm"}
    sources = {line.split()[0] for line in run("cat /proc/mounts").splitlines()}
    assert sources == {"overlay", "proc", "sysfs", "devtmpfs", "devpts", "tmpfs"}


def test_names_are_the_sandboxs() -> None:
    assert run("uname -n; cat /proc/sys/kernel/hostname") == "pysandbox\npysandbox\n"
    assert socket.gethostname() == "pysandbox" or socket.gethostname() not in run("uname -a")
    assert run("cat /proc/self/cgroup") == "0::/\n"


def test_with_a_root_of_its_own_there_is_nothing_else(tmp_path: Path) -> None:
    """Users, hosts, resolvers, time zones are what the root's /etc says, or nothing."""
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        pytest.skip("needs busybox-static: a root file system with one static program")
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "sh").write_bytes(busybox.read_bytes())
    (root / "bin" / "sh").chmod(0o755)
    (root / "etc").mkdir()
    (root / "etc" / "motd").write_text("the root's own\n")
    script = "cd /; echo *; echo /etc/*; echo /root/* /home/* /tmp/*; read x < /etc/motd; echo $x"
    text = run(script, "--rootfs", str(root), "--workdir", "/")
    assert text.splitlines() == [
        "bin dev etc proc sys",
        "/etc/motd",
        "/root/* /home/* /tmp/*",
        "the root's own",
    ]
    # also not by the name of the standard streams
    assert str(tmp_path) not in run("ls -l /proc/self/fd", "--rootfs", str(root), "--workdir", "/")


@AS_ROOT
def test_the_sentry_holds_nothing_of_the_callers() -> None:
    with running("--rootfs", "/", SECRET="word-of-a-variable") as (sentry, _):
        assert Path(f"/proc/{sentry}/environ").read_bytes().strip(b"\0") == b""
        held = [os.readlink(path) for path in Path(f"/proc/{sentry}/fd").iterdir()]
        assert "/etc/passwd" not in held
        for name in held:
            assert re.match(
                r"/dev/null$|pipe:|anon_inode:|/memfd:pysandbox-|/proc/|/lower(/|$)|socket:|/dev/kvm$",
                name,
            ), held
        memory = b"".join(memory_of(sentry))
    assert b"word-of-a-variable" not in memory


@AS_ROOT
def test_a_stubs_memory_is_the_programs_alone() -> None:
    """Its mappings are the platform's two, the program's files, and frames of the memory file; no
    byte of the sentry's is in any of them."""
    with running("--platform", "ptrace", "--hostname", "word-of-the-sentry") as (sentry, stubs):
        assert stubs
        for stub in stubs:
            kinds = {kind_of(line) for line in lines(stub, "maps")}
            assert kinds <= {"platform", "program", "file", "vsyscall"}, kinds
            assert not Path(f"/proc/{stub}/cmdline").read_bytes()
            assert not Path(f"/proc/{stub}/environ").read_bytes()
            memory = b"".join(memory_of(stub))
            assert memory, "there is something to look through"
            for word in (b"word-of-the-sentry", b"pysandbox_core", b"PyObject_"):
                assert word not in memory
        assert b"word-of-the-sentry" in b"".join(memory_of(sentry)), "it would be seen"


def lines(pid: int, name: str) -> list[str]:
    return Path(f"/proc/{pid}/{name}").read_text().splitlines()


def kind_of(line: str) -> str:
    """Of what a line of /proc/PID/maps speaks."""
    _, rights, *_, path = line.split(maxsplit=5)
    if re.match(r"/memfd:pysandbox-(stub|batch) ", path):
        return "platform" if "w" not in rights else "platform, writable"
    if path.startswith("/memfd:pysandbox-memory ") and rights.endswith("s"):
        return "program"
    if path.startswith("/lower/"):
        return "file" if "w" not in rights else "file, writable"
    return "vsyscall" if path == "[vsyscall]" else line


def memory_of(pid: int) -> Iterator[bytes]:
    """Everything that a process has in its memory and that can be read."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in lines(pid, "maps"):
            bounds, rights, *_ = line.split()
            start, end = (int(word, 16) for word in bounds.split("-"))
            if not rights.startswith("r") or end - start > 1 << 28 or start >= 1 << 63:
                continue
            try:
                memory.seek(start)
                yield memory.read(end - start)
            except OSError:
                continue  # beyond the end of its file
