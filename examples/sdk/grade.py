"""Grade submissions: each is run against every test case, in a sandbox of its own, several at once.

Usage: python grade.py CASES SUBMISSION…

CASES is a directory with NAME.in and NAME.out files; a submission is a Python program that reads
the one and should write the other.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pysandbox import RunTimeoutError, Sandbox


class Verdict(NamedTuple):
    """How one submission did on one case."""

    case: str
    text: str


def grade(submission: Path, cases: list[Path], timeout: float = 5.0) -> list[Verdict]:
    """The verdicts on a submission. It sees its own directory, read-only, and no other's."""
    verdicts = []
    with Sandbox(
        memory="256M", pids=16, binds=[(submission.resolve().parent, "/submission")]
    ) as sandbox:
        for case in cases:
            try:
                result = sandbox.run(
                    ["python3", f"/submission/{submission.name}"],
                    input=case.read_bytes(),
                    timeout=timeout,
                    cwd="/tmp",
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
