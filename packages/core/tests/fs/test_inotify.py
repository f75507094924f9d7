"""Inotify: that its watches go when what they are for goes, and limits. The events themselves are
compared with Linux's by the guest program of that name."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs import inotify, notify
from pysandbox_core.fs.inotify import Inotify
from pysandbox_core.fs.names import create_name, remove_file
from pysandbox_core.fs.open_file import open_path
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.mm.io_buffer import BytesSink


@pytest.fixture
def watcher(kernel: Any) -> Any:
    file = Inotify(kernel, os.O_NONBLOCK)
    yield file
    if file.refs:
        file.decref()
    assert notify.watching == 0


def events(watcher: Inotify) -> list[tuple[int, int, bytes]]:
    found = [(wd, mask, name) for wd, mask, _, name in watcher.events]
    watcher.events.clear()
    return found


def test_events_of_a_directory(task: Any, watcher: Inotify) -> None:
    watcher.add_watch(resolve(task, AT_FDCWD, b"/dir"), notify.IN_CREATE | notify.IN_DELETE)
    create_name(task, AT_FDCWD, b"/dir/new", 0o040755)
    remove_file(task, AT_FDCWD, b"/dir/file")
    assert events(watcher) == [
        (1, notify.IN_CREATE | notify.IN_ISDIR, b"new"),
        (1, notify.IN_DELETE, b"file"),
    ]


def test_an_inode_stays_while_it_is_watched(kernel: Any, task: Any, watcher: Inotify) -> None:
    watcher.add_watch(resolve(task, AT_FDCWD, b"/dir/file"), notify.IN_OPEN)
    kernel.mounts.dentries.sweep()
    open_path(task, AT_FDCWD, b"/dir/file", os.O_RDONLY).decref()
    assert events(watcher) == [(1, notify.IN_OPEN, b"")]


def test_a_removed_file_is_told_of_when_it_is_closed(task: Any, watcher: Inotify) -> None:
    file = open_path(task, AT_FDCWD, b"/dir/file", os.O_RDONLY)
    watcher.add_watch(file.path, notify.IN_DELETE_SELF)
    remove_file(task, AT_FDCWD, b"/dir/file")
    assert events(watcher) == []
    file.decref()
    assert events(watcher) == [(1, notify.IN_DELETE_SELF, b""), (1, notify.IN_IGNORED, b"")]
    assert watcher.watches == {}


def test_too_many_events_overflow(
    task: Any, watcher: Inotify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inotify, "MAX_QUEUED_EVENTS", 2)
    for number in range(4):
        watcher.queue_event(1, notify.IN_CREATE, 0, b"%d" % number)
    assert [mask for _, mask, _ in events(watcher)] == [
        notify.IN_CREATE,
        notify.IN_CREATE,
        notify.IN_Q_OVERFLOW,
    ]


def test_reading_whole_events(task: Any, watcher: Inotify) -> None:
    watcher.queue_event(1, notify.IN_CREATE, 7, b"name")
    with pytest.raises(LinuxError) as info:
        watcher.read(task, BytesSink(31))
    assert info.value.errno == errno.EINVAL
    sink = BytesSink(100)
    assert watcher.read(task, sink) == 32
    assert inotify.EVENT.unpack_from(sink.data) == (1, notify.IN_CREATE, 7, 16)
    assert sink.data[16:] == b"name".ljust(16, b"\0")
