"""What third parties publish: platforms and hooks from examples/, installed as a user would install
them, into an environment of their own, with no change anywhere else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from command_line import pysandbox

EXAMPLES = Path(__file__).parents[3] / "examples"


class Scratch:
    """A virtual environment that sees what is installed here and has packages of its own."""

    def __init__(self, directory: Path) -> None:
        venv.create(directory, with_pip=False, symlinks=True)
        self.python = str(directory / "bin" / "python")
        paths = {"base": str(directory), "platbase": str(directory)}
        site_packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
        here = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        lines = [f"import site; site.addsitedir({path!r})" for path in here]
        (site_packages / "here.pth").write_text("\n".join(lines) + "\n")
        self.sources = directory / "sources"

    def install(self, example: str) -> None:
        """pip install, from a copy: a build leaves files beside the sources."""
        source = self.sources / example
        shutil.copytree(EXAMPLES / example, source, ignore=shutil.ignore_patterns("*.egg-info"))
        command = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet"]
        options = ["--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run(
            [*command, *options, "--disable-pip-version-check", str(source)],
            check=True,
            timeout=120,
            # pip answers for what it is told, not for warnings of its own
            env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore", "PYTHONWARNINGS": ""},
        )

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        return pysandbox(*words, python=self.python, env=env)


@pytest.fixture(scope="module")
def platforms(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    scratch = Scratch(tmp_path_factory.mktemp("platforms") / "venv")
    scratch.install("platform-third-party")
    scratch.install("platform-broken")
    return scratch


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    scratch = Scratch(tmp_path_factory.mktemp("hooks") / "venv")
    scratch.install("hooks-audit")
    return scratch


def test_platforms_lists_them_all(platforms: Scratch) -> None:
    ended = platforms.run("platforms")
    rows = {line[3:].split()[0]: line for line in ended.stdout.decode().splitlines()}
    assert ended.returncode == 0
    assert set(rows) >= {"NAME", "ptrace", "counting", "broken"}
    assert rows["ptrace"].startswith("*"), "the automatic choice is the best usable one"
    assert "pysandbox-platform-counting  0.1.0" in rows["counting"]
    assert " yes " in rows["counting"] and not rows["counting"].startswith("*")
    assert "pysandbox-platform-broken" in rows["broken"]
    assert "libbroken.so.1: cannot open shared object file" in rows["broken"]


def test_a_third_partys_platform_is_chosen_by_name(platforms: Scratch) -> None:
    ended = platforms.run(
        "run", "--platform", "counting", "--", "/bin/echo", "on it", COUNTING_REPORT="1"
    )
    assert (ended.returncode, ended.stdout) == (0, b"on it\n")
    counts = json.loads(ended.stderr)
    assert counts["syscall"] > 10 and counts["killed"] == 0


def test_a_broken_platform_harms_nothing(platforms: Scratch) -> None:
    ended = platforms.run("run", "--", "/bin/echo", "fine")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"fine\n", b"")


def test_a_broken_platform_chosen_by_name_is_reported(platforms: Scratch) -> None:
    ended = platforms.run("run", "--platform", "broken", "--", "/bin/true")
    assert ended.returncode == 125
    assert b"'broken'" in ended.stderr and b"libbroken.so.1" in ended.stderr
    assert ended.stderr.count(b"\n") == 1


def test_doctor_tells_of_all_of_them(platforms: Scratch) -> None:
    text = platforms.run("doctor").stdout.decode()
    for word in ("platform ptrace", "platform counting", "platform broken", "seccomp", "memfd"):
        assert word in text
    assert text.endswith("A sandbox can run here.\n")


def test_the_sdk_finds_them_too(platforms: Scratch) -> None:
    code = (
        "from pysandbox import Sandbox\n"
        "with Sandbox(platform='counting') as s:\n"
        "    print(s.platform, s.run(['echo', 'x']).stdout)\n"
    )
    output = subprocess.run(
        [platforms.python, "-c", code], check=True, capture_output=True, timeout=60
    ).stdout
    assert output == b"counting b'x\\n'\n"


def events(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_hooks_see_tasks_files_and_connections(hooked: Scratch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import socket; socket.socket(1).connect_ex('/run/nobody'); open('/etc/hostname')"
    ended = hooked.run("run", "--", "python3", "-c", script, AUDIT_LOG=str(log))
    assert ended.returncode == 0, ended.stderr
    seen = events(log)
    assert seen[0]["event"] == "start" and seen[-1] == {
        "event": "exit", "pid": seen[0]["pid"], "status": 0,
    }  # fmt: skip
    opened = [event["path"] for event in seen if event["event"] == "open"]
    assert "/etc/hostname" in opened
    assert all(str(path).startswith("/") for path in opened)
    connected = [event["address"] for event in seen if event["event"] == "connect"]
    assert connected == ["('unix', b'/run/nobody', 0)"]


def test_hooks_refuse_files(hooked: Scratch) -> None:
    ended = hooked.run("run", "--", "cat", "/etc/hostname", AUDIT_DENY="/etc/hostname:/x")
    assert ended.returncode == 1
    assert ended.stderr == b"cat: /etc/hostname: Permission denied\n"


def test_hooks_answer_calls(hooked: Scratch) -> None:
    assert hooked.run("run", "--", "id", "-u", AUDIT_UID="4711").stdout == b"4711\n"


def test_doctor_tells_of_hooks(hooked: Scratch) -> None:
    assert b"hooks audit" in hooked.run("doctor").stdout


PLUGIN = """
from pysandbox_core.hooks import hookimpl

class Plugin:
    @hookimpl
    def syscall_enter(self, declaration):
        if declaration.name == "uname":
            raise ValueError("a bug in the plugin")

plugin = Plugin()
"""


def publish(scratch: Scratch, name: str, text: str) -> Path:
    """A hook plugin without a build: a module and its metadata. Returns what to take away again."""
    site_packages = next(Path(scratch.python).parents[1].glob("lib/python*/site-packages"))
    (site_packages / f"{name}.py").write_text(text)
    metadata = site_packages / f"{name}-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[pysandbox.hooks]\n{name} = {name}:plugin\n")
    return metadata


def test_a_hook_that_raises_ends_the_sandbox_with_a_report(hooked: Scratch) -> None:
    metadata = publish(hooked, "raising", PLUGIN)
    try:
        ended = hooked.run("run", "--", "uname")
    finally:
        shutil.rmtree(metadata)
    text = ended.stderr.decode()
    assert ended.returncode == 125
    assert "in system call uname" in text.splitlines()[0]
    assert "ValueError: a bug in the plugin" in text and "raising.py" in text


def test_a_hook_that_can_not_be_imported_is_reported_and_harms_nothing(hooked: Scratch) -> None:
    metadata = publish(hooked, "lost", "import no_such_module\n")
    try:
        ended = hooked.run("run", "--", "echo", "fine")
        doctor = hooked.run("doctor").stdout
    finally:
        shutil.rmtree(metadata)
    assert (ended.returncode, ended.stdout) == (0, b"fine\n")
    assert ended.stderr.count(b"\n") == 1
    assert b"hook 'lost' (lost:plugin) is broken and not used" in ended.stderr
    assert b"hooks lost" in doctor and b"no_such_module" in doctor
