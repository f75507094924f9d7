"""What the kernel keeps for programs, held against the memory limit; and who is killed for it."""

from __future__ import annotations

import os
from errno import EAGAIN, ENFILE, ENOMEM
from pathlib import Path

import pytest
from booted_kernel import MAP_PRIVATE_ANONYMOUS, Process, World
from pysandbox_core import kernel_memory, oom, task_clone
from pysandbox_core.abi.sched import CLONE_SIGHAND, CLONE_THREAD, CLONE_VM
from pysandbox_core.abi.signal import SIGKILL
from pysandbox_core.errors import Interrupted, LinuxError
from pysandbox_core.kernel_memory import STEP, KernelMemory
from pysandbox_core.syscalls.credentials import setgroups
from pysandbox_core.task_clone import CloneArgs
from pysandbox_platform import ACCESS_WRITE, PAGE_SIZE, PROT_READ, PROT_WRITE

MEBIBYTE = 1 << 20
THREAD = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM


class Measured(KernelMemory):
    """Kernel memory whose measure is the test's to say."""

    now = 0

    def _anonymous(self) -> int:
        return self._base + self.now


def measured(world: World, now: int = 0) -> Measured:
    memory = Measured(world.kernel)
    memory.start()
    memory.now = now
    world.kernel.memory = memory
    return memory


def fill(process: Process, size: int) -> None:
    """Have it touch so much memory."""
    mm = process.task.mm
    start = mm.mmap(process.task, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE_ANONYMOUS, None, 0)
    for addr in range(start, start + size, PAGE_SIZE):
        mm.write(addr, b"x")


def page_tables() -> int:
    """Bytes that the host keeps for this process."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmPTE:"))
    return int(line.split()[1]) << 10


def dies(process: Process) -> bool:
    return process.task.group.group_exit_code == SIGKILL


def test_small_growth_is_not_measured(tmp_path: Path) -> None:
    with World(tmp_path, memory=64 * MEBIBYTE) as world:
        memory = measured(world, now=MEBIBYTE)
        memory.grow(STEP - 1)
        assert memory.taken == 0
        memory.grow(1)
        assert memory.taken == MEBIBYTE
        assert world.kernel.memory_file.reserved == MEBIBYTE


def test_the_biggest_process_is_killed(tmp_path: Path) -> None:
    with World(tmp_path, memory=64 * MEBIBYTE) as world:
        small, big = world.process(), world.process()
        fill(big, 8 * MEBIBYTE)
        memory = measured(world, now=60 * MEBIBYTE)
        memory.grow(STEP)
        assert dies(big) and not dies(small)
        assert big.task.group.account.reached.keys() == {"memory"}
        assert not small.task.group.account.reached
        memory.grow(STEP)  # somebody is dying for it already
        assert not dies(small)
        memory.now = 100 * MEBIBYTE  # but that is no licence
        with pytest.raises(LinuxError) as caught:
            memory.grow(STEP)
        assert caught.value.errno == ENOMEM
        assert not dies(small)


def test_what_the_host_keeps_for_tasks_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with World(tmp_path, memory=64 * MEBIBYTE) as world:
        platform = world.kernel.platform
        one = world.process()
        memory = measured(world)
        monkeypatch.setattr(platform, "host_bytes", lambda: 60 * MEBIBYTE)
        memory.grow(STEP)
        assert not dies(one)
        monkeypatch.setattr(platform, "host_bytes", lambda: 65 * MEBIBYTE)
        memory.grow(STEP)
        assert dies(one)


def test_this_process_s_page_tables_count_and_are_given_back(tmp_path: Path) -> None:
    """They stay when what was reached through them is gone."""
    with World(tmp_path, memory=64 * MEBIBYTE) as world:
        process = world.process()
        process.task.group.oom_score_adj = oom.OOM_SCORE_ADJ_MIN
        memory = measured(world)
        mm, file = process.task.mm, world.kernel.memory_file
        kept = mm.mmap(
            process.task, 0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE_ANONYMOUS, None, 0
        )
        mm.write(kept, b"kept")
        before = page_tables()
        count = 600
        for extent in [file.take_extent() for _ in range(count)]:
            assert file.claim(extent, PAGE_SIZE)
            file.view[extent] = 1
            file.decref(extent, PAGE_SIZE)
        file.flush()
        for _ in range(kernel_memory._TABLES_SELDOM):
            memory.grow(STEP)
        assert page_tables() - before >= count * PAGE_SIZE
        assert file.reserved >= count * PAGE_SIZE
        memory.now = 100 * MEBIBYTE
        with pytest.raises(LinuxError):
            memory.grow(STEP)
        assert page_tables() - before < count * PAGE_SIZE // 4
        assert mm.read(kept, 4) == b"kept"


def test_the_page_tables_of_a_child_are_announced(tmp_path: Path) -> None:
    """It may have them made without the kernel hearing of it: all is mapped for it by then."""
    with World(tmp_path, memory=64 * MEBIBYTE) as world:
        process = world.process()
        memory = measured(world, now=MEBIBYTE)
        process.task.mm.host_bytes_found = STEP
        task_clone.clone(process.task, CloneArgs())
        assert memory.taken == MEBIBYTE


@pytest.mark.parametrize("flags", [0, THREAD])
def test_who_is_killed_for_a_childs_memory_gets_no_child(tmp_path: Path, flags: int) -> None:
    """Nobody would kill the child."""
    with World(tmp_path, memory=64 * MEBIBYTE) as world:
        process = world.process()
        memory = measured(world, now=100 * MEBIBYTE)
        memory.grow(STEP - 1)
        tasks = set(world.kernel.tasks)
        users = process.task.mm.users
        with pytest.raises(Interrupted):
            task_clone.clone(process.task, CloneArgs(flags=flags))
        assert dies(process)
        assert set(world.kernel.tasks) == tasks
        assert process.task.group.tasks == [process.task]
        assert process.task.mm.users == users


def test_without_anybody_to_kill_the_call_fails(tmp_path: Path) -> None:
    with World(tmp_path, memory=64 * MEBIBYTE) as world:
        process = world.process()
        process.task.group.oom_score_adj = oom.OOM_SCORE_ADJ_MIN
        memory = measured(world, now=100 * MEBIBYTE)
        with pytest.raises(LinuxError) as caught:
            memory.grow(STEP)
        assert caught.value.errno == ENOMEM
        assert world.kernel.account.own == {"memory": 1}
        memory.now = 0
        memory.grow(STEP)


def test_groups_count(tmp_path: Path) -> None:
    """Each process may have 65536 of its own."""
    with World(tmp_path, memory=64 * MEBIBYTE) as world:
        process = world.process(uid=0)
        addr = process.task.mm.mmap(
            process.task, 0, 4 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE_ANONYMOUS, None, 0
        )
        process.task.mm.write(addr, bytes(4 << 16))
        memory = measured(world, now=100 * MEBIBYTE)
        setgroups(process.task, 65536, addr)
        assert dies(process)
        assert memory.taken == 100 * MEBIBYTE


def test_files_are_refused_before_anybody_is_killed(tmp_path: Path) -> None:
    with World(tmp_path, memory=64 * MEBIBYTE) as world:
        process = world.process()
        memory = measured(world, now=100 * MEBIBYTE)
        with pytest.raises(LinuxError):
            memory.grow(STEP, kill=False)
        assert not dies(process)


def test_what_the_allocator_keeps_kills_nobody(tmp_path: Path) -> None:
    """The victim's objects are gone, but this process has not become smaller."""
    with World(tmp_path, memory=64 * MEBIBYTE) as world:
        small, big = world.process(), world.process()
        big.task.files._files = [None] * MEBIBYTE
        memory = measured(world, now=66 * MEBIBYTE)
        memory.grow(STEP)
        assert dies(big)
        big.task.group.tasks.clear()
        memory.grow(STEP)
        memory.grow(STEP)
        assert not dies(small)
        memory.now += 8 * MEBIBYTE  # but growing further does
        memory.grow(STEP)
        assert dies(small)


