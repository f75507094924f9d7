"""Process groups, sessions and their terminal."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EACCES, EINVAL, EPERM, ESRCH

import pytest
from process_harness import Cpu, World, call
from pysandbox_core.abi.signal import SIGHUP
from pysandbox_core.sessions import ProcessGroup, Session


class Tty:
    def __init__(self, foreground: ProcessGroup) -> None:
        self.foreground: ProcessGroup | None = foreground
        self.ended: Session | None = None

    def session_ended(self, session: Session) -> None:
        self.ended = session


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def sleeps(cpu: Cpu):
    while True:
        yield call("pause")


def test_a_first_process_leads_its_session(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        pid = cpu.task.pid
        results.append((yield call("getpgrp")) == pid)
        results.append((yield call("setsid")))
        results.append((yield call("getsid", 0)) == pid)
        results.append((yield call("getppid")))

    assert world.run(program) == 0
    assert results == [True, -EPERM, True, 1]


def test_setpgid(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        pid = yield call("fork", child=sleeps)
        other = yield call("fork", child=sleeps)
        results.append((yield call("setpgid", 0, 0)))
        results.append((yield call("setpgid", pid, -1)))
        results.append((yield call("setpgid", 1, 1)))
        results.append((yield call("setpgid", 12345, 0)))
        results.append((yield call("setpgid", pid, 12345)))
        results.append((yield call("setpgid", pid, 0)))
        results.append((yield call("getpgid", pid)) == pid)
        results.append((yield call("setpgid", other, pid)))
        world.group(other).has_execed = True
        results.append((yield call("setpgid", other, other)))
        results.append(sorted(world.kernel.process_groups[pid].members) == [pid, other])
        yield call("kill", -pid, 9)
        yield call("wait4", -pid, 0, 0, 0)
        yield call("wait4", -pid, 0, 0, 0)
        results.append(pid in world.kernel.process_groups)

    assert world.run(program) == 0
    expected = [-EPERM, -EINVAL, -ESRCH, -ESRCH, -EPERM, 0, True, 0, -EACCES, True, False]
    assert results == expected


def test_setsid_of_a_child(world: World) -> None:
    results = []

    def child(cpu: Cpu):
        results.append((yield call("setsid")) == cpu.task.pid)
        results.append(cpu.task.group.process_group.session.tty is None)
        results.append((yield call("setpgid", 0, 0)))

    def program(cpu: Cpu):
        pid = yield call("fork", child=child)
        yield call("wait4", pid, 0, 0, 0)
        results.append(pid in world.kernel.sessions)

    assert world.run(program) == 0
    assert results == [True, True, -EPERM, False]


def test_the_end_of_the_leader_hangs_up_the_foreground(world: World) -> None:
    ttys = []

    def child(cpu: Cpu):
        yield call("setpgid", 0, 0)
        group = cpu.task.group.process_group
        tty = Tty(group)
        group.session.tty = tty
        ttys.append(tty)
        yield from sleeps(cpu)

    def program(cpu: Cpu):
        yield call("fork", child=child)
        while not ttys:
            yield call("sched_yield")

    task = world.spawn(program)
    session = task.group.process_group.session
    task.group.on_exit = lambda status: world.kernel.stop()
    world.kernel.run()
    assert ttys[0].ended is session and session.tty is None and session.leader is None
    (child_group,) = ttys[0].foreground.members.values()
    assert child_group.group_exit_code == SIGHUP
