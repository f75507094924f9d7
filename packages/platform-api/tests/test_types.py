"""The plain data of the interface."""

from __future__ import annotations

from pysandbox_platform import STOP_NAMES, PlatformError, PlatformUnavailableError, Probe, types
from pysandbox_platform import registers_amd64 as reg


def test_stop_names() -> None:
    for name, number in vars(types).items():
        if name.startswith("STOP_") and name != "STOP_NAMES":
            assert STOP_NAMES[number] == name.removeprefix("STOP_").lower()


def test_registers_are_those_of_user_regs_struct() -> None:
    """The order of <sys/user.h>."""
    assert len(reg.REGISTER_NAMES) == reg.NREGS == 27
    for index, name in enumerate(reg.REGISTER_NAMES):
        assert getattr(reg, name.upper()) == index


def test_errors() -> None:
    assert PlatformError("no").errno == 0
    error = PlatformUnavailableError("no", 13)
    assert isinstance(error, PlatformError)
    assert (str(error), error.errno) == ("no", 13)


def test_probe_has_defaults() -> None:
    probe = Probe(False, "why")
    assert (probe.rank, dict(probe.details)) == (0, {})
