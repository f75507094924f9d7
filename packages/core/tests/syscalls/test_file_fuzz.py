"""Every file system call with arguments that make no sense: an errno or a number, nothing else."""

from __future__ import annotations

import importlib
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pysandbox_core.declare import DECLARATIONS, KINDS, sign32, sign64
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.inotify import Inotify
from pysandbox_core.fs.memfd import open_memfd
from pysandbox_core.fs.open_file import open_path
from pysandbox_core.fs.pipe import open_pipe

sys.path.insert(0, str(Path(__file__).parents[1] / "fs"))

from vfs_harness import IOVEC, new_task, overlay_kernel

FAMILIES = (
    "advice", "chroot", "directories", "dup", "fcntl", "inotify", "ioctl", "links", "locks",
    "mount", "open", "permissions", "read_write", "refused_files", "rename", "splice", "stat",
    "statfs", "sync", "truncate", "utimens", "xattr",
)  # fmt: skip
PATHS = (
    b"", b".", b"..", b"/", b"file", b"dir", b"dir/", b"dir/file", b"link", b"loop", b"new", b"a/b",
    b"user.a", b"trusted.a", b"tmpfs", b"dir/sub/..", b"x" * 300, b"/" * 4000, b"dir/new",
    b"new/", b"\xff\xfe",
)  # fmt: skip
NUMBERS = (
    0, 1, 2, 3, 7, 8, 511, 4095, 4096, 0o644, 0o777, 0x1000, 0x7FFF, 0xFFFF, 1 << 20, 1 << 31,
    (1 << 31) - 1, 0xFFFFFF9C, 0xFFFFFFFF, 1 << 62, 1 << 63, (1 << 63) - 1, (1 << 64) - 1,
    (1 << 64) - 100, os.O_CREAT | os.O_RDWR, os.O_TMPFILE | os.O_RDWR, os.O_PATH, 1024, 1030, 36, 5,
)  # fmt: skip
DECODERS = {
    "u64": lambda value: value,
    "s64": sign64,
    "u32": lambda value: value & 0xFFFFFFFF,
    "s32": sign32,
    "u16": lambda value: value & 0xFFFF,
}
CALLS = 12_000


class Interrupt(LinuxError):
    """What a wait ends with here."""


def make_task(tmp_path: Path) -> Any:
    lower = tmp_path / "lower"
    (lower / "dir" / "sub").mkdir(parents=True)
    (lower / "dir" / "file").write_bytes(b"content")
    (lower / "file").write_bytes(b"0123456789" * 100)
    (lower / "link").symlink_to("dir/file")
    (lower / "loop").symlink_to("loop")
    kernel = overlay_kernel(os.fsencode(lower))
    kernel.devpts = SimpleNamespace()
    task = new_task(kernel)

    def interrupt() -> None:
        raise Interrupt(4)

    task.on_block = interrupt
    return task


def refill(task: Any) -> None:
    """Descriptors 0 to 9: one of each kind of file."""
    files = task.files
    for fd, file in (
        (0, open_path(task, -100, b"/", os.O_RDONLY)),
        (3, open_memfd(task, b"m", 0)),
        (4, Inotify(task.kernel, 0)),
        (5, open_pipe(task.kernel, os.O_NONBLOCK)[0]),
        (6, open_pipe(task.kernel, 0)[1]),
    ):
        previous = files.set(fd, file, False)
        if previous is not None:
            files.let_go(task, previous)


def pool_for(
    kind: str, chance: random.Random, paths: list[int], scratch: int, vector: int
) -> Sequence[int]:
    """What an argument of type `kind` is chosen from: mostly something that may work."""
    if chance.random() < 0.15:
        return NUMBERS
    if kind in ("UserPath", "UserString"):
        return paths
    if kind in ("Fd", "DirFd"):
        return (0, 3, 4, 5, 6, 7, 8, 0xFFFFFF9C)
    if kind == "IovecPtr":
        return (vector,)
    if kind in ("UserAddr", "UserBuffer"):
        return (0, scratch, scratch + 7, scratch + 4096, 0x1000 + (1 << 21) - 5)
    if kind in ("Size", "Loff", "ULong"):
        return (0, 1, 2, 16, 24, 100, 5000)
    return (0, 0, 0, 1, 2, 3, 4, 0x100, 0x1000)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_but_errnos(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from pysandbox_core import task_signals

    monkeypatch.setattr(task_signals, "send", lambda *_: True)
    modules = {
        importlib.import_module(f"pysandbox_core.syscalls.{name}").__name__ for name in FAMILIES
    }
    calls = [
        declaration
        for declaration in DECLARATIONS.values()
        if declaration.handler is not None and declaration.handler.__module__ in modules
    ]
    assert len(calls) > 90
    task = make_task(tmp_path)
    chance = random.Random(seed)
    memory = task.mm
    paths = [memory.path(path) for path in PATHS]
    scratch = memory.place(bytes(8192))
    vector = memory.place(IOVEC.pack(scratch, 100) + IOVEC.pack(scratch + 50, 200))
    for number in range(CALLS):
        if number % 500 == 0:
            task.fs.set_root(task.kernel.mounts.root)
            task.fs.set_cwd(task.fs.root)
            refill(task)
            memory.write(scratch, chance.randbytes(8192))
        declaration = chance.choice(calls)
        arguments = [
            DECODERS[KINDS[kind]](chance.choice(pool_for(kind, chance, paths, scratch, vector)))
            for _, kind in declaration.parameters
        ]
        try:
            result = declaration.handler(task, *arguments)
        except LinuxError:
            continue
        except Exception as error:
            raise AssertionError(f"{declaration.name}{tuple(arguments)} of seed {seed}") from error
        assert isinstance(result, int), declaration.name
        assert result >= 0, declaration.name
