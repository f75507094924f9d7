"""Paths as weapons: nothing leads out of a sandbox's files, whoever changes them meanwhile, and no
path is too long, too deep or too winding.

Two walls stand between a path and a file that is not meant: the kernel's own file systems, which
open nothing but what they have seen beneath their roots, and the jail around it. Each is tested
alone: the first without any jail, the second around a kernel that trusts the host's names
(trusting_kernel.py). Without both, the same programs do get out, and the tests notice.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pty
import select
import shutil
import socket
import stat
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import side_by_side
from pysandbox_core.abi.fcntl import AT_FDCWD, RENAME_EXCHANGE
from pysandbox_core.host_calls import renameat2
from side_by_side import Outcome

HERE = Path(__file__).parent
COMPILE = [
    os.environ.get("CC", "gcc"),
    *("-std=gnu11", "-O1", "-static", "-Wall", "-Wextra", "-Werror", "-Wno-format-truncation"),
]
MARK = "outside\n"

ROUNDS = int(os.environ.get("PYSANDBOX_SWAPS", "40"))
"""How often the program goes through all names while they are swapped."""
DEPTH = int(os.environ.get("PYSANDBOX_DEPTH", "3000"))
"""Of directories in each other, more than a path can name; 100000 takes a few minutes."""

JAIL = "--require=mountns,landlock"
NO_JAIL = "--without=all"
AS_ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take walls down singly")

_IN_OPEN = 0x20

NewWorkdir = Callable[[], Path]
Build = Callable[[str], Path]


@pytest.fixture(scope="session")
def program(scratch: Path) -> Build:
    """Compiles one of the programs here, once: static, so that it runs in an empty root."""

    def build(name: str) -> Path:
        target = scratch / name
        if not target.exists():
            subprocess.run([*COMPILE, "-o", target, HERE / f"{name}.c"], check=True)
        return target

    return build


class World:
    """A root, a writable and a read-only bind, and beside them what is nobody's business."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root, self.bound, self.readable, self.outside, self.site = (
            directory / name for name in ("root", "bound", "readable", "outside", "site")
        )
        for path in ("root/tmp", "bound/dir", "readable/empty", "outside/sub", "site"):
            (directory / path).mkdir(parents=True)
        for path, text in (
            ("root/marker", "root\n"), ("bound/file", "bound\n"), ("readable/file", "readable\n"),
            ("outside/secret", MARK), ("outside/file", MARK), ("outside/sub/file", MARK),
        ):  # fmt: skip
            (directory / path).write_text(text)

    def publish(self, wall: str) -> dict[str, str]:
        """Install trusting_kernel.py as pip would; the environment in which it is found, and takes
        `wall` down."""
        shutil.copy(HERE / "trusting_kernel.py", self.site)
        metadata = self.site / "trusting_kernel-1.dist-info"
        metadata.mkdir(exist_ok=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: trusting\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(
            "[pysandbox.hooks]\nx = trusting_kernel:plugin\n"
        )
        places = [str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(places), "TRUSTING_KERNEL": wall}

    def run(
        self, platform: str, argv: Sequence[object], *options: str, trusting: str = ""
    ) -> Outcome:
        """`argv`, a program of the host's that is put into the root, as the sandbox's root."""
        source, *arguments = map(str, argv)
        shutil.copy(source, self.root / "program")
        environment = self.publish(trusting) if trusting else {}
        places = [
            *("--rootfs", self.root, "--user", "0:0"),
            *("--bind", f"{self.bound}:/bound:rw", "--bind", f"{self.readable}:/readable"),
        ]
        return side_by_side.sandboxed(
            platform, ["/program", *arguments], Path("/"), environment,
            options=[*map(str, places), *options],
        )  # fmt: skip


@pytest.fixture
def world(new_workdir: NewWorkdir) -> World:
    return World(new_workdir())


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything about each file below `folder` that somebody could have changed."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        text = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (*status[:7], status.st_mtime_ns, status.st_ctime_ns, text)
    return found


@pytest.mark.parametrize("walls", [JAIL, NO_JAIL])
def test_no_way_out(platform: str, walls: str, world: World, program: Build) -> None:
    bound = world.bound
    (bound / "absolute").symlink_to(world.outside / "secret")
    (bound / "relative").symlink_to("../outside/secret")
    (bound / "directory").symlink_to("../outside")
    (bound / "new-absolute").symlink_to(world.outside / "new")
    os.mkfifo(bound / "fifo")
    before = snapshot(world.outside), snapshot(world.readable)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fsencode(bound / "socket"))
        listener.listen()
        got = world.run(platform, [program("paths_escape"), world.outside], walls)
        assert not select.select([listener], [], [], 0)[0]
    assert got.status == 0, got
    assert got.stdout == (HERE / "paths_escape.expected").read_text()
    assert (snapshot(world.outside), snapshot(world.readable)) == before


