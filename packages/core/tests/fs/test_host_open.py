"""Opening files of the host: nothing leads out, and nothing is opened but what was meant."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.fs import host_open
from pysandbox_core.fs.host_directory import HostFs
from pysandbox_core.fs.host_open import O_PIN, O_PIN_DIRECTORY, open_beneath, open_by_components
from pysandbox_core.fs.host_tree import HostDirectory, HostTree
from pysandbox_core.fs.mount import MS_RDONLY
from pysandbox_core.fs.names import create_name, rename_name
from pysandbox_core.fs.resolve import resolve
from vfs_harness import new_task

_IN_OPEN = 0x20


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[HostTree]:
    (tmp_path / "in").mkdir()
    tree = HostTree.open(os.fsencode(tmp_path / "in"))
    yield tree
    tree.close()


@pytest.fixture(params=[open_beneath, open_by_components])
def opener(request: pytest.FixtureRequest) -> Any:
    return request.param


def failure(call: Any, *arguments: Any) -> int | None:
    with pytest.raises(OSError) as info:  # the number is what counts
        call(*arguments)
    return info.value.errno


def directory(tree: HostTree, *names: bytes) -> HostDirectory:
    found = tree.root
    for name in names:
        status = found.stat(name)
        assert status is not None
        found = found.child(name, status)
    return found


def test_no_link_is_followed(opener: Any, tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").write_bytes(b"x")
    (tmp_path / "d" / "link").symlink_to("e")
    (tmp_path / "d" / "e" / "end").symlink_to("f")
    root = os.open(tmp_path, O_PIN_DIRECTORY)
    with os.fdopen(opener(root, b"d/e/f", os.O_RDONLY, 0), "rb") as file:
        assert file.read() == b"x"
    assert failure(opener, root, b"d/link/f", os.O_RDONLY, 0) in (errno.ELOOP, errno.ENOTDIR)
    assert failure(opener, root, b"d/link/f", O_PIN, 0) in (errno.ELOOP, errno.ENOTDIR)
    assert failure(opener, root, b"d/e/end", os.O_RDONLY, 0) == errno.ELOOP
    pinned = opener(root, b"d/e/end", O_PIN, 0)
    assert stat.S_ISLNK(os.fstat(pinned).st_mode)
    assert failure(opener, root, b"d/nothing/f", O_PIN, 0) == errno.ENOENT
    os.close(pinned)
    os.close(root)


def test_openat2_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    root = os.open(tmp_path / "d", O_PIN_DIRECTORY)
    proc = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    try:
        if host_open.new_opener(root) is not open_beneath:
            pytest.skip("this host has no openat2, or a filter that refuses it")
        for path in (b"..", b"../d", b"/etc"):
            assert failure(open_beneath, root, path, O_PIN, 0) == errno.EXDEV
        assert failure(open_beneath, proc, b"root/etc", O_PIN, 0) == errno.ELOOP
    finally:
        os.close(root)
        os.close(proc)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_hosts_without_openat2(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(host_open, "openat2", refused)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x")
    tree = HostTree.open(os.fsencode(tmp_path))
    status = os.stat(tmp_path / "d" / "f")
    fd = directory(tree, b"d").open_file(b"f", os.O_RDONLY, status.st_dev, status.st_ino)
    assert os.read(fd, 10) == b"x"
    os.close(fd)
    tree.close()


def watch_opens(path: Path) -> int:
    """A descriptor to read events from: one for each time that `path` is opened. inotify(7)"""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert libc.inotify_add_watch(fd, os.fsencode(path), _IN_OPEN) >= 0
    return fd


def test_what_is_no_regular_file_is_never_opened(tree: HostTree, tmp_path: Path) -> None:
    """As if it had been put there after the lookup."""
    inside = tmp_path / "in"
    os.mkfifo(inside / "fifo")
    (inside / "d").mkdir()
    (inside / "file").write_bytes(b"")
    for name, opened in (("fifo", False), ("d", False), ("file", True)):
        events = watch_opens(inside / name)
        status = os.stat(inside / name)
        place = (os.fsencode(name), os.O_RDONLY, status.st_dev, status.st_ino)
        if opened:
            os.close(tree.root.open_file(*place))
            assert os.read(events, 4096)
        else:
            assert failure(tree.root.open_file, *place) == errno.ESTALE
            assert failure(os.read, events, 4096) == errno.EAGAIN
        os.close(events)


def test_another_file_of_the_name_is_not_opened(tree: HostTree, tmp_path: Path) -> None:
    inside = tmp_path / "in"
    (inside / "f").write_bytes(b"")
    status = os.stat(inside / "f")
    (inside / "other").write_bytes(b"")
    os.replace(inside / "other", inside / "f")
    events = watch_opens(inside / "f")
    place = (b"f", os.O_RDONLY, status.st_dev, status.st_ino)
    assert failure(tree.root.open_file, *place) == errno.ESTALE
    assert failure(os.read, events, 4096) == errno.EAGAIN
    os.close(events)


def test_a_directory_that_is_another_one_now(tree: HostTree, tmp_path: Path) -> None:
    inside = tmp_path / "in"
    (inside / "a" / "b").mkdir(parents=True)
    (tmp_path / "secret" / "b").mkdir(parents=True)
    way = directory(tree, b"a", b"b")
    for put in (
        lambda: (inside / "a").symlink_to(tmp_path / "secret"),
        lambda: (inside / "a").write_bytes(b""),
        lambda: (inside / "a" / "b").mkdir(parents=True),
    ):
        fresh = HostTree(os.dup(tree.root_fd))
        above = HostDirectory(fresh, fresh.root, b"a", way.dev, way.parent.ino)  # type: ignore[union-attr]
        below = HostDirectory(fresh, above, b"b", way.dev, way.ino)
        os.rename(inside / "a", inside / f"was{len(os.listdir(inside))}")
        put()
        assert failure(lambda below=below: below.fd) == errno.ESTALE
        fresh.close()


def test_directories_moved_into_each_other(
    tree: HostTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen one in the other, and then the other in the first: the way up from them has no end."""
    monkeypatch.setattr(HostTree, "MAX_DIRECTORIES", 1)
    inside = tmp_path / "in"
    (inside / "a" / "b").mkdir(parents=True)
    upper = directory(tree, b"a")
    lower = upper.child(b"b", os.stat(inside / "a" / "b"))
    assert lower.fd >= 0
    os.rename(inside / "a" / "b", inside / "b")
    os.rename(inside / "a", inside / "b" / "a")
    assert lower.stat(b"a") is not None
    upper.parent = lower  # as a lookup that finds it there says
    assert directory(tree, b"b").fd >= 0  # takes the one place
    assert failure(lambda: lower.fd) == errno.ESTALE
    assert failure(lambda: HostDirectory(tree, upper, b"c", 0, 0).fd) == errno.ESTALE


