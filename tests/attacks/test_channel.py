"""What a sentry that a program has taken over can do to its caller: to the SDK, through their
connection and the pipes, and to the command's first process. Whatever it says or does, the caller
gets a clear error or a result of the agreed form, never hangs, keeps no more than it asked for, and
has nothing left over.

For the SDK, liars.py stands in the place of the sentry, for it may then say whatever it likes; for
the command it is a real one, in its jail, that runs Python of ours (taken_over.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import liars
import pytest
from pysandbox import KernelFailureError, Sandbox, SandboxTimeoutError
from pysandbox import process as sdk_process
from pysandbox import sandbox as sdk_sandbox
from pysandbox.sandbox import PIPE
from pysandbox_core import sentry_server
from pysandbox_core.control import MAX_ANSWER

HERE = Path(__file__).parent
HANGS_S = 60
PATIENCE_S = 0.5
"""What the SDK has, in these tests, for a sentry that does not answer."""

NO_SENSE = r"makes no sense|does not answer|nobody has asked for|has closed|and was killed"

Liar = Callable[[str], Sandbox]


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A caller that hangs fails its test."""

    def hangs(signo: int, frame: object) -> NoReturn:
        raise AssertionError("it hangs")

    previous = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANGS_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def liar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    """Sandboxes with a liar for a sentry; afterwards nothing of them is left."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:0] = {[str(HERE), *sys.path]!r}\n"
        "import liars\nliars.main()\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    for name in ("ANSWER_S", "START_S", "CLOSE_GRACE_S"):
        monkeypatch.setattr(sdk_sandbox, name, PATIENCE_S)
    monkeypatch.setattr(sdk_process, "KILL_GRACE_S", PATIENCE_S)
    made: list[Sandbox] = []

    def make(name: str) -> Sandbox:
        monkeypatch.setenv("LIAR", name)
        made.append(Sandbox())
        return made[-1]

    before = os.listdir("/proc/self/fd")
    yield make
    for sandbox in made:
        sandbox.close()
        assert sandbox._sentry is None
    assert len(os.listdir("/proc/self/fd")) == len(before)


def slow_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """For liars that are to be ready: a busy machine has its time."""
    monkeypatch.setattr(sdk_sandbox, "START_S", HANGS_S)


def test_descriptors_of_the_sentrys_are_closed(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_start(monkeypatch)
    sandbox = liar("descriptors_nobody_wants")
    before = len(os.listdir("/proc/self/fd"))
    sandbox.open()
    assert isinstance(sandbox.failure(), KernelFailureError)
    assert len(os.listdir("/proc/self/fd")) == before + 2, "the connection and the lifeline"


@pytest.mark.parametrize("name", sorted({*liars.OPENING} - {"descriptors_nobody_wants"}))
def test_lies_about_being_ready(liar: Liar, name: str) -> None:
    with pytest.raises(KernelFailureError, match=r"makes no sense|not ready|before it was"):
        liar(name).open()


@pytest.mark.parametrize("name", sorted(liars.ENDING))
def test_lies_about_a_programs_end(liar: Liar, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    slow_start(monkeypatch)
    sandbox = liar(name).open()
    with sandbox.start(["true"]) as process:
        with pytest.raises(KernelFailureError, match=NO_SENSE):
            process.wait()
        assert process.returncode is None
        assert len(process._status_line) <= MAX_ANSWER + 4096
    assert sandbox._sentry is not None
    assert sandbox._sentry.wait() == -signal.SIGKILL, "it is not left to go on"
    with pytest.raises(KernelFailureError):
        sandbox.run(["true"])


def test_an_honest_one_is_believed(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_start(monkeypatch)
    result = liar("honest").open().run(["true"])
    assert (result.returncode, result.stdout, result.limit) == (0, b"output", None)
    assert (result.usage.cpu_time, result.usage.max_memory) == (0.5, 4096)


def test_what_it_says_is_shown_as_text(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_start(monkeypatch)
    with pytest.raises(KernelFailureError) as caught:
        liar("not_executed").open().run(["true"])
    message = str(caught.value)
    assert message.startswith(r"\x1b]0;owned\x07\u202e\rxxx")
    assert len(message) < 70_000


def test_output_without_end_is_not_waited_for(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_start(monkeypatch)
    result = liar("endless_output").open().run(["true"], max_output=6)
    assert (result.returncode, result.stdout) == (0, b"output")


@pytest.mark.parametrize("name", ["takes_the_line_back", "does_not_answer"])
def test_a_status_that_never_comes_is_not_waited_for(
    liar: Liar, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    slow_start(monkeypatch)
    sandbox = liar(name).open()
    with sandbox.start(["true"]) as process:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert process.poll() is None
        with pytest.raises(SandboxTimeoutError):
            process.wait(PATIENCE_S)
    with pytest.raises(KernelFailureError, match="did not end"):
        sandbox.run(["true"], timeout=PATIENCE_S)


def test_output_that_is_taken_back(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_start(monkeypatch)
    result = liar("takes_the_output_back").open().run(["true"])
    assert result.stdout.strip() == b"output"


def test_a_sentry_that_takes_no_requests(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_start(monkeypatch)
    sandbox = liar("does_not_answer").open()
    with sandbox.start(["true"]):
        with pytest.raises(KernelFailureError, match="takes no requests"):
            sandbox.start(["true", "x" * (4 << 20)])
        caught: list[BaseException] = []

        def another() -> None:
            try:
                sandbox.run(["true"])
            except KernelFailureError as error:
                caught.append(error)

        thread = threading.Thread(target=another)
        thread.start()
        thread.join()
        assert "takes no requests" in str(caught[0]), "every thread is told"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("is_killed_by_its_filter", KernelFailureError, "that its jail forbids"),
        ("is_killed_by_the_clock", SandboxTimeoutError, "time is up"),
    ],
)
def test_how_it_was_killed_is_told(
    liar: Liar,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    error: type[Exception],
    message: str,
) -> None:
    slow_start(monkeypatch)
    with pytest.raises(error, match=message):
        liar(name).open().run(["true"])


def test_a_directory_is_never_handed_over(
    liar: Liar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All of the host's names could be reached from it."""
    slow_start(monkeypatch)
    sandbox = liar("honest").open()
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(ValueError, match="is a directory"):
            sandbox.start(["true"], stdin=fd, stdout=PIPE)
    finally:
        os.close(fd)


