"""The loop, waiting, timers and the reactor, on a platform whose contexts are Python generators."""

from __future__ import annotations

import os
import select
import sys
from errno import EBADF, ENOSYS
from time import monotonic_ns
from types import SimpleNamespace

import pytest
from fake_platform import FakePlatform, Program
from pysandbox_core import declare
from pysandbox_core.config import SandboxConfig
from pysandbox_core.errors import ERESTARTSYS, Interrupted, LinuxError
from pysandbox_core.kernel import Kernel
from pysandbox_core.task import WORK_SIGNAL, Task
from pysandbox_core.waiting import POLLIN, WaitQueue
from pysandbox_platform import STOP_SYSCALL
from pysandbox_platform.registers_amd64 import ORIG_RAX, RAX, RDI

STOP_KERNEL = 500
"""A number of no call, with which a test program ends the run."""


def call(number: int, argument: int = 0) -> dict[str, int]:
    return {"stop": STOP_SYSCALL, f"r{ORIG_RAX}": number, f"r{RDI}": argument}


def fake_group() -> SimpleNamespace:
    return SimpleNamespace(pid=1)


@pytest.fixture
def kernel() -> Kernel:
    kernel = Kernel(SandboxConfig(), FakePlatform())

    def unknown(task: Task, regs: memoryview) -> int:
        raise LinuxError(ENOSYS)

    def stop(task: Task, regs: memoryview) -> int:
        kernel.stop()
        return 0

    kernel.table = [unknown] * (declare.TABLE_SIZE + 1)
    kernel.table[STOP_KERNEL] = stop
    yield kernel
    kernel.reactor.close()


def start(kernel: Kernel, program: Program) -> Task:
    context = kernel.platform.new_context()
    context.program = program
    task = Task(kernel, fake_group(), context)
    task.mm = SimpleNamespace(address_space=None)
    kernel.tasks[len(kernel.tasks) + 1] = task
    task.make_ready()
    return task


def test_result_goes_to_rax(kernel: Kernel) -> None:
    seen = []
    kernel.table[39] = lambda task, regs: regs[RDI] + 1

    def program() -> Program:
        yield call(39, 41)
        seen.append(task.regs[RAX])
        yield call(STOP_KERNEL)

    task = start(kernel, program())
    kernel.run()
    assert seen == [42]


def test_errno_and_unknown_numbers(kernel: Kernel) -> None:
    seen = []

    def bad(task: Task, regs: memoryview) -> int:
        raise LinuxError(EBADF)

    kernel.table[3] = bad

    def program() -> Program:
        for number in (3, 400, declare.TABLE_SIZE, 1 << 40, 2**64 - 1):
            yield call(number)
            seen.append(task.regs[RAX] - 2**64)
        yield call(STOP_KERNEL)

    task = start(kernel, program())
    kernel.run()
    assert seen == [-EBADF, -ENOSYS, -ENOSYS, -ENOSYS, -ENOSYS]


def test_a_blocked_handler_lets_others_run(kernel: Kernel) -> None:
    queue, events = WaitQueue(), []

    def wait(task: Task, regs: memoryview) -> int:
        events.append(f"{regs[RDI]} waits")
        assert task.block(queue)
        events.append(f"{regs[RDI]} goes on")
        return regs[RDI]

    def wake(task: Task, regs: memoryview) -> int:
        events.append("wake")
        queue.wake()
        return 0

    kernel.table[1], kernel.table[2] = wait, wake
    results = []

    def waiter(number: int) -> Program:
        yield call(1, number)
        results.append(tasks[number].regs[RAX])
        if len(results) == 3:
            yield call(STOP_KERNEL)

    def waker() -> Program:
        yield call(2)

    tasks = [start(kernel, waiter(number)) for number in range(3)]
    start(kernel, waker())
    kernel.run()
    assert events == [
        "0 waits",
        "1 waits",
        "2 waits",
        "wake",
        "0 goes on",
        "1 goes on",
        "2 goes on",
    ]
    assert results == [0, 1, 2]


def test_more_waiters_than_spare_loops(kernel: Kernel) -> None:
    queue, done = WaitQueue(), []
    count = 3 * Kernel.SPARE_LOOPS

    def wait(task: Task, regs: memoryview) -> int:
        for _ in range(3):
            task.block(queue)
        done.append(regs[RDI])
        return 0

    kernel.table[1] = wait
    kernel.table[2] = lambda task, regs: queue.wake() or 0

    def waiter(number: int) -> Program:
        yield call(1, number)

    def waker() -> Program:
        while len(done) < count:
            yield call(2)
        yield call(STOP_KERNEL)

    for number in range(count):
        start(kernel, waiter(number))
    start(kernel, waker())
    kernel.run()
    assert sorted(done) == list(range(count))


