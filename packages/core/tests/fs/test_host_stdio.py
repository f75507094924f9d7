"""The caller's descriptors: pipes, files and what goes wrong with them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pysandbox_core import host_calls
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs import host_stdio
from pysandbox_core.fs.host_stdio import open_stdio
from pysandbox_core.mm.io_buffer import BytesSink, BytesSource
from pysandbox_core.reactor import Reactor
from pysandbox_core.waiting import POLLHUP, POLLIN, POLLOUT


@pytest.fixture
def kernel(kernel: Any) -> Iterator[Any]:
    kernel.reactor = Reactor(lambda: None)
    kernel.config = SimpleNamespace(rootfs=b"/")
    yield kernel
    kernel.reactor.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        with suppress(OSError):  # the test may have closed it
            os.close(fd)


def read(task: Any, file: Any, count: int = 100) -> bytes:
    sink = BytesSink(count)
    file.read(task, sink)
    return sink.data


def test_a_pipe(kernel: Any, task: Any, pipe: tuple[int, int]) -> None:
    reader, writer = open_stdio(kernel, pipe)
    assert not reader.poll() & POLLIN
    assert writer.poll() & POLLOUT
    assert writer.write(task, BytesSource(b"hello")) == 5
    assert reader.poll() & POLLIN
    assert read(task, reader) == b"hello"
    with pytest.raises(LinuxError) as info:
        reader.seek(task, 0, os.SEEK_SET)
    assert info.value.errno == errno.ESPIPE


def test_the_callers_flags_stay_as_they_are(kernel: Any, task: Any, pipe: tuple[int, int]) -> None:
    reader, _ = open_stdio(kernel, pipe)
    reader.set_status_flags(task, os.O_NONBLOCK)
    with pytest.raises(LinuxError) as info:
        read(task, reader)
    assert info.value.errno == errno.EAGAIN
    assert os.get_blocking(pipe[0])


def test_space_is_asked_for_and_not_written(
    kernel: Any, task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the host can't give it, the C library's function writes to page after page of however
    many terabytes."""

    def refused(fd: int, mode: int, offset: int, length: int) -> None:
        assert (mode, offset, length) == (0, 0, 1 << 45)
        raise OSError(errno.EOPNOTSUPP, "as on many a network's file system")

    monkeypatch.setattr(host_calls, "fallocate", refused)
    with open(tmp_path / "file", "w+b") as host:
        (file,) = open_stdio(kernel, [host.fileno()])
        with pytest.raises(LinuxError) as info:
            file.allocate(task, 0, 0, 1 << 45)
        assert info.value.errno == errno.EOPNOTSUPP
        monkeypatch.undo()
        file.allocate(task, 0, 0, 5000)
        assert os.fstat(host.fileno()).st_size == 5000


def test_waiting_for_data(kernel: Any, task: Any, pipe: tuple[int, int]) -> None:
    reader, _ = open_stdio(kernel, pipe)
    woken = []

    def data_comes() -> None:
        os.write(pipe[1], b"late")
        kernel.reactor.poll(None)
        woken.append(True)

    task.on_block = data_comes
    assert read(task, reader) == b"late"
    assert woken == [True]


def test_the_end_of_a_pipe(kernel: Any, task: Any, pipe: tuple[int, int]) -> None:
    reader, writer = open_stdio(kernel, pipe)
    os.close(pipe[1])
    writer.decref()
    del writer
    assert reader.poll() & POLLHUP
    assert read(task, reader) == b""


def test_nobody_reads(
    kernel: Any, task: Any, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pysandbox_core import task_signals

    sent: list[int] = []
    monkeypatch.setattr(task_signals, "send", lambda target, signo, info=None: sent.append(signo))
    reader, writer = open_stdio(kernel, pipe)
    os.close(pipe[0])
    reader.decref()
    del reader
    with pytest.raises(LinuxError) as info:
        writer.write(task, BytesSource(b"x"))
    assert info.value.errno == errno.EPIPE
    assert sent == [13]


def test_a_full_pipe_takes_what_it_can(kernel: Any, task: Any, pipe: tuple[int, int]) -> None:
    _, writer = open_stdio(kernel, pipe)
    writer.set_status_flags(task, os.O_NONBLOCK)
    size = writer.write(task, BytesSource(bytes(1 << 20)))
    assert 4096 <= size < 1 << 20
    with pytest.raises(LinuxError) as info:
        writer.write(task, BytesSource(b"x"))
    assert info.value.errno == errno.EAGAIN


def test_a_file_shares_its_position(kernel: Any, task: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"first second")
    fd = os.open(path, os.O_RDWR)
    (file,) = open_stdio(kernel, [fd])
    assert read(task, file, 6) == b"first "
    assert os.lseek(fd, 0, os.SEEK_CUR) == 6
    assert file.poll() & (POLLIN | POLLOUT) == POLLIN | POLLOUT
    assert file.write(task, BytesSource(b"SECOND")) == 6
    assert path.read_bytes() == b"first SECOND"
    sink = BytesSink(5)
    file.read(task, sink, 0)
    assert sink.data == b"first"
    assert file.seek(task, 0, os.SEEK_CUR) == 12
    os.close(fd)


def test_appending(kernel: Any, task: Any, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before ")
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    (file,) = open_stdio(kernel, [fd])
    os.close(fd)
    with path.open("ab") as other:
        other.write(b"meanwhile ")
    file.write(task, BytesSource(b"after"))
    assert path.read_bytes() == b"before meanwhile after"


def test_opening_it_again_gives_no_more_access(kernel: Any, task: Any, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"data")
    fd = os.open(path, os.O_RDONLY)
    (file,) = open_stdio(kernel, [fd])
    os.close(fd)
    again = file.inode.open(task, None, os.O_RDONLY)
    assert read(task, again, 2) == b"da"
    assert read(task, file) == b"data"
    for flags in (os.O_WRONLY, os.O_RDWR):
        with pytest.raises(LinuxError) as info:
            file.inode.open(task, None, flags)
        assert info.value.errno == errno.EACCES


def test_where_a_read_cannot_be_asked_not_to_wait(
    kernel: Any, task: Any, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EOPNOTSUPP, "not here")

    reader, writer = open_stdio(kernel, pipe)
    monkeypatch.setattr(host_stdio.os, "preadv", refuse)
    monkeypatch.setattr(host_stdio.os, "pwritev", refuse)
    writer.write(task, BytesSource(b"plain"))
    assert read(task, reader) == b"plain"
