"""The frame a signal handler runs on, and the way back: struct rt_sigframe of x86-64.

Interface: `push` enters a handler, `pop` is rt_sigreturn(2). Both raise LinuxError where Linux
would send SIGSEGV, with the task as far changed as Linux leaves it; the caller sends it. What `pop`
reads was written by the program and is not trusted: selectors are the user's own, EFLAGS is masked,
the extended state is checked by the platform.

From lower to higher addresses: the return address (sa_restorer), ucontext, siginfo, padding, and
the extended state in XSAVE's standard form, 64-byte aligned, with a software trailer that says how
much of it there is.

Linux: arch/x86/kernel/signal_64.c, arch/x86/kernel/fpu/signal.c, asm/sigframe.h, asm/sigcontext.h.
"""

from __future__ import annotations

from contextlib import suppress
from errno import EFAULT, EINVAL, ENOMEM, EPERM
from struct import Struct, unpack_from
from typing import TYPE_CHECKING

from pysandbox_platform.registers_amd64 import (
    CS,
    EFLAGS,
    EFLAGS_DF,
    EFLAGS_FIXED,
    EFLAGS_RF,
    EFLAGS_TF,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RIP,
    RSI,
    RSP,
    SS,
    USER_CS,
    USER_DS,
)

from pysandbox_core import task_signals
from pysandbox_core.abi.signal import (
    BUS_ADRALN,
    FPE_INTDIV,
    MINSIGSTKSZ,
    SA_ONSTACK,
    SA_RESTORER,
    SI_KERNEL,
    SIGBUS,
    SIGFPE,
    SIGILL,
    SIGSEGV,
    SIGTRAP,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
    TRAP_TRACE,
)
from pysandbox_core.errors import LinuxError
from pysandbox_core.signals import NO_ALTSTACK, SIGINFO_SIZE, SigaltStack

if TYPE_CHECKING:
    from pysandbox_core.signals import SigInfo, SignalAction
    from pysandbox_core.task import Task

_U64 = 0xFFFFFFFFFFFFFFFF
_RED_ZONE = 128
"""Bytes below the stack pointer that a leaf function may use, x86-64 psABI 3.2.2."""

_UCONTEXT = Struct("<QQQi4xQ18Q4H4QQ64xQ")
"""uc_flags, uc_link, ss_sp, ss_flags, ss_size; r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp,
rip, eflags; cs, gs, fs, ss; err, trapno, oldmask, cr2; fpstate; uc_sigmask."""
_UC_FP_XSTATE = 1
_UC_SIGCONTEXT_SS = 2
_UC_STRICT_RESTORE_SS = 4
_SIGCONTEXT_REGISTERS = (
    R8, R9, R10, R11, R12, R13, R14, R15, RDI, RSI, RBP, RBX, RDX, RAX, RCX, RSP, RIP,
)  # fmt: skip

_FRAME_SIZE = 8 + _UCONTEXT.size + SIGINFO_SIZE
_FIX_EFLAGS = 0x50DD5
"""AC OF DF TF SF ZF AF PF CF RF: what sigreturn takes from the frame."""

# The software part of the legacy FXSAVE area, struct _fpx_sw_bytes.
_SW_RESERVED_OFFSET = 464
_SW_RESERVED = Struct("<IIQI28x")
"""magic1, extended_size, xfeatures, xstate_size"""
_FP_XSTATE_MAGIC1 = 0x46505853
_FP_XSTATE_MAGIC2 = b"EXPF"
"""0x46505845, behind the extended state."""
_FXSAVE_SIZE = 512
_XSTATE_BV = Struct("<Q")
"""First word of the XSAVE header, behind the legacy area: which components follow."""
_MIN_XSTATE_SIZE = _FXSAVE_SIZE + 64
_FP_SSE = 3
_XSTATE_ALIGNMENT = 64

_INITIAL_FPSTATE = b"\x7f\x03" + bytes(22) + b"\x80\x1f\0\0" + bytes(484)
"""The legacy area as FNINIT and a fresh MXCSR leave it (FCW 0x37f, MXCSR 0x1f80)."""