def test_a_fault_kills_the_biggest_and_takes_its_pages(tmp_path: Path) -> None:
    with World(tmp_path, memory=16 * MEBIBYTE) as world:
        small, big = world.process(), world.process()
        fill(big, 14 * MEBIBYTE)
        fill(small, 3 * MEBIBYTE)
        assert dies(big) and not dies(small)
        assert big.task.mm.resident(0, big.task.mm.task_size) == 0


def test_a_fault_of_the_biggest_itself_is_tried_again_until_it_is_dead(tmp_path: Path) -> None:
    with World(tmp_path, memory=16 * MEBIBYTE) as world:
        process = world.process()
        fill(process, 9 * MEBIBYTE)
        with pytest.raises(LinuxError) as caught:
            fill(process, 9 * MEBIBYTE)
        assert caught.value.errno == ENOMEM
        assert dies(process)
        assert process.task.mm.handle_fault(process.scratch, ACCESS_WRITE) == (0, 0)


def test_badness(tmp_path: Path) -> None:
    with World(tmp_path, memory=64 * MEBIBYTE) as world:
        process = world.process()
        group = process.task.group
        before = oom.badness(group, 1000)
        fill(process, MEBIBYTE)
        assert oom.badness(group, 1000) >= before + MEBIBYTE
        group.oom_score_adj = 500
        assert oom.badness(group, 64 * MEBIBYTE) >= before + 32 * MEBIBYTE
        group.oom_score_adj = oom.OOM_SCORE_ADJ_MIN
        assert oom.kill_biggest(world.kernel) is None


def test_open_files_of_all_processes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with World(tmp_path) as world:
        process = world.process()
        files = process.task.files
        fd = files.install(process.task, process.open(b"/file"))
        world.kernel.memory.max_files = 0
        with pytest.raises(LinuxError) as caught:
            files.install(process.task, process.open(b"/file"))
        assert caught.value.errno == ENFILE
        assert process.task.group.account.reached.keys() == {"files"}
        files.close(process.task, fd)


def test_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with World(tmp_path) as world:
        process = world.process()
        monkeypatch.setattr(task_clone, "DEFAULT_TASKS", 1)
        with pytest.raises(LinuxError) as caught:
            task_clone.clone(process.task, CloneArgs())
        assert caught.value.errno == EAGAIN
        assert process.task.group.account.reached.keys() == {"pids"}


def test_the_bound_without_a_limit() -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * PAGE_SIZE
    assert 0 < kernel_memory.default_bound() <= min(memory // 4, 2 << 30)
