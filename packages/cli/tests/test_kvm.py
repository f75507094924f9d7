"""The command on the KVM platform: what doctor says of it, and a guest that misbehaves."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import TIMEOUT_S, environment, pysandbox

pytest.importorskip("pysandbox_kvm", reason="the package pysandbox-platform-kvm is not installed")

from pysandbox_kvm.platform import KvmPlatform

PROBE = KvmPlatform.probe()
pytestmark = pytest.mark.skipif(not PROBE.usable, reason=f"kvm can't be used: {PROBE.reason}")

DAMAGED = """
import sys
from pysandbox.command import main
from pysandbox_kvm._native import ffi, lib
from pysandbox_kvm.platform import KvmPlatform

make = KvmPlatform.__init__
at, code = int(sys.argv[1], 16), bytes.fromhex(sys.argv[2])

def make_damaged(platform):
    make(platform)
    image = ffi.buffer(lib.kv_guest_image(platform._native), 2 * 4096)
    image[at : at + len(code)] = code

KvmPlatform.__init__ = make_damaged
sys.exit(main(["run", "--platform", "kvm", "--", *sys.argv[3:]]))
"""
"""Runs the command with another guest kernel: where it is changed, with what, and the program."""


UD2 = b"\x0f\x0b"
LOAD_ADDR = 0x400000


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The smallest that raises an exception: one instruction, and the headers to load it. elf(5)"""
    headers = 64 + 56
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, LOAD_ADDR + headers, 64, 0, 0, 64, 56, 1,
        0, 0, 0,
    )  # fmt: skip
    size = headers + len(UD2)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, LOAD_ADDR, LOAD_ADDR, size, size, 4096)
    path = tmp_path / "undefined"
    path.write_bytes(elf + load + UD2)
    path.chmod(0o755)
    return path


def damaged(program: Path, at: int, code: bytes) -> subprocess.CompletedProcess[bytes]:
    """The command, in which all goes well but for the guest kernel."""
    return subprocess.run(
        [sys.executable, "-c", DAMAGED, hex(at), code.hex(), program],
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        env=environment(),
    )


@pytest.mark.parametrize(
    ("at", "code", "reason"),
    [
        (0x1000, bytes(512), b"shut down (triple fault)"),
        (0x820, b"\xe6\x10", b"port I/O"),
        (0x820, b"\xeb\xfe", b"does not come out of the guest kernel"),
        (0x060, b"\xeb\xfe", b"does not come out of the guest kernel"),
    ],
    ids=["no gates", "unexpected exit", "endless loop at the start", "endless loop at the end"],
)
def test_a_guest_that_misbehaves(program: Path, at: int, code: bytes, reason: bytes) -> None:
    """Status 125 and one line, as for whatever else the platform can't do."""
    ended = damaged(program, at, code)
    assert ended.returncode == 125
    assert ended.stdout == b""
    assert ended.stderr.startswith(b"pysandbox: the platform failed: task ")
    assert reason in ended.stderr
    assert ended.stderr.count(b"\n") == 1


def test_the_same_without_damage(program: Path) -> None:
    ended = damaged(program, 0, b"")
    assert (ended.returncode, ended.stdout) == (128 + signal.SIGILL, b"")


def test_doctor_states_the_flavour() -> None:
    """In words, and that of the probe guest, not what the processor's flags promise."""
    text = pysandbox("doctor").stdout.decode()
    lines = [line.split(None, 2) for line in text.splitlines() if line.startswith("info")]
    found = {words[1]: words[2] for words in lines if len(words) == 3}
    assert "platform kvm" in text
    assert found["flavour"] == PROBE.details["flavour"]
    assert found["flavour"].startswith(("hardware: ", "PVM: "))