def test_waiters_do_not_add_to_each_others_stack(kernel: Kernel) -> None:
    """A greenlet begins at the recursion depth of the one that starts it."""
    queue, done = WaitQueue(), []
    count = sys.getrecursionlimit() // 5

    def wait(task: Task, regs: memoryview) -> int:
        task.block(queue)
        done.append(regs[RDI])
        if len(done) == count:
            kernel.stop()
        return 0

    kernel.table[1] = wait
    kernel.table[2] = lambda task, regs: queue.wake() or 0
    for number in range(count):
        start(kernel, iter([call(1, number)]))
    start(kernel, iter([call(2)]))
    kernel.run()
    assert sorted(done) == list(range(count))


def test_deadline_and_wake(kernel: Kernel) -> None:
    outcome = []

    def sleep(task: Task, regs: memoryview) -> int:
        outcome.append(task.block(WaitQueue(), monotonic_ns() + 1_000_000))
        kernel.stop()
        return 0

    kernel.table[1] = sleep
    start(kernel, iter([call(1)]))
    kernel.run()
    assert outcome == [False]
    assert kernel.timers.next_deadline_ns() is None


def test_a_deadline_passes_while_another_context_spins(kernel: Kernel) -> None:
    outcome = []

    def sleep(task: Task, regs: memoryview) -> int:
        outcome.append(task.block(WaitQueue(), monotonic_ns() + 1_000_000))
        kernel.stop()
        return 0

    kernel.table[1] = sleep
    start(kernel, iter([call(1)]))
    start(kernel, iter(()))
    kernel.run()
    assert outcome == [False]


def test_a_pending_signal_ends_the_wait(kernel: Kernel) -> None:
    queue, seen = WaitQueue(), []

    def wait(task: Task, regs: memoryview) -> int:
        with pytest.raises(Interrupted) as error:
            task.block(queue)
        seen.append(error.value.errno)
        task.work = 0
        kernel.stop()
        return 0

    kernel.table[1] = wait
    kernel.table[2] = lambda task, regs: sleeper.notice(WORK_SIGNAL) or 0
    sleeper = start(kernel, iter([call(1)]))
    start(kernel, iter([call(2)]))
    kernel.run()
    assert seen == [ERESTARTSYS]
    assert not queue.waiters


@pytest.mark.parametrize("spinning", [False, True])
def test_host_descriptor_wakes_a_task(kernel: Kernel, spinning: bool) -> None:
    reader, writer = os.pipe()
    seen = []

    def read(task: Task, regs: memoryview) -> int:
        task.block(kernel.reactor.watch(reader, select.EPOLLIN))
        seen.append(os.read(reader, 10))
        kernel.stop()
        return 0

    kernel.table[1] = read
    kernel.table[2] = lambda task, regs: os.write(writer, b"news")
    start(kernel, iter([call(1)]))
    start(kernel, iter([call(2)]))
    if spinning:
        start(kernel, iter(()))
    kernel.run()
    kernel.reactor.forget(reader)
    os.close(reader)
    os.close(writer)
    assert seen == [b"news"]


def test_sleepers_cause_no_waits(kernel: Kernel) -> None:
    """With every task asleep the platform is not asked again and again."""

    def sleep(task: Task, regs: memoryview) -> int:
        task.block(WaitQueue(), monotonic_ns() + 20_000_000)
        kernel.stop()
        return 0

    kernel.table[1] = sleep
    for _ in range(4):
        start(kernel, iter([call(1)]))
    kernel.run()
    assert kernel.platform.waits == 4


def test_queue_tells_waiters_in_order_and_survives_leaving() -> None:
    queue, told = WaitQueue(), []

    class Leaver:
        def __init__(self, name: str) -> None:
            self.name = name

        def notify(self, events: int) -> None:
            told.append((self.name, events))
            queue.remove(self)

    for name in "abc":
        queue.add(Leaver(name))
    assert queue.wake_one(POLLIN)
    queue.wake(POLLIN)
    assert told == [("a", POLLIN), ("b", POLLIN), ("c", POLLIN)]
    assert not queue.wake_one()
