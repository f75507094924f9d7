"""What no program can cause, caused for real: the guest kernel is damaged from the monitor's side.

Whatever the guest does then ends its context with a message: never this process, never a hang, and
the platform serves the next context as before. Where the guest kernel would have to be there to
see, the programs here make exceptions of UD2, so that system calls still work beside them.
"""

from __future__ import annotations

import ctypes
import random
import signal
import threading
from collections.abc import Iterator

import pytest
from pysandbox_kvm._native import ffi, lib
from pysandbox_kvm.platform import KvmPlatform
from pysandbox_platform import registers_amd64 as reg
from pysandbox_platform.conformance import Guest
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE, DATA, assert_syscall
from pysandbox_platform.interface import Context
from pysandbox_platform.types import (
    PAGE_SIZE,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    STOP_EXCEPTION,
    STOP_FAULT,
    STOP_INTERRUPTED,
    STOP_KILLED,
    STOP_SYSCALL,
    PlatformError,
)

KERNEL = lib.kv_guest_kernel()
# Of the guest kernel; csrc/kv_guest.h.
UD_STUB, PF_STUB, IRETQ_STUB = 6 * 16, 14 * 16, 0x820
TABLES, IDT_SIZE = PAGE_SIZE, 32 * 16
IMAGE_PAGES = 2

OUT_16_AL = b"\xe6\x10"
FLDZ_AND_HALT = asm.FLDZ + asm.HLT
"""Where KVM emulates ring 0 it knows no x87."""


class Machine:
    """A platform whose guest kernel can be damaged, and repaired."""

    def __init__(self) -> None:
        self.platform = KvmPlatform()
        self.guest = Guest(self.platform)
        self.address = int(ffi.cast("uintptr_t", lib.kv_guest_image(self.platform._native)))
        self.image = ffi.buffer(lib.kv_guest_image(self.platform._native), IMAGE_PAGES * PAGE_SIZE)
        self.intact = bytes(self.image)
        self.survives()

    def close(self) -> None:
        self.platform.close()
        self.guest.close()

    def damage(self, at: int, code: bytes) -> None:
        self.image[at : at + len(code)] = code

    def repair(self) -> None:
        self.image[0 : len(self.intact)] = self.intact

    def survives(self) -> None:
        """The platform is as good as before, on each of the kernel's own vCPUs."""
        space = self.guest.space(asm.forever(asm.SYSCALL))
        contexts = [self.guest.context() for _ in range(3)]
        for context in contexts * 2:
            self.guest.run_to_syscall(context, space)
        for context in contexts:
            context.release()
        space.release()

    def run(self, code: bytes = asm.UD2) -> Context:
        """Runs it to its stop; repaired and found to survive afterwards."""
        context = self.guest.run(self.guest.context(), self.guest.space(code))
        self.repair()
        self.survives()
        return context


@pytest.fixture
def machine(usable_kvm: None) -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.close()


def assert_killed(context: Context, *words: str) -> None:
    """For one of these reasons."""
    assert context.stop == STOP_KILLED
    assert any(word in context.message for word in words), context.message


def test_triple_fault(machine: Machine) -> None:
    """No gate is left, not even that of the double fault."""
    machine.damage(TABLES, bytes(IDT_SIZE))
    assert_killed(machine.run(), "shut down (triple fault)")


def test_a_killed_context_stays_so(machine: Machine) -> None:
    machine.damage(TABLES, bytes(IDT_SIZE))
    context = machine.run()
    context.resume(machine.guest.space(asm.SYSCALL))
    assert machine.guest.next_stop() is context
    assert_killed(context, "shut down (triple fault)")


def test_unexpected_exit(machine: Machine) -> None:
    machine.damage(UD_STUB, OUT_16_AL)
    assert_killed(machine.run(), "port I/O")


def test_halt_where_there_is_no_stub(machine: Machine) -> None:
    machine.damage(UD_STUB, asm.NOP + asm.HLT)
    assert_killed(machine.run(), f"the guest halted at {KERNEL + UD_STUB + 2:#x}")


def test_emulation_failure(machine: Machine) -> None:
    """Where ring 0 is emulated; elsewhere the instruction works, and the HLT is a stray one."""
    machine.damage(UD_STUB, FLDZ_AND_HALT)
    assert_killed(machine.run(), "internal error (suberror 1)", "the guest halted at")


