"""Lines in strace's format. What is expected here was printed by strace 6.1 itself."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest
from harness import BASE, FlatMemory
from pysandbox_core import strace_flags
from pysandbox_core.declare import Declaration
from pysandbox_core.strace_format import Call, quote, show_result, signature


class Memory(FlatMemory):
    def read_u16(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 2), "little")

    def read_s32(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 4), "little", signed=True)

    def read_string_array(self, addr: int, budget: int) -> tuple[list[bytes], int]:
        words = []
        while pointer := self.read_u64(addr):
            words.append(self.read_cstring(pointer, 100))
            addr += 8
        return words, budget


PARAMETERS = {"close": (("fd", "Fd"),), "alarm": (("seconds", "UInt"),)}
"""Of the calls for which the declaration alone says how to show them."""


def show(name: str, *words: int, result: int = 0, mm: Memory | None = None) -> str:
    """The whole line of one call."""
    task: Any = SimpleNamespace(mm=mm or Memory())
    call = Call(task, name, (*words, *[0] * (6 - len(words))))
    call.result = result
    declaration = Declaration(name, 0, PARAMETERS.get(name, ()), None)
    texts = []
    for argument, word in zip(signature(declaration), call.words, strict=False):
        text = argument.formatter(call, word)
        if not text:
            break
        texts.append(text)
    return f"{name}({', '.join(texts)}) = {show_result(call)}"


def with_bytes(data: bytes) -> Memory:
    memory = Memory()
    memory.write(BASE, data)
    return memory


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"hello\n", '"hello\\n"'),
        (b'a"b\\c', '"a\\"b\\\\c"'),
        (b"\177ELF\2\1\1\0", '"\\177ELF\\2\\1\\1\\0"'),
        (b"\x001", '"\\0001"'),
        (b"\xff\t\v\f\r", '"\\377\\t\\v\\f\\r"'),
        (b"x" * 33, '"' + "x" * 32 + '"...'),
        (b"", '""'),
    ],
)
def test_strings(data: bytes, text: str) -> None:
    assert quote(data) == text


@pytest.mark.parametrize(
    ("line", "words", "result"),
    [
        ("close(3) = 0", [3], 0),
        ("close(-1) = -1 EBADF (Bad file descriptor)", [0xFFFFFFFF], -9),
        ("brk(NULL) = 0x564ff47f4000", [0], 0x564FF47F4000),
        (
            "mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f00",
            [0, 8192, 3, 0x22, 0xFFFFFFFFFFFFFFFF, 0],
            0x7F00,
        ),
        (
            "mmap(0x7f506d618000, 1400832, PROT_READ|PROT_EXEC, "
            "MAP_PRIVATE|MAP_FIXED|MAP_DENYWRITE, 3, 0x26000) = 0x7f506d618000",
            [0x7F506D618000, 1400832, 5, 0x812, 3, 0x26000],
            0x7F506D618000,
        ),
        ("mprotect(0x7000, 4096, PROT_NONE) = 0", [0x7000, 4096, 0], 0),
        ("arch_prctl(ARCH_SET_FS, 0x7f50) = 0", [0x1002, 0x7F50], 0),
        ("set_robust_list(0x7f50, 24) = 0", [0x7F50, 24], 0),
        ("rseq(0x7f50, 0x20, 0, 0x53053053) = 0", [0x7F50, 0x20, 0, 0x53053053], 0),
        ("lseek(0, 0, SEEK_CUR) = -1 ESPIPE (Illegal seek)", [0, 0, 1], -29),
        ("fcntl(1, F_GETFL) = 0x8001 (flags O_WRONLY|O_LARGEFILE)", [1, 3], 0x8001),
        ("fcntl(3, F_SETFD, FD_CLOEXEC) = 0", [3, 2, 1], 0),
        ("ioctl(1, TCGETS, 0x7ffc) = -1 ENOTTY (Inappropriate ioctl for device)",
         [1, 0x5401, 0x7FFC], -25),
        ("kill(5, SIGTERM) = 0", [5, 15], 0),
        ("kill(5, 0) = 0", [5, 0], 0),
        ("umask(022) = 077", [0o22], 0o77),
        ("futex(0x7f00, FUTEX_WAKE_PRIVATE, 2147483647) = 0", [0x7F00, 0x81, 2147483647], 0),
        ("futex(0x7f00, FUTEX_WAIT_BITSET|FUTEX_CLOCK_REALTIME, 7, NULL, "
         "FUTEX_BITSET_MATCH_ANY) = 0", [0x7F00, 0x109, 7, 0, 0, 0xFFFFFFFF], 0),
        ("socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0) = 3",
         [1, 1 | 0o2000000 | 0o4000, 0], 3),
        ("wait4(-1, NULL, WNOHANG, NULL) = 0", [0xFFFFFFFF, 0, 1, 0], 0),
        ("pause() = ? ERESTARTNOHAND (To be restarted if no handler)", [], -514),
        ("alarm(0) = 0", [], 0),
    ],
)  # fmt: skip
def test_calls_without_memory(line: str, words: list[int], result: int) -> None:
    assert show(line.partition("(")[0], *words, result=result) == line


AT_FDCWD = 0xFFFFFF9C


@pytest.mark.parametrize(
    ("flags", "mode", "shown"),
    [
        (0o2000000, 0, "O_RDONLY|O_CLOEXEC"),
        (0o2204000, 0, "O_RDONLY|O_NONBLOCK|O_CLOEXEC|O_DIRECTORY"),
        (0o1101, 0o644, "O_WRONLY|O_CREAT|O_TRUNC, 0644"),
        (0o2400302, 0o600, "O_RDWR|O_CREAT|O_EXCL|O_NOFOLLOW|O_CLOEXEC, 0600"),
        (0o20200002, 0, "O_RDWR|O_TMPFILE, 000"),
    ],
)
def test_open(flags: int, mode: int, shown: str) -> None:
    line = show("openat", AT_FDCWD, BASE, flags, mode, result=3, mm=with_bytes(b"/x\0"))
    assert line == f'openat(AT_FDCWD, "/x", {shown}) = 3'


def test_buffers_are_shown_as_long_as_the_result_says() -> None:
    memory = with_bytes(b"hi\nleft over")
    assert show("read", 3, BASE, 100, result=3, mm=memory) == 'read(3, "hi\\n", 100) = 3'
    assert show("read", 3, BASE, 100, result=0, mm=memory) == 'read(3, "", 100) = 0'
    failed = show("read", 3, BASE, 100, result=-9, mm=memory)
    assert failed == "read(3, 0x10000, 100) = -1 EBADF (Bad file descriptor)"
    assert show("write", 1, BASE, 2, result=2, mm=memory) == 'write(1, "hi", 2) = 2'


def test_addresses_where_memory_is_bad() -> None:
    assert show("write", 1, 0x5, 2, result=-14).startswith("write(1, 0x5, 2) = -1 EFAULT")
    assert show("access", 0x5, 4, result=-14).startswith("access(")


def test_execve() -> None:
    memory = with_bytes(struct.pack("<5Q", BASE + 40, BASE + 43, 0, BASE + 40, 0) + b"ls\0-l\0")
    line = show("execve", BASE + 40, BASE, BASE + 24, mm=memory)
    assert line == 'execve("ls", ["ls", "-l"], 0x10018 /* 1 var */) = 0'


def test_structures() -> None:
    assert show("nanosleep", BASE, 0, mm=with_bytes(struct.pack("<qq", 1, 5))) == (
        "nanosleep({tv_sec=1, tv_nsec=5}, NULL) = 0"
    )
    limits = with_bytes(struct.pack("<QQ", 8 << 20, (1 << 64) - 1))
    assert show("prlimit64", 0, 3, 0, BASE, mm=limits) == (
        "prlimit64(0, RLIMIT_STACK, NULL, {rlim_cur=8192*1024, rlim_max=RLIM64_INFINITY}) = 0"
    )
    mask = (1 << 64) - 1 & ~(1 << 31 | 1 << 32)
    action = struct.pack("<QQQQ", 0x564FC82E5DC0, 0x04000000, 0x7F50, mask)
    assert show("rt_sigaction", 17, BASE, 0, 8, mm=with_bytes(action)) == (
        "rt_sigaction(SIGCHLD, {sa_handler=0x564fc82e5dc0, sa_mask=~[RTMIN RT_1], "
        "sa_flags=SA_RESTORER, sa_restorer=0x7f50}, NULL, 8) = 0"
    )
    stat = struct.pack("<QQQIIIIQqqq", 1, 2, 1, 0o100644, 0, 0, 0, 0, 34547, 4096, 72)
    assert show("newfstatat", 3, BASE + 200, BASE, 0x1000, mm=with_bytes(stat)) == (
        'newfstatat(3, "", {st_mode=S_IFREG|0644, st_size=34547, ...}, AT_EMPTY_PATH) = 0'
    )
    poll = with_bytes(struct.pack("<ihh", 0, 1, 1))
    assert show("poll", BASE, 1, 0xFFFFFFFF, result=1, mm=poll) == (
        "poll([{fd=0, events=POLLIN}], 1, -1) = 1 ([{fd=0, revents=POLLIN}])"
    )
    status = with_bytes(struct.pack("<I", 3 << 8))
    assert show("wait4", 0xFFFFFFFF, BASE, 0, 0, result=7, mm=status) == (
        "wait4(-1, [{WIFEXITED(s) && WEXITSTATUS(s) == 3}], 0, NULL) = 7"
    )
    assert show("pipe2", BASE, 0o2000000, mm=with_bytes(struct.pack("<ii", 3, 4))) == (
        "pipe2([3, 4], O_CLOEXEC) = 0"
    )
    random = with_bytes(b"\x07\x22")
    assert show("getrandom", BASE, 2, 1, result=2, mm=random) == (
        'getrandom("\\x07\\x22", 2, GRND_NONBLOCK) = 2'
    )


def test_signal_sets() -> None:
    assert strace_flags.sigset(0) == "[]"
    assert strace_flags.sigset(1 << 16 | 1 << 1) == "[INT CHLD]"
    assert strace_flags.sigset((1 << 64) - 1) == "~[]"
    assert strace_flags.signal_name(34) == "SIGRT_2"
