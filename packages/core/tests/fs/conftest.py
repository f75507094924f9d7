"""Fixtures of the VFS tests: a host directory to be the lower one, a kernel over it, a task."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from vfs_harness import new_task, overlay_kernel


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    """A small tree: files, links, a directory in a directory."""
    root = tmp_path / "lower"
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "dir" / "file").write_bytes(b"lower content")
    (root / "dir" / "sub" / "deep").write_bytes(b"deep")
    (root / "file").write_bytes(b"0123456789" * 1000)
    os.link(root / "file", root / "hard")
    (root / "link").symlink_to("dir/file")
    (root / "up").symlink_to("../../../../dir")
    (root / "loop").symlink_to("loop")
    return root


@pytest.fixture
def kernel(lower: Path) -> Iterator[Any]:
    made = overlay_kernel(os.fsencode(lower))
    yield made
    made.mounts.root_mount.fs.unmounted()


@pytest.fixture
def task(kernel: Any) -> Any:
    """A task that is root."""
    return new_task(kernel)


@pytest.fixture
def user(kernel: Any) -> Any:
    """A task that is nobody in particular."""
    return new_task(kernel, uid=4242, pid=2)