def minimum_stack_size(xstate_size: int) -> int:
    """AT_MINSIGSTKSZ: the most that a frame takes, with its alignment."""
    size = _FRAME_SIZE + 15 + xstate_size + len(_FP_XSTATE_MAGIC2) + _XSTATE_ALIGNMENT - 1
    return size + 15 & ~15


# Exception vectors, Intel SDM volume 3, table 6-1.
_TRAP_DE, _TRAP_DB, _TRAP_BP, _TRAP_UD, _TRAP_GP, _TRAP_PF, _TRAP_AC, _TRAP_XF = (
    0, 1, 3, 6, 13, 14, 17, 19,
)  # fmt: skip


def note_trap(task: Task, signo: int, code: int, addr: int, error_code: int) -> None:
    """Keep what the next frames show of an exception: trapno, err and, of a page fault, cr2."""
    task.trap_number = _trap_number(signo, code)
    task.trap_error = error_code
    if task.trap_number == _TRAP_PF:
        task.trap_addr = addr


def _trap_number(signo: int, code: int) -> int:
    """The exception vector behind a signal."""
    if signo == SIGSEGV:
        return _TRAP_GP if code == SI_KERNEL else _TRAP_PF
    if signo == SIGBUS:
        return _TRAP_AC if code == BUS_ADRALN else _TRAP_PF
    if signo == SIGFPE:
        return _TRAP_DE if code == FPE_INTDIV else _TRAP_XF
    if signo == SIGILL:
        return _TRAP_UD
    if signo == SIGTRAP:
        return _TRAP_DB if code == TRAP_TRACE else _TRAP_BP
    return 0


def push(task: Task, info: SigInfo, action: SignalAction, mask: int) -> None:
    """Build a frame for `action`'s handler and point the registers at it. `mask` is the set that
    rt_sigreturn restores. Raises EFAULT, with the registers as they were."""
    if not action.flags & SA_RESTORER:
        raise LinuxError(EFAULT)  # x86-64 has no other way back
    regs = task.regs
    xstate = _xstate_for_frame(task)
    frame, fpstate = _place(task, regs[RSP], action.flags, len(xstate))
    padding = fpstate - (frame + _FRAME_SIZE)
    data = b"".join((
        action.restorer.to_bytes(8, "little"),
        _pack_ucontext(task, fpstate, mask),
        info.pack(),
        bytes(padding),
        xstate,
    ))  # fmt: skip
    task.mm.write(frame, data)
    regs[RDI] = info.signo
    regs[RSI] = frame + 8 + _UCONTEXT.size
    regs[RDX] = frame + 8
    regs[RAX] = 0
    regs[RIP] = action.handler
    regs[RSP] = frame
    regs[CS] = USER_CS
    regs[SS] = USER_DS
    regs[EFLAGS] &= ~(EFLAGS_DF | EFLAGS_RF | EFLAGS_TF) & _U64
    task.context.set_fpstate(_INITIAL_FPSTATE)
    if task.altstack.flags & SS_AUTODISARM:
        task.altstack = NO_ALTSTACK


def _place(task: Task, sp: int, flags: int, xstate_length: int) -> tuple[int, int]:
    """Where the frame and its extended state go. Linux: get_sigframe."""
    altstack = task.altstack
    sp = sp - _RED_ZONE & _U64
    on_altstack = altstack.in_use(sp)
    if flags & SA_ONSTACK and altstack.status(sp) == 0:
        sp = altstack.base + altstack.size
        on_altstack = True
    fpstate = (sp - xstate_length) & -_XSTATE_ALIGNMENT & _U64
    frame = ((fpstate - _FRAME_SIZE) & -16) - 8
    if frame < 0 or (on_altstack and not altstack.contains(frame)):
        raise LinuxError(EFAULT)  # the alternate stack has overflowed
    return frame, fpstate


def _xstate_for_frame(task: Task) -> bytes:
    """The extended state with its trailers."""
    state = bytearray(task.context.get_fpstate())
    size = len(state)
    platform = task.kernel.platform
    _SW_RESERVED.pack_into(
        state,
        _SW_RESERVED_OFFSET,
        _FP_XSTATE_MAGIC1,
        size + len(_FP_XSTATE_MAGIC2),
        platform.xstate_features,
        size,
    )
    present = _XSTATE_BV.unpack_from(state, _FXSAVE_SIZE)[0]
    # old programs change the legacy area and know nothing of this header
    _XSTATE_BV.pack_into(state, _FXSAVE_SIZE, present | _FP_SSE)
    return bytes(state) + _FP_XSTATE_MAGIC2


