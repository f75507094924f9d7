"""The SDK: what a Python program can ask of a sandbox, and how each failure looks to it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pysandbox
import pytest
from command_line import children_of_this_test, environment
from pysandbox import (
    PIPE,
    CommandFailedError,
    CommandNotExecutableError,
    CommandNotFoundError,
    InvalidOptionError,
    KernelFailureError,
    PlatformChoiceError,
    RunTimeoutError,
    Sandbox,
    SandboxError,
    SandboxTimeoutError,
)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


def test_a_run_gives_everything_back(sandbox: Sandbox) -> None:
    result = sandbox.run(["sh", "-c", "cat; echo wrong >&2; exit 3"], input=b"in\0put")
    assert (result.returncode, result.stdout, result.stderr) == (3, b"in\0put", b"wrong\n")
    assert result.args[0] == "sh"
    assert result.duration > 0
    assert not result.stdout_truncated and not result.stderr_truncated


def test_text_input_is_utf8(sandbox: Sandbox) -> None:
    assert sandbox.run(["cat"], input="ü").stdout == "ü".encode()


def test_input_is_empty_if_none_is_given(sandbox: Sandbox) -> None:
    assert sandbox.run(["cat"]).stdout == b""


def test_returncodes_are_subprocesss(sandbox: Sandbox) -> None:
    assert sandbox.run(["sh", "-c", "kill -KILL $$"]).returncode == -signal.SIGKILL
    assert sandbox.run(["sh", "-c", "kill -SEGV $$"]).returncode == -signal.SIGSEGV


def test_usage(sandbox: Sandbox) -> None:
    busy = (
        "import os, time\nx = b'x' * (50 << 20)\nwhile time.process_time() < 0.2: pass\nos._exit(0)"
    )
    usage = sandbox.run(["python3", "-c", busy]).usage
    assert usage.cpu_time >= 0.2
    assert usage.max_memory >= 50 << 20


def test_what_a_run_writes_the_next_one_sees_and_the_host_never(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    path = str(tmp_path / "file")
    sandbox.run(["sh", "-c", f"echo kept > {path}"])
    assert sandbox.run(["cat", path]).stdout == b"kept\n"
    assert not os.path.exists(path)
    with Sandbox() as other:
        assert other.run(["cat", path]).returncode == 1


def test_a_process_left_behind_goes_on_until_the_sandbox_is_closed(sandbox: Sandbox) -> None:
    script = (
        "cd /dev/shm; mkfifo in out; "
        "(read word < in; echo got $word > out) > /dev/null 2> /dev/null &"
    )
    assert sandbox.run(["sh", "-c", script]).returncode == 0
    result = sandbox.run(["sh", "-c", "cd /dev/shm; echo hello > in; cat out"])
    assert result.stdout == b"got hello\n"


def test_large_input_and_output(sandbox: Sandbox) -> None:
    data = os.urandom(3 << 20)
    result = sandbox.run(["sh", "-c", "tee /dev/stderr"], input=data)
    assert result.stdout == data and result.stderr == data


def test_output_beyond_the_limit_is_dropped_and_the_program_goes_on(sandbox: Sandbox) -> None:
    script = "head -c 1000000 /dev/zero; echo end >&2; exit 5"
    result = sandbox.run(["sh", "-c", script], max_output=1000)
    assert result.stdout == bytes(1000) and result.stdout_truncated
    assert result.stderr == b"end\n" and not result.stderr_truncated
    assert result.returncode == 5
    exact = sandbox.run(["printf", "12345"], max_output=5)
    assert exact.stdout == b"12345" and not exact.stdout_truncated


def test_a_program_that_does_not_read_its_input(sandbox: Sandbox) -> None:
    assert sandbox.run(["true"], input=bytes(1 << 20)).returncode == 0


def test_environment() -> None:
    with Sandbox(env={"A": "sandbox", "B": "sandbox"}) as sandbox:
        lines = sandbox.run(["env"], env={"B": "run"}).stdout.decode().splitlines()
    assert {"A=sandbox", "B=run"} <= set(lines)
    assert {line.partition("=")[0] for line in lines} == {"A", "B", "HOME", "PATH"}


def test_directories(tmp_path: Path) -> None:
    with Sandbox(workdir="/usr") as sandbox:
        assert sandbox.run(["pwd"]).stdout == b"/usr\n"
        assert sandbox.run(["pwd"], cwd="/usr/bin").stdout == b"/usr/bin\n"
        with pytest.raises(InvalidOptionError, match="working directory /nowhere"):
            sandbox.run(["pwd"], cwd="/nowhere")
        assert sandbox.run(["pwd"]).stdout == b"/usr\n"


def test_users(sandbox: Sandbox) -> None:
    assert sandbox.run(["id", "-u"]).stdout.strip() == str(os.getuid()).encode()
    assert sandbox.run(["id", "-u"], user="77").stdout == b"77\n"
    assert sandbox.run(["id", "-g"], user=(7, 8)).stdout == b"8\n"


def test_binds_memory_and_names(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host")
    with Sandbox(
        binds=[(tmp_path, "/ro"), (str(tmp_path), b"/rw", "rw"), f"{tmp_path}:/also:ro"],
        tmpfs=["/scratch"],
        memory="64M",
        hostname="named",
        pids=20,
    ) as sandbox:
        assert sandbox.run(["cat", "/ro/in", "/also/in"]).stdout == b"from the host" * 2
        sandbox.run(["sh", "-c", "echo out > /rw/out"]).check()
        assert sandbox.run(["uname", "-n"]).stdout == b"named\n"
        assert sandbox.run(["ls", "-A", "/scratch"]).stdout == b""
        big = sandbox.run(["python3", "-c", "bytearray(200 << 20)"])
        assert big.returncode != 0
        assert sandbox.run(["echo", "still there"]).stdout == b"still there\n"
    assert (tmp_path / "out").read_text() == "out\n"


def test_check(sandbox: Sandbox) -> None:
    assert sandbox.run(["true"], check=True).returncode == 0
    with pytest.raises(CommandFailedError, match="sh exited with status 9: oops") as caught:
        sandbox.run(["sh", "-c", "echo oops >&2; exit 9"], check=True)
    assert caught.value.result.returncode == 9
    with pytest.raises(CommandFailedError, match="killed by signal 15"):
        sandbox.run(["sh", "-c", "kill $$"], check=True)


def test_programs_that_can_not_be_run(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(CommandNotFoundError, match="nosuch: command not found"):
        sandbox.run(["nosuch"])
    with pytest.raises(FileNotFoundError):
        sandbox.run(["/no/such"])
    plain = tmp_path / "plain"
    plain.write_text("no program")
    with pytest.raises(CommandNotExecutableError, match="Permission denied"):
        sandbox.run([plain])
    with pytest.raises(PermissionError):
        sandbox.run([str(plain)])
    assert sandbox.run(["echo", "fine"]).stdout == b"fine\n"


@pytest.mark.parametrize(
    "script", ["echo partial; sleep 1000", "echo partial; while :; do :; done"]
)
def test_a_run_that_takes_too_long(sandbox: Sandbox, script: str) -> None:
    with pytest.raises(RunTimeoutError, match="killed") as caught:
        sandbox.run(["sh", "-c", script], timeout=0.5)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.stdout == b"partial\n"
    assert sandbox.run(["echo", "on"]).stdout == b"on\n"


def test_a_timeout_ends_what_the_program_has_started(sandbox: Sandbox) -> None:
    script = "sh -c 'echo $$ > /dev/shm/child; while :; do :; done' & wait"
    with pytest.raises(RunTimeoutError):
        sandbox.run(["sh", "-c", script], timeout=1)
    gone = sandbox.run(["sh", "-c", "kill -0 $(cat /dev/shm/child)"])
    assert gone.returncode == 1, gone


def test_a_sandbox_whose_time_is_up() -> None:
    with Sandbox(timeout=1.0) as sandbox:
        with pytest.raises(SandboxTimeoutError, match="time is up"):
            sandbox.run(["sleep", "1000"])
        with pytest.raises(SandboxTimeoutError):
            sandbox.run(["true"])


def test_runs_at_the_same_time(sandbox: Sandbox) -> None:
    def run(number: int) -> bytes:
        script = f"read x; echo $x {number}; exec sh -c 'kill -0 1 2>/dev/null; echo end'"
        return sandbox.run(["sh", "-c", script], input=f"{number}\n".encode()).stdout

    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(run, range(24)))
    assert outputs == [f"{number} {number}\nend\n".encode() for number in range(24)]


def test_many_sandboxes_at_the_same_time() -> None:
    def run(number: int) -> bytes:
        with Sandbox(tmpfs=["/work"]) as sandbox:
            return sandbox.run(["sh", "-c", f"echo {number} > /work/x; cat /work/x"]).stdout

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(8))) == [f"{number}\n".encode() for number in range(8)]


def test_a_program_that_is_talked_to(sandbox: Sandbox) -> None:
    with sandbox.start(["cat"], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"one\n")
        assert process.stdout.read(100) == b"one\n"
        process.stdin.write(b"two\n")
        assert process.stdout.read(100) == b"two\n"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(60) == 0
        assert process.poll() == 0


def test_signals_to_a_program(sandbox: Sandbox) -> None:
    script = "trap 'echo caught; exit 4' TERM; echo ready; while :; do sleep 1000 & wait; done"
    with sandbox.start(["sh", "-c", script], stdout=PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(100) == b"ready\n"
        with pytest.raises(SandboxTimeoutError, match="still runs"):
            process.wait(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 4
        process.send_signal(signal.SIGTERM)  # having ended is no error


def test_leaving_a_process_kills_it(sandbox: Sandbox) -> None:
    with sandbox.start(["sh", "-c", "echo $$; exec sleep 1000"], stdout=PIPE) as process:
        assert process.stdout is not None
        pid = process.stdout.read(100).decode().strip()
    deadline = time.monotonic() + 30
    while sandbox.run(["sh", "-c", f"kill -0 {pid}"]).returncode == 0:
        assert time.monotonic() < deadline


def test_files_as_standard_streams(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("content")
    with (
        open(tmp_path / "in", "rb") as source,
        open(tmp_path / "out", "wb") as target,
        sandbox.start(["cat"], stdin=source, stdout=target) as process,
    ):
        assert process.wait(60) == 0
    assert (tmp_path / "out").read_text() == "content"


def test_the_sandbox_killed_from_outside() -> None:
    with Sandbox() as sandbox:
        assert sandbox._sentry is not None
        with sandbox.start(["sleep", "1000"]) as process:
            os.kill(sandbox._sentry.pid, signal.SIGKILL)
            with pytest.raises(KernelFailureError, match="process is gone"):
                process.wait(60)
        with pytest.raises(KernelFailureError):
            sandbox.run(["true"])


def test_closing_while_a_program_runs() -> None:
    sandbox = Sandbox().open()
    caught: list[BaseException] = []

    def run() -> None:
        try:
            sandbox.run(["sh", "-c", "echo x > /dev/shm/started; sleep 1000"])
        except SandboxError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 30
    while sandbox.run(["test", "-e", "/dev/shm/started"]).returncode:
        assert time.monotonic() < deadline
    sandbox.close()
    thread.join(60)
    assert len(caught) == 1 and "closed" in str(caught[0])
    sandbox.close()
    with pytest.raises(SandboxError, match="not open"):
        sandbox.run(["true"])


def test_a_caller_that_is_killed_leaves_nothing() -> None:
    code = (
        "from pysandbox import Sandbox\n"
        "with Sandbox() as s:\n"
        "    s.start(['sh', '-c', 'echo ready; while :; do :; done']).wait()\n"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment()
    )
    assert caller.stdout is not None and caller.stdout.readline() == b"ready\n"
    assert len(children_of_this_test()) >= 2
    caller.kill()
    caller.wait()
    caller.stdout.close()
    deadline = time.monotonic() + 30
    while children_of_this_test():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_mistakes_are_told_before_anything_starts() -> None:
    for options, text in (
        ({"memory": "lots"}, "size 'lots'"),
        ({"memory": 5}, "at least 1M"),
        ({"binds": ["/nowhere:/x"]}, "does not exist"),
        ({"binds": [("/", "/x", "rx")]}, "'ro' or 'rw'"),
        ({"timeout": 0}, "timeout"),
        ({"user": "me"}, "user 'me'"),
        ({"log_level": "x"}, "log level"),
    ):
        with pytest.raises(InvalidOptionError, match=text):
            Sandbox(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        Sandbox(hostname="")


def test_platforms_that_are_not_there() -> None:
    with pytest.raises(PlatformChoiceError, match="no platform 'nosuch'"):
        Sandbox(platform="nosuch").open()


def test_arguments(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidOptionError, match="pass a list"):
        sandbox.run("ls -l")
    with pytest.raises(InvalidOptionError, match="no program"):
        sandbox.run([])
    with pytest.raises(InvalidOptionError, match="NUL"):
        sandbox.run(["echo", "a\0b"])
    with pytest.raises(InvalidOptionError, match="empty name"):
        sandbox.run(["env"], env={"A=B": "c"})
    odd = os.fsdecode(b"\xff")
    assert sandbox.run(["printf", "%s", odd]).stdout == b"\xff"


def test_arguments_that_are_no_bytes_or_too_long(sandbox: Sandbox) -> None:
    for words, options in ((["echo", "\ud800"], {}), (["env"], {"env": {"A": "\ud800"}})):
        with pytest.raises(InvalidOptionError, match=r"\\ud800' can't be encoded"):
            sandbox.run(words, **options)  # type: ignore[arg-type]
    with pytest.raises(CommandNotExecutableError, match="Argument list too long"):
        sandbox.run(["echo", "x" * (65 << 20)])
    with pytest.raises(InvalidOptionError, match="max_output"):
        sandbox.run(["echo"], max_output=-1)
    assert sandbox.run(["echo", "fine"]).stdout == b"fine\n"


def test_signals_that_are_none(sandbox: Sandbox) -> None:
    with sandbox.start(["cat"], stdin=PIPE) as process:
        for signo in (-1, 0, 65, 1 << 40):
            with pytest.raises(InvalidOptionError, match="is not 1 to 64"):
                process.send_signal(signo)
        process.send_signal(64)
        assert process.wait(60) == -64


def test_times_that_poll_would_not_take(sandbox: Sandbox) -> None:
    assert sandbox.run(["echo", "on"], timeout=1e9).stdout == b"on\n"
    for timeout in (3e6, 1e30, float("inf")):
        with sandbox.start(["true"]) as process:
            assert process.wait(timeout) == 0


def test_a_working_directory_that_was_deleted(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert sandbox.run(["pwd"]).stdout == b"/\n"
    with Sandbox() as another:
        assert another.run(["pwd"]).stdout == b"/\n"


def in_a_fork(do: Callable[[], object]) -> None:
    """Do something in a fork of this process, which must succeed and end as programs do."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            do()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_fork_does_not_end_its_parents_sandbox(sandbox: Sandbox) -> None:
    sandbox.run(["sh", "-c", "echo kept > /dev/shm/kept"]).check()
    in_a_fork(sandbox.close)
    in_a_fork(sandbox.__del__)
    in_a_fork(lambda: sandbox.__exit__(None, None, None))
    assert sandbox.run(["cat", "/dev/shm/kept"]).stdout == b"kept\n"


