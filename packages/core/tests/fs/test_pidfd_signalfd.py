"""Processes and signals by descriptor: pidfd_open(2), signalfd(2)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EAGAIN, EBADF, ECHILD, EINVAL, ESRCH
from struct import unpack_from

import pytest
from process_harness import SCRATCH, Cpu, World, call
from pysandbox_core import task_signals
from pysandbox_core.abi.signal import SIGCHLD, SIGKILL, SIGUSR1, sigmask
from pysandbox_core.task_wait import WEXITED
from pysandbox_core.waiting import POLLHUP, POLLIN

P_PIDFD = 3


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def sleeps(cpu: Cpu):
    while True:
        yield call("pause")


def test_pidfd_tells_of_the_end(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        pid = yield call("fork", child=sleeps)
        fd = yield call("pidfd_open", pid, os.O_NONBLOCK)
        file = cpu.task.files.get(fd)
        results.append(fd in cpu.task.files.cloexec)
        results.append(file.poll())
        results.append((yield call("waitid", P_PIDFD, fd, SCRATCH, WEXITED, 0)))
        results.append((yield call("pidfd_send_signal", fd, SIGKILL, 0, 0)))
        while not file.poll():
            yield call("sched_yield")
        results.append((yield call("waitid", P_PIDFD, fd, SCRATCH, WEXITED, 0)))
        results.append(unpack_from("<i", cpu.task.mm.read(SCRATCH + 16, 4))[0] == pid)
        results.append(bool(file.poll() & POLLHUP))
        results.append((yield call("pidfd_send_signal", fd, 0, 0, 0)))
        results.append((yield call("waitid", P_PIDFD, fd, SCRATCH, WEXITED, 0)))

    assert world.run(program) == 0
    assert results == [True, 0, -EAGAIN, 0, 0, True, True, -ESRCH, -ECHILD]


def test_pidfd_errors(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        results.append((yield call("pidfd_open", 0, 0)))
        results.append((yield call("pidfd_open", 999, 0)))
        results.append((yield call("pidfd_open", cpu.task.pid, 1)))
        results.append((yield call("pidfd_send_signal", 5, 0, 0, 0)))
        results.append((yield call("waitid", P_PIDFD, 5, 0, WEXITED, 0)))

    assert world.run(program) == 0
    assert results == [-EINVAL, -ESRCH, -EINVAL, -EBADF, -EBADF]


def test_signalfd_takes_what_is_pending(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        mm = cpu.task.mm
        task_signals.set_sigmask(cpu.task, sigmask(SIGUSR1, SIGCHLD))
        mm.write_u64(SCRATCH, sigmask(SIGUSR1, SIGKILL))
        fd = yield call("signalfd4", -1, SCRATCH, 8, os.O_NONBLOCK)
        file = cpu.task.files.get(fd)
        results.append((file.mask, file.poll()))
        results.append((yield call("read", fd, SCRATCH, 128)))
        yield call("kill", cpu.task.pid, SIGUSR1)
        results.append(bool(file.poll() & POLLIN))
        results.append((yield call("read", fd, SCRATCH, 127)))
        results.append((yield call("read", fd, SCRATCH, 300)))
        signo, _, code, pid, uid = unpack_from("<IiiII", mm.read(SCRATCH, 128))
        results.append((signo, code, pid == cpu.task.pid, uid))
        results.append(cpu.task.group.pending.mask)

    assert world.run(program) == 0
    assert results == [
        (sigmask(SIGUSR1), 0), -EAGAIN, True, -EINVAL, 128, (SIGUSR1, 0, True, 1000), 0,
    ]  # fmt: skip


def test_signalfd_describes_a_child(world: World) -> None:
    seen = []

    def child(cpu: Cpu):
        yield call("exit_group", 5)

    def program(cpu: Cpu):
        task_signals.set_sigmask(cpu.task, sigmask(SIGCHLD))
        cpu.task.mm.write_u64(SCRATCH, sigmask(SIGCHLD))
        fd = yield call("signalfd4", -1, SCRATCH, 8, 0)
        pid = yield call("fork", child=child)
        seen.append((yield call("read", fd, SCRATCH, 128)))
        data = cpu.task.mm.read(SCRATCH, 128)
        seen.append(unpack_from("<I", data)[0])
        seen.append(unpack_from("<I", data, 12)[0] == pid)
        seen.append(unpack_from("<i", data, 40)[0])

    assert world.run(program) == 0
    assert seen == [128, SIGCHLD, True, 5]
