"""Hostile system calls: whatever a program asks for, the kernel answers it and goes on.

The program (syscalls.c) is only ever run inside a sandbox. Its calls follow from a seed; the seeds
here are a sample. For more, `PYSANDBOX_FUZZ_SEEDS=1000:1200` names a range.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import side_by_side

SOURCE = Path(__file__).with_name("syscalls.c")
CALLS = 3000
PROCESSES = 3

first, _, last = os.environ.get("PYSANDBOX_FUZZ_SEEDS", "1:9").partition(":")
SEEDS = range(int(first), int(last))


@pytest.fixture(scope="session")
def fuzzer(scratch: Path) -> Path:
    target = scratch / "fuzz-syscalls"
    compiler = os.environ.get("CC", "gcc")
    command = [compiler, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o", target, SOURCE]
    subprocess.run(command, check=True)
    return target


@pytest.mark.parametrize("seed", SEEDS)
def test_the_kernel_survives(
    platform: str, seed: int, fuzzer: Path, new_workdir: Callable[[], Path]
) -> None:
    workdir = new_workdir()
    argv = [str(fuzzer), str(seed), str(CALLS), str(PROCESSES)]
    outcome = side_by_side.sandboxed(
        platform, argv, workdir, options=["--timeout", "60", "--memory", "1G", "--pids", "200"]
    )
    # the calls may have closed, stopped or killed anything of the program's; the kernel's own
    # failure is the one thing that may not be
    assert outcome.status != 125, f"seed {seed}: {outcome.stderr}"
    assert not list(workdir.iterdir())
