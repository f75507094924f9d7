"""Which platform a sandbox gets: the one it names, or the best that can be used here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_platform import PlatformUnavailableError, discovery

from pysandbox_core.errors import PlatformChoiceError

if TYPE_CHECKING:
    from pysandbox_platform import Platform

AUTO = "auto"


def choose_platform(name: str) -> type[Platform]:
    """The class of the platform called `name`, or of the best usable one for `auto`.

    Whether one that is named can be used here, its constructor says. PlatformChoiceError, in one
    line, if there is none.
    """
    try:
        return discovery.best() if name == AUTO else discovery.load(name)
    except PlatformUnavailableError as error:
        raise PlatformChoiceError(f"{error}; `pysandbox platforms` lists what there is") from error
