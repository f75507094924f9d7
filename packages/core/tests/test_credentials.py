"""Credentials: who may become whom, and what capabilities follow. capabilities(7)"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EINVAL, EPERM
from struct import pack, unpack

import pytest
from process_harness import SCRATCH, Cpu, World, call
from pysandbox_core.abi.securebits import (
    SECBIT_KEEP_CAPS,
    SECBIT_NO_SETUID_FIXUP,
    SECBIT_NOROOT,
)
from pysandbox_core.credentials import CAP_ALL, CAP_CHOWN, CAP_KILL, Credentials, replace

KEEP = -1
ROOT = Credentials.for_user(0, 0)
USER = Credentials.for_user(1000, 1000)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def results_of(world: World, *calls: object, uid: int = 1000) -> tuple[list[int], Credentials]:
    """Results of system calls, each (name, arguments...), and the credentials after them."""
    results: list[int] = []
    after = []

    def program(cpu: Cpu):
        for each in calls:
            name, *arguments = each  # type: ignore[misc]
            results.append((yield call(name, *arguments)))
        after.append(cpu.task.creds)

    assert world.run(program, uid) == 0
    return results, after[0]


def ids(creds: Credentials) -> tuple[int, int, int, int]:
    return creds.uid, creds.euid, creds.suid, creds.fsuid


def test_root_drops_for_good(world: World) -> None:
    results, creds = results_of(world, ("setuid", 1000), ("setuid", 0), uid=0)
    assert results == [0, -EPERM]
    assert ids(creds) == (1000,) * 4
    assert creds.cap_permitted == creds.cap_effective == 0


def test_root_drops_for_a_while(world: World) -> None:
    results, creds = results_of(world, ("setresuid", KEEP, 1000, KEEP), uid=0)
    assert results == [0]
    assert ids(creds) == (0, 1000, 0, 1000)
    assert (creds.cap_permitted, creds.cap_effective) == (CAP_ALL, 0)


def test_and_comes_back(world: World) -> None:
    calls = (("setresuid", KEEP, 1000, KEEP), ("setresuid", KEEP, 0, KEEP))
    results, creds = results_of(world, *calls, uid=0)
    assert results == [0, 0] and creds.cap_effective == CAP_ALL


def test_keepcaps(world: World) -> None:
    _, creds = results_of(world, ("prctl", 8, 1), ("setuid", 1000), uid=0)
    assert (creds.cap_permitted, creds.cap_effective) == (CAP_ALL, 0)


def test_no_setuid_fixup(world: World) -> None:
    calls = (("prctl", 28, SECBIT_NO_SETUID_FIXUP), ("setuid", 1000))
    _, creds = results_of(world, *calls, uid=0)
    assert creds.cap_effective == CAP_ALL


def test_a_user_becomes_nobody_else(world: World) -> None:
    calls = (
        ("setuid", 1001),
        ("setuid", -1),
        ("setreuid", 1001, KEEP),
        ("setresgid", KEEP, KEEP, 1),
        ("setgroups", 0, 0),
        ("setresuid", 1000, 1000, 1000),
        ("setfsuid", 0),
    )
    results, creds = results_of(world, *calls)
    assert results == [-EPERM, -EINVAL, -EPERM, -EPERM, -EPERM, 0, 1000]
    assert creds == USER


def test_setreuid_saves(world: World) -> None:
    _, creds = results_of(world, ("setreuid", 5, 6), uid=0)
    assert ids(creds) == (5, 6, 6, 6)


def test_fsuid_takes_file_capabilities_along(world: World) -> None:
    _, creds = results_of(world, ("setfsuid", 1000), uid=0)
    assert not creds.capable(CAP_CHOWN) and creds.capable(CAP_KILL)


def test_capset_never_gains(world: World) -> None:
    seen = []

    def program(cpu: Cpu):
        mm = cpu.task.mm
        mm.write(SCRATCH, pack("<Ii", 0x20080522, 0))
        yield call("capget", SCRATCH, SCRATCH + 8)
        seen.append(unpack("<6I", mm.read(SCRATCH + 8, 24))[0])
        mm.write(SCRATCH + 8, pack("<6I", 1, 1, 0, 0, 0, 0))
        seen.append((yield call("capset", SCRATCH, SCRATCH + 8)))
        mm.write(SCRATCH + 8, pack("<6I", 3, 3, 0, 0, 0, 0))
        seen.append((yield call("capset", SCRATCH, SCRATCH + 8)))
        mm.write(SCRATCH, pack("<Ii", 7, 0))
        seen.append((yield call("capget", SCRATCH, SCRATCH + 8)))
        seen.append(mm.read_u32(SCRATCH))

    assert world.run(program, 0) == 0
    assert seen == [0xFFFFFFFF, 0, -EPERM, -EINVAL, 0x20080522]


def test_exec() -> None:
    assert ROOT.after_exec() == ROOT
    assert USER.after_exec() == USER
    kept = replace(USER, cap_permitted=CAP_ALL, securebits=SECBIT_KEEP_CAPS)
    assert kept.after_exec().cap_permitted == 0 and kept.after_exec().securebits == 0
    ambient = replace(kept, cap_inheritable=1, cap_ambient=1).after_exec()
    assert (ambient.cap_permitted, ambient.cap_effective) == (1, 1)
    assert replace(ROOT, securebits=SECBIT_NOROOT).after_exec().cap_permitted == 0
    assert replace(ROOT, cap_permitted=1, no_new_privs=True).after_exec().cap_permitted == 1
    assert replace(ROOT, euid=1000).after_exec().suid == 1000