def test_exceptions_without_end(machine: Machine) -> None:
    """Each pushes a frame, through the vCPU's page and into the gap below it."""
    machine.damage(UD_STUB, asm.UD2)
    assert_killed(machine.run(), "triple fault", "exception 8 in the guest kernel")


def test_memory_that_is_gone(machine: Machine) -> None:
    """KVM finds no guest kernel: what comes of that depends on who wants to read it."""
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    size = ctypes.c_size_t(PAGE_SIZE)
    assert protect(ctypes.c_void_p(machine.address), size, PROT_NONE) == 0
    context = machine.guest.run(machine.guest.context(), machine.guest.space(asm.UD2))
    assert protect(ctypes.c_void_p(machine.address), size, PROT_READ | PROT_WRITE) == 0
    assert_killed(context, "can't get at", "internal error", "triple fault")
    machine.survives()


@pytest.mark.parametrize("at", [UD_STUB, IRETQ_STUB])
def test_endless_loop(machine: Machine, at: int) -> None:
    """Nobody kicks, and the kernel waits without a timeout."""
    machine.damage(at, asm.SPIN)
    context = machine.run()
    assert_killed(context, f"does not come out of the guest kernel, at {KERNEL + at:#x}")


def test_endless_loop_that_is_kicked(machine: Machine) -> None:
    """It is left on its way in each time, which counts all the same."""
    machine.damage(IRETQ_STUB, asm.SPIN)
    context = machine.guest.context()
    context.resume(machine.guest.space(asm.SYSCALL))
    while machine.platform.wait(1_000_000) is None:
        pass
    assert_killed(context, "does not come out of the guest kernel")
    machine.repair()
    machine.survives()


def test_endless_loop_beside_others(machine: Machine) -> None:
    """They go on: meanwhile, unless they wait for the same thread, and afterwards in any case."""
    guest = machine.guest
    machine.damage(UD_STUB, asm.SPIN)
    lost, other = guest.context(), guest.context()
    ud, calls = guest.space(asm.UD2), guest.space(asm.forever(asm.SYSCALL))
    lost.resume(ud)
    other.resume(calls)
    while (stopped := guest.next_stop()) is other:
        assert_syscall(other)
        other.resume(calls)
    assert stopped is lost
    assert_killed(lost, "does not come out of the guest kernel")
    assert guest.next_stop() is other
    guest.run_to_syscall(other, calls)


def test_endless_loop_that_is_interrupted(machine: Machine) -> None:
    guest = machine.guest
    machine.damage(UD_STUB, asm.SPIN)
    lost, beside = guest.context(), guest.context()
    lost.resume(guest.space(asm.UD2))
    beside.resume(guest.space(asm.SPIN))
    lost.interrupt()
    assert guest.next_stop() is lost
    if lost.stop == STOP_INTERRUPTED:  # it had not begun
        lost.resume(guest.space(asm.UD2))
        assert guest.next_stop() is lost
    assert_killed(lost, "does not come out of the guest kernel")
    beside.interrupt()
    assert guest.next_stop() is beside
    assert beside.stop == STOP_INTERRUPTED


def test_a_program_that_only_computes_is_no_endless_loop(machine: Machine) -> None:
    """Seconds of processor time in ring 3 are a program's right: until it has used some, by the
    platform's own account."""
    guest = machine.guest
    context = guest.context()
    context.resume(guest.space(asm.SPIN))
    while context.cpu_time_ns() < 1_500_000_000:
        assert guest.platform.wait(100_000_000) is None
    context.interrupt()
    assert guest.next_stop() is context
    assert context.stop == STOP_INTERRUPTED


@pytest.mark.parametrize("how", ["close", "release"])
def test_end_of_one_in_an_endless_loop(machine: Machine, how: str) -> None:
    """What runs it is a worker thread, whose end is waited for."""
    guest = machine.guest
    machine.damage(UD_STUB, asm.SPIN)
    contexts = [guest.context() for _ in range(3)]
    ud = guest.space(asm.UD2)
    for context in contexts:
        context.resume(ud)
    guest.platform.wait(10_000_000)
    if how == "release":
        for context in contexts:
            context.release()
        machine.repair()
        machine.survives()
    guest.platform.close()


def test_no_timer_is_left(machine: Machine) -> None:
    """POSIX timers are the process's; each thread that runs vCPUs has one."""

    def timers() -> int:
        with open("/proc/self/timers", encoding="ascii") as file:
            return file.read().count("ID:")

    before = timers()
    platform = KvmPlatform()
    guest = Guest(platform)
    contexts = [guest.context() for _ in range(3)]
    for context in contexts:
        context.resume(guest.space(asm.SPIN))
    platform.wait(1_000_000)
    assert timers() > before
    platform.close()
    guest.close()
    assert timers() == before


