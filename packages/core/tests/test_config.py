"""Options are checked once, and every mistake is told in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pysandbox_core import config
from pysandbox_core.config import Bind, ProcessSpec, SandboxConfig, Tmpfs, User
from pysandbox_core.errors import InvalidOptionError, SandboxError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("1k", 1024),
        ("512M", 512 << 20),
        ("2GiB", 2 << 30),
        ("1.5g", 3 << 29),
        ("7B", 7),
        ("3TB", 3 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert config.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "12q", "1.2.3", "1e9", "0x10", "5 M", "1MBB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InvalidOptionError, match="is not a number"):
        config.parse_size(text)


def test_binds() -> None:
    assert config.parse_bind("/a:/b") == Bind(b"/a", b"/b", False)
    assert config.parse_bind("/a:/b:ro") == Bind(b"/a", b"/b", False)
    assert config.parse_bind("/a:/b:rw") == Bind(b"/a", b"/b", True)
    assert config.parse_bind("/a") == Bind(b"/a", b"/a", False)
    here = os.fsencode(os.getcwd())
    assert config.parse_bind("x:/b") == Bind(here + b"/x", b"/b", False)


@pytest.mark.parametrize("text", ["", ":/b", "/a:/b:rx", "/a:/b:rw:no"])
def test_binds_that_are_none(text: str) -> None:
    with pytest.raises(InvalidOptionError, match="bind"):
        config.parse_bind(text)


def test_users() -> None:
    assert config.parse_user("1000") == User(1000, 1000)
    assert config.parse_user("0:5") == User(0, 5)


@pytest.mark.parametrize("text", ["", "root", "1:", ":1", "-1", "1:2:3", "4294967295", "1:x"])
def test_users_that_are_none(text: str) -> None:
    with pytest.raises(InvalidOptionError, match="user"):
        config.parse_user(text)


def test_timeouts() -> None:
    assert config.parse_timeout("2.5") == 2_500_000_000
    for text in ("0", "-1", "x", "nan", "inf", "1e12"):
        with pytest.raises(InvalidOptionError, match="timeout"):
            config.parse_timeout(text)


def test_numbers_that_python_would_not_convert() -> None:
    endless = "9" * 5000  # sys.get_int_max_str_digits()
    for parse in (
        config.parse_size,
        config.parse_user,
        lambda text: config.parse_user(f"1:{text}"),
        lambda text: config.parse_size(f"{text}.5T"),
        lambda text: config.parse_count("--pids", text),
    ):
        with pytest.raises(InvalidOptionError):
            parse(endless)
    assert config.parse_count("--pids", "12") == 12


def test_a_working_directory_that_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert config.caller_directory() == b"/"
    assert config.parse_bind("/usr:/x").source == b"/usr"
    for relative in (lambda: config.parse_bind("usr:/x"), lambda: SandboxConfig(rootfs=b"usr")):
        with pytest.raises(InvalidOptionError, match="working directory has been deleted"):
            relative()


def test_defaults_are_the_callers() -> None:
    made = SandboxConfig()
    assert made.user == User(os.getuid(), os.getgid(), tuple(os.getgroups()))
    assert (made.rootfs, made.platform, made.memory, made.pids) == (b"/", "auto", None, None)
    assert made.logs("warning") and not made.logs("info")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rootfs": b""}, "rootfs  is no directory"),
        ({"rootfs": b"/nowhere"}, "rootfs /nowhere is no directory"),
        ({"binds": [Bind(b"/nowhere", b"/x")]}, "bind source /nowhere does not exist"),
        ({"binds": [Bind(b"/", b"x")]}, "not an absolute path"),
        ({"tmpfs": [Tmpfs(b"x")]}, "not an absolute path"),
        ({"tmpfs": [Tmpfs(b"//")]}, "the root itself"),
        ({"tmpfs": [Tmpfs(b"/x/../..")]}, "the root itself"),
        ({"hostname": b""}, "1 to 64 bytes"),
        ({"hostname": b"x" * 65}, "1 to 64 bytes"),
        ({"memory": 1}, "at least 1M"),
        ({"memory": 1 << 61}, "more than 1048576T"),
        ({"tmpfs": [Tmpfs(b"/t", 1 << 61)]}, "tmpfs /t: more than 1048576T"),
        ({"tmpfs": [Tmpfs(b"/t", None, 1 << 61)]}, "tmpfs /t: more than 1048576T"),
        ({"pids": 0}, "at least 1"),
        ({"log_level": "loud"}, "use one of error, warning, info, debug"),
    ],
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message) as caught:
        SandboxConfig(**options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SandboxError) and isinstance(caught.value, ValueError)


def test_a_bind_of_what_exists(tmp_path: Path) -> None:
    bind = Bind(os.fsencode(tmp_path), b"/x")
    assert SandboxConfig(binds=[bind]).binds == (bind,)


def test_process_specs() -> None:
    spec = ProcessSpec([b"ls"], env=[b"A=1", b"AB=2", b"A=3"], cwd=b"/tmp")
    assert spec.variable(b"A") == b"1"
    assert spec.variable(b"AB") == b"2"
    assert spec.variable(b"B") is None


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        ([], {}),
        ([b""], {}),
        ([b"a\0b"], {}),
        ([b"a"], {"env": [b"A=\0"]}),
        ([b"a"], {"cwd": b"relative"}),
    ],
)
def test_process_specs_that_are_none(argv: list[bytes], options: dict[str, object]) -> None:
    with pytest.raises(InvalidOptionError):
        ProcessSpec(argv, **options)  # type: ignore[arg-type]


def test_nothing_of_the_callers_environment() -> None:
    made = config.default_environment(User(5, 5), terminal=True)
    assert made == {b"PATH": config.DEFAULT_PATH, b"HOME": b"/", b"TERM": b"xterm"}
    assert config.default_environment(User(0, 0))[b"HOME"] == b"/root"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/t", Tmpfs(b"/t")),
        ("/t:size=64M", Tmpfs(b"/t", 64 << 20)),
        ("/t:nr_inodes=1k,size=4096", Tmpfs(b"/t", 4096, 1024)),
    ],
)
def test_tmpfs(text: str, expected: Tmpfs) -> None:
    assert config.parse_tmpfs(text) == expected


@pytest.mark.parametrize("text", ["/t:", "/t:size", "/t:size=0", "/t:nr_inodes=0", "/t:mode=700"])
def test_tmpfs_options_that_make_no_sense(text: str) -> None:
    with pytest.raises(InvalidOptionError):
        config.parse_tmpfs(text)


def test_cpu_time() -> None:
    assert config.parse_cpu_time("1.5") == 1_500_000_000
    with pytest.raises(InvalidOptionError, match="CPU time"):
        config.parse_cpu_time("0")
