"""What the platform is told to answer is what the kernel would answer, always."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
from process_harness import STACK, Call, Cpu, World, call
from pysandbox_core import task_exit
from pysandbox_core.abi.numbers_amd64 import NUMBERS
from pysandbox_core.abi.sched import CLONE_SIGHAND, CLONE_THREAD, CLONE_VM
from pysandbox_core.hook_calls import install
from pysandbox_core.hooks import hookimpl

NAMES = ("getpid", "gettid", "getuid", "geteuid", "getgid", "getegid")
THREAD = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM
KEEP = -1


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def agree(cpu: Cpu) -> Generator[Call, int, list[int]]:
    """Makes all the calls; fails where the platform would have said something else."""
    results = []
    for name in NAMES:
        results.append((yield call(name)))
        assert cpu.context.constant_results[NUMBERS[name]] == results[-1], name
    assert len(cpu.context.constant_results) == len(NAMES)
    return results


def test_a_new_process(world: World) -> None:
    def program(cpu: Cpu) -> Generator[Call, int, None]:
        pid, tid, *ids = yield from agree(cpu)
        assert (pid, tid) == (cpu.task.group.pid, cpu.task.tid)
        assert ids == [1000] * 4

    assert world.run(program) == 0


@pytest.mark.parametrize(
    "change",
    [
        ("setuid", 7), ("setgid", 7), ("setreuid", KEEP, 7), ("setregid", 7, KEEP),
        ("setresuid", 1, 2, 3), ("setresgid", 1, 2, 3), ("setfsuid", 7), ("setgroups", 0, 0),
    ],
    ids=lambda change: change[0],
)  # fmt: skip
def test_ids_change(world: World, change: tuple[str, int, int, int]) -> None:
    def program(cpu: Cpu) -> Generator[Call, int, None]:
        yield from agree(cpu)
        assert (yield call(*change)) >= 0
        yield from agree(cpu)

    assert world.run(program, uid=0) == 0


def test_children(world: World) -> None:
    """Of fork, and a thread that changes its user alone."""
    seen = []

    def child(cpu: Cpu) -> Generator[Call, int, None]:
        seen.append((yield from agree(cpu)))

    def thread(cpu: Cpu) -> Generator[Call, int, None]:
        yield call("setuid", 5)
        seen.append((yield from agree(cpu)))
        yield call("exit", 0)

    def program(cpu: Cpu) -> Generator[Call, int, None]:
        pid = yield call("fork", child=child)
        assert (yield call("wait4", pid, 0, 0, 0)) == pid
        tid = yield call("clone", THREAD, STACK - 4096, 0, 0, 0, child=thread)
        while tid in cpu.task.kernel.tasks:
            yield call("sched_yield")
        own = yield from agree(cpu)
        assert seen == [[pid, pid, 0, 0, 0, 0], [own[0], tid, 5, 5, 0, 0]]

    assert world.run(program, uid=0) == 0


def test_the_thread_that_executes_becomes_leader(world: World) -> None:
    def thread(cpu: Cpu) -> Generator[Call, int, None]:
        group = cpu.task.group
        while len(group.tasks) > 1:
            yield call("sched_yield")
        task_exit.become_leader(cpu.task)
        pid, tid, *_ = yield from agree(cpu)
        assert pid == tid == group.pid

    def program(cpu: Cpu) -> Generator[Call, int, None]:
        yield call("clone", THREAD, STACK - 4096, 0, 0, 0, child=thread)
        yield call("exit", 0)

    assert world.run(program) == 0


class Quiet:
    """A plugin that does not look at system calls."""

    @hookimpl
    def task_start(self) -> None:
        pass


class Watcher:
    @hookimpl
    def syscall_exit(self) -> None:
        pass


@pytest.mark.parametrize(("plugin", "results"), [(Quiet(), len(NAMES)), (Watcher(), 0)])
def test_hooks_that_are_to_see_every_call(world: World, plugin: object, results: int) -> None:
    install(world.kernel, [("plugin", plugin)])

    def program(cpu: Cpu) -> Generator[Call, int, None]:
        assert len(cpu.context.constant_results) == results
        yield call("setuid", 1000)
        assert len(cpu.context.constant_results) == results

    assert world.run(program) == 0
