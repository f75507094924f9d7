"""/sys: what programs ask it."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EACCES
from pathlib import Path

import pytest
from booted_kernel import Process, World
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.proc.cpus import format_cpu_list
from pysandbox_core.scheduling import PROCESSORS


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    with World(tmp_path) as world:
        yield world.process()


def test_online_processors_are_those_of_sched_getaffinity(process: Process) -> None:
    text = process.read(b"/sys/devices/system/cpu/online")
    assert text == format_cpu_list(PROCESSORS) + b"\n"


def test_every_processor_has_a_topology(process: Process) -> None:
    for number in PROCESSORS:
        path = b"/sys/devices/system/cpu/cpu%d/topology/core_id" % number
        assert process.read(path) == b"%d\n" % number


def test_huge_pages_are_off(process: Process) -> None:
    path = b"/sys/kernel/mm/transparent_hugepage/enabled"
    assert b"[never]" in process.read(path)
    assert process.open(path).stat().size == 4096


def test_loopback_is_the_only_interface(process: Process) -> None:
    assert process.names(b"/sys/class/net") == [b".", b"..", b"lo"]
    assert process.read(b"/sys/class/net/lo/mtu") == b"65536\n"


def test_nothing_can_be_written_or_made(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        root = world.process(uid=0)
        for attempt in (
            lambda: root.write(b"/sys/kernel/mm/transparent_hugepage/enabled", b"always"),
            lambda: root.open(b"/sys").inode.create(root.task, b"x", 0o100644, 0, 0),
        ):
            with pytest.raises(LinuxError) as error:
                attempt()
            assert error.value.errno == EACCES
