"""What a stub is: nothing of the sentry in it, no system call out of it, no life after the
sentry."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pysandbox_platform.conformance import Guest
from pysandbox_platform.conformance import code_amd64 as asm
from pysandbox_platform.conformance.kit import CODE, DATA
from pysandbox_platform.registers_amd64 import EFLAGS, NREGS, RAX, REGISTER_NAMES, RIP
from pysandbox_platform.types import (
    PAGE_SIZE,
    STOP_INTERRUPTED,
    STOP_KILLED,
    STOP_SYSCALL,
    PlatformError,
)
from pysandbox_ptrace._native import lib
from pysandbox_ptrace.platform import PtraceAddressSpace, PtraceContext, PtracePlatform

STUB_BASE = 0x7FFFFFFF0000
"""Where the stub's own pages begin: PT_STUB_BASE in csrc/pt_stub.h."""
PTRACE_CONT, PTRACE_SETREGS = 7, 13


@pytest.fixture
def guest() -> Iterator[Guest]:
    platform = PtracePlatform()
    guest = Guest(platform)
    yield guest
    platform.close()
    guest.close()


def stopped(guest: Guest, code: bytes = asm.SYSCALL) -> tuple[PtraceContext, PtraceAddressSpace]:
    """A context after its first system call, and its space."""
    space = guest.space(code)
    context = guest.run_to_syscall(guest.context(), space)
    assert isinstance(context, PtraceContext)
    assert isinstance(space, PtraceAddressSpace)
    return context, space


def status(pid: int, field: str) -> str:
    """A line of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(field + ":"))


def test_memory_is_the_stub_s_and_the_program_s_only(guest: Guest) -> None:
    _, space = stopped(guest)
    maps = Path(f"/proc/{space.stub_pid}/maps").read_text().splitlines()
    ranges = {line.split()[0]: line.split()[1] for line in maps if "[vsyscall]" not in line}
    assert ranges == {
        f"{CODE:x}-{CODE + PAGE_SIZE:x}": "r-xs",
        f"{STUB_BASE:x}-{STUB_BASE + PAGE_SIZE:x}": "r-xs",
        f"{STUB_BASE + PAGE_SIZE:x}-{STUB_BASE + 5 * PAGE_SIZE:x}": "r--s",
    }


def test_settings(guest: Guest) -> None:
    _, space = stopped(guest)
    pid = space.stub_pid
    assert status(pid, "Name") == "pysandbox-stub"
    assert status(pid, "Seccomp") == "2"
    assert status(pid, "NoNewPrivs") == "1"
    assert status(pid, "TracerPid") == str(os.getpid())
    assert int(status(pid, "SigCgt"), 16) == 0, "no handler of the sentry's"
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    core = next(line for line in limits if line.startswith("Max core file size"))
    assert int(core.split()[4]) <= 1


def test_signal_handlers_are_not_inherited() -> None:
    old = signal.signal(signal.SIGUSR1, lambda *_: None)
    platform = PtracePlatform()
    try:
        guest = Guest(platform)
        _, space = stopped(guest)
        assert int(status(space.stub_pid, "SigCgt"), 16) == 0
        guest.close()
    finally:
        platform.close()
        signal.signal(signal.SIGUSR1, old)


def let_loose(context: PtraceContext, **registers: int) -> int:
    """Lets a stub run without SYSEMU, as if trapping had failed. Gives what killed it, or 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    regs = (ctypes.c_uint64 * NREGS)(*context.regs)
    regs[REGISTER_NAMES.index("orig_rax")] = 2**64 - 1
    for name, value in registers.items():
        regs[REGISTER_NAMES.index(name)] = value
    tid = ctypes.c_long(context.stub_tid)
    assert libc.ptrace(PTRACE_SETREGS, tid, None, ctypes.byref(regs)) == 0
    assert libc.ptrace(PTRACE_CONT, tid, None, None) == 0
    # The status is left for the platform to take.
    flags = os.WEXITED | os.WSTOPPED | os.WNOWAIT | 0x40000000  # __WALL
    info = os.waitid(os.P_PID, context.stub_tid, flags)
    assert info is not None
    return info.si_status if info.si_code in (os.CLD_KILLED, os.CLD_DUMPED) else 0