def _pack_ucontext(task: Task, fpstate: int, mask: int) -> bytes:
    regs = task.regs
    altstack = task.altstack
    return _UCONTEXT.pack(
        _UC_FP_XSTATE | _UC_SIGCONTEXT_SS | _UC_STRICT_RESTORE_SS,
        0,
        altstack.base,
        _signed(altstack.flags),
        altstack.size,
        *[regs[index] for index in _SIGCONTEXT_REGISTERS],
        regs[EFLAGS],
        regs[CS] & 0xFFFF,
        0,
        0,
        regs[SS] & 0xFFFF,
        task.trap_error,
        task.trap_number,
        mask & 0xFFFFFFFF,
        task.trap_addr,
        fpstate,
        mask,
    )


def _signed(flags: int) -> int:
    return flags - (1 << 32) if flags & SS_AUTODISARM else flags


def pop(task: Task) -> None:
    """Undo what `push` did, from the frame that the stack pointer is 8 bytes above. Raises EFAULT.

    Linux: rt_sigreturn and restore_sigcontext.
    """
    regs = task.regs
    frame = regs[RSP] - 8 & _U64
    fields = _UCONTEXT.unpack(task.mm.read(frame + 8, _UCONTEXT.size))
    base, flags, size = fields[2:5]
    task_signals.set_sigmask(task, fields[32])
    for index, value in zip(_SIGCONTEXT_REGISTERS, fields[5:22], strict=True):
        regs[index] = value
    regs[EFLAGS] = (regs[EFLAGS] & ~_FIX_EFLAGS) | (fields[22] & _FIX_EFLAGS) | EFLAGS_FIXED
    regs[CS] = USER_CS
    regs[SS] = USER_DS
    _restore_xstate(task, fields[31])
    with suppress(LinuxError):  # as Linux has it: a frame with a bad stack_t is no bad frame
        set_altstack(task, base, flags & 0xFFFFFFFF, size)


def _restore_xstate(task: Task, addr: int) -> None:
    """Load the extended state that a frame has at `addr`; 0 stands for the initial one."""
    context = task.context
    if not addr:
        context.set_fpstate(_INITIAL_FPSTATE)
        return
    legacy = task.mm.read(addr, _FXSAVE_SIZE)
    magic1, extended_size, features, size = _SW_RESERVED.unpack_from(legacy, _SW_RESERVED_OFFSET)
    full = task.kernel.platform.xstate_size
    state = legacy
    if (
        magic1 == _FP_XSTATE_MAGIC1
        and _MIN_XSTATE_SIZE <= size <= full
        and size <= extended_size
        and task.mm.read(addr + size, 4) == _FP_XSTATE_MAGIC2
    ):
        if addr % _XSTATE_ALIGNMENT:
            raise LinuxError(EFAULT)  # XRSTOR faults
        whole = bytearray(task.mm.read(addr, size))
        (present,) = unpack_from("<Q", whole, _FXSAVE_SIZE)
        _XSTATE_BV.pack_into(whole, _FXSAVE_SIZE, present & features)
        whole[_SW_RESERVED_OFFSET : _SW_RESERVED_OFFSET + 48] = bytes(48)
        state = bytes(whole)
    try:
        context.set_fpstate(state)
    except ValueError:
        raise LinuxError(EFAULT) from None


def set_altstack(task: Task, base: int, flags: int, size: int) -> None:
    """Change the alternate signal stack. sigaltstack(2), and every rt_sigreturn(2)

    Errors, first match wins: EPERM the thread runs on the present one; EINVAL flags; ENOMEM `size`
    is less than MINSIGSTKSZ.
    """
    if task.altstack.in_use(task.regs[RSP]):
        raise LinuxError(EPERM)
    mode = flags & ~SS_AUTODISARM
    if mode not in (0, SS_DISABLE, SS_ONSTACK):
        raise LinuxError(EINVAL)
    if mode == SS_DISABLE:
        base = size = 0
    elif size < MINSIGSTKSZ:
        raise LinuxError(ENOMEM)
    task.altstack = SigaltStack(base, flags, size)
