"""Contexts over vCPUs: which thread runs what is nobody's to see, whatever mix of them there is.

Nothing here looks at the clock. What would be wrong is a context that never runs, a stop or a kick
that is lost, or an extended state that stays behind on another vCPU.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from pathlib import Path

import pytest
from pysandbox_kvm._native import ffi
from pysandbox_kvm.platform import KvmPlatform
from pysandbox_platform import registers_amd64 as reg
from pysandbox_platform.conformance import Guest
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import DATA, assert_syscall
from pysandbox_platform.interface import AddressSpace, Context
from pysandbox_platform.types import PAGE_SIZE, STOP_INTERRUPTED, STOP_SYSCALL, PlatformError

MS = 1_000_000
VCPUS_OF_A_THREAD = 8
"""RUNNER_VCPUS in csrc/kv_internal.h."""
XMM0_AT = 160
"""In an XSAVE area; Intel SDM volume 1, table 10-2."""
XRSTOR_RDI, XSAVE_RDI = b"\x0f\xae\x2f", b"\x0f\xae\x27"
CALL_FOREVER = asm.forever(asm.SYSCALL)
COMPUTE = asm.forever(asm.increment(asm.RDI))


def vcpus(guest: Guest) -> int:
    """How many were made so far."""
    assert isinstance(guest.platform, KvmPlatform)
    return guest.platform.vcpu_count


def callers(guest: Guest, count: int) -> dict[int, tuple[Context, AddressSpace]]:
    """Contexts that make one call after the other, each in a space of its own, with their number in
    RBX and in XMM0; by number."""
    made = {}
    for number in range(1, count + 1):
        context = guest.context(rbx=number)
        state = bytearray(context.get_fpstate())
        state[XMM0_AT : XMM0_AT + 8] = number.to_bytes(8, "little")
        context.set_fpstate(bytes(state))
        made[number] = context, guest.space(CALL_FOREVER)
    return made


def xmm0(context: Context) -> int:
    """Its lower half."""
    return int.from_bytes(context.get_fpstate()[XMM0_AT : XMM0_AT + 8], "little")


def computing(guest: Guest) -> tuple[Context, int]:
    """A context that counts in a word of the file for ever, resumed; and the word's offset."""
    space = guest.space(COMPUTE)
    offset = guest.map_data(space)
    context = guest.context(rdi=DATA)
    context.resume(space)
    return context, offset


def serve(guest: Guest, made: dict[int, tuple[Context, AddressSpace]], rounds: int) -> None:
    """Resumes all of them, and each again when it stops, until it has made `rounds` calls."""
    left = dict.fromkeys(made, rounds)
    for context, space in made.values():
        context.resume(space)
    while left:
        stopped = guest.next_stop()
        assert_syscall(stopped)
        number = stopped.regs[reg.RBX]
        context, space = made[number]
        assert stopped is context
        left[number] -= 1
        if left[number]:
            context.resume(space)
        else:
            del left[number]


@pytest.mark.parametrize("count", [2, 3, VCPUS_OF_A_THREAD + 4, 40])
def test_all_are_served(guest: Guest, count: int) -> None:
    made = callers(guest, count)
    serve(guest, made, 30)
    for number, (context, _) in made.items():
        assert xmm0(context) == number


def test_those_that_take_turns_stay_where_they_are(guest: Guest) -> None:
    """One runs at a time, so the kernel's own thread runs all, on vCPUs that they keep."""
    made = callers(guest, VCPUS_OF_A_THREAD + 2)
    for _ in range(10):
        for number, (context, space) in made.items():
            guest.run_to_syscall(context, space)
            assert context.regs[reg.RBX] == number
    assert vcpus(guest) == VCPUS_OF_A_THREAD
    for number, (context, _) in made.items():
        assert xmm0(context) == number


def test_one_context_needs_one_vcpu(guest: Guest) -> None:
    ((context, space),) = callers(guest, 1).values()
    for _ in range(5):
        guest.run_to_syscall(context, space)
    assert vcpus(guest) == 1


def test_the_longest_timeout(guest: Guest) -> None:
    """It ends later than a clock can say, which is not at once: a wait without a stop is then one
    that was looked at, twice in a second."""
    guest.context().resume(guest.space(asm.count_down(20_000_000) + asm.SYSCALL))
    nones = 0
    while (stopped := guest.platform.wait(2**63 - 1)) is None:
        nones += 1
    assert_syscall(stopped)
    assert nones < 20


