"""Hostile system calls: whatever a program asks for, the kernel answers it and goes on.

Two programs, only ever run inside a sandbox: syscalls.c draws every argument from what calls trip
over, sequences.c mostly gives them what they are for. Their calls follow from a seed; the seeds
here are a sample. For more, `PYSANDBOX_FUZZ_SEEDS=1000:1200` names a range, and campaign.py goes on
for as long as it is told.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import side_by_side

HERE = Path(__file__).parent
CALLS = {"syscalls": 3000, "sequences": 1000}
"""Program -> calls by each of its processes."""
PROCESSES = 3

first, _, last = os.environ.get("PYSANDBOX_FUZZ_SEEDS", "1:9").partition(":")
SEEDS = range(int(first), int(last))


@pytest.fixture(scope="session")
def fuzzers(scratch: Path) -> dict[str, Path]:
    compiler = os.environ.get("CC", "gcc")
    options = ["-std=gnu11", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror"]
    targets = {name: scratch / f"fuzz-{name}" for name in CALLS}
    for name, target in targets.items():
        subprocess.run([compiler, *options, "-o", target, HERE / f"{name}.c"], check=True)
    return targets


@pytest.mark.parametrize("program", CALLS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_kernel_survives(
    platform: str,
    program: str,
    seed: int,
    fuzzers: dict[str, Path],
    new_workdir: Callable[[], Path],
) -> None:
    workdir = new_workdir()
    argv = [str(fuzzers[program]), str(seed), str(CALLS[program]), str(PROCESSES)]
    outcome = side_by_side.sandboxed(
        platform, argv, workdir, options=["--timeout", "60", "--memory", "1G", "--pids", "200"]
    )
    # the calls may have closed, stopped or killed anything of the program's; the kernel's own
    # failure is the one thing that may not be
    assert outcome.status != 125, f"seed {seed}: {outcome.stderr}"
    assert not list(workdir.iterdir())
