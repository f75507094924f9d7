"""The sentry as if it were already broken into: what could somebody do who has taken it over?

A hook plugin (broken_in.py) runs in the jailed sentry and tries everything at once: files, network,
other processes, code, the host's kernel. With the jail nothing of it succeeds, and what the filter
forbids ends the sandbox with a clear message. Then the walls are taken down, to show that the
attempts are real and that each wall stands by itself: no wall, and all succeed; one wall alone, and
it stops what it is there for.

The walls are root's to take down one by one (without a user namespace most need its privileges), so
that part is run as root only.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from errno import ENOSYS
from pathlib import Path
from typing import IO, Any

import poor_host
import pytest
from broken_in import APART, ATTEMPTS, WALLS
from neighbour import NAME
from pysandbox_core.jail.layers import NAMES

HERE = Path(__file__).parent
NOBODY = 65534
TIMEOUT_S = 60
SECRET = "what only the host may know"
IPC_PRIVATE, IPC_CREAT, IPC_RMID = 0, 0o1000, 0
KILLED = "its kernel made a host system call that its jail forbids"

AS_ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take walls down singly")


NEEDS = {"make_a_machine": "/dev/kvm", "open_the_memory_of_the_host": "/dev/mem"}
"""Attempt -> what the host may not have."""
NOT_BUILT_IN = os.strerror(ENOSYS)


class World:
    """A host with something to steal: files, a neighbour, services, IPC objects."""

    def __init__(self, directory: Path, owner: int) -> None:
        self.directory = directory
        self.owner = owner
        self.root, self.shown, self.outside, self.site = (
            directory / name for name in ("root", "shown", "outside", "site")
        )
        for folder in (self.root, self.shown, self.outside, self.site):
            folder.mkdir()
        self._write(self.root / "lower-file", "below the root\n")
        self._write(self.root / "garbage", "\0\0\0\0 is no program", 0o755)
        self._write(self.shown / "shown-file", "bound\n")
        self._write(self.outside / "secret", SECRET, 0o600)
        self._write(self.outside / "given", "standard input\n", 0o600)
        compiler = os.environ.get("CC", "gcc")
        program = self.root / "program"
        subprocess.run([compiler, "-static", "-o", program, HERE / "first_call.c"], check=True)
        self._publish()
        for path in (directory, *directory.rglob("*")):
            os.chown(path, owner, owner)
        self.services = Services(directory / "service")
        os.chmod(directory / "service", 0o777)
        self.neighbour = subprocess.Popen(
            [*as_user(owner), sys.executable, HERE / "neighbour.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.neighbour.stdout is not None
        self.neighbour_address = int(self.neighbour.stdout.readline())
        self.keys = IpcObjects()

    def close(self) -> None:
        self.keys.close()
        self.services.close()
        self.neighbour.communicate()

    @staticmethod
    def _write(path: Path, text: str, mode: int = 0o644) -> None:
        path.write_text(text)
        path.chmod(mode)

    def _publish(self) -> None:
        """The plugin as pip would have installed it."""
        shutil.copy(HERE / "broken_in.py", self.site)
        metadata = self.site / "broken_in-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-in\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text("[pysandbox.hooks]\nx = broken_in:plugin\n")

    def facts(self, names: Sequence[str], token: bytes, *, lenient: bool) -> str:
        return json.dumps({
            "attempts": list(names), "lenient": lenient,
            "secret": str(self.outside / "secret"), "secret_text": SECRET,
            "scratch": str(self.outside), "lower": str(self.root / "lower-file"),
            "shown": str(self.shown), "shown_file": str(self.shown / "shown-file"),
            "garbage": str(self.root / "garbage"),
            "neighbour": self.neighbour.pid, "neighbour_address": self.neighbour_address,
            "neighbour_name": NAME.decode(), "ancestors": [os.getpid()],
            "environment": [token[:20].hex(), token[20:].hex()],
            **self.services.facts, **self.keys.facts,
        })  # fmt: skip


class Services:
    """Listeners on the host that answer whoever reaches them."""

    def __init__(self, path: Path) -> None:
        abstract = f"pysandbox-test-{secrets.token_hex(8)}"
        self._listeners = [
            self._listen(socket.AF_INET, ("127.0.0.1", 0)),
            self._listen(socket.AF_UNIX, "\0" + abstract),
            self._listen(socket.AF_UNIX, str(path)),
        ]
        self._udp = socket.socket(type=socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 0))
        threading.Thread(target=self._answer_datagrams, daemon=True).start()
        self.facts: dict[str, Any] = {
            "tcp_port": self._listeners[0].getsockname()[1],
            "udp_port": self._udp.getsockname()[1],
            "abstract": abstract,
            "socket": str(path),
        }

    def _listen(self, family: int, address: Any) -> socket.socket:
        listener = socket.socket(family)
        listener.bind(address)
        listener.listen()
        threading.Thread(target=self._answer, args=(listener,), daemon=True).start()
        return listener

    def _answer(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.send(b"the host")

    def _answer_datagrams(self) -> None:
        while True:
            try:
                _, address = self._udp.recvfrom(100)
                self._udp.sendto(b"the host", address)
            except (OSError, TypeError):  # no address: it was shut down
                return

    def close(self) -> None:
        for listener in (*self._listeners, self._udp):
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


class IpcObjects:
    """A shared memory segment and a message queue of System V, by key."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        key = secrets.randbelow(1 << 30) + 1
        self._shm = self._libc.shmget(key, 4096, IPC_CREAT | 0o666)
        self._msg = self._libc.msgget(key, IPC_CREAT | 0o666)
        self.facts = {"shm_key": key, "msg_key": key}

    def close(self) -> None:
        self._libc.shmctl(self._shm, IPC_RMID, None)
        self._libc.msgctl(self._msg, IPC_RMID, None)


