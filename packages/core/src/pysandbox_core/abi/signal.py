"""Signals: numbers, flags and codes. include/uapi/asm-generic/signal.h, siginfo.h, x86's
ucontext.h.

The numbers stand here and not in the standard library's `signal`, whose import costs an enum per
name. Signal sets are integers with bit N-1 for signal N, as in the kernel's sigset_t.
"""

from __future__ import annotations

from typing import Final

SIGHUP: Final = 1
SIGINT: Final = 2
SIGQUIT: Final = 3
SIGILL: Final = 4
SIGTRAP: Final = 5
SIGABRT: Final = 6
SIGBUS: Final = 7
SIGFPE: Final = 8
SIGKILL: Final = 9
SIGUSR1: Final = 10
SIGSEGV: Final = 11
SIGUSR2: Final = 12
SIGPIPE: Final = 13
SIGALRM: Final = 14
SIGTERM: Final = 15
SIGSTKFLT: Final = 16
SIGCHLD: Final = 17
SIGCONT: Final = 18
SIGSTOP: Final = 19
SIGTSTP: Final = 20
SIGTTIN: Final = 21
SIGTTOU: Final = 22
SIGURG: Final = 23
SIGXCPU: Final = 24
SIGXFSZ: Final = 25
SIGVTALRM: Final = 26
SIGPROF: Final = 27
SIGWINCH: Final = 28
SIGIO: Final = 29
SIGPWR: Final = 30
SIGSYS: Final = 31
SIGRTMIN: Final = 32
"""As the kernel counts; the C library keeps the first two for itself."""
NSIG: Final = 64
"""The highest signal number."""

SIG_DFL: Final = 0
SIG_IGN: Final = 1

# sigaction(2)
SA_NOCLDSTOP: Final = 0x00000001
SA_NOCLDWAIT: Final = 0x00000002
SA_SIGINFO: Final = 0x00000004
SA_EXPOSE_TAGBITS: Final = 0x00000800
SA_RESTORER: Final = 0x04000000
SA_ONSTACK: Final = 0x08000000
SA_RESTART: Final = 0x10000000
SA_NODEFER: Final = 0x40000000
SA_RESETHAND: Final = 0x80000000
SA_KNOWN: Final = (
    SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_EXPOSE_TAGBITS | SA_RESTORER | SA_ONSTACK
    | SA_RESTART | SA_NODEFER | SA_RESETHAND
)  # fmt: skip
"""What rt_sigaction(2) keeps of sa_flags."""

# sigprocmask(2)
SIG_BLOCK: Final = 0
SIG_UNBLOCK: Final = 1
SIG_SETMASK: Final = 2

# sigaltstack(2)
SS_ONSTACK: Final = 1
SS_DISABLE: Final = 2
SS_AUTODISARM: Final = 1 << 31
MINSIGSTKSZ: Final = 2048

# si_code: where a signal came from. Positive ones are the kernel's.
SI_USER: Final = 0
SI_KERNEL: Final = 0x80
SI_QUEUE: Final = -1
SI_TIMER: Final = -2
SI_MESGQ: Final = -3
SI_ASYNCIO: Final = -4
SI_SIGIO: Final = -5
SI_TKILL: Final = -6
ILL_ILLOPN: Final = 2
FPE_INTDIV: Final = 1
SEGV_MAPERR: Final = 1
SEGV_ACCERR: Final = 2
BUS_ADRALN: Final = 1
BUS_ADRERR: Final = 2
TRAP_BRKPT: Final = 1
TRAP_TRACE: Final = 2
CLD_EXITED: Final = 1
CLD_KILLED: Final = 2
CLD_DUMPED: Final = 3
CLD_TRAPPED: Final = 4
CLD_STOPPED: Final = 5
CLD_CONTINUED: Final = 6


def sigmask(*signals: int) -> int:
    """The set of these signals."""
    mask = 0
    for signo in signals:
        mask |= 1 << (signo - 1)
    return mask


ALL_SIGNALS: Final = (1 << NSIG) - 1
UNBLOCKABLE: Final = sigmask(SIGKILL, SIGSTOP)
"""Neither blocked, caught nor ignored."""
SYNCHRONOUS: Final = sigmask(SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS)
"""Delivered before others: the program must not run on."""

# What SIG_DFL does, signal(7); every other signal ends the process.
DEFAULT_IGNORE: Final = sigmask(SIGCONT, SIGCHLD, SIGWINCH, SIGURG)
DEFAULT_STOP: Final = sigmask(SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU)
DEFAULT_CORE: Final = sigmask(
    SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV, SIGBUS, SIGSYS, SIGXCPU, SIGXFSZ
)