def test_the_sandboxs_time_is_kept_outside_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry_server, "TIMEOUT_GRACE_S", 0)
    pid = os.fork()
    if not pid:
        sentry_server.end_after(1)
        signal.pause()
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGALRM


# The command, with a sentry that was taken over.


def command(site: Path, deed: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program whose first system call has the sentry do `deed`, with an impatient front."""
    metadata = site / "taken_over-1.dist-info"
    metadata.mkdir(parents=True)
    shutil.copy(HERE / "taken_over.py", site)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: taken-over\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[pysandbox.hooks]\nx = taken_over:plugin\n")
    impatient = (
        "import sys\nfrom pysandbox import run, command\n"
        f"run.TIMEOUT_GRACE_S = {PATIENCE_S}\nsys.exit(command.main(sys.argv[1:]))\n"
    )
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return subprocess.run(
        [sys.executable, "-c", impatient, "run", *options, "--", "/bin/true"],
        env={**os.environ, "PYTHONPATH": path, "DEED": deed},
        capture_output=True, stdin=subprocess.DEVNULL, timeout=HANGS_S, check=False,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("deed", ["work_for_ever", "be_traced_by_the_front"])
def test_the_commands_time_is_kept_outside_of_the_sandbox(
    platform: str, tmp_path: Path, deed: str
) -> None:
    if deed == "be_traced_by_the_front" and platform != "ptrace":
        pytest.skip(f"{platform}'s filter has no ptrace(2)")
    ended = command(tmp_path / "site", deed, "--timeout", "0.5", "--platform", platform)
    assert ended.returncode == 124
    assert ended.stderr.startswith(b"pysandbox: timed out after 0.5 s, and the sandbox did not end")


def test_a_thread_older_than_the_jail_is_refused(platform: str, tmp_path: Path) -> None:
    """It would have the host's root, and no layer but the filter would hold it."""
    refused = command(tmp_path / "one", "have_a_thread", "--platform", platform)
    assert refused.returncode == 125
    assert b"a thread was started before the jail" in refused.stderr
    assert refused.stdout == b""
    layers = "mountns,netns,ipcns,utsns,cgroupns,capabilities,no_new_privs,landlock"
    options = (f"--without={layers}", "--platform", platform)
    ended = command(tmp_path / "two", "have_a_thread", *options)
    assert (ended.returncode, ended.stdout) == (0, b"done\n"), "there is nothing to hold it"