def test_a_fork_has_to_open_a_sandbox_of_its_own(sandbox: Sandbox) -> None:
    def use() -> None:
        with pytest.raises(SandboxError, match="forked"):
            sandbox.run(["true"])
        with Sandbox() as another:
            assert another.run(["echo", "own"]).stdout == b"own\n"
        with sandbox:
            assert sandbox.run(["echo", "again"]).stdout == b"again\n"

    with sandbox.start(["cat"], stdin=PIPE) as process:
        in_a_fork(use)
        assert process.poll() is None
        assert sandbox.run(["echo", "on"]).stdout == b"on\n"


def test_a_caller_with_odd_habits() -> None:
    """Standard descriptors closed, SIGCHLD ignored: nothing of the SDK's own comes to lie where the
    caller has none, and a sandbox's process is waited for all the same."""
    code = (
        "import os, signal, sys\n"
        "from pysandbox import Sandbox\n"
        "out = os.dup(1)\n"
        "for fd in map(int, sys.argv[1:]): os.close(fd)\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "with Sandbox() as s:\n"
        "    written = s.run(['cat'], input='in').stdout\n"
        "    with s.start(['cat'], stdin=None) as p: status = p.wait(60)\n"
        "    os.write(out, b'%s %d %s' % (written, status, s.run(['cat']).stdout))\n"
    )
    for closed in ((), (0,), (1,), (0, 1), (0, 1, 2)):
        ended = subprocess.run(
            [sys.executable, "-c", code, *map(str, closed)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
            env=environment(),
        )
        assert (ended.stdout, ended.stderr) == (b"in 0 ", b""), closed


def test_closing_from_several_threads_at_once() -> None:
    sandbox = Sandbox()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            sandbox.open()
            for closed in [pool.submit(sandbox.close) for _ in range(8)]:
                closed.result()


def test_too_few_descriptors_for_a_sandbox() -> None:
    before = os.listdir("/proc/self/fd")
    free = [fd for fd in range(1024) if str(fd) not in before]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for room in range(6):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (free[room], limits[1]))
            with pytest.raises(SandboxError, match="Too many open files"):
                Sandbox().open()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert len(os.listdir("/proc/self/fd")) == len(before)


def test_the_automatic_platform_is_named() -> None:
    with Sandbox() as sandbox:
        assert sandbox.platform != "auto"


def test_descriptors_are_given_back() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    with Sandbox() as sandbox:
        sandbox.run(["true"])
        inside = count()
        for _ in range(5):
            sandbox.run(["cat"], input=b"x")
            with pytest.raises(CommandNotFoundError):
                sandbox.run(["nosuch"])
        assert count() == inside
        (sentry,) = [pid for pid, line in children_of_this_test() if "sentry_server" in line][:1]
        counts = []
        for _ in range(30):
            sandbox.run(["true"])
            counts.append(len(os.listdir(f"/proc/{sentry}/fd")))
        # it keeps some files open for the next time, but never more and more
        assert max(counts[15:]) <= max(counts[:15])
    assert count() < inside


def test_every_public_name_is_there() -> None:
    assert all(getattr(pysandbox, name) is not None for name in pysandbox.__all__)
    assert set(pysandbox.__all__) <= set(dir(pysandbox))
    with pytest.raises(AttributeError):
        pysandbox.nosuch  # noqa: B018
