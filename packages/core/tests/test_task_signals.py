"""Sending and delivering signals: kernel/signal.c's rules, one test each."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EAGAIN, EINTR, EINVAL, EPERM, ESRCH

import pytest
from process_harness import SCRATCH, Cpu, World, call, fault
from pysandbox_core import task_signals
from pysandbox_core.abi.signal import (
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SI_QUEUE,
    SI_TKILL,
    SI_USER,
    SIG_IGN,
    SIGALRM,
    SIGCHLD,
    SIGHUP,
    SIGKILL,
    SIGSEGV,
    SIGTERM,
    SIGUSR1,
    SIGUSR2,
    sigmask,
)
from pysandbox_core.signals import QUEUE_FIELDS, SigInfo, SignalAction
from pysandbox_platform.registers_amd64 import RDI, RSI, RSP

RT = 40
STACK2 = SCRATCH + 0x8000


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def test_default_action_ends_the_process(world: World) -> None:
    def program(cpu: Cpu):
        yield call("kill", cpu.task.pid, SIGTERM)

    assert world.run(program) == SIGTERM


def test_fault_without_handler(world: World) -> None:
    def program(cpu: Cpu):
        yield fault(SIGSEGV, 1, 0x1234)

    assert world.run(program) == SIGSEGV


def test_fault_kills_although_it_is_blocked_or_ignored(world: World) -> None:
    def program(cpu: Cpu):
        cpu.task.sighand.actions[SIGSEGV] = SignalAction(SIG_IGN)
        task_signals.set_sigmask(cpu.task, sigmask(SIGSEGV))
        yield fault(SIGSEGV, 1, 0x1234)

    assert world.run(program) == SIGSEGV


def test_handler_gets_the_signal_and_its_siginfo(world: World) -> None:
    seen = []

    def handler(cpu: Cpu) -> None:
        regs = cpu.context.regs
        seen.append((regs[RDI], SigInfo.unpack(cpu.task.mm.read(regs[RSI], 128)).code))

    def program(cpu: Cpu):
        cpu.on(SIGUSR1, handler)
        seen.append((yield call("kill", cpu.task.pid, SIGUSR1)))
        seen.append((yield call("tgkill", cpu.task.pid, cpu.task.tid, SIGUSR1)))

    assert world.run(program) == 0
    assert seen == [(SIGUSR1, SI_USER), 0, (SIGUSR1, SI_TKILL), 0]


def test_handler_blocks_its_signal_and_mask_until_it_returns(world: World) -> None:
    order = []

    def once(cpu: Cpu):
        yield call("kill", cpu.task.pid, SIGUSR2)
        cpu.task.sighand.actions[SIGUSR1] = SignalAction(SIG_IGN)
        order.append("first ends")

    def once_program(cpu: Cpu):
        cpu.on(SIGUSR1, once, mask=sigmask(SIGUSR2))
        cpu.on(SIGUSR2, lambda cpu: order.append("second"))
        yield call("kill", cpu.task.pid, SIGUSR1)
        order.append(cpu.task.sigmask)

    assert world.run(once_program) == 0
    assert order == ["first ends", "second", 0]


def test_nodefer_and_resethand(world: World) -> None:
    masks = []

    def program(cpu: Cpu):
        cpu.on(SIGUSR1, lambda cpu: masks.append(cpu.task.sigmask), SA_NODEFER | SA_RESETHAND)
        yield call("kill", cpu.task.pid, SIGUSR1)
        yield call("kill", cpu.task.pid, SIGUSR1)

    assert world.run(program) == SIGUSR1
    assert masks == [0]


def test_standard_signals_coalesce_and_realtime_ones_queue(world: World) -> None:
    got = []

    def count(cpu: Cpu) -> None:
        info = SigInfo.unpack(cpu.task.mm.read(cpu.context.regs[RSI], 128))
        got.append(
            (info.signo, QUEUE_FIELDS.unpack_from(info.fields)[2] if info.signo == RT else 0)
        )

    def program(cpu: Cpu):
        cpu.on(SIGUSR1, count)
        cpu.on(RT, count)
        task_signals.set_sigmask(cpu.task, sigmask(SIGUSR1, RT))
        for value in (7, 8):
            yield call("kill", cpu.task.pid, SIGUSR1)
            info = SigInfo.queued(RT, cpu.task.pid, 1000, value)
            cpu.task.mm.write(SCRATCH, info.pack())
            yield call("rt_sigqueueinfo", cpu.task.pid, RT, SCRATCH)
        cpu.task.mm.write_u64(SCRATCH, 0)
        yield call("rt_sigprocmask", 2, SCRATCH, 0, 8)

    assert world.run(program) == 0
    # the last frame built runs first: signals of lower number are delivered earlier
    assert got == [(RT, 7), (RT, 8), (SIGUSR1, 0)]


@pytest.mark.parametrize(("flags", "result"), [(0, -EINTR), (SA_RESTART, "restarted")])
def test_interrupted_call_restarts_or_not(world: World, flags: int, result: object) -> None:
    results = []

    def child(cpu: Cpu):
        yield call("kill", cpu.task.group.parent.pid, SIGUSR1)

    def program(cpu: Cpu):
        cpu.on(SIGUSR1, lambda cpu: None, flags)
        pid = yield call("fork", child=child)
        # the child's end wakes wait4 as well; the signal comes first
        results.append((yield call("wait4", pid, 0, 0, 0)) == pid or -EINTR)

    assert world.run(program) == 0
    assert results == [True if result == "restarted" else -EINTR]


def test_ignored_signal_does_not_interrupt(world: World) -> None:
    def child(cpu: Cpu):
        yield call("kill", cpu.task.group.parent.pid, SIGUSR1)

    results = []

    def program(cpu: Cpu):
        cpu.task.sighand.actions[SIGUSR1] = SignalAction(SIG_IGN)
        pid = yield call("fork", child=child)
        results.append((yield call("wait4", -1, 0, 0, 0)) == pid)

    assert world.run(program) == 0
    assert results == [True]


def test_sigsuspend_restores_the_mask_after_the_handler(world: World) -> None:
    seen = []

    def child(cpu: Cpu):
        yield call("kill", cpu.task.group.parent.pid, SIGUSR1)

    def program(cpu: Cpu):
        cpu.on(SIGUSR1, lambda cpu: seen.append(cpu.task.sigmask))
        task_signals.set_sigmask(cpu.task, sigmask(SIGUSR1, SIGHUP))
        yield call("fork", child=child)
        cpu.task.mm.write_u64(SCRATCH, sigmask(SIGUSR2))
        seen.append((yield call("rt_sigsuspend", SCRATCH, 8)))
        seen.append(cpu.task.sigmask)

    assert world.run(program) == 0
    assert seen == [sigmask(SIGUSR1, SIGUSR2), -EINTR, sigmask(SIGUSR1, SIGHUP)]


def test_unblocked_thread_takes_a_process_signal(world: World) -> None:
    taken: list[int] = []
    tids: list[int] = []

    def thread(cpu: Cpu):
        if not taken:
            yield call("pause")
        yield call("exit_group", 3)

    def program(cpu: Cpu):
        cpu.on(SIGUSR1, lambda cpu: taken.append(cpu.task.tid))
        tid = yield call("clone", 0x50F00, STACK2, 0, 0, 0, child=thread)
        task_signals.set_sigmask(cpu.task, sigmask(SIGUSR1))
        tids.append(tid)
        yield call("kill", cpu.task.pid, SIGUSR1)
        while True:
            yield call("pause")

    assert world.run(program) == 3 << 8
    assert taken == tids


def test_sigtimedwait_takes_or_times_out(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        task_signals.set_sigmask(cpu.task, sigmask(RT))
        mm = cpu.task.mm
        mm.write_u64(SCRATCH, sigmask(RT))
        mm.write(SCRATCH + 8, bytes(16))
        results.append((yield call("rt_sigtimedwait", SCRATCH, 0, SCRATCH + 8, 8)))
        yield call("kill", cpu.task.pid, RT)
        results.append((yield call("rt_sigtimedwait", SCRATCH, SCRATCH + 64, 0, 8)))
        results.append(SigInfo.unpack(mm.read(SCRATCH + 64, 128)).signo)
        mm.write_u64(SCRATCH + 8, 1 << 63)
        results.append((yield call("rt_sigtimedwait", SCRATCH, 0, SCRATCH + 8, 8)))

    assert world.run(program) == 0
    assert results == [-EAGAIN, RT, RT, -EINVAL]


def test_permission(world: World) -> None:
    results = []

    def other(cpu: Cpu):
        yield call("pause")

    def program(cpu: Cpu):
        results.append((yield call("kill", target.pid, 0)))
        results.append((yield call("kill", 1, SIGKILL)))
        results.append((yield call("kill", 99999, 0)))
        results.append((yield call("kill", cpu.task.pid, 65)))
        results.append((yield call("tgkill", 1, cpu.task.tid, 0)))

    target = world.spawn(other, uid=2000)
    assert world.run(program) == 0
    assert results == [-EPERM, -EPERM, -ESRCH, -EINVAL, -ESRCH]


def test_only_the_kernel_says_it_is_the_kernel(world: World) -> None:
    results = []

    def other(cpu: Cpu):
        yield call("pause")

    def program(cpu: Cpu):
        cpu.task.mm.write(SCRATCH, SigInfo.user(SIGUSR1, SI_USER, 1, 0).pack())
        results.append((yield call("rt_sigqueueinfo", target.pid, SIGUSR1, SCRATCH)))
        cpu.task.mm.write(SCRATCH, SigInfo.queued(SIGUSR1, 1, 0, 0, SI_QUEUE).pack())
        results.append((yield call("rt_sigqueueinfo", target.pid, SIGUSR1, SCRATCH)))

    target = world.spawn(other)
    assert world.run(program) == 0
    assert results == [-EPERM, 0]
    assert target.group.group_exit_code == SIGUSR1


def test_queue_limit(world: World) -> None:
    results = []

    def program(cpu: Cpu):
        task = cpu.task
        task.group.limits.sigpending = 2
        task_signals.set_sigmask(task, sigmask(RT, SIGALRM))
        task.mm.write(SCRATCH, SigInfo.queued(RT, 1, 0, 0).pack())
        results.append((yield call("rt_sigqueueinfo", task.pid, RT, SCRATCH)))
        results.append((yield call("rt_sigqueueinfo", task.pid, RT, SCRATCH)))
        results.append((yield call("rt_sigqueueinfo", task.pid, RT, SCRATCH)))
        results.append((yield call("kill", task.pid, SIGALRM)))
        results.append(world.kernel.queued_signals == {1000: 3})

    assert world.run(program) == 0
    assert results == [0, 0, -EAGAIN, 0, True]
    assert world.kernel.queued_signals == {}


def test_signal_to_a_process_group_counts_for_each_receiver(world: World) -> None:
    results = []

    def other(cpu: Cpu):
        yield call("pause")

    def program(cpu: Cpu):
        task_signals.set_sigmask(cpu.task, sigmask(SIGUSR1))
        pid = yield call("fork", child=other)
        yield call("kill", 0, SIGUSR1)
        results.append(dict(world.kernel.queued_signals))
        yield call("kill", pid, SIGKILL)
        yield call("wait4", pid, 0, 0, 0)
        results.append(dict(world.kernel.queued_signals))

    assert world.run(program) == 0
    assert results == [{1000: 2}, {1000: 1}]
    assert world.kernel.queued_signals == {}


def test_ignoring_drops_what_is_pending(world: World) -> None:
    def program(cpu: Cpu):
        task = cpu.task
        task_signals.set_sigmask(task, sigmask(SIGUSR1))
        yield call("kill", task.pid, SIGUSR1)
        assert task.group.pending.mask
        task.mm.write(SCRATCH, SIG_IGN.to_bytes(8, "little") + bytes(24))
        yield call("rt_sigaction", SIGUSR1, SCRATCH, 0, 8)
        assert not task.group.pending.mask

    assert world.run(program) == 0


def test_child_default_is_ignored(world: World) -> None:
    def program(cpu: Cpu):
        yield call("kill", cpu.task.pid, SIGCHLD)

    assert world.run(program) == 0


def test_frame_on_bad_stack_is_a_segfault(world: World) -> None:
    def program(cpu: Cpu):
        cpu.on(SIGUSR1, lambda cpu: None)
        cpu.context.regs[RSP] = 0x100
        yield call("kill", cpu.task.pid, SIGUSR1)

    assert world.run(program) == SIGSEGV


def test_sigreturn_of_a_bad_frame_is_a_segfault(world: World) -> None:
    def program(cpu: Cpu):
        cpu.context.regs[RSP] = 0x100
        yield call("rt_sigreturn")

    assert world.run(program) == SIGSEGV
