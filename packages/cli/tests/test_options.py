"""Options are read as the help says, and a mistake is one line that says what to do."""

from __future__ import annotations

import subprocess

import pytest
from command_line import COMMAND, TIMEOUT_S, environment, pysandbox
from pysandbox.options import Option, describe, parse
from pysandbox_core.errors import InvalidOptionError

OPTIONS = (
    Option("--one", "X", "one\nmore"),
    Option("--many", "X", "many", repeatable=True),
    Option("--maybe", "FILE", "maybe", value_optional=True),
    Option("--flag", "", "flag"),
)


def test_values_follow_or_stand_behind_an_equals_sign() -> None:
    parsed = parse("run", OPTIONS, ["--one", "1", "--many=2", "--many=--flag", "ls", "--flag"])
    assert parsed.get("--one") == "1"
    assert parsed.all("--many") == ["2", "--flag"]
    assert parsed.rest == ["ls", "--flag"]
    assert not parsed.has("--flag")


def test_an_optional_value_needs_its_equals_sign() -> None:
    parsed = parse("run", OPTIONS, ["--maybe", "ls"])
    assert parsed.get("--maybe") == "" and parsed.rest == ["ls"]
    assert parse("run", OPTIONS, ["--maybe=f=g"]).get("--maybe") == "f=g"


def test_two_dashes_end_the_options() -> None:
    assert parse("run", OPTIONS, ["--flag", "--", "--one"]).rest == ["--one"]
    assert parse("run", OPTIONS, ["-", "--one"]).rest == ["-", "--one"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--on", "1"], "unrecognized arguments: --on; `pysandbox run --help` lists"),
        (["--one"], "--one: expected one argument"),
        (["--flag=1"], "--flag: ignored explicit argument '1'"),
        (["--one", "1", "--one", "2"], "--one is given twice"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        parse("run", OPTIONS, words)
    assert message in str(caught.value)


def test_help_has_every_option() -> None:
    text = describe("run", OPTIONS)
    assert "--maybe [FILE]" in text and "--one X" in text and "--flag  " in text
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "no program to run"),
        (["run", "--"], "no program to run"),
        (["run", "--memry", "1G", "--", "true"], "unrecognized arguments: --memry"),
        (["run", "--memory", "lots", "true"], "size 'lots' is not a number"),
        (["run", "--memory", "99999999T", "true"], "memory: more than 1048576T"),
        (["run", "--tmpfs", "/x:nr_inodes=99999999T", "true"], "tmpfs /x: more than 1048576T"),
        (["run", "--pids", "x", "true"], "--pids 'x' is not a number"),
        (["run", "--pids", "0", "true"], "pids must be at least 1"),
        (["run", "--timeout", "0", "true"], "timeout '0' is not a number of seconds above 0"),
        (["run", "--user", "root", "true"], "user 'root' is not UID or UID:GID"),
        (["run", "--bind", "/nowhere:/x", "true"], "bind source /nowhere does not exist"),
        (["run", "--bind", "/:x", "true"], "bind target x is not an absolute path"),
        (["run", "--bind", "/usr:/x/..", "true"], "the root itself"),
        (["run", "--tmpfs", "/..", "true"], "the root itself"),
        (["run", "--rootfs", "", "true"], "rootfs  is no directory"),
        (["run", "--hostname", "", "true"], "1 to 64 bytes"),
        (["run", "--platform", "", "true"], "no platform ''"),
        (["run", "--log-level", "", "true"], "unknown log level ''"),
        (["run", "--bind", "/:/x:rwx", "true"], "is not SRC:DST"),
        (["run", "--tmpfs", "x", "true"], "tmpfs target x is not an absolute path"),
        (["run", "--rootfs", "/etc/passwd", "true"], "rootfs /etc/passwd is no directory"),
        (["run", "--env", "=x", "true"], "has no name"),
        (["run", "--workdir", "x", "true"], "working directory x is not an absolute path"),
        (["run", "--hostname", "h" * 65, "true"], "1 to 64 bytes"),
        (["run", "--log-level", "loud", "true"], "unknown log level 'loud'"),
        (["run", "--platform", "nosuch", "true"], "no platform 'nosuch'"),
        (["run", "--strace=/nowhere/x", "true"], "--strace can't write /nowhere/x"),
        (["dance"], "unknown command 'dance'"),
        (["platforms", "--all"], "unrecognized arguments: --all"),
        (["platforms", "all"], "platforms takes no arguments, and 'all' is one"),
        (["doctor", "--", "all"], "doctor takes no arguments, and 'all' is one"),
    ],
)
def test_a_mistake_is_one_line_and_status_125(words: list[str], message: str) -> None:
    ended = pysandbox(*words)
    text = ended.stderr.decode()
    assert ended.returncode == 125
    assert message in text
    assert text.startswith("pysandbox: ") and text.count("\n") == 1
    assert not ended.stdout


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["run", "--help"], ["platforms"], ["doctor"]]
)
def test_output_that_can_not_be_written(words: list[str]) -> None:
    def write_to(where: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["/bin/sh", "-c", f'"$@" {where}', "sh", *COMMAND, *words],
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            env=environment(),
        )

    for where, why in (
        (">&-", b"standard output is closed"),
        (">/dev/full", b"standard output can't be written: No space left on device"),
    ):
        ended = write_to(where)
        assert (ended.returncode, ended.stderr) == (125, b"pysandbox: " + why + b"\n")
    gone = write_to("| :; echo done")
    assert (gone.stdout, gone.stderr) == (b"done\n", b"")


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
def test_a_mistake_that_can_not_be_told(where: str) -> None:
    ended = subprocess.run(
        ["/bin/sh", "-c", f'"$@" {where}', "sh", *COMMAND, "run", "--nosuch"],
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        env=environment(),
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (125, b"", b"")


def test_help_and_version() -> None:
    assert pysandbox("--version").stdout.startswith(b"pysandbox ")
    assert b"usage: pysandbox run" in pysandbox("--help").stdout
    for command in ("run", "platforms", "doctor"):
        ended = pysandbox(command, "--help")
        assert ended.returncode == 0
        assert ended.stdout.startswith(f"usage: pysandbox {command}".encode())
    nothing = pysandbox()
    assert nothing.returncode == 125 and b"usage" in nothing.stderr
