"""Path resolution against path_resolution(7) and openat2(2)."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from pysandbox_core.abi.fcntl import (
    AT_FDCWD,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.names import create_name, remove_directory, rename_name
from pysandbox_core.fs.open_file import open_path
from pysandbox_core.fs.resolve import resolve, resolve_parent
from pysandbox_core.fs.tmpfs import TmpFs
from vfs_harness import new_task


def where(task: Any, path: bytes, dirfd: int = AT_FDCWD, **options: Any) -> bytes:
    return resolve(task, dirfd, path, **options).absolute(task.fs.root)


def failure(task: Any, path: bytes, dirfd: int = AT_FDCWD, **options: Any) -> int:
    with pytest.raises(LinuxError) as info:
        resolve(task, dirfd, path, **options)
    return info.value.errno


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", b"/"),
        (b"//dir///file", b"/dir/file"),
        (b"dir/./sub/../file", b"/dir/file"),
        (b"/../../dir", b"/dir"),
        (b"link", b"/dir/file"),
        (b"up/sub", b"/dir/sub"),
        (b"dir/", b"/dir"),
        (b"up/", b"/dir"),
    ],
)
def test_paths(task: Any, path: bytes, expected: bytes) -> None:
    assert where(task, path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"", errno.ENOENT),
        (b"absent", errno.ENOENT),
        (b"absent/file", errno.ENOENT),
        (b"absent/..", errno.ENOENT),
        (b"dir/file/", errno.ENOTDIR),
        (b"dir/file/.", errno.ENOTDIR),
        (b"dir/file/x", errno.ENOTDIR),
        (b"link/", errno.ENOTDIR),
        (b"loop", errno.ELOOP),
        (b"x" * 256, errno.ENAMETOOLONG),
        (b"dir/file/" + b"x" * 256, errno.ENOTDIR),
    ],
)
def test_errors(task: Any, path: bytes, expected: int) -> None:
    assert failure(task, path) == expected


def test_links_are_not_followed_at_the_end_when_asked(task: Any) -> None:
    assert where(task, b"link", follow=False) == b"/link"
    assert where(task, b"up/", follow=False) == b"/dir"


def test_forty_links_and_no_more(task: Any) -> None:
    create_name(task, AT_FDCWD, b"/end", 0o100644)
    target = b"/end"
    for number in range(41):
        name = b"/l%d" % number
        create_name(task, AT_FDCWD, name, 0o120777, target=target)
        target = name
    assert where(task, b"/l39") == b"/end"
    assert failure(task, b"/l40") == errno.ELOOP


def test_a_link_whose_text_ends_in_a_slash_leads_to_a_directory_only(task: Any) -> None:
    create_name(task, AT_FDCWD, b"/s", 0o120777, target=b"dir/file/")
    create_name(task, AT_FDCWD, b"/d", 0o120777, target=b"dir/")
    assert failure(task, b"/s") == errno.ENOTDIR
    assert where(task, b"/d") == b"/dir"


def test_search_permission(task: Any, user: Any) -> None:
    create_name(task, AT_FDCWD, b"/closed", 0o040700)
    create_name(task, AT_FDCWD, b"/closed/file", 0o100644)
    assert failure(user, b"/closed/file") == errno.EACCES
    assert failure(user, b"/closed/absent") == errno.EACCES
    assert failure(user, b"/closed/..") == errno.EACCES
    assert where(user, b"/closed") == b"/closed"
    assert where(task, b"/closed/file") == b"/closed/file"


def test_dot_dot_stops_at_the_root_of_the_task(task: Any) -> None:
    task.fs.set_root(resolve(task, AT_FDCWD, b"/dir"))
    task.fs.set_cwd(resolve(task, AT_FDCWD, b"/sub"))
    assert where(task, b"../../../file") == b"/file"
    assert where(task, b"/../sub/deep") == b"/sub/deep"


def test_dot_dot_leaves_a_mount(kernel: Any, task: Any) -> None:
    kernel.mounts.mount(TmpFs(kernel), resolve(task, AT_FDCWD, b"/dir/sub"), b"none")
    inside = resolve(task, AT_FDCWD, b"/dir/sub")
    assert inside.inode.fs.type_name == b"tmpfs"
    assert where(task, b"/dir/sub/../file") == b"/dir/file"
    assert where(task, b"/dir/sub") == b"/dir/sub"


def test_resolve_beneath(task: Any) -> None:
    fd = task.files.install(task, open_path(task, AT_FDCWD, b"/dir", os.O_PATH))
    create_name(task, AT_FDCWD, b"/dir/abs", 0o120777, target=b"/dir/file")
    create_name(task, AT_FDCWD, b"/dir/rel", 0o120777, target=b"sub/../file")
    assert where(task, b"rel", fd, flags=RESOLVE_BENEATH) == b"/dir/file"
    for path in (b"..", b"sub/../..", b"/dir/file", b"abs"):
        assert failure(task, path, fd, flags=RESOLVE_BENEATH) == errno.EXDEV


def test_resolve_in_root(task: Any) -> None:
    fd = task.files.install(task, open_path(task, AT_FDCWD, b"/dir", os.O_PATH))
    create_name(task, AT_FDCWD, b"/dir/abs", 0o120777, target=b"/sub/deep")
    assert where(task, b"abs", fd, flags=RESOLVE_IN_ROOT) == b"/dir/sub/deep"
    assert where(task, b"../../file", fd, flags=RESOLVE_IN_ROOT) == b"/dir/file"


def test_resolve_without_links_and_mounts(kernel: Any, task: Any) -> None:
    kernel.mounts.mount(TmpFs(kernel), resolve(task, AT_FDCWD, b"/dir/sub"), b"none")
    assert failure(task, b"link", flags=RESOLVE_NO_SYMLINKS) == errno.ELOOP
    assert failure(task, b"dir/sub", flags=RESOLVE_NO_XDEV) == errno.EXDEV
    task.fs.set_cwd(resolve(task, AT_FDCWD, b"/dir/sub"))
    assert failure(task, b"..", flags=RESOLVE_NO_XDEV) == errno.EXDEV
    assert where(task, b"/dir", flags=RESOLVE_NO_XDEV) == b"/dir"


def test_parent(task: Any) -> None:
    parent = resolve_parent(task, AT_FDCWD, b"up/new/")
    assert (parent.path.absolute(), parent.name, parent.slash) == (b"/dir", b"new", True)
    assert resolve_parent(task, AT_FDCWD, b"/").name == b""
    assert resolve_parent(task, AT_FDCWD, b"dir/..").name == b".."


def test_descriptors_as_starting_points(task: Any) -> None:
    file = task.files.install(task, open_path(task, AT_FDCWD, b"/file", os.O_RDONLY))
    assert failure(task, b"x", file) == errno.ENOTDIR
    assert failure(task, b"x", 99) == errno.EBADF
    assert where(task, b"/dir", 99) == b"/dir"
    assert where(task, b"", file, empty=True) == b"/file"


def test_a_removed_directory(task: Any) -> None:
    create_name(task, AT_FDCWD, b"/gone", 0o040755)
    task.fs.set_cwd(resolve(task, AT_FDCWD, b"/gone"))
    remove_directory(task, AT_FDCWD, b"/gone")
    assert failure(task, b"x") == errno.ENOENT
    assert where(task, b"..") == b"/"
    assert resolve(task, AT_FDCWD, b".").absolute() == b"/gone (deleted)"


def test_the_working_directory_follows_a_rename(task: Any) -> None:
    task.fs.set_cwd(resolve(task, AT_FDCWD, b"/dir/sub"))
    rename_name(task, AT_FDCWD, b"/dir", AT_FDCWD, b"/moved", 0)
    assert where(task, b".") == b"/moved/sub"
    assert where(task, b"deep") == b"/moved/sub/deep"


def test_sticky_directories_protect_from_others_links(task: Any, user: Any) -> None:
    create_name(task, AT_FDCWD, b"/tmp", 0o040755)
    resolve(task, AT_FDCWD, b"/tmp").inode.set_mode(0o1777)
    create_name(user, AT_FDCWD, b"/tmp/trap", 0o120777, target=b"/file")
    assert failure(task, b"/tmp/trap") == errno.EACCES
    assert where(user, b"/tmp/trap") == b"/file"


def test_very_deep_trees(task: Any) -> None:
    task.fs.set_cwd(task.fs.root)
    for _ in range(5000):
        create_name(task, AT_FDCWD, b"d", 0o040755)
        task.fs.set_cwd(resolve(task, AT_FDCWD, b"d"))
    assert len(task.fs.cwd.absolute()) == 10000
    task.kernel.mounts.dentries.sweep()
    task.fs.set_cwd(task.fs.root)
    task.kernel.mounts.dentries.sweep()


def test_nothing_leads_out_of_the_lower_directory(task: Any, lower: Path) -> None:
    (lower.parent / "secret").write_text("outside")
    (lower / "escape").symlink_to(lower.parent / "secret")
    assert failure(task, b"/escape") == errno.ENOENT
    assert failure(task, b"/../secret") == errno.ENOENT


def test_sweeping_keeps_what_is_in_use(kernel: Any, task: Any) -> None:
    place = resolve(task, AT_FDCWD, b"/dir/sub/deep")
    task.fs.set_cwd(resolve(task, AT_FDCWD, b"/dir"))
    kernel.mounts.dentries.sweep()
    assert resolve(task, AT_FDCWD, b"/dir/sub/deep").dentry is place.dentry
    assert resolve(task, AT_FDCWD, b".").dentry is task.fs.cwd.dentry
    del place
    task.fs.set_cwd(task.fs.root)
    kernel.mounts.dentries.sweep()
    assert kernel.mounts.dentries.count == 0


def test_new_tasks_start_at_the_root(kernel: Any) -> None:
    assert where(new_task(kernel), b".") == b"/"