class Swapper:
    """Somebody on the host who exchanges what names in a directory mean, as fast as he can, and
    notices when one of his fifos or devices is opened."""

    NAMES = ("swap", "dir/file", "dir", "swap", "dir/sub", "swap")

    def __init__(self, world: World, tree: Path) -> None:
        self.outside = world.outside
        self.tree = tree
        self.pool = world.directory / "pool"
        self.pool.mkdir()
        for name in self.NAMES:
            (tree / name).mkdir(parents=True, exist_ok=True)
        self.kinds: list[Callable[[Path], object]] = [
            lambda path: path.symlink_to(self.outside / "secret"),
            lambda path: path.symlink_to(self.outside),
            self._directory,
            lambda path: path.symlink_to("../outside/secret"),
            lambda path: path.symlink_to("../../outside"),
            os.mkfifo,
            self._socket,
        ]
        if os.geteuid() == 0:
            self.kinds.append(lambda path: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3)))
        self.swaps = 0
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.events = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Swapper:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def opened(self) -> int:
        """How often a fifo, socket or device was opened. inotify(7)"""
        count = 0
        while True:
            try:
                events = os.read(self.events, 1 << 16)
            except BlockingIOError:
                os.close(self.events)
                return count
            while events:
                _, mask, _, length = struct.unpack_from("iIII", events)
                count += mask & _IN_OPEN != 0
                events = events[16 + length :]

    @staticmethod
    def _file(path: Path) -> None:
        path.write_text("inside\n")

    @staticmethod
    def _directory(path: Path) -> None:
        (path / "sub").mkdir(parents=True)
        (path / "file").write_text("inside\n")

    @staticmethod
    def _socket(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.fsencode(path))

    def _run(self) -> None:
        while not self._done.is_set():
            # Every other time it is a regular file: what it is when it is looked up.
            turn, other = divmod(self.swaps, 2)
            kind = self.kinds[turn % len(self.kinds)] if other else self._file
            name = self.NAMES[turn // len(self.kinds) % len(self.NAMES)]
            self.swaps += 1
            fresh = self.pool / str(self.swaps)
            kind(fresh)
            if not fresh.is_symlink() and not fresh.is_dir() and not fresh.is_file():
                self.libc.inotify_add_watch(self.events, os.fsencode(fresh), _IN_OPEN)
            with suppress(OSError):  # the program has just moved what was there
                place = os.fsencode(self.tree / name)
                renameat2(AT_FDCWD, os.fsencode(fresh), AT_FDCWD, place, RENAME_EXCHANGE)
            if fresh.is_dir() and not fresh.is_symlink():
                shutil.rmtree(fresh, ignore_errors=True)
            else:
                fresh.unlink(missing_ok=True)


@pytest.mark.parametrize("walls", [JAIL, NO_JAIL])
@pytest.mark.parametrize("place", ["bound", "readable", "root"])
def test_swaps_from_outside(
    platform: str, place: str, walls: str, world: World, program: Build
) -> None:
    swapper = Swapper(world, world.directory / place)
    before = snapshot(world.outside)
    tree, writable = ("/", 1) if place == "root" else (f"/{place}", int(place == "bound"))
    argv = [program("paths_race"), tree, ROUNDS, writable]
    with swapper:
        got = world.run(platform, argv, walls)
    assert (got.status, got.stdout) == (0, "succeeded > rounds: 1\n"), got
    assert swapper.opened() == 0
    assert swapper.swaps > len(swapper.NAMES) * len(swapper.kinds)
    assert snapshot(world.outside) == before


@AS_ROOT_ONLY
def test_each_wall_stands_by_itself(platform: str, world: World, program: Build) -> None:
    """With a kernel that follows the host's links, a link alone is enough to get out; in the jail
    it leads nowhere."""
    (world.bound / "swap").symlink_to(world.outside / "secret")
    (world.bound / "dir" / "file").symlink_to("../../outside/secret")
    argv = [program("paths_race"), "/bound", 1, 0]
    got = world.run(platform, argv, JAIL, trusting="names")
    assert (got.status, "ESCAPED" in got.stdout) == (0, False), got
    got = world.run(platform, argv, NO_JAIL, trusting="names")
    assert "ESCAPED: read through /bound/swap" in got.stdout
    assert "ESCAPED: read through /bound/dir/file" in got.stdout


@AS_ROOT_ONLY
@pytest.mark.parametrize(
    ("without", "changed"),
    [
        ("", "nothing"),
        ("--without=landlock", "nothing"),
        ("--without=mountns", "attributes"),  # for which Landlock has no rights
        ("--without=mountns,landlock", "contents"),
    ],
)
def test_read_only_without_the_kernels_wall(
    platform: str, without: str, changed: str, world: World, program: Build
) -> None:
    """The jail's mount is read-only too, and so is Landlock's rule."""

    def contents() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes() for path in world.readable.rglob("*") if path.is_file()
        }

    (world.readable / "swap").write_text("inside\n")
    before = snapshot(world.readable), contents()
    options = [without] if without else []
    argv = [program("paths_race"), "/readable", 1, 1]
    got = world.run(platform, argv, *options, trusting="read-only")
    assert got.status == 0, got
    after = snapshot(world.readable), contents()
    assert (after[0] != before[0]) == (changed != "nothing")
    assert (after[1] != before[1]) == (changed == "contents")


