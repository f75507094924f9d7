"""Directories of the host that are bound: writes reach the host, and nothing leads out of them."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from pysandbox_core.abi.fcntl import AT_FDCWD, RENAME_EXCHANGE
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.host_directory import HostFs
from pysandbox_core.fs.host_tree import HostTree
from pysandbox_core.fs.mount import MS_RDONLY
from pysandbox_core.fs.names import (
    create_name,
    link_name,
    remove_directory,
    remove_file,
    rename_name,
)
from pysandbox_core.fs.open_file import open_path
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.mm.io_buffer import BytesSink, BytesSource
from vfs_harness import new_task


@pytest.fixture
def bound(tmp_path: Path) -> Path:
    path = tmp_path / "bound"
    path.mkdir()
    return path


@pytest.fixture
def task(kernel: Any, bound: Path) -> Any:
    """A task of the caller's own user, in a writable bind of `bound` at /dir/sub."""
    task = new_task(kernel, uid=os.getuid())
    fs = HostFs(kernel, HostTree.open(os.fsencode(bound)), writable=True)
    kernel.mounts.mount(fs, resolve(task, AT_FDCWD, b"/dir/sub"), b"host", 0)
    task.fs.set_cwd(resolve(task, AT_FDCWD, b"/dir/sub"))
    return task


def failure(call: Any, *arguments: Any) -> int:
    with pytest.raises(LinuxError) as info:
        call(*arguments)
    return info.value.errno


def read(task: Any, path: bytes) -> bytes:
    file = open_path(task, AT_FDCWD, path, os.O_RDONLY)
    sink = BytesSink(1 << 20)
    file.read(task, sink)
    file.decref()
    return sink.data


def test_what_is_written_reaches_the_host(task: Any, bound: Path) -> None:
    file = open_path(task, AT_FDCWD, b"new", os.O_CREAT | os.O_RDWR, 0o640)
    assert file.write(task, BytesSource(b"hello")) == 5
    assert (bound / "new").read_bytes() == b"hello"
    assert stat.S_IMODE((bound / "new").stat().st_mode) == 0o640
    file.truncate(task, 2)
    assert (bound / "new").read_bytes() == b"he"


def test_what_the_host_changes_is_seen(task: Any, bound: Path) -> None:
    assert failure(resolve, task, AT_FDCWD, b"late") == errno.ENOENT
    (bound / "late").write_bytes(b"now")
    assert read(task, b"late") == b"now"
    (bound / "late").unlink()
    (bound / "late").mkdir()
    assert resolve(task, AT_FDCWD, b"late").inode.is_dir


def test_names(task: Any, bound: Path) -> None:
    create_name(task, AT_FDCWD, b"d", 0o040751)
    create_name(task, AT_FDCWD, b"d/s", 0o120777, target=b"../f")
    create_name(task, AT_FDCWD, b"f", 0o100600)
    link_name(task, resolve(task, AT_FDCWD, b"f"), AT_FDCWD, b"h")
    rename_name(task, AT_FDCWD, b"d", AT_FDCWD, b"e", 0)
    assert stat.S_IMODE((bound / "e").stat().st_mode) == 0o751
    assert os.readlink(bound / "e" / "s") == "../f"
    assert (bound / "h").stat().st_nlink == 2
    assert resolve(task, AT_FDCWD, b"e/s").absolute() == b"/dir/sub/f"
    remove_file(task, AT_FDCWD, b"h")
    assert failure(remove_directory, task, AT_FDCWD, b"e") == errno.ENOTEMPTY
    assert sorted(os.listdir(bound)) == ["e", "f"]


def test_exchange(task: Any, bound: Path) -> None:
    (bound / "a").write_bytes(b"1")
    (bound / "b").write_bytes(b"2")
    rename_name(task, AT_FDCWD, b"a", AT_FDCWD, b"b", RENAME_EXCHANGE)
    assert (bound / "a").read_bytes() == b"2"
    assert read(task, b"b") == b"1"


def test_attributes(task: Any, bound: Path) -> None:
    (bound / "f").write_bytes(b"")
    (bound / "f").chmod(0)
    inode = resolve(task, AT_FDCWD, b"f").inode
    inode.set_mode(0o604)
    inode.set_times(10**9, 2 * 10**9)
    status = (bound / "f").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o604, 2.0)
    assert inode.stat().atime_ns == 10**9