@pytest.mark.parametrize("number", [0, 1, 2, 9, 39, 57, 59, 60, 231, 2**32 + 9])
def test_program_s_own_system_call_kills(guest: Guest, number: int) -> None:
    context, space = stopped(guest, asm.SYSCALL * 2)
    assert let_loose(context, rax=number) == signal.SIGSYS
    context.resume(space)
    assert guest.next_stop() is context
    assert context.stop == STOP_KILLED
    assert "system call" in context.message or "killed" in context.message


def test_int_80_kills(guest: Guest) -> None:
    context, _ = stopped(guest, asm.SYSCALL + asm.INT_80)
    assert let_loose(context, rax=20) == signal.SIGSYS


@pytest.mark.parametrize(
    ("number", "arguments"),
    [
        (39, {}),  # getpid
        (1, {"rdi": 2}),  # write
        (9, {"rdi": DATA, "rsi": PAGE_SIZE, "rdx": 7, "r10": 0x32}),  # mmap, private, anonymous
        (9, {"rdi": DATA, "rsi": PAGE_SIZE, "rdx": 7, "r10": 0x01}),  # mmap, not fixed
        (56, {"rdi": 17}),  # clone, as fork
        (56, {"rdi": 0x100008600}),  # clone, with bits above what it looks at
        (231, {}),  # exit_group
    ],
)
def test_stub_s_system_call_is_limited(
    guest: Guest, number: int, arguments: dict[str, int]
) -> None:
    context, _ = stopped(guest)
    at = lib.pt_stub_syscall()
    assert let_loose(context, rip=at, rax=number, **arguments) == signal.SIGSYS


def test_batch_pages_can_t_be_written(guest: Guest) -> None:
    space = guest.space(asm.store(asm.RDI, asm.RSI))
    for page in range(5):
        at = STUB_BASE + page * PAGE_SIZE
        context = guest.run(guest.context(rdi=at), space)
        assert context.fault_addr == at


def test_jump_into_the_stub_s_code_is_harmless(guest: Guest) -> None:
    """Its SYSCALL traps like any other, its loop reads what the program points it at."""
    space = guest.space(asm.SYSCALL)
    offset = guest.map_data(space)
    guest.set_word(offset, 39)
    at = lib.pt_stub_syscall()
    context = guest.run_to_syscall(guest.context(at, rax=39), space)
    assert context.regs[RIP] == at + 2
    for entry in range(0, 0xC00, 7):
        context = guest.run(guest.context(STUB_BASE + entry, r12=DATA, r13=1), space)
        assert context.stop != STOP_KILLED
        context.release()
    space.map(DATA, PAGE_SIZE, 3, guest.fd, offset)
    space.sync()


OUTSIDE = [
    signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGURG, signal.SIGSEGV,
    signal.SIGTRAP, signal.SIGCHLD, signal.SIGSTOP, signal.SIGTSTP, signal.SIGCONT, signal.SIGALRM,
]  # fmt: skip


@pytest.mark.parametrize("signo", OUTSIDE)
def test_signals_from_outside_do_not_reach_the_program(guest: Guest, signo: signal.Signals) -> None:
    space = guest.space(asm.forever(asm.increment(asm.RDI)))
    offset = guest.map_data(space)
    context = guest.context(rdi=DATA)
    context.resume(space)
    assert isinstance(context, PtraceContext)
    for _ in range(3):
        before = guest.word(offset)
        while guest.word(offset) == before:
            assert guest.platform.wait(1_000_000) is None
        os.kill(context.stub_tid, signo)
        assert guest.platform.wait(1_000_000) is None
        guest.map_data(space, DATA + PAGE_SIZE)
        space.sync()
    context.interrupt()
    assert guest.next_stop() is context


def test_signals_from_outside_beside_system_calls(guest: Guest) -> None:
    context, space = stopped(guest, asm.forever(asm.SYSCALL))
    for number in range(300):
        os.kill(context.stub_tid, OUTSIDE[number % len(OUTSIDE)])
        if number % 3 == 0:
            guest.map_data(space)
        context.regs[RAX] = number
        guest.run_to_syscall(context, space)
        assert context.regs[REGISTER_NAMES.index("orig_rax")] == number