@pytest.mark.parametrize("trusting", ["", "hidden"])
def test_password_hashes_are_not_shown(platform: str, trusting: str, world: World) -> None:
    """By the kernel, or, to one that would show them, by the jail."""
    if trusting and os.geteuid():
        pytest.skip("the host itself hides them from ordinary users")
    if not Path("/etc/shadow").is_file():
        pytest.skip("this host has no /etc/shadow")
    script = "cat /etc/shadow; ls /etc/shadow || echo none; echo new > /etc/shadow; cat /etc/shadow"
    environment = world.publish(trusting) if trusting else {}
    run = [platform, ["sh", "-c", script], world.directory, environment]
    got = side_by_side.sandboxed(*run, options=["--user", "0:0"])  # type: ignore[arg-type]
    assert got.stdout == ("/etc/shadow\nnew\n" if trusting else "none\nnew\n"), got
    if trusting:
        options = ["--user", "0:0", "--without=mountns"]
        got = side_by_side.sandboxed(*run, options=options)  # type: ignore[arg-type]
        assert got.stdout == Path("/etc/shadow").read_text() + "/etc/shadow\nnew\n"


@pytest.fixture
def deep_workdir(new_workdir: NewWorkdir) -> Iterator[NewWorkdir]:
    """Makes working directories for trees that shutil.rmtree, which recurses, can't remove."""
    made = []

    def make() -> Path:
        made.append(new_workdir())
        return made[-1]

    yield make
    subprocess.run(["rm", "-rf", *made], check=True)


@pytest.mark.parametrize("bind", [False, True])
def test_long_winding_and_deep_paths(
    platform: str, bind: bool, deep_workdir: NewWorkdir, program: Build
) -> None:
    """In memory, and in a directory of the host's; what Linux says is what the sandbox says."""
    argv = [str(program("paths_bombs")), str(DEPTH)]
    expected = side_by_side.native(argv, deep_workdir())
    assert expected.status == 0, expected
    got = side_by_side.sandboxed(platform, argv, deep_workdir(), bind=bind)
    differs = side_by_side.difference(expected, got)
    assert not differs, differs


def make_deep_tree(top: Path) -> None:
    """Thousands of directories in each other."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


@pytest.mark.parametrize("bind", [False, True])
def test_deep_trees_of_the_hosts(platform: str, bind: bool, deep_workdir: NewWorkdir) -> None:
    deep_tree = deep_workdir()
    make_deep_tree(deep_tree)
    script = "find . | wc -l; rm -r d; ls -A; find . | wc -l"
    got = side_by_side.sandboxed(platform, ["sh", "-c", script], deep_tree, bind=bind)
    assert (got.status, got.stdout.split()) == (0, [str(DEPTH + 1), "1"]), got
    assert (deep_tree / "d").exists() != bind


TERMINAL = r"""
import fcntl, os, struct, termios
print("\x1b]0;title\x07\x1b[6n\x1b[2J\x9b5n", end="")
for name, number, argument in (
    ("TIOCSTI", termios.TIOCSTI, b"x"),
    ("TIOCLINUX", 0x541C, b"\x03" + bytes(63)),
    ("TIOCCONS", termios.TIOCCONS, b""),
    ("KDSKBENT", 0x4B47, bytes(4)),
):
    try:
        fcntl.ioctl(0, number, argument)
        print(name, "done")
    except OSError as error:
        print(name, "refused")
"""
"""Escape sequences that ask a terminal to answer, and the calls that type on it."""


def test_terminals_take_output_and_nothing_else(platform: str, new_workdir: NewWorkdir) -> None:
    """What is written goes to the terminal as it is, as with any program; nothing can be put among
    what the user types, to be run by the shell after the sandbox has ended."""
    master, terminal = pty.openpty()
    settings = termios.tcgetattr(terminal)
    settings[1] &= ~termios.OPOST
    termios.tcsetattr(terminal, termios.TCSANOW, settings)
    argv = [sys.executable, "-m", "pysandbox", "run", "--platform", platform]
    argv += ["--env", "PYTHONIOENCODING=latin-1", "--", sys.executable, "-S", "-c", TERMINAL]
    process = subprocess.Popen(
        argv, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, cwd=new_workdir()
    )
    shown = b""
    try:
        while process.poll() is None:
            if select.select([master], [], [], 0.1)[0]:
                shown += os.read(master, 4096)
        while select.select([master], [], [], 0)[0]:
            shown += os.read(master, 4096)
        typed = struct.unpack("i", fcntl.ioctl(terminal, termios.FIONREAD, bytes(4)))[0]
    finally:
        process.kill()
        _, errors = process.communicate()
        os.close(master)
        os.close(terminal)
    expected = b"\x1b]0;title\x07\x1b[6n\x1b[2J\x9b5n"
    expected += b"".join(
        name + b" refused\n" for name in (b"TIOCSTI", b"TIOCLINUX", b"TIOCCONS", b"KDSKBENT")
    )
    assert shown == expected, errors
    assert typed == 0
