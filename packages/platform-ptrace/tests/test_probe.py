"""`probe` says yes where it works, and why not where it does not."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pysandbox_ptrace import probe as probe_module
from pysandbox_ptrace.platform import PtracePlatform

DENY_PTRACE = """
import ctypes, struct, sys
# seccomp: system call 101, ptrace, fails with EPERM; everything else is allowed.
code = struct.pack("HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, 101, 0x06, 0, 0, 0x50001, 0x06, 0, 0,
                   0x7FFF0000)
buffer = ctypes.create_string_buffer(code, len(code))
program = ctypes.create_string_buffer(struct.pack("H6xQ", 4, ctypes.addressof(buffer)), 16)
prctl = ctypes.CDLL(None).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, program) == 0
from pysandbox_ptrace.platform import PtracePlatform
probe = PtracePlatform.probe()
print(probe.usable, probe.reason)
from pysandbox_platform import PlatformUnavailableError
try:
    PtracePlatform()
except PlatformUnavailableError as error:
    print(error.errno, error)
import os
try:
    os.waitpid(-1, 0x40000000)
except ChildProcessError:
    print("no child left")
"""


def test_usable() -> None:
    probe = PtracePlatform.probe()
    assert probe.usable
    assert 0 < probe.rank < 50


def test_where_ptrace_is_denied() -> None:
    result = subprocess.run(
        [sys.executable, "-c", DENY_PTRACE], capture_output=True, text=True, check=True, timeout=60
    )
    probed, opened, children = result.stdout.splitlines()
    assert probed.startswith("False ptrace is refused (PTRACE_SEIZE: Operation not permitted); ")
    assert opened == "1 ptrace is refused (PTRACE_SEIZE: Operation not permitted)"
    assert children == "no child left"


def test_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Uname:
        machine = "aarch64"

    monkeypatch.setattr("os.uname", Uname)
    probe = probe_module.probe()
    assert not probe.usable
    assert probe.reason == "needs Linux on x86-64, not linux on aarch64"


@pytest.mark.parametrize(
    ("scope", "words"), [("0", "seccomp"), ("1", "seccomp"), ("2", "root only"), ("3", "restarted")]
)
def test_advice(monkeypatch: pytest.MonkeyPatch, scope: str, words: str) -> None:
    monkeypatch.setattr(probe_module, "_ptrace_scope", lambda: scope)
    assert words in probe_module._advice()
