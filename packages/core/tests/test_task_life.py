"""Processes and threads from clone to wait: kernel/fork.c's and kernel/exit.c's rules."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EAGAIN, ECHILD, EINVAL, EPERM, ESRCH

import pytest
from process_harness import SCRATCH, Cpu, World, call
from pysandbox_core import task_signals
from pysandbox_core.abi.futex import FUTEX_LOCK_PI, FUTEX_OWNER_DIED, FUTEX_WAITERS
from pysandbox_core.abi.sched import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_FILES,
    CLONE_FS,
    CLONE_NEWNS,
    CLONE_PARENT,
    CLONE_PARENT_SETTID,
    CLONE_SETTLS,
    CLONE_SIGHAND,
    CLONE_THREAD,
    CLONE_VM,
)
from pysandbox_core.abi.signal import (
    SA_NOCLDWAIT,
    SIG_IGN,
    SIGCHLD,
    SIGCONT,
    SIGHUP,
    SIGKILL,
    SIGRTMIN,
    SIGSTOP,
    SIGTERM,
)
from pysandbox_core.signals import SigInfo, SignalAction
from pysandbox_core.task_wait import (
    WALL,
    WCLONE,
    WCONTINUED,
    WEXITED,
    WNOHANG,
    WNOWAIT,
    WUNTRACED,
)
from pysandbox_platform.registers_amd64 import FS_BASE, RSP

THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD
STACK2 = SCRATCH + 0x8000


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def exits(code: int):
    def program(cpu: Cpu):
        yield call("exit_group", code)

    return program


def sleeps(cpu: Cpu):
    while True:
        yield call("pause")


def status_at(cpu: Cpu, addr: int = SCRATCH) -> int:
    return cpu.task.mm.read_u32(addr)


def test_wait_gives_the_status_once(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        pid = yield call("fork", child=exits(7))
        results.append((yield call("wait4", -1, SCRATCH, 0, 0)) == pid)
        results.append(status_at(cpu))
        results.append((yield call("wait4", -1, SCRATCH, 0, 0)))
        results.append((yield call("kill", pid, 0)))

    assert world.run(program) == 0
    assert results == [True, 7 << 8, -ECHILD, -ESRCH]


def test_nothing_is_left_behind(world: World) -> None:
    def program(cpu: Cpu):
        yield call("fork", child=exits(0))
        yield call("fork", child=sleeps)

    task = world.spawn(program)
    task.group.on_exit = lambda status: world.kernel.stop()
    world.kernel.run()
    orphans = [group for group in world.kernel.groups.values() if group.pid != 1]
    assert [group.parent.pid for group in orphans if group.exit_status is None] == [1]
    assert task.context.released and task.mm.released
    assert task.pid not in world.kernel.tasks


@pytest.mark.parametrize(
    ("options", "result"), [(0, -ECHILD), (WCLONE, 0), (WALL, 0), (WCLONE | WALL, 0)]
)
def test_clone_children(world: World, options: int, result: int) -> None:
    """A child that ends with another signal than SIGCHLD is waited for by those who ask for it."""
    results = []

    def program(cpu: Cpu):
        pid = yield call("clone", 0, 0, 0, 0, 0, child=exits(1))
        results.append((yield call("wait4", pid, 0, options, 0)))
        results[0] = 0 if results[0] == pid else results[0]

    assert world.run(program) == 0
    assert results == [result]


def test_sigchld_and_automatic_reaping(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        task_signals.set_sigmask(cpu.task, 1 << (SIGCHLD - 1))
        cpu.on(SIGCHLD, lambda cpu: None, SA_NOCLDWAIT)
        yield call("fork", child=exits(3))
        results.append((yield call("wait4", -1, 0, 0, 0)))
        results.append(bool(cpu.task.group.pending.mask >> (SIGCHLD - 1) & 1))
        cpu.task.group.pending.discard(-1)
        cpu.task.sighand.actions[SIGCHLD] = SignalAction(SIG_IGN)
        yield call("fork", child=exits(3))
        results.append((yield call("wait4", -1, 0, 0, 0)))
        results.append(bool(cpu.task.group.pending.mask))

    assert world.run(program) == 0
    assert results == [-ECHILD, True, -ECHILD, False]


def test_waitid_leaves_the_child_with_wnowait(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        pid = yield call("fork", child=exits(9))
        for options in (WEXITED | WNOWAIT, WEXITED):
            results.append((yield call("waitid", 0, 0, SCRATCH, options, 0)))
            info = SigInfo.unpack(cpu.task.mm.read(SCRATCH, 128))
            results.append((info.signo, info.code, info.fields[:4] == pid.to_bytes(4, "little")))
            results.append(info.fields[8])
        results.append((yield call("waitid", 0, 0, SCRATCH, WEXITED, 0)))
        results.append((yield call("waitid", 0, 0, SCRATCH, WNOHANG, 0)))
        results.append((yield call("waitid", 1, 0, SCRATCH, WEXITED, 0)))

    assert world.run(program) == 0
    assert results == [
        0,
        (SIGCHLD, 1, True),
        9,
        0,
        (SIGCHLD, 1, True),
        9,
        -ECHILD,
        -EINVAL,
        -EINVAL,
    ]


def test_stop_and_continue_are_reported(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        mm = cpu.task.mm
        pid = yield call("fork", child=sleeps)
        yield call("kill", pid, SIGSTOP)
        yield call("wait4", pid, SCRATCH, WUNTRACED, 0)
        results.append(mm.read_u32(SCRATCH))
        results.append((yield call("wait4", pid, SCRATCH, WUNTRACED | WNOHANG, 0)))
        yield call("kill", pid, SIGCONT)
        yield call("wait4", pid, SCRATCH, WCONTINUED, 0)
        results.append(mm.read_u32(SCRATCH))
        yield call("kill", pid, SIGSTOP)
        yield call("kill", pid, SIGKILL)
        yield call("wait4", pid, SCRATCH, 0, 0)
        results.append(mm.read_u32(SCRATCH))

    assert world.run(program) == 0
    assert results == [SIGSTOP << 8 | 0x7F, 0, 0xFFFF, SIGKILL]


def test_every_thread_stops_and_goes_on(world: World) -> None:
    order = []

    def child(cpu: Cpu):
        yield call("clone", THREAD, STACK2, 0, 0, 0, child=sleeps)
        yield call("kill", cpu.task.pid, SIGSTOP)
        order.append([task.stopped for task in cpu.task.group.tasks])
        yield call("exit_group", 4)

    def program(cpu: Cpu):
        pid = yield call("fork", child=child)
        yield call("wait4", pid, SCRATCH, WUNTRACED, 0)
        order.append([task.stopped for task in world.group(pid).tasks])
        yield call("kill", pid, SIGCONT)
        yield call("wait4", pid, SCRATCH, 0, 0)
        order.append(cpu.task.mm.read_u32(SCRATCH))

    assert world.run(program) == 0
    assert order == [[True, True], [False, False], 4 << 8]


def test_exit_group_ends_blocked_and_new_threads(world: World) -> None:
    def program(cpu: Cpu):
        yield call("clone", THREAD, STACK2, 0, 0, 0, child=sleeps)
        yield call("getpid")
        yield call("clone", THREAD, STACK2, 0, 0, 0, child=sleeps)
        yield call("exit_group", 6)

    assert world.run(program) == 6 << 8
    assert set(world.kernel.tasks) == set()


def test_leader_may_exit_first(world: World) -> None:
    def thread(cpu: Cpu):
        yield call("getpid")
        assert cpu.task.group.leader.exited
        assert cpu.task.group.pid in world.kernel.tasks
        yield call("exit", 8)

    def program(cpu: Cpu):
        yield call("clone", THREAD, STACK2, 0, 0, 0, child=thread)
        yield call("exit", 1)

    assert world.run(program) == 8 << 8


def test_clone_sets_ids_stack_and_tls(world: World) -> None:
    seen = []
    flags = THREAD | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID

    def thread(cpu: Cpu):
        regs = cpu.context.regs
        seen.append((regs[RSP], regs[FS_BASE], cpu.task.mm.read_u32(SCRATCH + 4)))
        yield call("exit", 0)

    def program(cpu: Cpu):
        mm = cpu.task.mm
        tid = yield call("clone", flags, STACK2, SCRATCH, SCRATCH + 4, 0x1234000, child=thread)
        seen.append((mm.read_u32(SCRATCH) == tid, tid))
        while mm.read_u32(SCRATCH + 4):
            yield call("futex", SCRATCH + 4, 0, tid, 0, 0, 0)

    assert world.run(program) == 0
    (ok, tid), child = sorted(seen, key=len)
    assert ok and child == (STACK2, 0x1234000, tid)


def test_vfork_parent_waits(world: World) -> None:
    order = []

    def child(cpu: Cpu):
        yield call("getpid")
        order.append("child")
        yield call("exit_group", 0)

    def program(cpu: Cpu):
        yield call("vfork", child=child)
        order.append("parent")

    assert world.run(program) == 0
    assert order == ["child", "parent"]


def test_impossible_and_refused_clones(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        results.append((yield call("clone", CLONE_THREAD, 0, 0, 0, 0)))
        results.append((yield call("clone", CLONE_SIGHAND, 0, 0, 0, 0)))
        results.append((yield call("clone", CLONE_NEWNS | CLONE_FS, 0, 0, 0, 0)))
        results.append((yield call("clone", CLONE_NEWNS, 0, 0, 0, 0)))
        world.kernel.config.pids = 1
        results.append((yield call("fork")))
        world.kernel.config.pids = None
        cpu.task.group.limits.nproc = 1
        results.append((yield call("fork")))

    assert world.run(program) == 0
    assert results == [-EINVAL, -EINVAL, -EINVAL, -EPERM, -EAGAIN, -EAGAIN]


@pytest.mark.parametrize("subreaper", [False, True])
def test_orphans_find_a_new_parent(world: World, subreaper: bool) -> None:
    results = []

    def grandchild(cpu: Cpu):
        while (yield call("getppid")) == cpu.task.group.parent.pid == parent[0]:
            yield call("sched_yield")
        results.append((yield call("getppid")))

    parent = [0]

    def child(cpu: Cpu):
        parent[0] = cpu.task.pid
        yield call("fork", child=grandchild)

    def program(cpu: Cpu):
        cpu.task.group.is_child_subreaper = subreaper
        pid = yield call("fork", child=child)
        yield call("wait4", pid, 0, 0, 0)
        results.append((yield call("wait4", -1, 0, 0, 0)) > 0)
        while len(results) < 2:
            yield call("sched_yield")

    assert world.run(program) == 0
    assert sorted(results) == ([1, 2] if subreaper else [False, 1])


def test_parent_death_signal(world: World) -> None:
    statuses = []

    def grandchild(cpu: Cpu):
        yield call("prctl", 1, SIGTERM)
        yield call("kill", cpu.task.group.parent.pid, SIGKILL)
        yield from sleeps(cpu)

    def child(cpu: Cpu):
        yield call("fork", child=grandchild)
        yield from sleeps(cpu)

    def program(cpu: Cpu):
        cpu.task.group.is_child_subreaper = True
        yield call("fork", child=child)
        for _ in range(2):
            yield call("wait4", -1, SCRATCH, 0, 0)
            statuses.append(status_at(cpu))

    assert world.run(program) == 0
    assert statuses == [SIGKILL, SIGTERM]


@pytest.mark.parametrize("handled", [False, True])
def test_orphaned_stopped_job_is_hung_up(world: World, handled: bool) -> None:
    """The last process whose parent is in the session but in another process group is gone."""
    pids = []
    order = []

    def grandchild(cpu: Cpu):
        pids.append(cpu.task.pid)
        yield call("setpgid", 0, 0)
        if handled:
            cpu.on(SIGHUP, lambda cpu: order.append("hung up"))
        yield call("kill", cpu.task.pid, SIGSTOP)
        order.append("continued")

    def child(cpu: Cpu):
        pid = yield call("fork", child=grandchild)
        yield call("wait4", pid, SCRATCH, WUNTRACED, 0)
        order.append("stopped")

    def program(cpu: Cpu):
        first = yield call("fork", child=child)
        yield call("wait4", first, 0, 0, 0)
        while (yield call("kill", pids[0], 0)) == 0:
            yield call("sched_yield")

    assert world.run(program) == 0
    assert order == (["stopped", "hung up", "continued"] if handled else ["stopped"])


def test_clone_parent_makes_a_sibling(world: World) -> None:
    results = []

    def sibling(cpu: Cpu):
        results.append((yield call("getppid")))

    def child(cpu: Cpu):
        yield call("clone", CLONE_PARENT | SIGCHLD, 0, 0, 0, 0, child=sibling)

    def program(cpu: Cpu):
        yield call("fork", child=child)
        results.append((yield call("wait4", -1, 0, 0, 0)) > 0)
        results.append((yield call("wait4", -1, 0, 0, 0)) > 0)

    assert world.run(program) == 0
    assert sorted(results) == [True, True, 2]


def test_rusage_of_children(world: World) -> None:
    def child(cpu: Cpu):
        cpu.context.cpu_ns = 2_500_000_000
        yield call("exit_group", 0)

    seen = []

    def program(cpu: Cpu):
        pid = yield call("fork", child=child)
        yield call("wait4", pid, 0, 0, SCRATCH)
        seen.append(cpu.task.mm.read_u64(SCRATCH))
        yield call("getrusage", -1, SCRATCH)
        seen.append((cpu.task.mm.read_u64(SCRATCH), cpu.task.mm.read_u64(SCRATCH + 8)))

    assert world.run(program) == 0
    assert seen == [2, (2, 500_000)]


def test_death_of_a_child_with_a_realtime_signal_that_has_no_room(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        task_signals.set_sigmask(cpu.task, 1 << (SIGRTMIN - 1))
        cpu.task.group.limits.sigpending = 0
        pid = yield call("clone", SIGRTMIN, 0, 0, 0, 0, child=exits(3))
        results.append((yield call("wait4", pid, SCRATCH, WALL, 0)) == pid)
        results.append(status_at(cpu))
        results.append(cpu.task.group.pending.mask)

    assert world.run(program) == 0
    assert results == [True, 3 << 8, 0]


def test_lock_of_a_thread_that_ends_goes_to_who_waits(world: World) -> None:
    results = []

    def owner(cpu: Cpu):
        yield call("futex", SCRATCH, FUTEX_LOCK_PI, 0, 0, 0, 0)
        while not status_at(cpu) & FUTEX_WAITERS:
            yield call("sched_yield")
        yield call("exit", 0)

    def program(cpu: Cpu):
        yield call("clone", THREAD, STACK2, 0, 0, 0, child=owner)
        while not status_at(cpu):
            yield call("sched_yield")
        results.append((yield call("futex", SCRATCH, FUTEX_LOCK_PI, 0, 0, 0, 0)))
        results.append(status_at(cpu) == cpu.task.tid | FUTEX_WAITERS | FUTEX_OWNER_DIED)

    assert world.run(program) == 0
    assert results == [0, True]
