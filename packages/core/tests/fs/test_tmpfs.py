"""tmpfs: attributes, limits, extended attributes, seals, permissions."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from pysandbox_core.abi.fcntl import (
    AT_FDCWD,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.memfd import open_memfd
from pysandbox_core.fs.mount import Mount
from pysandbox_core.fs.names import (
    create_name,
    link_name,
    remove_directory,
    remove_file,
    rename_name,
)
from pysandbox_core.fs.open_file import open_path
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.fs.tmpfs import TmpFs
from pysandbox_core.mm.io_buffer import BytesSink, BytesSource


@pytest.fixture
def mount(kernel: Any, task: Any) -> Mount:
    """A tmpfs of 16 pages and 10 inodes on /dir, where the tests work."""
    fs = TmpFs(kernel, max_bytes=16 * 4096, max_inodes=10)
    mount: Mount = kernel.mounts.mount(fs, resolve(task, AT_FDCWD, b"/dir"), b"none")
    task.fs.set_cwd(resolve(task, AT_FDCWD, b"/dir"))
    return mount


def failure(call: Any, *arguments: Any) -> int:
    with pytest.raises(LinuxError) as info:
        call(*arguments)
    return info.value.errno


def test_link_counts(task: Any, mount: Mount) -> None:
    for name in (b"a", b"a/b", b"a/c"):
        create_name(task, AT_FDCWD, name, 0o040755)
    assert resolve(task, AT_FDCWD, b"a").inode.stat().nlink == 4
    rename_name(task, AT_FDCWD, b"a/b", AT_FDCWD, b"b", 0)
    assert resolve(task, AT_FDCWD, b"a").inode.stat().nlink == 3
    remove_directory(task, AT_FDCWD, b"a/c")
    assert resolve(task, AT_FDCWD, b"a").inode.stat().nlink == 2
    assert resolve(task, AT_FDCWD, b".").inode.stat().nlink == 4


def test_a_directory_does_not_move_into_itself(task: Any, mount: Mount) -> None:
    create_name(task, AT_FDCWD, b"a", 0o040755)
    create_name(task, AT_FDCWD, b"a/b", 0o040755)
    assert failure(rename_name, task, AT_FDCWD, b"a", AT_FDCWD, b"a/b/c", 0) == errno.EINVAL
    assert failure(rename_name, task, AT_FDCWD, b"a/b", AT_FDCWD, b"a", 0) == errno.ENOTEMPTY


def test_limits(task: Any, mount: Mount) -> None:
    file = open_path(task, AT_FDCWD, b"big", os.O_CREAT | os.O_WRONLY, 0o644)
    assert file.write(task, BytesSource(bytes(16 * 4096))) == 16 * 4096
    assert failure(file.write, task, BytesSource(b"x")) == errno.ENOSPC
    assert mount.fs.statfs().bfree == 0
    file.truncate(task, 0)
    assert mount.fs.statfs().bfree == 16
    for number in range(8):
        create_name(task, AT_FDCWD, b"%d" % number, 0o100644)
    assert failure(create_name, task, AT_FDCWD, b"more", 0o100644) == errno.ENOSPC
    remove_file(task, AT_FDCWD, b"0")
    create_name(task, AT_FDCWD, b"more", 0o100644)


def test_unnamed_files_get_a_name(task: Any, mount: Mount) -> None:
    file = open_path(task, AT_FDCWD, b".", os.O_TMPFILE | os.O_RDWR, 0o600)
    file.write(task, BytesSource(b"data"))
    assert file.stat().nlink == 0
    link_name(task, file.path, AT_FDCWD, b"named")
    assert resolve(task, AT_FDCWD, b"named").inode.stat().nlink == 1
    other = open_path(task, AT_FDCWD, b".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    assert failure(link_name, task, other.path, AT_FDCWD, b"never") == errno.ENOENT


def test_group_directories_hand_down_their_group(task: Any, user: Any, mount: Mount) -> None:
    directory = create_name(task, AT_FDCWD, b"shared", 0o040777)
    directory.inode.set_owner(0, 77, 0o2777)
    user.fs.set_cwd(directory)
    sub = create_name(user, AT_FDCWD, b"sub", 0o040755)
    plain = create_name(user, AT_FDCWD, b"plain", 0o102755)
    assert (sub.inode.gid, sub.inode.mode) == (77, 0o042755)
    assert (plain.inode.gid, plain.inode.mode) == (77, 0o100755)


def test_sticky_directories(task: Any, user: Any, mount: Mount) -> None:
    create_name(task, AT_FDCWD, b"roots", 0o100666)
    user.fs.set_cwd(task.fs.cwd)
    create_name(user, AT_FDCWD, b"mine", 0o100666)
    assert failure(remove_file, user, AT_FDCWD, b"roots") == errno.EPERM
    assert failure(rename_name, user, AT_FDCWD, b"mine", AT_FDCWD, b"roots", 0) == errno.EPERM
    assert failure(link_name, user, resolve(user, AT_FDCWD, b"/file"), AT_FDCWD, b"l") in (
        errno.EPERM, errno.EXDEV,
    )  # fmt: skip
    flags = os.O_CREAT | os.O_WRONLY
    open_path(user, AT_FDCWD, b"roots", flags)
    # protected_regular: not even root, when it is neither its own file nor the directory's owner's
    assert failure(open_path, task, AT_FDCWD, b"mine", flags) == errno.EACCES
    remove_file(user, AT_FDCWD, b"mine")


def test_writing_takes_privileges_away(task: Any, user: Any, mount: Mount) -> None:
    create_name(task, AT_FDCWD, b"tool", 0o106777)
    file = open_path(user, AT_FDCWD, b"/dir/tool", os.O_WRONLY)
    file.write(user, BytesSource(b"x"))
    assert file.stat().mode == 0o100777


def test_times(task: Any, mount: Mount) -> None:
    place = create_name(task, AT_FDCWD, b"file", 0o100644)
    inode = place.inode
    inode.set_times(1, 2)
    file = open_path(task, AT_FDCWD, b"file", os.O_RDWR)
    file.write(task, BytesSource(b"x"))
    status = inode.stat()
    assert status.mtime_ns > 2
    assert status.atime_ns == 1
    file.read(task, BytesSink(1), 0)
    assert inode.stat().atime_ns > 1  # relatime: it was older than the change


def test_extended_attributes(task: Any, mount: Mount) -> None:
    inode = create_name(task, AT_FDCWD, b"file", 0o100644).inode
    inode.set_xattr(b"user.a", b"1", os.XATTR_CREATE)
    assert failure(inode.set_xattr, b"user.a", b"2", os.XATTR_CREATE) == errno.EEXIST
    assert failure(inode.set_xattr, b"user.b", b"2", os.XATTR_REPLACE) == errno.ENODATA
    assert failure(inode.set_xattr, b"nonsense.b", b"2", 0) == errno.EOPNOTSUPP
    assert failure(inode.set_xattr, b"user.big", bytes(1 << 16), 0) == errno.ENOSPC
    assert inode.list_xattrs() == [b"user.a"]
    inode.remove_xattr(b"user.a")
    assert failure(inode.get_xattr, b"user.a") == errno.ENODATA


def test_seals(task: Any, mount: Mount) -> None:
    file = open_memfd(task, b"sealed", 0)
    assert file.path is not None
    assert file.path.absolute() == b"/memfd:sealed (deleted)"
    file.write(task, BytesSource(b"12345"))
    inode: Any = file.inode
    inode.seals = F_SEAL_SHRINK | F_SEAL_GROW
    assert failure(file.truncate, task, 4) == errno.EPERM
    assert failure(file.truncate, task, 6) == errno.EPERM
    assert file.write(task, BytesSource(b"abcd"), 3) == 2
    assert failure(file.write, task, BytesSource(b"x"), 5) == errno.EPERM
    inode.seals |= F_SEAL_WRITE | F_SEAL_SEAL
    assert failure(file.write, task, BytesSource(b"x"), 0) == errno.EPERM
    punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    assert failure(file.allocate, task, punch, 0, 1) == errno.EPERM


def test_what_is_run_is_not_written(task: Any, mount: Mount) -> None:
    inode = create_name(task, AT_FDCWD, b"program", 0o100755).inode
    inode.executions += 1
    assert failure(open_path, task, AT_FDCWD, b"program", os.O_WRONLY) == errno.ETXTBSY
    inode.executions -= 1
    file = open_path(task, AT_FDCWD, b"program", os.O_WRONLY)
    assert inode.writers == 1
    file.decref()
    assert inode.writers == 0
