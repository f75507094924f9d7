"""Grade submissions: each is run against every test case, in a sandbox of its own, several at once.

Usage: python grade.py CASES SUBMISSION…

CASES is a directory with NAME.in and NAME.out files; a submission is a Python program that reads
the one and should write the other. It sees the system's programs and itself; not the cases, nor
what others have handed in, which the default root would show.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pysandbox import RunTimeoutError, Sandbox

SYSTEM = [
    (name, name)
    for name in ("/usr", "/bin", "/lib", "/lib64", "/etc/alternatives")
    if Path(name).exists()
]
"""Python, and what it needs of Debian or its like."""


class Verdict(NamedTuple):
    """How one submission did on one case."""

    case: str
    text: str


def grade(submission: Path, cases: list[Path], timeout: float = 5.0) -> list[Verdict]:
    """The verdicts on a submission."""
    verdicts = []
    own = (submission.resolve(), "/submission.py")
    with (
        tempfile.TemporaryDirectory() as empty,
        Sandbox(rootfs=empty, binds=[*SYSTEM, own], memory="256M", pids=16) as sandbox,
    ):
        for case in cases:
            try:
                result = sandbox.run(
                    ["python3", "/submission.py"],
                    input=case.read_bytes(),
                    timeout=timeout,
                )
            except RunTimeoutError:
                verdicts.append(Verdict(case.stem, "time limit exceeded"))
                continue
            expected = case.with_suffix(".out").read_bytes()
            if result.returncode:
                text = f"run-time error, status {result.returncode}"
            else:
                text = "ok" if result.stdout.split() == expected.split() else "wrong answer"
            verdicts.append(Verdict(case.stem, text))
    return verdicts


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    cases = sorted(Path(sys.argv[1]).glob("*.in"))
    submissions = [Path(name) for name in sys.argv[2:]]
    with ThreadPoolExecutor(max_workers=2) as pool:
        for submission, verdicts in zip(
            submissions, pool.map(lambda path: grade(path, cases), submissions), strict=True
        ):
            for verdict in verdicts:
                print(f"{submission.name}: {verdict.case}: {verdict.text}")


if __name__ == "__main__":
    main()
