"""Each guest program does in the sandbox what it does natively.

A program runs natively first, which must succeed; then on every usable platform in a directory of
the overlay root, after which the host's directory must still be empty; and, where the program is
about files, once more in a directory that is the host's own, bound for writing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import side_by_side
from side_by_side import Outcome

SOURCES = Path(__file__).parent
PROGRAMS = sorted(path.stem for path in SOURCES.glob("*.c"))
PYTHON_PROGRAMS = sorted(path.stem for path in SOURCES.glob("py_*.py"))

ON_BOUND_DIRECTORY = (
    "access",
    "chmod_chown_umask",
    "fcntl_dup",
    "getdents",
    "inotify",
    "link_unlink",
    "locks",
    "long_transfers",
    "lseek",
    "mkdir_rmdir",
    "mmap_file",
    "open_flags",
    "openat",
    "pread_pwrite",
    "read_write",
    "readv_writev",
    "rename",
    "splice_copy",
    "stat_statx",
    "symlink",
    "truncate",
    "unix_sockets",
    "utimens",
    "xattr",
)
"""Programs about files, which have to work on a directory of the host's as well as in memory."""

STATIC = ("auxv", "execve", "fork_wait", "memory_map", "read_write", "signals", "threads", "vdso")
"""Programs that are also run linked statically: no dynamic loader, another start of the process."""

AS_ORDINARY_USER = (
    "access",
    "chmod_chown_umask",
    "credentials",
    "dev_statfs_mount",
    "execve",
    "misc_calls",
    "open_flags",
    "prctl_misc",
    "proc_fs",
    "rlimits",
    "signals",
    "sysv_ipc",
    "unix_sockets",
    "utimens",
)
"""Programs whose answers depend on who asks: run with --user as well, where root runs the tests."""

NOBODY = 65534

WHERE_LINUX_IS = {"mm_sequences": (6, 18), "mounts": (6, 18), "xattr": (6, 6)}
"""Programs that older ones answer otherwise: errno of madvise(2) where two apply, of mount(2) on
what no path leads to; no user attributes in tmpfs. A version that is known to answer as we do."""

Build = Callable[..., Path]
NewWorkdir = Callable[[], Path]

_native_outcomes: dict[tuple[str, ...], Outcome] = {}


def test_some_platform_is_usable() -> None:
    """Otherwise every other test here would pass by not being run."""
    probes = side_by_side.probes()
    assert any(probe.usable for probe in probes.values()), f"no platform is usable: {probes}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(platform: str, program: str, build: Build, new_workdir: NewWorkdir) -> None:
    release, least = os.uname().release, WHERE_LINUX_IS.get(program, (0, 0))
    if tuple(map(int, release.split(".")[:2])) < least:
        pytest.skip(f"natively this is Linux {release}, which answers otherwise")
    workdir = new_workdir()
    compare(platform, [str(build(program))], new_workdir, workdir)
    left = sorted(path.name for path in workdir.iterdir())
    assert not left, f"the program wrote to the host: {left}"


@pytest.mark.parametrize("program", [name for name in ON_BOUND_DIRECTORY if name in PROGRAMS])
def test_on_bound_directory(
    platform: str, program: str, build: Build, new_workdir: NewWorkdir
) -> None:
    compare(platform, [str(build(program))], new_workdir, new_workdir(), bind=True)


@pytest.mark.parametrize("program", [name for name in STATIC if name in PROGRAMS])
def test_static(platform: str, program: str, build: Build, new_workdir: NewWorkdir) -> None:
    compare(platform, [str(build(program, static=True))], new_workdir, new_workdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run programs as somebody else")
@pytest.mark.parametrize("program", AS_ORDINARY_USER)
def test_as_ordinary_user(
    platform: str, program: str, build: Build, new_workdir: NewWorkdir
) -> None:
    argv, native_dir, workdir = [str(build(program))], new_workdir(), new_workdir()
    for folder in (native_dir, workdir):
        os.chown(folder, NOBODY, NOBODY)
    expected = side_by_side.native(argv, native_dir, user=NOBODY)
    assert expected.status == 0, f"natively: {expected}"
    options = ["--user", f"{NOBODY}:{NOBODY}"]
    got = side_by_side.sandboxed(platform, argv, workdir, options=options)
    differs = side_by_side.difference(expected, got)
    assert not differs, f"{program} on {platform} as user {NOBODY}:\n{differs}"


@pytest.mark.parametrize("program", PYTHON_PROGRAMS)
def test_python_program(platform: str, program: str, new_workdir: NewWorkdir) -> None:
    argv = [sys.executable, str(SOURCES / f"{program}.py")]
    compare(platform, argv, new_workdir, new_workdir())


def compare(
    platform: str, argv: list[str], new_workdir: NewWorkdir, workdir: Path, *, bind: bool = False
) -> None:
    """Run `argv` both ways, the sandbox in `workdir`, and fail with what differs."""
    key = tuple(argv)
    if key not in _native_outcomes:
        _native_outcomes[key] = side_by_side.native(argv, new_workdir())
    expected = _native_outcomes[key]
    assert expected.status == 0, f"natively: {expected}"
    # In a bound directory the host's rules for owners are what is compared, and root's need root's
    # capabilities.
    options = ["--without=capabilities"] if bind else []
    got = side_by_side.sandboxed(platform, argv, workdir, options=options, bind=bind)
    differs = side_by_side.difference(expected, got)
    assert not differs, f"{Path(argv[-1]).name} on {platform}:\n{differs}"
