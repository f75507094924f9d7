"""/proc: what is in it, in the formats of proc(5), and who may look."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EACCES, EINVAL, EIO, ENOENT, EPERM, ESRCH
from pathlib import Path
from stat import S_IFDIR

import pytest
from booted_kernel import MAP_PRIVATE_ANONYMOUS, Process, World
from pysandbox_core import task_exit
from pysandbox_core.abi.fcntl import AT_FDCWD
from pysandbox_core.credentials import Credentials
from pysandbox_core.errors import LinuxError
from pysandbox_core.fs.dentry import Path as VfsPath
from pysandbox_core.fs.mount import Mount
from pysandbox_core.fs.names import create_name
from pysandbox_core.fs.pipe import open_pipe
from pysandbox_core.fs.proc.cpus import filter_cpuinfo, format_cpu_list, format_cpu_mask
from pysandbox_core.fs.proc.mounts import PATH_MAX, escape, mounts_text
from pysandbox_core.fs.proc.process import parse_integer
from pysandbox_core.fs.resolve import resolve
from pysandbox_core.fs.tmpfs import TmpFs
from pysandbox_platform import PROT_READ


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


@pytest.fixture
def process(world: World) -> Process:
    return world.process()


def refused(errno: int) -> pytest.RaisesExc[LinuxError]:
    return pytest.raises(LinuxError, check=lambda error: error.errno == errno)


# Who is there.


def test_processes_are_listed_by_number(world: World) -> None:
    first, second = world.process(), world.process()
    names = first.names(b"/proc")
    assert b"%d" % first.pid in names
    assert b"%d" % second.pid in names


def test_self_is_whoever_looks(world: World) -> None:
    first, second = world.process(), world.process()
    assert first.readlink(b"/proc/self") == b"%d" % first.pid
    assert second.readlink(b"/proc/self") == b"%d" % second.pid
    assert second.readlink(b"/proc/thread-self") == b"%d/task/%d" % (second.pid, second.pid)


@pytest.mark.parametrize("name", [b"0", b"00002", b"02", b"99999", b"-1", b"2x", b"9" * 30])
def test_numbers_of_nobody_are_not_there(process: Process, name: bytes) -> None:
    with refused(ENOENT):
        process.open(b"/proc/" + name)


def test_every_file_of_a_process_can_be_read_or_says_why(process: Process) -> None:
    for name in process.names(b"/proc/self"):
        if name in (b".", b"..", b"fd", b"fdinfo", b"ns", b"task", b"net", b"cwd", b"root"):
            continue
        try:
            process.read(b"/proc/self/" + name)
        except LinuxError as error:
            assert error.errno in (EIO, ENOENT), name  # mem at 0; exe of a process without one


def test_a_directory_that_was_kept_shows_nothing_of_its_successor(world: World) -> None:
    looker, victim = world.process(), world.process()
    file = looker.open(b"/proc/%d/comm" % victim.pid)
    task_exit.exit_task(victim.task)
    world.kernel.tasks.pop(victim.task.tid, None)
    with refused(ESRCH):
        looker.read_file(file)


# Formats.


def test_stat_has_52_fields_and_a_name_that_can_be_found(world: World) -> None:
    process = world.process(comm=b"a) R\n(b\\")
    text = process.read(b"/proc/self/stat")
    start, _, rest = text.rpartition(b") ")
    assert start == b"%d (a) R\\n(b\\\\" % process.pid
    fields = rest.split()
    assert len(fields) == 50
    assert fields[0] == b"R"
    assert fields[1:4] == [b"1", b"%d" % process.pid, b"%d" % process.pid]


def test_status_tells_ids_and_signals(world: World) -> None:
    process = world.process(uid=1234)
    process.task.sigmask = 1 << 9
    rows = dict(line.split(b":\t", 1) for line in process.read(b"/proc/self/status").splitlines())
    assert rows[b"Name"] == b"program"
    assert rows[b"State"] == b"R (running)"
    assert rows[b"Uid"] == b"1234\t1234\t1234\t1234"
    assert rows[b"SigBlk"] == b"0000000000000200"
    assert rows[b"VmSize"].endswith(b" kB")


def test_maps_line_has_the_columns_of_proc_pid_maps(process: Process) -> None:
    task = process.task
    kinds = (None, process.open(b"/dev/zero"))
    for file in kinds:
        flags = MAP_PRIVATE_ANONYMOUS & ~0x20 if file else MAP_PRIVATE_ANONYMOUS
        addr = task.mm.mmap(task, 0, 4096, PROT_READ, flags, file, 0)
    task.mm.start_stack = process.scratch
    lines = process.read(b"/proc/self/maps").splitlines()
    device = [line for line in lines if line.startswith(b"%08x-" % addr)]
    assert device[0][73:] == b"/dev/zero"
    assert device[0].split()[1:4] == [b"r--p", b"00000000", b"00:05"]
    assert any(line[73:] == b"[stack]" for line in lines)


def test_limits_match_the_hosts_layout() -> None:
    """The host's own file, if it has one, is the reference for widths."""
    host = Path("/proc/self/limits")
    if not host.exists():
        pytest.skip("the host has no /proc/self/limits")
    from pysandbox_core.fs.proc.status import LIMITS

    lines = host.read_bytes().splitlines()
    assert lines[0] == b"%-25s %-20s %-20s %-10s" % (
        b"Limit", b"Soft Limit", b"Hard Limit", b"Units",
    )  # fmt: skip
    assert [line[:25].rstrip() for line in lines[1:]] == [b"Max " + name for name, _, _ in LIMITS]


