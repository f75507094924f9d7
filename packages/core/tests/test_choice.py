"""A platform whose device may not be opened is refused outside the jail, in the probe's words."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from pysandbox_core.choice import choose_platform
from pysandbox_core.errors import PlatformChoiceError
from pysandbox_platform import Platform, Probe, discovery


class WithDevice(Platform):
    """Has one device, which is there or not."""

    name = "device"
    host_files: ClassVar[tuple[bytes, ...]] = ()

    @classmethod
    def probe(cls) -> Probe:
        return Probe(usable=False, reason="it is for members of the group of three")


def test_a_device_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "load", lambda name: WithDevice)
    device = tmp_path / "device"
    monkeypatch.setattr(WithDevice, "host_files", (bytes(device),))
    with pytest.raises(PlatformChoiceError) as caught:
        choose_platform("device")
    assert str(caught.value) == (
        "platform device can't be used here: it is for members of the group of three"
    )
    device.touch()
    assert choose_platform("device") is WithDevice  # its constructor says the rest