def test_a_link_put_in_a_files_place_is_not_followed(
    task: Any, bound: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    (bound / "f").write_bytes(b"inside")
    inode = resolve(task, AT_FDCWD, b"f").inode
    (bound / "f").unlink()
    (bound / "f").symlink_to(outside)
    assert failure(inode.set_mode, 0o777) == errno.ESTALE
    assert failure(inode.truncate, 0) == errno.ESTALE
    assert outside.read_bytes() == b"secret"
    assert failure(read, task, b"f") == errno.ENOENT  # the link's text, in the sandbox


def test_a_link_put_in_a_directorys_place_is_not_followed(
    task: Any, bound: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (bound / "d").mkdir()
    place = resolve(task, AT_FDCWD, b"d")
    (bound / "d").rmdir()
    (bound / "d").symlink_to(outside)
    task.fs.set_cwd(place)
    assert failure(create_name, task, AT_FDCWD, b"new", 0o100644) in (
        errno.ENOTDIR, errno.ESTALE, errno.ENOENT, errno.ELOOP,
    )  # fmt: skip
    assert os.listdir(outside) == []


def test_an_open_file_survives_its_name(task: Any, bound: Path) -> None:
    file = open_path(task, AT_FDCWD, b"f", os.O_CREAT | os.O_RDWR, 0o600)
    file.write(task, BytesSource(b"x"))
    remove_file(task, AT_FDCWD, b"f")
    assert os.listdir(bound) == []
    assert (file.stat().nlink, file.stat().size) == (0, 1)


def test_unnamed_files(task: Any, bound: Path) -> None:
    try:
        file = open_path(task, AT_FDCWD, b".", os.O_TMPFILE | os.O_RDWR, 0o600)
    except LinuxError as error:
        pytest.skip(f"O_TMPFILE on the host: {error}")
    file.write(task, BytesSource(b"unnamed"))
    assert os.listdir(bound) == []
    link_name(task, file.path, AT_FDCWD, b"named")
    assert (bound / "named").read_bytes() == b"unnamed"


def test_devices_can_be_seen_and_not_opened(task: Any, bound: Path) -> None:
    if os.getuid():
        pytest.skip("only root makes devices")
    os.mknod(bound / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    assert stat.S_ISCHR(resolve(task, AT_FDCWD, b"null").inode.stat().mode)
    assert failure(open_path, task, AT_FDCWD, b"null", os.O_RDONLY) == errno.EACCES
    assert failure(create_name, task, AT_FDCWD, b"dev", 0o020600) == errno.EPERM


def test_sockets_and_fifos_are_the_kernels_own(task: Any, bound: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fsencode(bound / "socket"))
    assert failure(open_path, task, AT_FDCWD, b"socket", os.O_RDONLY) == errno.ENXIO
    create_name(task, AT_FDCWD, b"fifo", 0o010600)
    assert stat.S_ISFIFO((bound / "fifo").stat().st_mode)
    reader = open_path(task, AT_FDCWD, b"fifo", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match=r"No such device"):  # nobody on the host has it open
        os.open(bound / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    reader.decref()


def test_read_only_binds(kernel: Any, bound: Path) -> None:
    task = new_task(kernel)
    (bound / "f").write_bytes(b"x")
    fs = HostFs(kernel, HostTree.open(os.fsencode(bound)), writable=False)
    kernel.mounts.mount(fs, resolve(task, AT_FDCWD, b"/dir"), b"host", MS_RDONLY)
    assert read(task, b"/dir/f") == b"x"
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        assert failure(open_path, task, AT_FDCWD, b"/dir/f", flags) == errno.EROFS
    assert failure(open_path, task, AT_FDCWD, b"/dir/new", os.O_CREAT) == errno.EROFS
    assert failure(remove_file, task, AT_FDCWD, b"/dir/f") == errno.EROFS
    assert failure(create_name, task, AT_FDCWD, b"/dir/f", 0o040755) == errno.EEXIST


def test_more_directories_than_descriptors(
    task: Any, bound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostTree, "MAX_DIRECTORIES", 4)
    for _ in range(30):
        create_name(task, AT_FDCWD, b"d", 0o040755)
        task.fs.set_cwd(resolve(task, AT_FDCWD, b"d"))
    create_name(task, AT_FDCWD, b"deep", 0o100644)
    rename_name(task, AT_FDCWD, b"deep", AT_FDCWD, b"/dir/sub/top", 0)
    assert (bound / "top").exists()


def test_kernel_interfaces_of_the_host_are_hidden(kernel: Any) -> None:
    if not os.path.ismount("/proc"):
        pytest.skip("no /proc is mounted here")
    task = new_task(kernel)
    fs = HostFs(kernel, HostTree.open(b"/"), writable=False)
    kernel.mounts.mount(fs, resolve(task, AT_FDCWD, b"/dir"), b"host", MS_RDONLY)
    assert resolve(task, AT_FDCWD, b"/dir/proc").inode.entries(task) == []
    assert failure(resolve, task, AT_FDCWD, b"/dir/proc/self") == errno.ENOENT
