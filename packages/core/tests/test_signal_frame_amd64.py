"""The frame of a handler, byte by byte, and what sigreturn makes of frames that programs wrote."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EINVAL, ENOMEM, EPERM
from struct import pack_into, unpack_from

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from process_harness import SCRATCH, STACK, Cpu, World, call, fault
from pysandbox_core import signal_frame_amd64 as signal_frame
from pysandbox_core.abi.signal import (
    SA_ONSTACK,
    SA_RESTORER,
    SIGSEGV,
    SIGUSR1,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.signals import SigaltStack, SigInfo, SignalAction
from pysandbox_core.task import Task
from pysandbox_platform.registers_amd64 import (
    CS,
    EFLAGS,
    EFLAGS_DF,
    EFLAGS_TF,
    R8,
    RAX,
    RBX,
    RDI,
    RDX,
    RIP,
    RSI,
    RSP,
    SS,
    USER_CS,
    USER_DS,
)

XSTATE = 832
ACTION = SignalAction(0x500000, SA_RESTORER, 0x600000, 0)

# Offsets from the frame's start: arch/x86/include/asm/sigframe.h, uapi/asm/{ucontext,sigcontext}.h.
UC = 8
GREGS = UC + 40
FPSTATE = UC + 224
SIGMASK = UC + 296
INFO = UC + 304


def idle(cpu: Cpu):
    yield call("getpid")


@pytest.fixture
def task() -> Iterator[Task]:
    world = World()
    task = world.spawn(idle)
    regs = task.regs
    for index in range(15):
        regs[index] = 0x1111_1111_1111 * (index + 1)
    regs[RSP] = STACK - 3
    regs[RIP] = 0x401000
    regs[EFLAGS] = 0x246 | EFLAGS_DF | EFLAGS_TF
    regs[CS], regs[SS] = USER_CS, USER_DS
    state = bytearray(XSTATE)
    state[:2] = b"\x7f\x03"
    state[24:28] = b"\x80\x1f\0\0"
    state[160:176] = b"sixteen of XMM0!"
    pack_into("<Q", state, 512, 2)
    task.context.set_fpstate(bytes(state))
    yield task
    world.close()


def test_layout(task: Task) -> None:
    before = list(task.regs)
    task.trap_number, task.trap_error, task.trap_addr = 14, 6, 0x1234
    info = SigInfo.fault(SIGSEGV, 1, 0x1234)
    signal_frame.push(task, info, ACTION, 0xABC)
    regs, mm = task.regs, task.mm
    frame = regs[RSP]
    data = mm.read(frame, INFO + 128)
    assert frame % 16 == 8 and frame < before[RSP] - 128
    assert unpack_from("<Q", data) == (0x600000,)
    assert unpack_from("<QQQiQ", data, UC)[:2] == (7, 0)
    assert unpack_from("<4Q", data, GREGS)[0] == before[R8]
    assert unpack_from("<Q", data, GREGS + 8 * 15) == (before[RSP],)
    assert unpack_from("<QQ", data, GREGS + 8 * 16) == (before[RIP], before[EFLAGS])
    assert unpack_from("<4H", data, GREGS + 144) == (USER_CS, 0, 0, USER_DS)
    assert unpack_from("<4Q", data, GREGS + 152) == (6, 14, 0xABC, 0x1234)
    assert unpack_from("<Q", data, SIGMASK) == (0xABC,)
    assert SigInfo.unpack(data[INFO:]).pack() == info.pack()
    assert (regs[RDI], regs[RSI], regs[RDX]) == (SIGSEGV, frame + INFO, frame + UC)
    assert (regs[RAX], regs[RIP]) == (0, ACTION.handler)
    assert not regs[EFLAGS] & (EFLAGS_DF | EFLAGS_TF)


def test_extended_state_in_the_frame(task: Task) -> None:
    signal_frame.push(task, SigInfo.kernel(SIGUSR1), ACTION, 0)
    mm = task.mm
    addr = mm.read_u64(task.regs[RSP] + FPSTATE)
    state = mm.read(addr, XSTATE + 4)
    assert addr % 64 == 0
    assert state[160:176] == b"sixteen of XMM0!"
    assert unpack_from("<IIQI", state, 464) == (0x46505853, XSTATE + 4, 7, XSTATE)
    assert unpack_from("<Q", state, 512) == (3,)
    assert state[XSTATE:] == (0x46505845).to_bytes(4, "little")
    assert task.context.get_fpstate()[160:176] == bytes(16)


def test_return_restores_everything(task: Task) -> None:
    before = list(task.regs)
    state = task.context.get_fpstate()
    signal_frame.push(task, SigInfo.kernel(SIGUSR1), ACTION, 1 << 40)
    for index in range(15):
        task.regs[index] = 0
    task.regs[RSP] += 8
    signal_frame.pop(task)
    assert list(task.regs)[:15] == before[:15]
    assert task.regs[RIP] == before[RIP] and task.regs[RSP] == before[RSP]
    assert task.sigmask == 1 << 40
    assert task.context.get_fpstate()[160:176] == state[160:176]


def test_alternate_stack(task: Task) -> None:
    task.altstack = SigaltStack(SCRATCH, 0, 0x4000)
    action = ACTION._replace(flags=SA_RESTORER | SA_ONSTACK)
    signal_frame.push(task, SigInfo.kernel(SIGUSR1), action, 0)
    assert SCRATCH < task.regs[RSP] < SCRATCH + 0x4000
    first = task.regs[RSP]
    signal_frame.push(task, SigInfo.kernel(SIGUSR1), action, 0)
    assert SCRATCH < task.regs[RSP] < first - 128
    assert task.altstack.status(task.regs[RSP]) == SS_ONSTACK
    with pytest.raises(LinuxError) as error:
        signal_frame.set_altstack(task, SCRATCH, 0, 0x4000)
    assert error.value.errno == EPERM


def test_overflow_of_the_alternate_stack_is_refused(task: Task) -> None:
    task.altstack = SigaltStack(SCRATCH + 0x8000, 0, 0x800)
    action = ACTION._replace(flags=SA_RESTORER | SA_ONSTACK)
    task.regs[RSP] = SCRATCH + 0x8000 + 0x300
    with pytest.raises(LinuxError):
        signal_frame.push(task, SigInfo.kernel(SIGUSR1), action, 0)


def test_autodisarm(task: Task) -> None:
    task.altstack = SigaltStack(SCRATCH, SS_AUTODISARM, 0x4000)
    action = ACTION._replace(flags=SA_RESTORER | SA_ONSTACK)
    signal_frame.push(task, SigInfo.kernel(SIGUSR1), action, 0)
    assert task.altstack.status(task.regs[RSP]) == SS_DISABLE
    task.regs[RSP] += 8
    signal_frame.pop(task)
    assert task.altstack == SigaltStack(SCRATCH, SS_AUTODISARM, 0x4000)


@pytest.mark.parametrize(
    ("flags", "size", "errno"), [(4, 0x4000, EINVAL), (0, 0x7FF, ENOMEM), (SS_DISABLE, 0, 0)]
)
def test_sigaltstack_errors(task: Task, flags: int, size: int, errno: int) -> None:
    try:
        signal_frame.set_altstack(task, SCRATCH, flags, size)
        assert errno == 0
    except LinuxError as error:
        assert error.errno == errno


def test_without_restorer_there_is_no_way_back(task: Task) -> None:
    with pytest.raises(LinuxError):
        signal_frame.push(task, SigInfo.kernel(SIGUSR1), ACTION._replace(flags=0), 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, INFO + XSTATE + 300), st.binary(min_size=1, max_size=16))),
    st.integers(0, (1 << 64) - 1),
)
def test_hostile_frames_never_harm_the_kernel(
    task: Task, changes: list[tuple[int, bytes]], sp: int
) -> None:
    task.regs[RSP] = STACK
    signal_frame.push(task, SigInfo.kernel(SIGUSR1), ACTION, 0)
    frame = task.regs[RSP]
    for offset, data in changes:
        task.mm.write(frame + offset, data)
    for value in (frame + 8, sp):
        task.regs[RSP] = value
        try:
            signal_frame.pop(task)
        except LinuxError:
            continue
        assert task.regs[CS] == USER_CS and task.regs[SS] == USER_DS
        assert task.regs[EFLAGS] & ~0x250FD5 & ~0x202 == 0
        assert not task.sigmask & (1 << 8 | 1 << 18)


def test_handler_sees_the_fault() -> None:
    world = World()
    seen = []

    def handler(cpu: Cpu) -> None:
        regs, mm = cpu.context.regs, cpu.task.mm
        info = SigInfo.unpack(mm.read(regs[RSI], 128))
        seen.append((info.code, unpack_from("<Q", info.fields)[0]))
        seen.append(unpack_from("<4Q", mm.read(regs[RDX] + 40 + 152, 32)))
        mm.write_u64(regs[RDX] + 40 + 8 * 11, 99)

    def program(cpu: Cpu):
        cpu.on(SIGSEGV, handler)
        yield fault(SIGSEGV, 2, 0x7777)
        seen.append(cpu.context.regs[RBX])

    assert world.run(program) == 0
    assert seen == [(2, 0x7777), (0, 14, 0, 0x7777), 99]
    world.close()