def test_two_directories_far_down(
    kernel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open one of them takes more places than there are; the other must not be lost by it."""
    monkeypatch.setattr(HostTree, "MAX_DIRECTORIES", 2)
    task = new_task(kernel, uid=os.getuid())
    fs = HostFs(kernel, HostTree.open(os.fsencode(tmp_path)), writable=True)
    kernel.mounts.mount(fs, resolve(task, AT_FDCWD, b"/dir/sub"), b"host", 0)
    deep = Path(*["d"] * 100)
    for top in ("first", "second"):
        (tmp_path / top / deep).mkdir(parents=True)
    old, new = (b"/dir/sub/%s/%s/f" % (top, bytes(deep)) for top in (b"first", b"second"))
    create_name(task, AT_FDCWD, old, 0o100644)
    rename_name(task, AT_FDCWD, old, AT_FDCWD, new, 0)
    assert os.listdir(tmp_path / "first" / deep) == []
    assert os.listdir(tmp_path / "second" / deep) == ["f"]


def test_hidden_files_do_not_exist(tmp_path: Path, kernel: Any) -> None:
    (tmp_path / "etc" / "more").mkdir(parents=True)
    for name in ("shadow", "passwd", "more/shadow"):
        (tmp_path / "etc" / name).write_bytes(b"x")
    tree = HostTree.open(os.fsencode(tmp_path), (b"etc/shadow", b"etc/none/x"))
    etc = directory(tree, b"etc")
    assert etc.stat(b"shadow") is None
    assert etc.stat(b"passwd") is not None
    assert sorted(entry.name for entry in etc.list()) == [b"more", b"passwd"]
    assert directory(tree, b"etc", b"more").stat(b"shadow") is not None
    task = new_task(kernel)
    fs = HostFs(kernel, tree, writable=False)
    kernel.mounts.mount(fs, resolve(task, AT_FDCWD, b"/dir"), b"host", MS_RDONLY)
    assert resolve(task, AT_FDCWD, b"/dir/etc/passwd").inode.is_regular