REFUSED = {
    "rdmsr": b"\x0f\x32",
    "mov cr3, rax": b"\x0f\x22\xd8",
    "mov cr4, rax": b"\x0f\x22\xe0",
    "mov dr7, rax": b"\x0f\x23\xf8",
    "lgdt [rdi]": b"\x0f\x01\x17",
    "lidt [rdi]": b"\x0f\x01\x1f",
    "lldt ax": b"\x0f\x00\xd0",
    "ltr ax": b"\x0f\x00\xd8",
    "lmsw ax": b"\x0f\x01\xf0",
    "clts": b"\x0f\x06",
    "invd": b"\x0f\x08",
    "wbinvd": b"\x0f\x09",
    "invlpg [rdi]": b"\x0f\x01\x3f",
    "swapgs": b"\x0f\x01\xf8",
    "sti": b"\xfb",
    "in al, dx": b"\xec",
    "out dx, al": b"\xee",
    "insb": b"\x6c",
    "outsb": b"\x6e",
    "xsetbv": b"\x0f\x01\xd1",
    "rdpmc": b"\x0f\x33",
    "monitor": b"\x0f\x01\xc8",
    "mwait": b"\x0f\x01\xc9",
    "sysretq": b"\x48\x0f\x07",
    "sysexit": b"\x0f\x35",
    "rsm": b"\x0f\xaa",
    "clac": b"\x0f\x01\xca",
    "vmxon [rdi]": b"\xf3\x0f\xc7\x37",
    "vmlaunch": b"\x0f\x01\xc2",
    "vmrun": b"\x0f\x01\xd8",
    "vmload": b"\x0f\x01\xda",
    "clgi": b"\x0f\x01\xdd",
    "skinit": b"\x0f\x01\xde",
    "invlpga": b"\x0f\x01\xdf",
    "encls": b"\x0f\x01\xcf",
    "pconfig": b"\x0f\x01\xc5",
    "tdcall": b"\x66\x0f\x01\xcc",
    "int 0": b"\xcd\x00",
    "int 2": b"\xcd\x02",
    "int 8": b"\xcd\x08",
    "int 14": b"\xcd\x0e",
    "int 32": b"\xcd\x20",
    "int 255": b"\xcd\xff",
}


@pytest.mark.parametrize("name", REFUSED)
def test_instruction_that_ring_3_may_not_use(machine: Machine, name: str) -> None:
    """#GP or #UD, with nothing changed; those of the conformance kit come on top of these."""
    guest = machine.guest
    space = guest.space(REFUSED[name] + asm.SYSCALL)
    guest.map_data(space)
    context = guest.context(rax=5, rdi=DATA + 64, rsi=DATA + 64, rsp=DATA + 128)
    guest.run(context, space)
    assert context.stop == STOP_EXCEPTION
    assert context.signo in (signal.SIGSEGV, signal.SIGILL)
    assert context.regs[reg.RIP] == CODE
    assert (context.regs[reg.RAX], context.regs[reg.RDI]) == (5, DATA + 64)
    guest.run_to_syscall(guest.context(CODE + len(REFUSED[name])), space)


@pytest.mark.parametrize("code", [b"\x0f\x01\xc1", b"\x0f\x01\xd9"], ids=["vmcall", "vmmcall"])
def test_hypercall(machine: Machine, code: bytes) -> None:
    """Nothing happens but to its own registers: SIGILL, or -1 in RAX where KVM can't be told to
    refuse it; see the README."""
    guest = machine.guest
    context = guest.context(rax=1, rbx=2, rdi=3)
    guest.run(context, guest.space(code + asm.SYSCALL))
    if context.stop == STOP_SYSCALL:
        assert context.regs[reg.ORIG_RAX] == 2**64 - 1
    else:
        assert context.signo in (signal.SIGILL, signal.SIGSEGV)
        assert context.regs[reg.RIP] == CODE
    assert (context.regs[reg.RBX], context.regs[reg.RDI]) == (2, 3)


WAYS_OUT = {
    "system call": (asm.SYSCALL, STOP_SYSCALL),
    "undefined": (asm.UD2, STOP_EXCEPTION),
    "breakpoint": (asm.INT3, STOP_EXCEPTION),
    "protection": (asm.HLT, STOP_EXCEPTION),
    "page fault": (b"\xa0" + (DATA + PAGE_SIZE).to_bytes(8, "little"), STOP_FAULT),
    "jump to nothing": (b"\xe9\x00\x00\x00\x70", STOP_FAULT),
}
"""mov al, [address]; jmp far away"""


