"""The memory devices: mem(4), null(4), full(4), random(4)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from errno import EBADF, ENOSPC, ENXIO, EPERM
from pathlib import Path

import pytest
from booted_kernel import MAP_PRIVATE_ANONYMOUS, Process, World
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.dev import ENTROPY_BITS, RNDADDENTROPY, RNDGETENTCNT, open_device
from pysandbox_core.fs.resolve import resolve
from pysandbox_platform import PROT_READ


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    with World(tmp_path) as world:
        yield world.process()


def test_null_takes_everything_and_gives_nothing(process: Process) -> None:
    file = process.open(b"/dev/null", os.O_RDWR)
    assert process.write_file(file, b"x" * 100000) == 100000
    assert process.read_file(file) == b""
    assert file.seek(process.task, 5, os.SEEK_END) == 0


def test_null_does_not_look_at_the_data(process: Process) -> None:
    file = process.open(b"/dev/null", os.O_RDWR)
    assert file.write(process.task, process.task.mm.source(0, 4096)) == 4096


def test_zero_reads_as_zeros_of_any_length(process: Process) -> None:
    file = process.open(b"/dev/zero")
    assert process.read_file(file, 200_001) == bytes(200_001)


def test_zero_stops_at_a_bad_address(process: Process) -> None:
    file = process.open(b"/dev/zero")
    room = 8192
    start = process.scratch + (1 << 16) - room
    process.task.mm.munmap(start + room - 4096, 4096)
    assert file.read(process.task, process.task.mm.sink(start, room)) == room - 4096


def test_zero_maps_as_memory_of_its_own(process: Process) -> None:
    task = process.task
    file = process.open(b"/dev/zero")
    addr = task.mm.mmap(task, 0, 8192, PROT_READ, MAP_PRIVATE_ANONYMOUS & ~0x20, file, 4096)
    assert task.mm.read(addr, 8192) == bytes(8192)


def test_full_is_full(process: Process) -> None:
    file = process.open(b"/dev/full", os.O_RDWR)
    assert process.read_file(file, 3) == bytes(3)
    with pytest.raises(LinuxError) as error:
        process.write_file(file, b"x")
    assert error.value.errno == ENOSPC


@pytest.mark.parametrize("name", [b"/dev/random", b"/dev/urandom"])
def test_random_is_never_the_same(process: Process, name: bytes) -> None:
    file = process.open(name, os.O_RDWR)
    assert len(process.read_file(file, 100_000)) == 100_000
    assert process.read_file(file, 32) != process.read_file(file, 32)
    assert process.write_file(file, b"seed" * 30_000) == 120_000
    count = process.ioctl(file, RNDGETENTCNT, bytes(4))
    assert int.from_bytes(count, "little") == ENTROPY_BITS


def test_adding_entropy_is_for_the_superuser(process: Process) -> None:
    with pytest.raises(LinuxError) as error:
        process.ioctl(process.open(b"/dev/random"), RNDADDENTROPY, bytes(16))
    assert error.value.errno == EPERM


def test_without_a_terminal_there_is_no_dev_tty(process: Process) -> None:
    with pytest.raises(LinuxError) as error:
        process.open(b"/dev/tty")
    assert error.value.errno == ENXIO


def test_a_number_without_a_driver_is_no_device(process: Process) -> None:
    path = resolve(process.task, -100, b"/dev/null")
    path.inode.rdev = os.makedev(250, 1)
    with pytest.raises(LinuxError) as error:
        open_device(process.task, path, path.inode, os.O_RDONLY)
    assert error.value.errno == ENXIO


def test_the_usual_names_are_there(process: Process) -> None:
    names = process.names(b"/dev")
    for name in (b"null", b"tty", b"ptmx", b"fd", b"stdin", b"pts", b"shm", b"mqueue"):
        assert name in names
    status = process.open(b"/dev/null").stat()
    assert stat.S_ISCHR(status.mode)
    assert status.rdev == os.makedev(1, 3)
    assert process.readlink(b"/dev/stdin") == b"/proc/self/fd/0"


def test_access_modes_are_kept(process: Process) -> None:
    file = process.open(b"/dev/zero", os.O_WRONLY)
    with pytest.raises(LinuxError) as error:
        file.require_readable()
    assert error.value.errno == EBADF
