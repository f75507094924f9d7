"""`probe` says yes where it works, and why not where it does not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pysandbox_kvm import probe as probe_module
from pysandbox_kvm.platform import KvmPlatform

AS_NOBODY = """
import os
import pysandbox_kvm.probe
import pysandbox_platform.trial
from pysandbox_kvm.platform import KvmPlatform
from pysandbox_platform import PlatformUnavailableError
os.setgroups([]); os.setgid(65534); os.setuid(65534)
probe = KvmPlatform.probe()
print(probe.usable, probe.reason)
try:
    KvmPlatform()
except PlatformUnavailableError as error:
    print(error.errno, error)
"""


def test_usable() -> None:
    probe = KvmPlatform.probe()
    if not probe.usable:
        pytest.skip(f"kvm can't be used here: {probe.reason}")
    flavour, _, words = probe.details["flavour"].partition(": ")
    ranks = {"hardware": probe_module.RANK_HARDWARE, "PVM": probe_module.RANK_PVM}
    assert probe.rank == ranks[flavour]
    assert words


@pytest.mark.parametrize(
    ("flags", "parameter", "words"),
    [
        ("fpu svm", "1", "hardware: AMD SVM, nested paging"),
        ("fpu vmx", "Y", "hardware: Intel VMX, nested paging"),
        ("fpu vmx", "N", "hardware: Intel VMX, shadow page tables"),
        ("fpu", "", "hardware: by a processor that does not say how"),
    ],
)
def test_the_flavour_in_words(
    monkeypatch: pytest.MonkeyPatch, flags: str, parameter: str, words: str
) -> None:
    def read(path: str) -> str:
        return f"processor: 0\nflags\t: {flags}\nbugs\t:\n" if "cpuinfo" in path else parameter

    monkeypatch.setattr(probe_module, "_read", read)
    assert probe_module._flavour_in_words("hardware") == words
    assert probe_module._flavour_in_words("PVM").startswith("PVM: ")


def test_no_permission() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become a user without permission")
    if not os.path.exists("/dev/kvm"):
        pytest.skip("there is no /dev/kvm")
    if os.stat("/dev/kvm").st_mode & 6 == 6:
        pytest.skip("/dev/kvm is open to everyone")
    result = subprocess.run(
        [sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, check=True, timeout=60
    )
    probed, opened = result.stdout.splitlines()
    assert probed.startswith("False no permission for /dev/kvm: it is for ")
    assert opened.startswith("13 no permission for /dev/kvm")


REFUSED = """
import ctypes, errno, struct
from pysandbox_kvm.platform import KvmPlatform
LOAD, IS, RETURN = 0x20, 0x15, 0x06
OPENAT, O_RDWR_CLOEXEC = 257, 0o2000002
program = b"".join(struct.pack("HBBI", *step) for step in [
    (LOAD, 0, 0, 0), (IS, 0, 3, OPENAT), (LOAD, 0, 0, 32), (IS, 0, 1, O_RDWR_CLOEXEC),
    (RETURN, 0, 0, 0x50000 | errno.EPERM), (RETURN, 0, 0, 0x7FFF0000),
])
steps = ctypes.create_string_buffer(program)
filter = struct.pack("H6xQ", len(program) // 8, ctypes.addressof(steps))
prctl = ctypes.CDLL(None).prctl
assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, filter, 0, 0) == 0
print(KvmPlatform.probe().reason)
"""
"""The host refuses the device by EPERM, as the device rules of a container do."""


def test_refused_by_a_container() -> None:
    """No group is named that would not help."""
    result = subprocess.run(
        [sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True, timeout=60
    )
    assert "container" in result.stdout
    assert "group" not in result.stdout


def test_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Uname:
        machine = "aarch64"

    monkeypatch.setattr("os.uname", Uname)
    probe = probe_module.probe()
    assert not probe.usable
    assert probe.reason == "needs Linux on x86-64, not linux on aarch64"


def test_a_probe_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise OSError("no more of it")

    monkeypatch.setattr(probe_module, "_try_it", fail)
    probe = probe_module.probe()
    assert not probe.usable
    assert probe.reason == "OSError: no more of it"
