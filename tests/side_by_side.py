"""Running a program natively and in the sandbox, and saying how the two differ.

Interface: `native` and `sandboxed` run one command in a fresh working directory with the same
environment and an empty standard input, and return an `Outcome`; `difference` compares two of them.
The status of an outcome is a shell's, 128+N after signal N, because that is what `pysandbox run`
exits with. What the tests assume about the command line and about discovery is all in this file.

Output may have sections, lines that start with "# ". A section where the native run prints a line
that starts with "SKIP " is left out of the comparison: this host cannot show what it is about.
"""

from __future__ import annotations

import difflib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pysandbox_platform import Probe, discovery

PATIENCE = float(os.environ.get("PYSANDBOX_PATIENCE", "1"))
"""How many times as slow as usual this machine may be."""
NATIVE_TIMEOUT_S = 60 * PATIENCE
SANDBOX_TIMEOUT_S = 180 * PATIENCE
"""Limits for a program that hangs, not for one that is slow."""

STDERR_TAIL = 3000


@dataclass(frozen=True)
class Outcome:
    """How a program ended and what it printed."""

    status: int
    stdout: str
    stderr: str


@functools.cache
def probes() -> dict[str, Probe]:
    """Name -> what its probe found on this host, of the platforms that are installed."""
    return {found.name: found.probe for found in discovery.platforms()}


def native(
    argv: Sequence[str],
    workdir: Path,
    env: Mapping[str, str] | None = None,
    *,
    user: int | None = None,
) -> Outcome:
    """Run `argv` on the host itself; as `user`, in the group of the same number, if root asks."""
    return _run(list(argv), workdir, _environment(env), NATIVE_TIMEOUT_S, user)


def sandboxed(
    platform: str,
    argv: Sequence[str],
    workdir: Path,
    env: Mapping[str, str] | None = None,
    *,
    bind: bool = False,
    options: Sequence[str] = (),
) -> Outcome:
    """Run `argv` with `pysandbox run`; with `bind`, `workdir` is the host's own, writable."""
    command = [sys.executable, "-m", "pysandbox", "run", "--platform", platform]
    if bind:
        command += ["--bind", f"{workdir}:{workdir}:rw"]
    command += ["--workdir", str(workdir)]
    environment = _environment(env)
    for name in _BASE_ENVIRONMENT.keys() | (env or {}).keys():
        command += ["--env", f"{name}={environment[name]}"]
    command += [*options, "--", *argv]
    return _run(command, workdir, environment, SANDBOX_TIMEOUT_S)


_BASE_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, **_BASE_ENVIRONMENT, **(extra or {})}


def _run(
    argv: list[str],
    workdir: Path,
    env: dict[str, str],
    timeout_s: float,
    user: int | None = None,
) -> Outcome:
    process = subprocess.Popen(
        argv,
        cwd=workdir,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        stderr += f"\n[killed after {timeout_s} s]".encode()
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return Outcome(status, _text(stdout), _text(stderr))


def _text(output: bytes) -> str:
    return output.decode("utf-8", "backslashreplace")


def sections(output: str) -> dict[str, list[str]]:
    """The lines of an output by section; what comes before the first one has the name ''."""
    parts: dict[str, list[str]] = {"": []}
    name = ""
    for line in output.splitlines():
        if line.startswith("# "):
            name = line[2:]
            parts.setdefault(name, [])
        else:
            parts[name].append(line)
    return parts


def skipped_sections(output: str) -> dict[str, str]:
    """Section -> why this host cannot show what it is about."""
    return {
        name: line.removeprefix("SKIP ")
        for name, lines in sections(output).items()
        for line in lines
        if line.startswith("SKIP ")
    }


def difference(expected: Outcome, got: Outcome) -> str:
    """How `got` differs from `expected`, for a person to read; empty where it does not."""
    left_out = skipped_sections(expected.stdout)
    report = []
    if expected.status != got.status:
        report.append(f"status {got.status}, natively {expected.status}")
    want, have = (_compared_lines(outcome.stdout, left_out) for outcome in (expected, got))
    report += difflib.unified_diff(want, have, "native", "sandbox", lineterm="", n=2)
    if report and got.stderr:
        report += ["--- stderr of the sandbox", got.stderr[-STDERR_TAIL:]]
    return "\n".join(report)


def _compared_lines(output: str, left_out: Mapping[str, str]) -> list[str]:
    lines = []
    for name, body in sections(output).items():
        if name not in left_out:
            lines += [f"# {name}", *body] if name else body
    return lines
