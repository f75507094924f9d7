"""What several runnable processes cost, beside one: system calls, computing, a shell's jobs.

Usage: python benchmarks/several.py [--runs N] [PLATFORM...]. Prints a table with a column for each
platform (ptrace and kvm where none is named): the best of N runs, in nanoseconds of the clock for a
round of `several.c` (built with cc), and in milliseconds for a shell's jobs, of which each run's
start is a part. The runs of the platforms alternate, since a machine is not always as calm.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

JOBS = "for j in 1 2 3 4; do ({loop}) & done; wait"
LOOP = "i=0; while [ $i -lt {count} ]; do i=$((i+1)); {body}; done"
ECHO = JOBS.format(loop=LOOP.format(count=1000, body="echo $i >/dev/null"))
FORK = JOBS.format(loop=LOOP.format(count=25, body="x=$(echo $i); /bin/true"))

ROUNDS = {
    "calls, 1 process": ["calls", "1", "8000"],
    "calls, 2 processes": ["calls", "2", "8000"],
    "calls, 4 processes": ["calls", "4", "8000"],
    "calls, 8 processes": ["calls", "8", "8000"],
    "a byte there and back": ["pipe", "2", "2000"],
    "computing, 1 process": ["compute", "1", "800000"],
    "computing, 2 processes": ["compute", "2", "800000"],
}
SHELL = {"4 jobs of echo, ms": ECHO, "4 jobs of forks, ms": FORK}


def sandboxed(platform: str, command: list[str]) -> str:
    """The output of a command in a sandbox."""
    start = [sys.executable, "-m", "pysandbox", "run", "--platform", platform, "--", *command]
    return subprocess.run(start, check=True, capture_output=True, text=True).stdout


def measure(platform: str, program: str, name: str) -> int:
    """One run."""
    if name in ROUNDS:
        return int(sandboxed(platform, [program, *ROUNDS[name]]))
    started = time.perf_counter_ns()
    sandboxed(platform, ["/bin/bash", "-c", SHELL[name]])
    return (time.perf_counter_ns() - started) // 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("platforms", nargs="*", default=["ptrace", "kvm"])
    options = parser.parse_args()
    print("| several at once |", " | ".join(options.platforms), "|")
    print("| --- |", " | ".join("---:" for _ in options.platforms), "|")
    with tempfile.TemporaryDirectory(dir=os.getcwd()) as directory:
        program = str(Path(directory, "several"))
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)
        for name in (*ROUNDS, *SHELL):
            runs = [
                [measure(platform, program, name) for platform in options.platforms]
                for _ in range(options.runs)
            ]
            best = [min(column) for column in zip(*runs, strict=True)]
            print(f"| {name} |", " | ".join(map(str, best)), "|", flush=True)


if __name__ == "__main__":
    main()