def as_user(uid: int, platform: str = "") -> list[str]:
    """What to put before a command."""
    if uid == os.geteuid():
        return []
    allowed = ["kvm-for-all"] if platform == "kvm" else []
    return [sys.executable, poor_host.__file__, *allowed, f"user={uid}", "--"]


def make_world(scratch: Path, owner: int) -> Iterator[World]:
    directory = Path(tempfile.mkdtemp(prefix="world-", dir=scratch))
    directory.chmod(0o755)
    world = World(directory, owner)
    yield world
    world.close()


@pytest.fixture(scope="module")
def world(scratch: Path) -> Iterator[World]:
    yield from make_world(scratch, os.geteuid())


@pytest.fixture(scope="module")
def world_of_nobody(scratch: Path) -> Iterator[World]:
    yield from make_world(scratch, NOBODY)


def break_in(
    world: World, platform: str, names: Sequence[str], *options: str
) -> dict[str, tuple[bool, str]]:
    """Have a broken-in sentry try `names`, with a filter that does not kill; each name -> (did it
    succeed?, what came of it)."""
    together = [name for name in names if name not in APART]
    groups = [together, *([name] for name in names if name in APART)]
    if "--without" not in options:
        groups = [list(names)]  # nothing is going to succeed
    outcomes: dict[str, tuple[bool, str]] = {}
    for group in filter(None, groups):
        status, stdout, stderr = _one_sandbox(world, platform, group, options, lenient=True)
        for line in stdout:
            kind, _, rest = line.partition(" ")
            if kind in ("stopped", "DONE"):
                name, _, detail = rest.partition(" ")
                outcomes[name] = (kind == "DONE", detail)
        assert outcomes.keys() >= set(group), f"status {status}: {stdout[-1:]} {stderr}"
    return outcomes


def _one_sandbox(
    world: World,
    platform: str,
    names: Sequence[str],
    options: Sequence[str],
    *,
    lenient: bool = False,
) -> tuple[int, list[str], str]:
    token = secrets.token_bytes(40).replace(b"\0", b"\1")
    environment = {
        **os.environb,
        b"BROKEN_IN": world.facts(names, token, lenient=lenient).encode(),
        b"PYTHONPATH": os.fsencode(os.pathsep.join([str(world.site), *python_path()])),
        b"HOST_SECRET": token,
    }
    command = [*as_user(world.owner, platform), sys.executable, "-m", "pysandbox", "run"]
    command += ["--platform", platform]
    command += ["--rootfs", str(world.root), "--bind", f"{world.shown}:/shown", *options]
    given = os.open(world.outside / "given", os.O_RDONLY)
    leaked = os.open(world.outside / "secret", os.O_RDONLY)
    # files, not pipes: a sentry that has changed its uid outlives the front, and holds them open
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            ended = subprocess.run(
                [*command, "--", "/program"],
                stdin=given, stdout=stdout, stderr=stderr, env=environment, pass_fds=[leaked],
                timeout=TIMEOUT_S, cwd="/", check=False, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            pytest.fail(f"it hangs: {_text(stdout)[-200:]} {_text(stderr)}")
        finally:
            os.close(given)
            os.close(leaked)
        return ended.returncode, _text(stdout).splitlines(), _text(stderr)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "backslashreplace")


