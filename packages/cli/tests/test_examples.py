"""The SDK examples do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from command_line import environment

EXAMPLES = Path(__file__).parents[3] / "examples" / "sdk"


def run(name: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(),
    )


def test_an_agents_tool() -> None:
    ended = run(
        "agent_tool.py", stdin="open('x', 'w').write('y')\nprint(open('x').read() * 3)\n1/0"
    )
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert lines[0] == "yyy"
    assert lines[-2] == "ZeroDivisionError: division by zero"
    assert lines[-1] == "[exit status 1]"


def test_grading(tmp_path: Path) -> None:
    cases = tmp_path / "cases"
    cases.mkdir()
    for name, numbers, total in (("one", "1 2 3", "6"), ("two", "10 -10", "0")):
        (cases / f"{name}.in").write_text(numbers + "\n")
        (cases / f"{name}.out").write_text(total + "\n")
    programs = {
        "right.py": "print(sum(map(int, input().split())))",
        "wrong.py": "print(6)",
        "broken.py": "import sys; sys.exit(3)",
        "peeking.py": f"print(open({str(cases / 'one.out')!r}).read())",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
    ended = run("grade.py", str(cases), *[str(tmp_path / name) for name in programs])
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "right.py: one: ok",
        "right.py: two: ok",
        "wrong.py: one: ok",
        "wrong.py: two: wrong answer",
        "broken.py: one: run-time error, status 3",
        "broken.py: two: run-time error, status 3",
        "peeking.py: one: run-time error, status 1",
        "peeking.py: two: run-time error, status 1",
    ]


def test_a_step_of_continuous_integration(tmp_path: Path) -> None:
    (tmp_path / "build.sh").write_text("echo made > artefact; cat artefact; echo CI=$CI; exit 4\n")
    ended = run("ci_step.py", str(tmp_path), "sh", "build.sh")
    assert ended.returncode == 4
    assert ended.stdout == "made\nCI=true\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build.sh"]
    missing = run("ci_step.py", str(tmp_path), "nosuchtool")
    assert missing.returncode == 125 and "command not found" in missing.stderr