def test_reading_in_pieces_shows_one_moment(process: Process) -> None:
    file = process.open(b"/proc/self/comm")
    assert process.read_file(file, 3) == b"pro"
    process.task.comm = b"changed"
    assert process.read_file(file) == b"gram\n"
    file.seek(process.task, 0, os.SEEK_SET)
    assert process.read_file(file) == b"changed\n"


def test_meminfo_is_the_sandboxs_limit(tmp_path: Path) -> None:
    with World(tmp_path, memory=64 << 20) as world:
        process = world.process()
        assert process.read(b"/proc/meminfo").startswith(b"MemTotal:          65536 kB\n")


def test_uptime_counts_from_boot(process: Process) -> None:
    up, idle = process.read(b"/proc/uptime").split()
    assert float(up) < 60
    assert float(idle) >= 0


def test_hostname_is_the_sandboxs(process: Process) -> None:
    assert process.read(b"/proc/sys/kernel/hostname") == b"box\n"


def test_mountinfo_names_every_mount_once(process: Process) -> None:
    lines = process.read(b"/proc/self/mountinfo").splitlines()
    assert len({line.split()[0] for line in lines}) == len(lines)
    assert [line.split()[4] for line in lines][:2] == [b"/", b"/proc"]
    for line in lines:
        left, right = line.split(b" - ")
        assert len(left.split()) >= 6
        assert len(right.split()) == 3


