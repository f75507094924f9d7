"""The jail on hosts that give it less than this one: it stands with what layers there are, or says
in one line what to do. poor_host.py is how each of them is had.

Each host is asked twice: to start with exactly the layers required that must be on there, which
works; and with all of them, which is refused where one is off. Some of a host's ways take root to
imitate.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import COMMAND, environment
from pysandbox_core.choice import choose_platform
from pysandbox_core.jail.layers import NAMES
from pysandbox_core.jail.trial import try_jail

POOR_HOST = Path(__file__).parent / "poor_host.py"
USER = 1234
NAMESPACES = ("userns", "pidns", "mountns", "netns", "ipcns", "utsns", "cgroupns")

HOSTS: dict[str, tuple[str, ...]] = {
    "no-capabilities": NAMESPACES,
    "no-namespaces": NAMESPACES,
    "no-userns": ("userns",),
    "no-landlock": ("landlock",),
    "no-namespaces no-landlock": (*NAMESPACES, "landlock"),
    "old-kernel": ("userns", "mountns"),
    "masked-proc": (),
    "no-proc": ("userns",),
    "read-only": (),
    "chroot": ("userns",),
    f"user={USER}": (),
    "user=65534": (),
    f"groups=4,8 user={USER}": (),
    f"no-namespaces user={USER}": NAMESPACES,
    f"no-userns user={USER}": NAMESPACES,
    f"no-landlock user={USER}": ("landlock",),
    f"old-kernel user={USER}": NAMESPACES,
    f"masked-proc user={USER}": (),
    f"read-only user={USER}": (),
    f"chroot user={USER}": NAMESPACES,
}
"""What poor_host.py is told -> the layers that are off."""

REFUSED = {
    "no-filters": "seccomp",
    f"no-proc user={USER}": "there is no /proc to open files through; mount one",
}
"""Hosts on which there is no sandbox -> what the line says."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take from a host")