def test_spurious_page_faults_between_stops(machine: Machine) -> None:
    """As many as there are of a page that is made to allow more and less in turn, where a processor
    keeps what it allowed: each goes on. The guest kernel makes one of every UD2 here, with the
    frame of the last true one."""
    guest = machine.guest
    machine.damage(UD_STUB, b"\xeb" + bytes([PF_STUB - UD_STUB - 2]))  # jmp
    space = guest.space(asm.store(asm.RDI, asm.RAX) + asm.DIV_ECX + asm.UD2)
    context = guest.run(guest.context(rdi=DATA), space)
    assert (context.stop, context.fault_addr) == (STOP_FAULT, DATA)
    guest.map_data(space)
    for _ in range(200):
        guest.run(context, space)
        assert (context.stop, context.signo) == (STOP_EXCEPTION, signal.SIGFPE)
        context.regs[reg.RIP] += len(asm.DIV_ECX)


COMPAT_CS = 0x23
"""Of 32-bit code."""


def test_system_call_of_a_32_bit_segment(machine: Machine) -> None:
    """An undefined instruction, on processors too that enter the kernel: wherever the entry is
    looked for, nothing of the program's is run there, and its stack is not the kernel's."""
    guest = machine.guest
    space = guest.space(asm.SYSCALL)
    guest.map_data(space)
    at = (KERNEL & 0xFFFFFFFF) // PAGE_SIZE * PAGE_SIZE
    with pytest.raises(PlatformError):
        guest.map_code(space, asm.HLT * PAGE_SIZE, at)
    vcpu_pages = [KERNEL + page * PAGE_SIZE for page in range(3, 9, 2)]
    for rsp in [0, 8, DATA + 64, 2**64 - 8, *vcpu_pages, *(page + 0x800 for page in vcpu_pages)]:
        context = guest.run(guest.context(cs=COMPAT_CS, rsp=rsp, rbx=5), space)
        assert (context.stop, context.signo) == (STOP_EXCEPTION, signal.SIGILL), context.message
        assert (context.regs[reg.RIP], context.regs[reg.CS]) == (CODE, COMPAT_CS)
        assert context.regs[reg.RBX] == 5
        context.release()
    machine.survives()


UNTOUCHED = (
    reg.R15, reg.R14, reg.R13, reg.R12, reg.RBP, reg.RBX, reg.R10, reg.R9, reg.R8, reg.RDX,
    reg.RSI, reg.RDI, reg.RSP,
)  # fmt: skip
"""RAX, RCX and R11 are SYSCALL's."""


@pytest.mark.parametrize("way", WAYS_OUT)
def test_hostile_registers_on_the_way_out(machine: Machine, way: str) -> None:
    """None of them is used on the way, in particular not RSP, and all of them come back."""
    guest = machine.guest
    odd = [0, 1, 2**64 - 1, 1 << 63, 1 << 47, 0xFFFF7FFFFFFFFFFF, KERNEL, KERNEL + 0x820]
    odd += [KERNEL + page * PAGE_SIZE + at for page in range(6) for at in (0, 0x800, 0xC00, 0xFFF)]
    chooser = random.Random(way)
    code, stop = WAYS_OUT[way]
    space = guest.space(code)
    for _ in range(60):
        context = guest.context()
        for index in (*UNTOUCHED, reg.RAX, reg.RCX, reg.R11):
            context.regs[index] = chooser.choice(odd)
        given = [context.regs[index] for index in UNTOUCHED]
        guest.run(context, space)
        assert context.stop == stop
        assert [context.regs[index] for index in UNTOUCHED] == given
        context.release()


def test_kicks_in_an_endless_loop(machine: Machine) -> None:
    """From another thread, thousands of them: the loop's end comes none the later."""
    machine.damage(UD_STUB, asm.SPIN)
    done = threading.Event()

    def kick() -> None:
        while not done.is_set():
            machine.platform.kick()

    thread = threading.Thread(target=kick)
    thread.start()
    context = machine.guest.context()
    context.resume(machine.guest.space(asm.UD2))
    while machine.platform.wait() is None:
        pass
    done.set()
    thread.join()
    assert_killed(context, "does not come out of the guest kernel")
