"""The overlay: what the program does to it, and that the host never hears of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from pysandbox_core.abi.fcntl import AT_FDCWD, RENAME_EXCHANGE
from pysandbox_core.errors import LinuxError
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


def contents(task: Any, path: bytes) -> bytes:
    file = open_path(task, AT_FDCWD, path, os.O_RDONLY)
    sink = BytesSink(1 << 20)
    file.read(task, sink)
    file.decref()
    return sink.data


def write(task: Any, path: bytes, data: bytes, flags: int = 0, offset: int | None = None) -> None:
    file = open_path(task, AT_FDCWD, path, os.O_WRONLY | flags, 0o644)
    assert file.write(task, BytesSource(data), offset) == len(data)
    file.decref()


def names(task: Any, path: bytes) -> list[bytes]:
    return sorted(entry.name for entry in resolve(task, AT_FDCWD, path).inode.entries(task))


def failure(call: Any, *arguments: Any) -> int:
    with pytest.raises(LinuxError) as info:
        call(*arguments)
    return info.value.errno


def snapshot(root: Path) -> list[tuple[str, int, int, bytes]]:
    found = []
    for directory, _, files in os.walk(root):
        for name in files:
            path = Path(directory, name)
            status = path.lstat()
            if not (path.is_file() or path.is_symlink()):
                continue
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found.append((str(path), status.st_mode, status.st_mtime_ns, data))
    return sorted(found)


@pytest.fixture(autouse=True)
def host_is_untouched(lower: Path) -> Any:
    before = snapshot(lower)
    yield
    assert snapshot(lower) == before


def test_reading(task: Any) -> None:
    assert contents(task, b"/dir/file") == b"lower content"
    assert contents(task, b"/file") == b"0123456789" * 1000
    assert names(task, b"/") == [b"dir", b"file", b"hard", b"link", b"loop", b"up"]


def test_writing_copies_up_only_what_is_changed(kernel: Any, task: Any) -> None:
    write(task, b"/file", b"XY", offset=5000)
    expected = bytearray(b"0123456789" * 1000)
    expected[5000:5002] = b"XY"
    assert contents(task, b"/file") == expected
    assert kernel.memory_file.granted <= 4096


def test_identity_stays_when_a_file_is_copied_up(task: Any) -> None:
    before = resolve(task, AT_FDCWD, b"/dir/file").inode.stat()
    write(task, b"/dir/file", b"x", os.O_APPEND)
    task.kernel.mounts.dentries.sweep()
    after = resolve(task, AT_FDCWD, b"/dir/file").inode.stat()
    assert (before.dev, before.ino) == (after.dev, after.ino)
    assert after.size == before.size + 1
    assert contents(task, b"/dir/file") == b"lower contentx"


def test_hard_links_stay_links(task: Any) -> None:
    write(task, b"/hard", b"changed", os.O_TRUNC)
    task.kernel.mounts.dentries.sweep()
    assert contents(task, b"/file") == b"changed"
    assert resolve(task, AT_FDCWD, b"/file").inode.stat().nlink == 2
    remove_file(task, AT_FDCWD, b"/file")
    assert resolve(task, AT_FDCWD, b"/hard").inode.stat().nlink == 1


def test_an_open_file_sees_the_copy(task: Any) -> None:
    reader = open_path(task, AT_FDCWD, b"/dir/file", os.O_RDONLY)
    write(task, b"/dir/file", b"upper")
    sink = BytesSink(100)
    reader.read(task, sink)
    assert sink.data == b"upper content"


def test_removed_names_stay_removed(task: Any) -> None:
    remove_file(task, AT_FDCWD, b"/dir/file")
    task.kernel.mounts.dentries.sweep()
    assert failure(resolve, task, AT_FDCWD, b"/dir/file") == errno.ENOENT
    assert names(task, b"/dir") == [b"sub"]
    write(task, b"/dir/file", b"new", os.O_CREAT)
    assert contents(task, b"/dir/file") == b"new"
    assert names(task, b"/dir") == [b"file", b"sub"]


def test_a_directory_made_anew_is_empty(task: Any) -> None:
    assert failure(remove_directory, task, AT_FDCWD, b"/dir") == errno.ENOTEMPTY
    remove_file(task, AT_FDCWD, b"/dir/sub/deep")
    remove_directory(task, AT_FDCWD, b"/dir/sub")
    remove_file(task, AT_FDCWD, b"/dir/file")
    remove_directory(task, AT_FDCWD, b"/dir")
    create_name(task, AT_FDCWD, b"/dir", 0o040755)
    task.kernel.mounts.dentries.sweep()
    assert names(task, b"/dir") == []


def test_a_moved_directory_keeps_what_is_below(task: Any) -> None:
    rename_name(task, AT_FDCWD, b"/dir", AT_FDCWD, b"/other", 0)
    task.kernel.mounts.dentries.sweep()
    assert contents(task, b"/other/sub/deep") == b"deep"
    write(task, b"/other/sub/deep", b"changed", os.O_TRUNC)
    rename_name(task, AT_FDCWD, b"/other/sub", AT_FDCWD, b"/sub", 0)
    task.kernel.mounts.dentries.sweep()
    assert contents(task, b"/sub/deep") == b"changed"
    assert names(task, b"/other") == [b"file"]
    assert failure(resolve, task, AT_FDCWD, b"/dir") == errno.ENOENT


def test_exchange(task: Any) -> None:
    rename_name(task, AT_FDCWD, b"/dir/sub", AT_FDCWD, b"/file", RENAME_EXCHANGE)
    task.kernel.mounts.dentries.sweep()
    assert contents(task, b"/file/deep") == b"deep"
    assert len(contents(task, b"/dir/sub")) == 10000


def test_attributes_are_kept_here(task: Any) -> None:
    resolve(task, AT_FDCWD, b"/dir").inode.set_mode(0o700)
    resolve(task, AT_FDCWD, b"/dir/file").inode.set_owner(7, 8, 0o4711)
    resolve(task, AT_FDCWD, b"/link", follow=False).inode.set_times(1, 2)
    task.kernel.mounts.dentries.sweep()
    assert resolve(task, AT_FDCWD, b"/dir").inode.stat().mode == 0o040700
    status = resolve(task, AT_FDCWD, b"/dir/file").inode.stat()
    assert (status.uid, status.gid, status.mode) == (7, 8, 0o104711)
    assert resolve(task, AT_FDCWD, b"/link", follow=False).inode.stat().mtime_ns == 2
    assert contents(task, b"/dir/file") == b"lower content"


def test_a_link_to_a_lower_file(task: Any) -> None:
    link_name(task, resolve(task, AT_FDCWD, b"/dir/file"), AT_FDCWD, b"/second")
    write(task, b"/second", b"both", os.O_TRUNC)
    assert contents(task, b"/dir/file") == b"both"
    assert resolve(task, AT_FDCWD, b"/dir/file").inode.stat().nlink == 2


def test_truncating(task: Any) -> None:
    inode = resolve(task, AT_FDCWD, b"/file").inode
    inode.truncate(7)
    assert contents(task, b"/file") == b"0123456"
    inode.truncate(20)
    assert contents(task, b"/file") == b"0123456" + bytes(13)


def test_extended_attributes_show_through(task: Any, lower: Path) -> None:
    try:
        os.setxattr(lower / "file", "user.color", b"blue")
    except OSError:
        pytest.skip("the host's file system has no extended attributes")
    inode = resolve(task, AT_FDCWD, b"/file").inode
    assert inode.get_xattr(b"user.color") == b"blue"
    inode.set_xattr(b"user.color", b"red", 0)
    assert os.getxattr(lower / "file", "user.color") == b"blue"
    assert inode.list_xattrs() == [b"user.color"]


def test_devices_and_fifos_of_the_host_are_not_opened(task: Any, lower: Path) -> None:
    os.mkfifo(lower / "fifo")
    file = open_path(task, AT_FDCWD, b"/fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert type(file).__name__ == "PipeFile"  # this kernel's own: the host's would not be ready
    file.decref()


@pytest.mark.parametrize(
    "change",
    [
        lambda task: rename_name(task, AT_FDCWD, b"/file", AT_FDCWD, b"/dir/file", 0),
        lambda task: remove_file(task, AT_FDCWD, b"/dir/file"),
        lambda task: link_name(
            task, resolve(task, AT_FDCWD, b"/dir/file"), AT_FDCWD, b"/dir/other"
        ),
        lambda task: resolve(task, AT_FDCWD, b"/dir/file").inode.set_mode(0o600),
        lambda task: resolve(task, AT_FDCWD, b"/dir/file").inode.set_xattr(b"user.a", b"b", 0),
        lambda task: resolve(task, AT_FDCWD, b"/dir/file").inode.truncate(0),
        lambda task: write(task, b"/dir/file", b"x"),
    ],
)
def test_what_there_is_no_room_for_changes_nothing(kernel: Any, task: Any, change: Any) -> None:
    def state() -> list[Any]:
        found: list[Any] = [names(task, b"/"), names(task, b"/dir")]
        for path in (b"/hard", *(b"/dir/" + name for name in found[1] if name == b"file")):
            inode = resolve(task, AT_FDCWD, path).inode
            found += [contents(task, path), inode.stat(), inode.list_xattrs()]
        return found

    before = state()
    space = kernel.mounts.root_mount.fs.space
    space.max_inodes = space.inodes
    for _ in range(8):
        held = resolve(task, AT_FDCWD, b"/dir/file").inode
        try:
            change(task)
        except LinuxError as error:
            assert error.errno == errno.ENOSPC
        else:
            break
        kernel.mounts.dentries.sweep()
        assert state() == before
        assert held.stat() == resolve(task, AT_FDCWD, b"/dir/file").inode.stat()
        space.max_inodes += 1
    assert state() != before


def test_space_is_given_back(kernel: Any, task: Any) -> None:
    write(task, b"/big", bytes(1 << 20), os.O_CREAT)
    assert kernel.memory_file.granted >= 1 << 20
    reader = open_path(task, AT_FDCWD, b"/big", os.O_RDONLY)
    remove_file(task, AT_FDCWD, b"/big")
    task.kernel.mounts.dentries.sweep()
    assert kernel.memory_file.granted >= 1 << 20
    reader.decref()
    del reader
    assert kernel.memory_file.granted == 0


def test_temporary_names_leave_nothing_behind(task: Any) -> None:
    directory = resolve(task, AT_FDCWD, b"/dir").inode
    for number in range(100):
        write(task, b"/dir/t%d" % number, b"x", os.O_CREAT)
        remove_file(task, AT_FDCWD, b"/dir/t%d" % number)
    assert len(directory.names) == 0  # no whiteouts for what the host never had