def test_the_sentry_s_other_children_are_left_alone(guest: Guest) -> None:
    """Waiting for stubs must not take the exit status of a subprocess."""
    space = guest.space(asm.SPIN)
    contexts = [guest.context() for _ in range(2)]
    for context in contexts:
        context.resume(space)
    with subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(7)"]) as child:
        pidfd = os.pidfd_open(child.pid)
        while not os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            assert guest.platform.wait(1_000_000) is None
        guest.platform.wait(0)
        os.close(pidfd)
        assert child.wait() == 7
    for context in contexts:
        context.interrupt()
        guest.next_stop()


REAPER = """
import ctypes, os, signal, subprocess, sys
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
sentry = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
line = sentry.stdout.readline()
os.kill(sentry.pid, signal.SIGKILL)
reaped = 0
try:
    while True:
        os.waitpid(-1, 0x40000000)
        reaped += 1
except ChildProcessError:
    print(line.decode().strip(), reaped)
"""

SENTRY = """
import sys, threading
from pysandbox_platform.conformance import Guest, code_amd64 as asm
from pysandbox_ptrace.platform import PtracePlatform
guest = Guest(PtracePlatform())
spaces = [guest.space(asm.SPIN if n % 2 else asm.SYSCALL) for n in range(6)]
for n, space in enumerate(spaces):
    for _ in range(3):
        guest.context().resume(space)
while guest.platform.wait(1) is not None:
    pass
print("ready", flush=True)
guest.platform.wait()
threading.Event().wait()
"""

OPENER = """
import os, sys
from pysandbox_ptrace.platform import PtracePlatform
print("ready", flush=True)
while True:
    PtracePlatform().close()
"""


def reap(sentry: str) -> tuple[str, int]:
    """Kills a sentry and waits for everything it leaves: returns only when all of it is gone."""
    result = subprocess.run(
        [sys.executable, "-c", REAPER, sentry],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    line, reaped = result.stdout.split()
    return line, int(reaped)


def test_no_stub_survives_the_sentry() -> None:
    line, reaped = reap(SENTRY)
    assert line == "ready"
    assert reaped >= 1 + 1 + 6, "the sentry, the master and six stub processes"


@pytest.mark.parametrize("attempt", range(5))
def test_no_stub_survives_a_sentry_killed_while_it_starts_one(attempt: int) -> None:
    assert reap(OPENER)[0] == "ready", attempt


def test_ordinary_user() -> None:
    if os.getuid() != 0:
        pytest.skip("runs as an ordinary user already")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
            guest = Guest(PtracePlatform())
            context, space = stopped(guest, asm.SYSCALL + asm.store(asm.RDI, asm.RSI))
            space.map(DATA, PAGE_SIZE, 1, guest.fd, guest.pages())
            guest.set(context, rdi=DATA)
            guest.run(context, space)
            code = 0 if context.fault_access == 2 else 2
            guest.platform.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_fork_of_the_sentry_leaves_the_stubs_alone() -> None:
    """What it inherited ends with it, collected or closed; the stubs are its parent's."""
    platform = PtracePlatform()
    guest = Guest(platform)
    context, space = stopped(guest, asm.forever(asm.SYSCALL))
    pid = os.fork()
    if pid == 0:
        try:
            space.release()
            platform.close()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    guest.run_to_syscall(context, space)
    platform.close()
    guest.close()


def stubs() -> list[int]:
    """Every stub process, the master first."""
    listed = "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    return [int(pid) for pid in listed.split() if status(int(pid), "Name") == "pysandbox-stub"]


def assert_lost(platform: PtracePlatform, reason: str) -> None:
    """The platform says by itself that a stub was killed, and goes on saying it."""
    for _ in range(2):
        readable, _, _ = select.select([platform.lost_fd], [], [], 30)
        assert readable
        with pytest.raises(PlatformError, match=reason):
            platform.check()


def assert_none_lost(platform: PtracePlatform) -> None:
    assert select.select([platform.lost_fd], [], [], 0) == ([], [], [])
    platform.check()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_stub_is_noticed_while_all_are_stopped(guest: Guest, victim: int) -> None:
    platform = guest.platform
    assert isinstance(platform, PtracePlatform)
    stopped(guest)
    assert_none_lost(platform)
    os.kill(stubs()[victim], signal.SIGKILL)
    assert_lost(platform, "killed by SIGKILL")


def test_a_killed_stub_of_several_threads_is_noticed(guest: Guest) -> None:
    if tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 9):
        pytest.skip("the host is older than Linux 6.9: no pidfds of threads (PIDFD_THREAD)")
    platform = guest.platform
    assert isinstance(platform, PtracePlatform)
    _, space = stopped(guest, asm.forever(asm.SYSCALL))
    other = guest.run_to_syscall(guest.context(), space)
    assert other.stop == STOP_SYSCALL
    assert len(os.listdir(f"/proc/{space.stub_pid}/task")) > 1
    assert_none_lost(platform)
    os.kill(space.stub_pid, signal.SIGKILL)
    assert_lost(platform, "killed")


