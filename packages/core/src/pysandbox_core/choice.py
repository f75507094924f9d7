"""Which platform a sandbox gets: the one it names, or the best that can be used here.

Interface: `choose_platform(name)` returns a class that is ready to be made, or raises
PlatformChoiceError with one line that says what to do. It finds platforms by `entry_points`, which
is quick; where that does not do, it asks pysandbox_platform.discovery, which knows everything and
says best what is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox_platform import Platform, PlatformUnavailableError

from pysandbox_core.entry_points import PLATFORMS, entry_points
from pysandbox_core.errors import PlatformChoiceError

if TYPE_CHECKING:
    from pysandbox_core.entry_points import EntryPoint

AUTO = "auto"


def choose_platform(name: str) -> type[Platform]:
    """The platform called `name`, or the best usable one for `auto`."""
    published = entry_points(PLATFORMS)
    if name != AUTO:
        published = [entry for entry in published if entry.name == name][:1]
    candidates = [platform for entry in published if (platform := _load(entry)) is not None]
    if len(candidates) == 1:
        return candidates[0]  # whether it is usable, its constructor says
    best_rank = -1
    best = None
    for platform in candidates:
        probe = platform.probe()
        if probe.usable and probe.rank > best_rank:
            best, best_rank = platform, probe.rank
    return best or _choose_thoroughly(name)


def _load(entry: EntryPoint) -> type[Platform] | None:
    """The class that `entry` names, None if it is broken or no platform."""
    try:
        found = entry.load()
    except Exception:
        return None  # reported by `pysandbox platforms`, and below if nothing else is left
    return found if isinstance(found, type) and issubclass(found, Platform) else None


def _choose_thoroughly(name: str) -> type[Platform]:
    from pysandbox_platform import discovery

    try:
        return discovery.best() if name == AUTO else discovery.load(name)
    except PlatformUnavailableError as error:
        raise PlatformChoiceError(f"{error}; `pysandbox platforms` lists what there is") from error
