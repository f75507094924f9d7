"""Native beside PySandbox: what system calls and a start cost, as a table in Markdown.

Usage: python benchmarks/run.py [--platform NAME] [--write], or `nox -s bench`. With --write the
table replaces the one in benchmarks/RESULTS.md; sections below it stay. The best of several runs
counts, since the machine may have other things to do; give it an idle one all the same.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
RUNS = 3
SECONDS = 0.3
"""How long a benchmark should run at least, so that starting it does not count."""


class Line(NamedTuple):
    """One line of the table, nanoseconds."""

    name: str
    native: float
    sandboxed: float


def build(name: str, directory: Path) -> Path:
    """Compile one of the programs beside this file."""
    program = directory / name
    subprocess.run(
        ["cc", "-O2", "-pthread", "-o", program, HERE / f"{name}.c"], check=True, timeout=120
    )
    return program


def measure(command: Sequence[str | Path], name: str) -> float:
    """Nanoseconds of a round: the best of several runs, each long enough to mean something."""
    rounds = 10
    while True:
        taken = run(command, name, rounds)
        if taken * rounds >= SECONDS * 1e9 or rounds >= 1 << 24:
            break
        rounds = min(1 << 24, max(rounds * 2, int(SECONDS * 1.2e9 / taken)))
    return min(taken, *(run(command, name, rounds) for _ in range(RUNS - 1)))


def run(command: Sequence[str | Path], name: str, rounds: int) -> float:
    """Nanoseconds of each of `rounds` rounds of one run."""
    # a page has to fit for each round of touch_page
    rounds = min(rounds, 50_000) if name == "touch_page" else rounds
    output = subprocess.run(
        [*command, name, str(rounds)], check=True, timeout=600, capture_output=True, text=True
    )
    return float(output.stdout)


def start_up(command: Sequence[str | Path]) -> float:
    """Nanoseconds from starting a command to its end."""
    taken = []
    for _ in range(10):
        started = time.perf_counter_ns()
        subprocess.run(command, check=True, timeout=60)
        taken.append(time.perf_counter_ns() - started)
    return min(taken)


def lines(chosen: str, directory: Path) -> list[Line]:
    """The whole table."""
    program = build("syscalls", directory)
    sandbox = [sys.executable, "-m", "pysandbox", "run", "--platform", chosen, "--"]
    names = subprocess.run([program, "list"], check=True, capture_output=True, text=True)
    table = [
        Line(name, measure([program], name), measure([*sandbox, program], name))
        for name in names.stdout.split()
    ]
    table.append(
        Line("start of /bin/true", start_up(["/bin/true"]), start_up([*sandbox, "/bin/true"]))
    )
    return table


def markdown(chosen: str, table: list[Line], bare_ns: float, python_ns: float) -> str:
    """The results as a page."""
    version = ".".join(platform.release().split(".")[:2])
    rows = [
        "# Results",
        "",
        f"Platform {chosen}, {date.today()}: Linux {version}, {os.cpu_count()} "
        f"processors, Python {platform.python_version()}. The best of {RUNS} runs.",
        "",
        f"A bare PTRACE_SYSEMU round trip in C takes {microseconds(bare_ns)}, the start of a bare "
        f"`python3` {microseconds(python_ns)}.",
        "",
        "| benchmark | native | PySandbox | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    rows += [
        f"| {line.name} | {microseconds(line.native)} | {microseconds(line.sandboxed)} "
        f"| {line.sandboxed / line.native:.1f} |"
        for line in table
    ]
    return "\n".join(rows) + "\n"


def microseconds(ns: float) -> str:
    return f"{ns / 1e6:.1f} ms" if ns >= 1e6 else f"{ns / 1e3:.2f} us"


def main() -> None:
    words = sys.argv[1:]
    write = "--write" in words
    chosen = words[words.index("--platform") + 1] if "--platform" in words else "ptrace"
    with tempfile.TemporaryDirectory(prefix="pysandbox-bench-") as name:
        # the sandbox sees the host's /tmp and may execute what is there
        directory = Path(name)
        directory.chmod(0o755)
        bare = subprocess.run(
            [build("bare_sysemu", directory), "20000", "pinned"],
            check=True,
            capture_output=True,
            text=True,
        )
        python_ns = start_up([sys.executable, "-I", "-S", "-c", "pass"])
        page = markdown(chosen, lines(chosen, directory), float(bare.stdout), python_ns)
    sys.stdout.write(page)
    if write:
        results = HERE / "RESULTS.md"
        _, heading, others = results.read_text(encoding="utf-8").partition("\n## ")
        results.write_text(page + heading + others, encoding="utf-8")


if __name__ == "__main__":
    main()