def test_mounts_are_shown_where_they_are_from_the_root(process: Process) -> None:
    """On top of another, below one, from within a chroot(2); one that no path leads to is left out,
    and so is what lies deeper than a path may be long."""
    task = process.task
    task.creds = Credentials.for_user(0, 0, ())
    mounts = task.kernel.mounts

    def make(path: bytes) -> VfsPath:
        create_name(task, AT_FDCWD, path, S_IFDIR | 0o755)
        return resolve(task, AT_FDCWD, path)

    def mount(at: VfsPath) -> Mount:
        return mounts.mount(TmpFs(task.kernel), at, b"mine")

    def shown(text: bytes) -> list[bytes]:
        return [line.split()[1] for line in text.splitlines() if line.startswith(b"mine ")]

    start = resolve(task, AT_FDCWD, b"/")
    make(b"/one")
    mount(make(b"/one/two"))
    place = make(b"/one/two/three")
    mount(place)
    mount(place)
    expected = [b"/one/two", b"/one/two/three", b"/one/two/three"]
    assert shown(process.read(b"/proc/self/mounts")) == expected
    task.fs.set_cwd(resolve(task, AT_FDCWD, b"/one/two/three"))
    for _ in range(PATH_MAX // 200 + 1):
        task.fs.set_cwd(make(b"x" * 200))
    mount(task.fs.cwd)
    task.fs.set_cwd(start)
    assert shown(process.read(b"/proc/self/mounts")) == expected
    inside = [b"/two", b"/two/three", b"/two/three"]
    assert shown(mounts_text(task.kernel, resolve(task, AT_FDCWD, b"/one"))) == inside
    below = mounts_text(task.kernel, resolve(task, AT_FDCWD, b"/one/two"))
    assert shown(below) == [b"/", b"/three", b"/three"]


def test_uuid_is_new_each_time_and_boot_id_is_not(process: Process) -> None:
    random = b"/proc/sys/kernel/random/"
    assert process.read(random + b"uuid") != process.read(random + b"uuid")
    boot_id = process.read(random + b"boot_id")
    assert boot_id == process.read(random + b"boot_id")
    assert len(boot_id) == 37
    assert boot_id[14:15] == b"4"


# Writing.


def test_comm_can_be_set_by_its_process(process: Process) -> None:
    assert process.write(b"/proc/self/comm", b"a name that is too long\n") == 24
    assert process.task.comm == b"a name that is "


def test_comm_of_another_process_can_not_be_set(world: World) -> None:
    mine, other = world.process(), world.process()
    with refused(EINVAL):
        mine.write(b"/proc/%d/comm" % other.pid, b"x")


def test_oom_score_adj_goes_up_freely_and_down_with_a_capability(world: World) -> None:
    process, root = world.process(), world.process(uid=0)
    path = b"/proc/self/oom_score_adj"
    process.write(path, b"500\n")
    assert process.read(path) == b"500\n"
    with refused(EACCES):
        process.write(path, b"-1\n")
    with refused(EINVAL):
        process.write(path, b"1001\n")
    root.write(path, b"-1000")
    assert root.read(path) == b"-1000\n"


def test_hostname_needs_a_capability(world: World) -> None:
    with refused(EPERM):
        world.process().write(b"/proc/sys/kernel/hostname", b"other")
    world.process(uid=0).write(b"/proc/sys/kernel/hostname", b"other\n")
    assert world.kernel.hostname == b"other"


@pytest.mark.parametrize(
    ("text", "value"),
    [(b"5\n", 5), (b" -7 ", -7), (b"0x10", 16), (b"010", 8), (b"+3", 3), (b"0\0", 0)],
)
def test_integers_are_read_as_the_kernel_does(text: bytes, value: int) -> None:
    assert parse_integer(text) == value


@pytest.mark.parametrize("text", [b"", b"x", b"1 2", b"--1", b"09", b"0x", b"1e3", b"\xff"])
def test_what_is_no_integer_is_refused(text: bytes) -> None:
    with refused(EINVAL):
        parse_integer(text)


# Who may look.


def test_environment_of_other_users_is_private(world: World) -> None:
    mine, other, root = world.process(1000), world.process(1001), world.process(0)
    for name in (b"environ", b"maps", b"auxv", b"io"):
        with refused(EACCES):
            mine.read(b"/proc/%d/%s" % (other.pid, name))
        root.read(b"/proc/%d/%s" % (other.pid, name))
    mine.read(b"/proc/%d/status" % other.pid)


def test_descriptors_of_other_users_are_private(world: World) -> None:
    mine, other = world.process(1000), world.process(1001)
    with refused(EACCES):
        mine.readlink(b"/proc/%d/cwd" % other.pid)
    with refused(EACCES):
        mine.names(b"/proc/%d/fd" % other.pid)


def test_a_process_that_is_not_dumpable_is_private_too(world: World) -> None:
    mine, other = world.process(), world.process()
    other.task.mm.dumpable = 0
    with refused(EACCES):
        mine.read(b"/proc/%d/environ" % other.pid)
    assert mine.open(b"/proc/%d/status" % other.pid).stat().uid == 0


def test_capabilities_are_not_gained_by_looking(world: World) -> None:
    mine, other = world.process(), world.process()
    plain = Credentials.for_user(1000, 1000)
    other.task.creds = Credentials(*(1000,) * 8, (), 1, 1)
    assert mine.task.creds == plain
    with refused(EACCES):
        mine.readlink(b"/proc/%d/cwd" % other.pid)


# Descriptors.


def test_descriptor_link_shows_and_leads_to_the_file(process: Process) -> None:
    file = process.open(b"/dev/null", os.O_RDWR)
    process.task.files.set(5, file, cloexec=True)
    assert process.names(b"/proc/self/fd") == [b".", b"..", b"5"]
    assert process.readlink(b"/proc/self/fd/5") == b"/dev/null"
    assert process.open(b"/dev/fd/5").stat().ino == file.stat().ino


def test_descriptor_info_tells_position_and_flags(process: Process) -> None:
    file = process.open(b"/proc/self/status")
    process.task.files.set(3, file, cloexec=True)
    process.read_file(file, 10)
    rows = dict(line.split(b":\t") for line in process.read(b"/proc/self/fdinfo/3").splitlines())
    assert rows[b"pos"] == b"10"
    assert int(rows[b"flags"], 8) & os.O_CLOEXEC
    assert rows[b"ino"] == b"%d" % file.stat().ino


def test_a_pipe_can_be_opened_again(world: World) -> None:
    process = world.process()
    reader, writer = open_pipe(world.kernel, 0, 1000, 1000)
    process.task.files.set(3, reader, cloexec=False)
    process.task.files.set(4, writer, cloexec=False)
    assert process.readlink(b"/proc/self/fd/3").startswith(b"pipe:[")
    process.write(b"/proc/self/fd/4", b"through the name")
    assert process.read_file(process.open(b"/proc/self/fd/3"), 100) == b"through the name"


def test_a_removed_file_is_reached_and_shown_as_deleted(process: Process) -> None:
    from pysandbox_core.fs.resolve import resolve_parent

    root = resolve_parent(process.task, -100, b"/dev/shm/gone").path
    inode = root.inode.create(process.task, b"gone", 0o100600, 1000, 1000)
    process.task.files.set(3, process.open(b"/dev/shm/gone"), cloexec=False)
    process.write(b"/dev/shm/gone", b"still here")
    dentry = root.dentry.children[b"gone"]
    root.inode.unlink(process.task, b"gone", inode)
    dentry.unlinked = True
    del root.dentry.children[b"gone"]
    assert process.readlink(b"/proc/self/fd/3") == b"/dev/shm/gone (deleted)"
    assert process.read(b"/proc/self/fd/3") == b"still here"


def test_mem_reads_and_writes_the_memory(process: Process) -> None:
    process.task.mm.write(process.scratch, b"hello")
    file = process.open(b"/proc/self/mem", os.O_RDWR)
    file.seek(process.task, process.scratch, os.SEEK_SET)
    assert process.read_file(file, 5) == b"hello"
    process.write_file(file, b"!")
    assert process.task.mm.read(process.scratch, 6) == b"hello!"
    file.seek(process.task, 0, os.SEEK_SET)
    with refused(EIO):
        process.read_file(file, 5)


# Processors.


def test_cpuinfo_is_reduced_to_what_may_be_known() -> None:
    host = (
        b"processor\t: 0\nmodel name\t: X\nflags\t\t: fpu vmx sse\nsecret\t: 1\n\n"
        b"processor\t: 1\nmodel name\t: X\n\n"
    )
    assert filter_cpuinfo(host, (0, 3)) == (
        b"processor\t: 0\nmodel name\t: X\nflags\t\t: fpu sse\n\nprocessor\t: 3\n\n"
    )


@pytest.mark.parametrize(
    ("numbers", "text"), [((0,), b"0"), ((0, 1, 2, 5), b"0-2,5"), ((), b""), ((1, 3), b"1,3")]
)
def test_cpu_lists(numbers: tuple[int, ...], text: bytes) -> None:
    assert format_cpu_list(numbers) == text


@pytest.mark.parametrize(
    ("mask", "width", "text"),
    [(3, 2, b"3"), (0xFF, 8, b"ff"), (1 << 32, 33, b"1,00000000"), (1, 8, b"01")],
)
def test_cpu_masks(mask: int, width: int, text: bytes) -> None:
    assert format_cpu_mask(mask, width) == text


def test_mount_points_with_spaces_are_escaped() -> None:
    assert escape(b"/a b\tc\\d\n#") == b"/a\\040b\\011c\\134d\\012\\043"