def on(host: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """`pysandbox WORDS` on a poor host."""
    return subprocess.run(
        [sys.executable, POOR_HOST, *host.split(), "--", *COMMAND, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
        cwd="/",
        env=environment(),
    )


@pytest.fixture(scope="module")
def off_anyway() -> frozenset[str]:
    """Layers that this host has not got either."""
    return frozenset(try_jail(choose_platform("auto")).off)


@pytest.fixture
def new_folder() -> Iterator[Callable[[int], Path]]:
    """Makes directories of a user's that everybody can reach."""
    with tempfile.TemporaryDirectory(prefix="pysandbox-test-") as base:
        os.chmod(base, 0o755)

        def make(owner: int) -> Path:
            folder = Path(base, str(owner))
            folder.mkdir()
            os.chown(folder, owner, owner)
            return folder

        yield make


@pytest.mark.parametrize("host", HOSTS)
def test_the_jail_stands_with_what_there_is(host: str, off_anyway: frozenset[str]) -> None:
    off = off_anyway.union(HOSTS[host])
    required = ",".join(name for name in NAMES if name not in off)
    ended = on(host, "run", f"--require={required}", "--", "/bin/sh", "-c", "id -u; id -g")
    own = host.partition("user=")[2] or "0"
    assert (ended.stdout.decode().split(), ended.stderr) == ([own, own], b"")
    assert ended.returncode == 0


@pytest.mark.parametrize("host", [host for host, off in HOSTS.items() if off])
def test_a_layer_that_is_off_is_not_said_to_be_on(host: str) -> None:
    ended = on(host, "run", "--require=all", "--", "/bin/true")
    assert ended.returncode == 125
    text = ended.stderr.decode()
    assert text.startswith("pysandbox: layer ") and text.count("\n") == 1
    assert text.split()[2] in HOSTS[host]
    assert " of the jail is required and off: " in text


def test_the_sdk_says_which_layer_is_missing() -> None:
    script = (
        "from pysandbox import Sandbox, SandboxError\n"
        "try: Sandbox(require=['landlock']).open()\n"
        "except SandboxError as error: print(error)"
    )
    command = [sys.executable, POOR_HOST, "no-landlock", "--", sys.executable, "-c", script]
    ended = subprocess.run(command, check=True, capture_output=True, timeout=60, env=environment())
    assert ended.stdout.decode() == (
        "layer landlock of the jail is required and off: the host has no Landlock "
        "(needs Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK, and lsm=…,landlock)\n"
    )
    assert not ended.stderr


@pytest.mark.parametrize("host", [host for host, off in HOSTS.items() if off])
def test_the_doctor_finds_out(host: str, off_anyway: frozenset[str]) -> None:
    ended = on(host, "doctor")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.decode().splitlines()
    found = {line.split()[2] for line in lines if line.startswith("off ")}
    assert found == off_anyway.union(HOSTS[host])
    for number, line in enumerate(lines):
        if line.startswith("off "):
            assert lines[number + 1].split()[0] == "->", "how to get it"


@pytest.mark.parametrize("host", REFUSED)
def test_where_there_is_no_sandbox_one_line_says_why(host: str) -> None:
    # kvm may do without what ptrace needs
    ended = on(host, "run", "--platform", "ptrace", "--", "/bin/true")
    assert ended.returncode == 125
    text = ended.stderr.decode()
    assert text.startswith("pysandbox: ") and text.count("\n") == 1
    assert REFUSED[host] in text


def test_without_a_directory_for_its_root_the_jail_uses_pythons_own() -> None:
    script = (
        "import sys; from pysandbox_core.jail import root; root._PLACES = ();"
        "from pysandbox.command import main;"
        "sys.exit(main(['run', '--require=mountns', '--', '/bin/cat', '/proc/self/comm']))"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert (ended.returncode, ended.stdout) == (0, b"cat\n"), ended.stderr


# What an ordinary user's namespace can't say: whose files are whose.


def test_files_of_others_are_shown_as_roots() -> None:
    for user in (USER, 65534):
        ended = on(f"user={user}", "run", "--", "stat", "-c", "%u %g", "/", "/etc/passwd")
        assert ended.stdout.split() == [b"0", b"0"] * 2


def test_own_files_are_ones_own(new_folder: Callable[[int], Path]) -> None:
    for user in (USER, 65534):
        folder = new_folder(user)
        (folder / "others").touch()
        script = "echo x > new; stat -c '%u %g' . new others"
        ended = on(
            f"user={user}", "run", f"--bind={folder}:{folder}:rw", f"--workdir={folder}",
            "--", "/bin/sh", "-c", script,
        )  # fmt: skip
        expected = f"{user} {user}\n{user} {user}\n0 0\n"
        assert ended.stdout.decode() == expected, ended.stderr
        made = (folder / "new").stat()
        assert (made.st_uid, made.st_gid) == (user, user)


def test_files_can_be_given_to_oneself_only(new_folder: Callable[[int], Path]) -> None:
    for user in (USER, 65534):
        folder = new_folder(user)
        script = f"echo x > f; chown {user}:{user} f && chgrp 0 f; chown 0 f; stat -c '%u %g' f"
        ended = on(
            f"user={user}", "run", f"--bind={folder}:{folder}:rw", f"--workdir={folder}",
            "--", "/bin/sh", "-c", script,
        )  # fmt: skip
        assert ended.stdout.decode() == f"{user} {user}\n"
        assert ended.stderr.count(b"Operation not permitted") == 2


def test_supplementary_groups_count(new_folder: Callable[[int], Path]) -> None:
    """A group's right to a file, also where it is no right but a refusal."""
    folder = new_folder(USER)
    for name, group, mode in (
        ("readable", 777, 0o640),
        ("writable", 777, 0o664),
        ("refused", 777, 0o604),
        ("strangers", 778, 0o660),
    ):
        path = folder / name
        path.write_text("x\n")
        os.chown(path, 0, group)
        path.chmod(mode)
    script = "stat -c '%n %g' *; cat readable; echo y >> writable; cat refused; cat strangers"
    for bind in ("ro", "rw"):
        ended = on(
            f"groups=777 user={USER}", "run", f"--bind={folder}:{folder}:{bind}",
            f"--workdir={folder}", "--", "/bin/sh", "-c", script,
        )  # fmt: skip
        assert ended.stdout.decode().splitlines() == [
            "readable 777", "refused 777", "strangers 0", "writable 777", "x",
        ]  # fmt: skip
        assert ended.stderr.count(b"Permission denied") == 2, ended.stderr
        assert ended.stderr.count(b"Read-only file system") == (bind == "ro")
    assert (folder / "writable").read_text() == "x\ny\n"