def test_a_released_stub_is_not_lost(guest: Guest) -> None:
    """Nor is one that is released after it was killed."""
    platform = guest.platform
    assert isinstance(platform, PtracePlatform)
    descriptors = len(os.listdir("/proc/self/fd"))
    for killed in (False, True):
        context, space = stopped(guest, asm.forever(asm.SYSCALL))
        other = guest.run_to_syscall(guest.context(), space)
        if killed:
            os.kill(space.stub_pid, signal.SIGKILL)
            assert_lost(platform, "killed")
        for each in (context, other):
            each.release()
        space.release()
        assert_none_lost(platform)
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_fork_of_the_sentry_keeps_no_stub_watched(guest: Guest) -> None:
    """It has copies of the pidfds."""
    platform = guest.platform
    assert isinstance(platform, PtracePlatform)
    context, space = stopped(guest)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    context.release()
    space.release()
    assert_none_lost(platform)
    os.close(writer)
    assert os.waitpid(child, 0) == (child, 0)


def test_threads_without_a_context_end(guest: Guest) -> None:
    """But for a few; and the stub is watched as before, and works."""
    platform = guest.platform
    assert isinstance(platform, PtracePlatform)
    context, space = stopped(guest, asm.forever(asm.SYSCALL))
    for _ in range(3):
        others = [guest.run_to_syscall(guest.context(), space) for _ in range(40)]
        assert len(os.listdir(f"/proc/{space.stub_pid}/task")) > 40
        assert platform.host_bytes() > 40 << 14
        for other in others:
            other.release()
        assert len(os.listdir(f"/proc/{space.stub_pid}/task")) <= 11
        assert platform.host_bytes() <= 12 << 15
        assert_none_lost(platform)
        guest.run_to_syscall(context, space)
    os.kill(space.stub_pid, signal.SIGKILL)
    guest.run(context, space)
    assert context.stop == STOP_KILLED


def test_killed_while_a_thread_ends(guest: Guest) -> None:
    context, space = stopped(guest, asm.forever(asm.SYSCALL))
    others = [guest.run_to_syscall(guest.context(), space) for _ in range(30)]
    for number, other in enumerate(others):
        if number == 15:
            os.kill(space.stub_pid, signal.SIGKILL)
        other.release()
    guest.run(context, space)
    assert context.stop == STOP_KILLED