def test_protection_key_rights_stay_behind(guest: Guest) -> None:
    """They have no effect, but XRSTOR and XSAVE reach them: the next context has its own, 0."""
    if " ospke " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("the processor has no protection keys")
    rights = 1 << 9
    pattern = b"\x11\x11\x11\x11"
    area = bytearray(PAGE_SIZE)
    area[576:] = pattern * ((PAGE_SIZE - 576) // 4)
    area[512:520] = rights.to_bytes(8, "little")
    for state in (None, False, True):
        space = guest.space(XRSTOR_RDI + asm.SYSCALL)
        guest.map_data(space, content=bytes(area))
        guest.run_to_syscall(guest.context(rax=rights, rdi=DATA), space).release()
        space = guest.space(XSAVE_RDI + asm.SYSCALL)
        offset = guest.map_data(space)
        context = guest.context(rax=rights, rdi=DATA)
        if state is not None:
            context.set_fpstate(context.get_fpstate()[: None if state else 512])
        guest.run_to_syscall(context, space).release()
        assert pattern not in guest.memory[offset : offset + PAGE_SIZE]
    assert vcpus(guest) == 1


def test_a_vcpu_that_is_free_is_taken_first(guest: Guest) -> None:
    """Contexts that come and go need no more of them than there are at once."""
    space = guest.space(CALL_FOREVER)
    for _ in range(20):
        guest.run_to_syscall(guest.context(), space).release()
    assert vcpus(guest) == 1


def test_calls_beside_those_that_compute(guest: Guest) -> None:
    """More compute than there are threads, and all of them get on."""
    count = 2 * (os.cpu_count() or 1) + 3
    spinners = [computing(guest) for _ in range(count)]
    made = callers(guest, 3)
    for _ in range(3):
        before = [guest.word(offset) for _, offset in spinners]
        serve(guest, made, 10)
        while any(guest.word(offset) == b for (_, offset), b in zip(spinners, before, strict=True)):
            assert guest.platform.wait(MS) is None
    for context, _ in spinners:
        context.interrupt()
    stopped = {id(guest.next_stop()) for _ in spinners}
    assert stopped == {id(context) for context, _ in spinners}
    assert all(context.stop == STOP_INTERRUPTED for context, _ in spinners)


def test_one_that_computed_before_it_calls(guest: Guest) -> None:
    """It is given to another thread, comes back with its state, and is alone again."""
    space = guest.space(asm.poll(1) + asm.jump_back(asm.SYSCALL))
    flag = guest.map_data(space)
    guest.map_data(space, DATA + PAGE_SIZE)
    first = guest.context(rdi=DATA, rsi=DATA + PAGE_SIZE)
    made = callers(guest, 2)
    state = bytearray(first.get_fpstate())
    state[XMM0_AT : XMM0_AT + 8] = (77).to_bytes(8, "little")
    first.set_fpstate(bytes(state))
    first.resume(space)
    serve(guest, made, 60)
    guest.set_word(flag, 1)
    assert guest.next_stop() is first
    assert first.stop == STOP_SYSCALL
    assert xmm0(first) == 77
    for _ in range(5):
        guest.run_to_syscall(first, space)
    assert xmm0(first) == 77


def test_kicks_beside_several_that_call(guest: Guest) -> None:
    """Each is seen, though the thread that waits is running a context itself, or about to."""
    platform = guest.platform
    made = callers(guest, 3)
    by_id = {id(context): space for context, space in made.values()}
    kicks = 200
    seen = threading.Semaphore(0)

    def kick() -> None:
        for _ in range(kicks):
            platform.kick()
            seen.acquire()

    thread = threading.Thread(target=kick)
    for context, space in made.values():
        context.resume(space)
    thread.start()
    nones = 0
    while nones < kicks:
        stopped = platform.wait()
        if stopped is None:
            nones += 1
            seen.release()
        else:
            assert_syscall(stopped)
            stopped.resume(by_id[id(stopped)])
    thread.join()


def test_interrupts_in_any_state(guest: Guest) -> None:
    """Queued for a thread, running on any, or stopped already."""
    made = callers(guest, 6)
    spinners = [computing(guest)[0] for _ in range(3)]
    for _ in range(30):
        for context, space in made.values():
            context.resume(space)
        for context, _ in made.values():
            context.interrupt()
        stopped = {id(guest.next_stop()) for _ in made}
        assert stopped == {id(context) for context, _ in made.values()}
        for context, _ in made.values():
            assert context.stop in (STOP_SYSCALL, STOP_INTERRUPTED)
    for context in spinners:
        context.interrupt()
    assert {id(guest.next_stop()) for _ in spinners} == {id(context) for context in spinners}


def test_released_while_they_run(guest: Guest) -> None:
    """Against the rules, and without harm: whoever runs it lets go of it first."""
    spinners = [computing(guest)[0] for _ in range(5)]
    for _ in range(5):
        assert guest.platform.wait(MS) is None
    for context in spinners:
        context.release()
    serve(guest, callers(guest, 3), 10)


def test_no_descriptor_left_for_another_vcpu(guest: Guest) -> None:
    """Then those that there are serve all contexts."""
    made = callers(guest, 5)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        for _ in range(4):
            for context, space in made.values():
                guest.run_to_syscall(context, space)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for number, (context, _) in made.items():
        assert xmm0(context) == number


def test_closing_while_they_run(guest: Guest) -> None:
    for _ in range(4):
        computing(guest)
    assert guest.platform.wait(5 * MS) is None
    guest.platform.close()


def knows_its_platform(context: Context) -> bool:
    """What it would look at would be freed memory, once the platform is freed."""
    try:
        context.set_constant_results({})
    except PlatformError as error:
        return error.errno != errno.EBADF
    return True


def test_a_fork_gives_its_copies_back(guest: Guest) -> None:
    """It has none of the threads: nothing there waits for them, nor touches what they run."""
    spinners = [computing(guest) for _ in range(3)]
    for _ in range(3):
        assert guest.platform.wait(2 * MS) is None
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # what would hang ends
        (first, _), *others = spinners
        ffi.release(first._native)  # type: ignore[attr-defined]
        guest.platform.close()
        known = [context for context, _ in others if knows_its_platform(context)]
        ffi.release(guest.platform._native)  # type: ignore[attr-defined]
        for context, _ in others:
            ffi.release(context._native)  # type: ignore[attr-defined]
        os._exit(len(known))
    assert os.waitpid(child, 0)[1] == 0
    for context, offset in spinners:
        before = guest.word(offset)
        while guest.word(offset) == before:
            assert guest.platform.wait(MS) is None
        context.interrupt()
        assert guest.next_stop() is context
