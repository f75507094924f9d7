"""The filter's compiler, against an interpreter of the few BPF instructions that it uses."""

from __future__ import annotations

import struct
from errno import ENOSYS

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysandbox_core.abi.numbers_amd64 import NUMBERS
from pysandbox_core.jail import allowed, bpf
from pysandbox_platform.host_calls import Condition, HostCall, none_but, not_with, one_of

X86_64 = 0xC000003E
I386 = 0x40000003
FULL = (1 << 64) - 1

words = st.one_of(
    st.integers(0, FULL), st.integers(0, 64), st.sampled_from((1 << 31, 1 << 32, FULL, FULL >> 1))
)


def answer(program: bytes, number: int, arguments: tuple[int, ...] = (), arch: int = X86_64) -> int:
    """What the host's kernel does: runs `program` on struct seccomp_data."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0x1234, *padded)
    steps = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, k = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code == 0x15:
            at += if_true if accumulator == k else if_false
        elif code == 0x05:
            at += k
        elif code == 0x06:
            return k
        else:
            raise AssertionError(f"instruction {code:#x}")


@given(st.integers(0, 500))
def test_what_is_not_listed_kills(number: int) -> None:
    program = bpf.compile_filter([HostCall("read"), HostCall("write")], {"clone3": ENOSYS})
    expected = {
        NUMBERS["read"]: bpf.ALLOW,
        NUMBERS["write"]: bpf.ALLOW,
        NUMBERS["clone3"]: bpf.ERRNO | ENOSYS,
    }
    assert answer(program, number) == expected.get(number, bpf.KILL_PROCESS)


@pytest.mark.parametrize("number", [0, 1, 3, 4, 11, 102])
def test_other_abis_are_killed(number: int) -> None:
    program = bpf.compile_filter([HostCall(name) for name in ("read", "write", "close")], {})
    assert answer(program, number, arch=I386) == bpf.KILL_PROCESS
    assert answer(program, number | 0x40000000) == bpf.KILL_PROCESS, "x32"


conditions = st.builds(
    Condition,
    st.integers(0, 5),
    st.lists(words, min_size=1, max_size=4).map(tuple),
    st.one_of(st.just(0xFFFFFFFF), st.just(FULL), words.filter(bool)),
)


@given(st.lists(st.lists(conditions, min_size=1, max_size=3), min_size=1, max_size=3), st.data())
def test_conditions(alternatives: list[list[Condition]], data: st.DataObject) -> None:
    program = bpf.compile_filter(
        [HostCall("ioctl", tuple(each)) for each in alternatives] + [HostCall("read")], {}
    )
    near = [value for each in alternatives for c in each for value in c.values]
    pick = st.one_of(words, st.sampled_from(near))
    arguments = tuple(data.draw(pick) for _ in range(6))

    def holds(condition: Condition) -> bool:
        value = arguments[condition.argument] & condition.mask
        return value in [each & condition.mask for each in condition.values]

    expected = any(all(holds(c) for c in each) for each in alternatives)
    got = answer(program, NUMBERS["ioctl"], arguments)
    assert got == (bpf.ALLOW if expected else bpf.KILL_PROCESS)
    assert answer(program, NUMBERS["read"], arguments) == bpf.ALLOW


def test_helpers_of_conditions() -> None:
    program = bpf.compile_filter(
        [
            HostCall("ptrace", (one_of(0, 12, 13),)),
            HostCall("mmap", (not_with(2, 4),)),
            HostCall("clone", (none_but(0, 0x100),)),
        ],
        {},
    )
    ptrace, mmap, clone = (NUMBERS[name] for name in ("ptrace", "mmap", "clone"))
    assert answer(program, ptrace, (13,)) == bpf.ALLOW
    assert answer(program, ptrace, (16,)) == bpf.KILL_PROCESS
    assert answer(program, mmap, (0, 0, 3)) == bpf.ALLOW
    assert answer(program, mmap, (0, 0, 7)) == bpf.KILL_PROCESS
    assert answer(program, clone, (0x100,)) == bpf.ALLOW
    assert answer(program, clone, (0x100 | 1 << 40,)) == bpf.KILL_PROCESS, "high halves count"


def test_a_values_low_half_and_anothers_high_half_do_not_make_a_third() -> None:
    both = (0x1_0000_0002, 0x3_0000_0004)
    program = bpf.compile_filter([HostCall("ioctl", (Condition(1, both, FULL),))], {})
    assert answer(program, NUMBERS["ioctl"], (0, both[0])) == bpf.ALLOW
    assert answer(program, NUMBERS["ioctl"], (0, 0x1_0000_0004)) == bpf.KILL_PROCESS


DANGEROUS = (
    "execve", "execveat", "fork", "vfork", "ptrace", "socket", "connect", "bind", "listen",
    "accept", "accept4", "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "setuid",
    "setgid", "setresuid", "capset", "bpf", "perf_event_open", "io_uring_setup", "keyctl",
    "add_key", "init_module", "finit_module", "kexec_load", "userfaultfd", "process_vm_writev",
    "pidfd_getfd", "pidfd_open", "open_by_handle_at", "name_to_handle_at", "personality", "prctl",
    "seccomp", "reboot", "swapon", "acct", "process_vm_readv", "kcmp", "move_mount", "open_tree",
    "fsopen", "memfd_secret", "modify_ldt", "iopl", "ioperm",
)  # fmt: skip


@pytest.mark.parametrize("name", DANGEROUS)
def test_the_kernels_own_list_has_nothing_dangerous(name: str) -> None:
    program = bpf.compile_filter(allowed.CALLS, allowed.REFUSED)
    assert answer(program, NUMBERS[name]) != bpf.ALLOW
    assert answer(program, NUMBERS[name], (FULL,) * 6) != bpf.ALLOW


def test_nothing_becomes_executable() -> None:
    program = bpf.compile_filter(allowed.CALLS, allowed.REFUSED)
    for name in ("mmap", "mprotect"):
        assert answer(program, NUMBERS[name], (0, 4096, 3)) == bpf.ALLOW
        assert answer(program, NUMBERS[name], (0, 4096, 5)) == bpf.KILL_PROCESS
    assert answer(program, NUMBERS["pkey_mprotect"], (0, 4096, 5)) == bpf.KILL_PROCESS


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("fcntl", 4), ("fcntl", 8), ("fcntl", 10), ("fcntl", 15), ("fcntl", 1024), ("fcntl", 1031),
        ("fcntl", 36), ("fcntl", 37),
        ("ioctl", 0x5412), ("ioctl", 0x541C), ("ioctl", 0x5421), ("ioctl", 0x5452),
        ("ioctl", 0x5410), ("ioctl", 0x540E), ("ioctl", 0xB701), ("ioctl", 0x40049409),
    ],
)  # fmt: skip
def test_what_a_descriptor_may_not_be_asked_for(name: str, argument: int) -> None:
    """F_SETFL, F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_SETPIPE_SZ, locks; TIOCSTI,
    TIOCLINUX, FIONBIO, FIOASYNC, TIOCSPGRP, TIOCSCTTY, NS_GET_USERNS, FICLONE."""
    program = bpf.compile_filter(allowed.CALLS, allowed.REFUSED)
    for high in (0, 1 << 32):
        assert answer(program, NUMBERS[name], (0, argument | high)) == bpf.KILL_PROCESS