def test_only_a_share_of_the_descriptors_is_used(guest: Guest) -> None:
    """Stubs beyond it are not watched, and work."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    most = used + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        for _ in range(most // 8 + 20):
            stopped(guest)
        assert len(os.listdir("/proc/self/fd")) - used <= most // 8
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_killed_master() -> None:
    """The process that new stubs are cloned from: an error, where a new one is needed."""
    platform = PtracePlatform()
    guest = Guest(platform)
    masters = stubs()
    old = stopped(guest, asm.forever(asm.SYSCALL))
    for master in masters:
        os.kill(master, signal.SIGKILL)
    guest.run_to_syscall(*old)
    for _ in range(2):
        context = guest.context()
        with pytest.raises(PlatformError, match="the first stub process was killed"):
            guest.run(context, guest.space(asm.SYSCALL))
    guest.run_to_syscall(*old)
    platform.close()
    guest.close()


def test_affinity(guest: Guest) -> None:
    """Pinned while it makes system calls alone, let go when it computes or has company."""
    everywhere = os.sched_getaffinity(0)
    context, space = stopped(guest, asm.SYSCALL * 200 + asm.forever(asm.increment(asm.RDI)))
    guest.map_data(space)
    for _ in range(100):
        guest.run_to_syscall(context, space)
    assert len(os.sched_getaffinity(context.stub_tid)) == 1
    assert len(os.sched_getaffinity(0)) == 1
    guest.set(context, rip=CODE + 400, rdi=DATA)
    context.resume(space)
    while os.sched_getaffinity(context.stub_tid) != everywhere:
        guest.platform.wait(1_000_000)
    other, _ = stopped(guest, asm.SYSCALL)
    assert os.sched_getaffinity(0) == everywhere
    assert os.sched_getaffinity(other.stub_tid) == everywhere
    context.interrupt()
    assert guest.next_stop() is context


def test_affinity_of_a_stub_that_nobody_waits_for(guest: Guest) -> None:
    """The helper finds nobody waiting and goes to sleep; the next wait wakes it."""
    everywhere = os.sched_getaffinity(0)
    threads = set(os.listdir("/proc/self/task"))
    context, space = stopped(guest, asm.SYSCALL * 200 + asm.forever(asm.increment(asm.RDI)))
    guest.map_data(space)
    for _ in range(100):
        guest.run_to_syscall(context, space)
    guest.set(context, rip=CODE + 400, rdi=DATA)
    context.resume(space)
    guest.platform.wait(0)
    (helper,) = set(os.listdir("/proc/self/task")) - threads
    while not sleeps_for_good(helper):
        pass
    for _ in range(1000):
        if os.sched_getaffinity(context.stub_tid) == everywhere:
            break
        guest.platform.wait(1_000_000)
    else:
        pytest.fail("the stub was never let go")
    context.interrupt()
    assert guest.next_stop() is context


def sleeps_for_good(tid: str) -> bool:
    """In futex(2), and no time is given. proc_pid_syscall(5)"""
    words = Path(f"/proc/self/task/{tid}/syscall").read_text().split()
    return words[0] == "202" and int(words[4], 16) == 0


CLONER = """
from pysandbox_platform.conformance import Guest, code_amd64 as asm
from pysandbox_ptrace.platform import PtracePlatform
guest = Guest(PtracePlatform())
space = guest.space(asm.SPIN)
first, second = guest.context(), guest.context()
first.resume(space)
second.resume(space)
first.interrupt()
guest.next_stop()
first.resume(space)  # on another thread, cloned from the one that it was on
first.interrupt()
second.interrupt()
print(guest.next_stop().stop, guest.next_stop().stop)
print(guest.run(guest.context(), guest.space(asm.SYSCALL)).stop)
guest.platform.close()
"""

STARTER = """
from pysandbox_platform.types import PlatformUnavailableError
from pysandbox_ptrace.platform import PtracePlatform
try:
    PtracePlatform()
except PlatformUnavailableError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("killed", "stop"),
    [({}, STOP_INTERRUPTED), ({"KILL_IT": "1"}, STOP_KILLED)],
    ids=["alive", "killed"],
)
def test_a_cloned_thread_that_is_seen_before_its_parent(
    killed: dict[str, str], stop: int, tmp_path: Path
) -> None:
    result = with_preloaded("child_first", CLONER, tmp_path, **killed)
    assert result.stdout.split() == [str(stop), str(stop), str(STOP_SYSCALL)], result.stderr


def test_killed_before_it_is_attached_to(tmp_path: Path) -> None:
    """It was not ptrace that was refused."""
    result = with_preloaded("killed_first", STARTER, tmp_path)
    assert result.stdout == "the first stub process was killed in its start\n", result.stderr


def with_preloaded(
    name: str, code: str, tmp_path: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own, with a C file of these tests loaded first."""
    library = tmp_path / f"{name}.so"
    compiler = os.environ.get("CC", "cc")
    source = Path(__file__).with_name(f"{name}.c")
    options = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", library, source], check=True)
    preload = f"{os.environ.get('LD_PRELOAD', '')} {library}".strip()
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LD_PRELOAD": preload, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_flags_of_injected_code_do_not_leak(guest: Guest) -> None:
    """A batch before a resume leaves nothing of itself in the program's registers."""
    context, space = stopped(guest, asm.forever(asm.SYSCALL))
    before = list(context.regs)
    guest.map_data(space)
    guest.run_to_syscall(context, space)
    after = list(context.regs)
    before[REGISTER_NAMES.index("orig_rax")] = after[REGISTER_NAMES.index("orig_rax")]
    before[RIP] = after[RIP]
    before[REGISTER_NAMES.index("rcx")] = after[RIP]
    assert after == before
    assert after[EFLAGS] & 0x202 == 0x202
