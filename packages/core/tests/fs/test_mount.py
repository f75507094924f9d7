"""Mounts: stacking, binds, moving, taking away."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.dentry import Path
from pysandbox_core.fs.mount import MS_RDONLY
from pysandbox_core.fs.names import create_name, remove_directory, rename_name
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.fs.tmpfs import TmpFs


def at(task: Any, path: bytes) -> Path:
    return resolve(task, AT_FDCWD, path)


def failure(call: Any, *arguments: Any) -> int:
    with pytest.raises(LinuxError) as info:
        call(*arguments)
    return info.value.errno


def test_mounts_stack(kernel: Any, task: Any) -> None:
    mounts = kernel.mounts
    first = mounts.mount(TmpFs(kernel), at(task, b"/dir"), b"one")
    create_name(task, AT_FDCWD, b"/dir/in-first", 0o100644)
    second = mounts.mount(TmpFs(kernel), at(task, b"/dir"), b"two")
    assert failure(resolve, task, AT_FDCWD, b"/dir/in-first") == errno.ENOENT
    assert at(task, b"/dir").mount is second
    mounts.umount(second)
    assert at(task, b"/dir/in-first").mount is first
    mounts.umount(first)
    assert at(task, b"/dir/file").mount is mounts.root_mount


def test_a_bind_shows_the_same_files(kernel: Any, task: Any) -> None:
    kernel.mounts.bind(at(task, b"/dir/sub"), at(task, b"/dir"))
    assert at(task, b"/dir/deep").inode.stat().size == 4
    assert at(task, b"/dir/deep").absolute() == b"/dir/deep"
    assert at(task, b"/dir/../file").absolute() == b"/file"


def test_a_recursive_bind_shows_the_mounts_inside(kernel: Any, task: Any) -> None:
    mounts = kernel.mounts
    create_name(task, AT_FDCWD, b"/flat", 0o040755)
    create_name(task, AT_FDCWD, b"/whole", 0o040755)
    mounts.mount(TmpFs(kernel), at(task, b"/dir/sub"), b"inside")
    create_name(task, AT_FDCWD, b"/dir/sub/new", 0o100644)
    mounts.bind(at(task, b"/dir"), at(task, b"/flat"))
    mounts.bind(at(task, b"/dir"), at(task, b"/whole"), recursive=True)
    assert at(task, b"/flat/sub/deep").inode.is_regular
    assert at(task, b"/whole/sub/new").inode.is_regular


def test_busy_mounts_stay(kernel: Any, task: Any) -> None:
    mount = kernel.mounts.mount(TmpFs(kernel), at(task, b"/dir"), b"none")
    task.fs.set_cwd(at(task, b"/dir"))
    assert failure(kernel.mounts.umount, mount) == errno.EBUSY
    task.fs.set_cwd(task.fs.root)
    kernel.mounts.umount(mount)
    assert failure(kernel.mounts.umount, kernel.mounts.root_mount) == errno.EINVAL


def test_mount_points_can_be_neither_removed_nor_moved(kernel: Any, task: Any) -> None:
    create_name(task, AT_FDCWD, b"/point", 0o040755)
    kernel.mounts.mount(TmpFs(kernel), at(task, b"/point"), b"none")
    assert failure(remove_directory, task, AT_FDCWD, b"/point") == errno.EBUSY
    assert failure(rename_name, task, AT_FDCWD, b"/point", AT_FDCWD, b"/x", 0) == errno.EBUSY
    assert failure(rename_name, task, AT_FDCWD, b"/file", AT_FDCWD, b"/point/x", 0) == errno.EXDEV


def test_moving_a_mount(kernel: Any, task: Any) -> None:
    mount = kernel.mounts.mount(TmpFs(kernel), at(task, b"/dir"), b"none")
    create_name(task, AT_FDCWD, b"/other", 0o040755)
    create_name(task, AT_FDCWD, b"/dir/inside", 0o100644)
    kernel.mounts.move(mount, at(task, b"/other"))
    assert at(task, b"/other/inside").absolute() == b"/other/inside"
    assert at(task, b"/dir/file").mount is kernel.mounts.root_mount


def test_read_only_mounts(kernel: Any, task: Any) -> None:
    kernel.mounts.mount(TmpFs(kernel), at(task, b"/dir"), b"none", MS_RDONLY)
    assert failure(create_name, task, AT_FDCWD, b"/dir/x", 0o100644) == errno.EROFS


def test_the_list_is_in_order(kernel: Any, task: Any) -> None:
    kernel.mounts.mount(TmpFs(kernel), at(task, b"/dir"), b"one", 2 | 4)
    create_name(task, AT_FDCWD, b"/dir/inner", 0o040755)
    kernel.mounts.mount(TmpFs(kernel), at(task, b"/dir/inner"), b"two")
    assert [mount.source for mount in kernel.mounts.all()] == [b"overlay", b"one", b"two"]
    assert [mount.option_names() for mount in kernel.mounts.all()][1] == b"rw,nosuid,nodev"
