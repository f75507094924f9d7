"""A campaign of hostile system calls: many runs of the fuzzers, and what of the kernel they reach.

`python tests/fuzz/campaign.py --minutes 60 --first-seed 1 --directory DIR` runs one sandbox after
the other. Two of three are jailed as everybody's are. The third has no jail, and coverage.py, which
has to be installed, watches the kernel's Python there (`--without-coverage` leaves these out). Of
the others, every third has a directory of the host's for its files, and every third a terminal of
the host's. In DIR are the totals (summary.json), the coverage by file (coverage.txt) and what
failed by seed (failures.txt), all of them up to date at any moment.

What counts as a failure: status 125 (the kernel or the platform failed, or the jail killed it), a
program that never ended, a kernel that hung, processes left behind.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TIMEOUT_S = 60
LIMITS = ["--timeout", str(TIMEOUT_S), "--pids", "200"]
CALLS = 1500
PROCESSES = 4
COMPILE = ["-std=gnu11", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror"]
FUZZERS = ("sequences", "sequences", "syscalls")
"""In turn: calls that make sense get further."""


@dataclass
class Totals:
    """What the campaign has done so far."""

    runs: int = 0
    seconds: float = 0.0
    calls: int = 0
    """Of runs of `sequences` that lived to count them."""
    failures: list[str] = field(default_factory=list)
    max_rss_kib: int = 0
    """Of any sentry."""


def main() -> None:
    options = _options()
    directory = options.directory = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    programs = {name: _compile(name, directory) for name in set(FUZZERS)}
    if options.watched is not None:
        _run_watched(programs["sequences"], options.watched, directory, options.platform)
    totals = Totals()
    begin = time.monotonic()
    seed = options.first_seed
    while time.monotonic() - begin < options.minutes * 60:
        watched = seed % 3 == 0 and not options.without_coverage
        program = programs["sequences" if watched else FUZZERS[seed % 7 % 3]]
        _one_run(totals, program, seed, options, watched=watched)
        totals.runs += 1
        totals.seconds = time.monotonic() - begin
        (directory / "summary.json").write_text(json.dumps(asdict(totals), indent=2) + "\n")
        if watched and seed % 60 == 0:
            _report_coverage(directory)
        seed += 1
    if not options.without_coverage:
        _report_coverage(directory)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--platform", default="auto")
    parser.add_argument(
        "--memory", default="1G", help="limit of each sandbox; little has processes killed for it"
    )
    parser.add_argument("--without-coverage", action="store_true")
    parser.add_argument("--watched", type=int, metavar="SEED", help="one run, under coverage.py")
    return parser.parse_args()


def _compile(name: str, directory: Path) -> Path:
    target = directory / name
    compiler = os.environ.get("CC", "gcc")
    subprocess.run([compiler, *COMPILE, "-o", target, HERE / f"{name}.c"], check=True)
    return target


def _one_run(
    totals: Totals, program: Path, seed: int, options: argparse.Namespace, *, watched: bool
) -> None:
    directory, platform = options.directory, options.platform
    variant = (
        "without a jail"
        if watched
        else ("", "on a bound directory", "at a terminal")[seed // 3 % 3]
    )
    bound = tempfile.mkdtemp(dir=directory) if variant == "on a bound directory" else ""
    if watched:
        command = [sys.executable, __file__, "--watched", str(seed), "--directory", str(directory)]
        command += ["--platform", platform]
    else:
        command = [sys.executable, "-m", "pysandbox", "run", "--platform", platform, *LIMITS]
        command += ["--memory", options.memory]
        if bound:
            command += ["--bind", f"{bound}:/tmp:rw"]
        command += ["--", str(program), str(seed), str(CALLS), str(PROCESSES)]
    ended = _at_a_terminal(command) if variant == "at a terminal" else _on_pipes(command)
    reason = {124: "timeout", 125: "kernel failure", None: "hang"}.get(ended.status, "")
    if bound:
        shutil.rmtree(bound)
    survived = re.search(rb"survived (\d+) calls", ended.output)
    totals.calls += int(survived[1]) if survived else 0
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    totals.max_rss_kib = max(totals.max_rss_kib, usage.ru_maxrss)
    if reason:
        tail = ended.errors.decode("utf-8", "backslashreplace").strip()[-4000:]
        totals.failures.append(f"{program.name} {seed} {variant}: {reason}")
        with (directory / "failures.txt").open("a") as report:
            report.write(f"== {totals.failures[-1]}\n{tail}\n\n")


@dataclass
class Ended:
    """How a run ended."""

    status: int | None
    """None: it did not."""
    output: bytes
    errors: bytes


def _on_pipes(command: list[str]) -> Ended:
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        status, output, errors = _wait(process)
    return Ended(status, output, errors)


def _at_a_terminal(command: list[str]) -> Ended:
    """Whoever holds its other side types nothing, and sees output and errors as one."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (no thread yet)
    ) as process:
        os.close(theirs)
        seen = bytearray()
        reader = threading.Thread(target=_drain, args=(ours, seen))
        reader.start()
        status = _wait(process)[0]
        reader.join()
    os.close(ours)
    return Ended(status, bytes(seen), bytes(seen))


def _drain(fd: int, into: bytearray) -> None:
    try:
        while data := os.read(fd, 1 << 16):
            into += data
    except OSError:
        pass  # EIO: nobody has the other side open


def _wait(process: subprocess.Popen[bytes]) -> tuple[int | None, Any, Any]:
    try:
        try:
            output = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # the first process may have been stopped by another, and all with it, as for ^Z
            process.send_signal(signal.SIGCONT)
            output = process.communicate(timeout=2 * TIMEOUT_S)
        return process.returncode, *output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, *process.communicate()


def _run_watched(program: Path, seed: int, directory: Path, platform: str) -> None:
    """Be the sentry of one sandbox, with coverage.py watching."""
    import coverage

    cover = coverage.Coverage(
        data_file=str(directory / "coverage-data"),
        data_suffix=True,
        concurrency=["greenlet", "thread"],
        source_pkgs=["pysandbox_core"],
        config_file=False,
        messages=False,
    )
    cover.start()
    from pysandbox_core import config, sentry
    from pysandbox_core.choice import choose_platform

    spec = config.ProcessSpec(
        [os.fsencode(word) for word in (program, str(seed), str(CALLS), str(PROCESSES))], env=[]
    )
    limits = config.SandboxConfig(platform=platform, memory=1 << 30, pids=200)
    status = sentry.run_program(
        limits, spec, choose_platform(platform), timeout_ns=TIMEOUT_S * 10**9
    )
    cover.stop()
    cover.save()
    os._exit(status)


def _report_coverage(directory: Path) -> None:
    import coverage

    cover = coverage.Coverage(data_file=str(directory / "coverage-data"), config_file=False)
    cover.load()
    cover.combine()
    cover.save()
    with (directory / "coverage.txt").open("w") as report:
        cover.report(file=report, show_missing=True)


if __name__ == "__main__":
    main()
