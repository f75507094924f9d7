"""Which platform a sandbox gets: the one it names, or the best that can be used here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pysandbox_platform import PlatformUnavailableError, discovery

from pysandbox_core.errors import PlatformChoiceError

if TYPE_CHECKING:
    from pysandbox_platform import Platform

AUTO = "auto"


def choose_platform(name: str) -> type[Platform]:
    """The class of the platform called `name`, or of the best usable one for `auto`.

    Whether one that is named can be used here, its constructor says, but for a device that may not
    be opened: in the jail it could not say whose it is. PlatformChoiceError, in one line, if there
    is none.
    """
    try:
        if name == AUTO:
            return discovery.best()
        platform = discovery.load(name)
    except PlatformUnavailableError as error:
        raise PlatformChoiceError(f"{error}; `pysandbox platforms` lists what there is") from error
    if not all(os.access(path, os.R_OK | os.W_OK) for path in platform.host_files):
        probe = platform.probe()
        if not probe.usable:
            raise PlatformChoiceError(f"platform {name} can't be used here: {probe.reason}")
    return platform