def python_path() -> list[str]:
    path = os.environ.get("PYTHONPATH")
    return path.split(os.pathsep) if path else []


def succeeded(outcomes: dict[str, tuple[bool, str]]) -> dict[str, str]:
    return {name: detail for name, (done, detail) in outcomes.items() if done}


_missing: dict[tuple[str, int], set[str]] = {}


def missing_layers(world: World, platform: str) -> set[str]:
    """Layers of the jail that this host does not give."""
    key = (platform, world.owner)
    if key not in _missing:
        refuses_all = _one_sandbox(world, platform, [], ["--require", "all"])[0]
        wanted = NAMES if refuses_all else ()
        _missing[key] = {
            layer for layer in wanted
            if _one_sandbox(world, platform, [], ["--require", layer])[0]
        }  # fmt: skip
    return _missing[key]


def test_nothing_succeeds_in_the_jail(platform: str, world: World) -> None:
    missing = missing_layers(world, platform)
    names = [name for name in ATTEMPTS if not WALLS[name] or WALLS[name] - missing]
    got = break_in(world, platform, names)
    assert succeeded(got) == {}


@AS_ROOT_ONLY
def test_nothing_succeeds_for_an_ordinary_user(platform: str, world_of_nobody: World) -> None:
    missing = missing_layers(world_of_nobody, platform)
    names = [name for name in ATTEMPTS if not WALLS[name] or WALLS[name] - missing]
    got = break_in(world_of_nobody, platform, names)
    assert succeeded(got) == {}


@pytest.mark.parametrize(
    "name", ["fork", "execute_a_program", "map_executable_memory", "unshare_a_user_namespace"]
)
def test_the_filter_kills_and_the_caller_is_told(platform: str, world: World, name: str) -> None:
    if "seccomp" in missing_layers(world, platform):
        pytest.skip("this host has no filters for system calls")
    status, stdout, stderr = _one_sandbox(world, platform, [name], [])
    assert (125, [f"trying {name}"]) == (status, stdout)
    assert KILLED in stderr and stderr.count("\n") == 1


@AS_ROOT_ONLY
def test_everything_succeeds_without_walls(platform: str, world: World) -> None:
    """Otherwise the tests above would show nothing."""
    names = [name for name in ATTEMPTS if WALLS[name] and Path(NEEDS.get(name, "/")).exists()]
    got = break_in(world, platform, names, "--without", "all")
    failed = {name: detail for name, (done, detail) in got.items() if not done}
    assert {name: text for name, text in failed.items() if NOT_BUILT_IN not in text} == {}


@AS_ROOT_ONLY
@pytest.mark.parametrize("layer", NAMES)
def test_each_wall_stands_by_itself(platform: str, world: World, layer: str) -> None:
    """With this layer alone, what lists it is stopped."""
    if layer in missing_layers(world, platform):
        pytest.skip(f"this host does not give {layer}")
    names = [name for name in ATTEMPTS if layer in WALLS[name]]
    others = ",".join(name for name in NAMES if name != layer)
    got = break_in(world, platform, names, "--without", others, "--require", layer)
    assert succeeded(got) == {}


@AS_ROOT_ONLY
@pytest.mark.parametrize("layer", NAMES)
def test_each_wall_may_fall(platform: str, world: World, layer: str) -> None:
    """Without this layer, the others stop all that more than one of them is there for."""
    missing = missing_layers(world, platform) | {layer}
    names = [name for name in ATTEMPTS if layer in WALLS[name] and WALLS[name] - missing]
    got = break_in(world, platform, names, "--without", layer)
    assert succeeded(got) == {}
