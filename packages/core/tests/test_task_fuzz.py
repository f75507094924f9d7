"""Any arguments to calls about processes and signals: an errno or a result, never a kernel bug."""

from __future__ import annotations

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from process_harness import SCRATCH, STACK, Cpu, World, call
from pysandbox_core.declare import DECLARATIONS
from pysandbox_core.task import Task

MODULES = (
    "clone", "credentials", "exit", "identity", "pidfd", "prctl", "rlimit", "scheduling",
    "signalfd", "signals", "threads", "uname", "wait",
)  # fmt: skip
ENDLESS = ("pause", "rt_sigsuspend", "exit", "exit_group", "rt_sigtimedwait", "vfork")
"""Calls that never come back, as they are asked to."""
NAMES = sorted(
    declaration.name
    for declaration in DECLARATIONS.values()
    if declaration.handler is not None
    and declaration.handler.__module__.rpartition(".")[2] in MODULES
    and declaration.name not in ENDLESS
)
WORDS = st.one_of(
    st.integers(-3, 70),
    st.sampled_from((SCRATCH, SCRATCH + 1, STACK, 1 << 31, (1 << 32) - 1, 1 << 47, 1 << 63, -1)),
    st.integers(0, (1 << 64) - 1),
)
CALLS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.lists(WORDS, min_size=6, max_size=6)), max_size=15
)
NO_VFORK = ~0x4000


@settings(max_examples=150, deadline=None, phases=[Phase.generate])
@given(CALLS, st.binary(max_size=256), st.sampled_from((0, 1000)))
def test_hostile_arguments(calls: list[tuple[str, list[int]]], memory: bytes, uid: int) -> None:
    world = World()

    def child(cpu: Cpu):
        yield call("getpid")

    def program(cpu: Cpu):
        cpu.task.mm.write(SCRATCH, memory)
        for name, words in calls:
            if name in ("wait4", "waitid"):
                words[2 if name == "wait4" else 3] |= 1  # WNOHANG
            if name == "clone":
                words[0] &= NO_VFORK
            if name == "clone3":
                cpu.task.mm.write_u64(SCRATCH, cpu.task.mm.read_u64(SCRATCH) & NO_VFORK)
                words[0] = SCRATCH
            result = yield call(name, *words, child=child)
            if name not in ("clone", "clone3", "fork") or result <= 0:
                world.bodies.clear()

    task: Task = world.spawn(program, uid)
    task.group.on_exit = lambda status: world.kernel.stop()
    world.kernel.run()
    assert task.group.exit_status is not None
    world.close()
