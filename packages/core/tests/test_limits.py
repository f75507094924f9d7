"""Resource limits and what is counted against them."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EFAULT, EINVAL, EPERM, ESRCH
from struct import pack, unpack

import pytest
from process_harness import SCRATCH, Cpu, World, call
from pysandbox_core import cpu_limit
from pysandbox_core.abi.signal import SIGKILL, SIGXCPU
from pysandbox_core.limits import INFINITY, NAMES, RLIMIT_CPU, RLIMIT_NOFILE, ResourceLimits

NS = 1_000_000_000


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def test_copies_are_apart() -> None:
    limits = ResourceLimits()
    copy = limits.copy()
    copy.set(RLIMIT_NOFILE, 5, 6)
    assert copy.nofile == 5 and copy.get(RLIMIT_NOFILE) == (5, 6)
    assert limits.get(RLIMIT_NOFILE) != (5, 6)
    assert all(limits.get(number)[0] <= limits.get(number)[1] for number in range(len(NAMES)))


def test_prlimit(world: World) -> None:
    results = []

    def sleeps(cpu: Cpu):
        yield call("pause")

    def program(cpu: Cpu):
        mm = cpu.task.mm
        mm.write(SCRATCH, pack("<QQ", 10, 20))
        results.append((yield call("prlimit64", 0, RLIMIT_NOFILE, SCRATCH, SCRATCH + 16)))
        results.append((yield call("prlimit64", 0, RLIMIT_NOFILE, 0, SCRATCH)))
        results.append(unpack("<QQ", mm.read(SCRATCH, 16)))
        mm.write(SCRATCH, pack("<QQ", 10, 21))
        results.append((yield call("setrlimit", RLIMIT_NOFILE, SCRATCH)))
        mm.write(SCRATCH, pack("<QQ", 11, 10))
        results.append((yield call("setrlimit", RLIMIT_NOFILE, SCRATCH)))
        results.append((yield call("setrlimit", 16, SCRATCH)))
        results.append((yield call("setrlimit", 0, 8)))
        results.append((yield call("prlimit64", 999, 0, 0, SCRATCH)))
        results.append((yield call("prlimit64", others.pid, 0, 0, SCRATCH)))
        results.append((yield call("prlimit64", mine.pid, 0, 0, SCRATCH)))

    others = world.spawn(sleeps, uid=2000)
    mine = world.spawn(sleeps)
    assert world.run(program) == 0
    expected = [0, 0, (10, 20), -EPERM, -EINVAL, -EINVAL, -EFAULT, -ESRCH, -EPERM, 0]
    assert results == expected


def test_root_may_raise_but_not_beyond_nr_open(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        cpu.task.mm.write(SCRATCH, pack("<QQ", INFINITY, INFINITY))
        results.append((yield call("setrlimit", NAMES.index("memlock"), SCRATCH)))
        results.append((yield call("setrlimit", RLIMIT_NOFILE, SCRATCH)))

    assert world.run(program, uid=0) == 0
    assert results == [0, -EPERM]


def test_cpu_time_runs_out(world: World) -> None:
    seen = []

    def program(cpu: Cpu):
        group = cpu.task.group
        cpu.on(SIGXCPU, lambda cpu: seen.append(group.limits.get(RLIMIT_CPU)))
        group.limits.set(RLIMIT_CPU, 1, 3)
        for seconds in (1, 2, 3):
            cpu.context.cpu_ns = seconds * NS
            cpu_limit.watch(group)
            group.cpu_limit._expired()
            seen.append(seconds)
            yield call("getpid")

    assert world.run(program) == SIGKILL
    assert seen == [1, (2, 3), 2, (3, 3), 3]


@pytest.mark.parametrize("in_process", [False, True])
def test_cpu_time_of_the_sandbox(
    world: World, monkeypatch: pytest.MonkeyPatch, in_process: bool
) -> None:
    """The kernel's own time counts, and that of tasks; a second after SIGXCPU comes SIGKILL."""
    seen = []
    kernel = world.kernel
    monkeypatch.setattr(type(kernel.platform), "runs_in_process", in_process)
    own_ns = 0
    monkeypatch.setattr(cpu_limit.time, "process_time_ns", lambda: own_ns)

    def program(cpu: Cpu):
        nonlocal own_ns
        cpu.on(SIGXCPU, lambda cpu: seen.append(budget.used_ns() // NS))
        budget = cpu_limit.SandboxBudget(kernel, 3 * NS)
        for seconds in (1, 2, 3, 4):
            cpu.context.cpu_ns = seconds * NS if in_process else NS
            own_ns = seconds * NS if in_process else (seconds - 1) * NS
            budget._look()
            yield call("getpid")

    assert world.run(program) == SIGKILL
    assert seen == [3]
    assert kernel.account.reached == {"cpu_time": "3 s are used up"}
