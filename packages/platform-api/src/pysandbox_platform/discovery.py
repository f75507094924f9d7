"""Finding platforms: everything published under the entry-point group `pysandbox.platforms`.

Interface:

- `load(name)` and `best()` are for a start, and cheap: they read the entry points themselves
  (`entry_points.scan`) and import only the platforms they have to. Neither stevedore nor
  importlib.metadata is imported unless nothing is found so.
- `platforms()` loads all of them, through stevedore, and probes each: for `pysandbox platforms`. A
  package that can't be loaded, whose class is none, or whose probe raises is reported in its
  `Found.error` and changes nothing for the rest.
- Every error is a PlatformUnavailableError whose message is one line that says what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pysandbox_platform.entry_points import resolve, scan
from pysandbox_platform.interface import Platform
from pysandbox_platform.types import PlatformUnavailableError, Probe

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "pysandbox.platforms"


class Found(NamedTuple):
    """One published platform."""

    name: str
    package: str
    """The distribution that publishes it; "?" where its metadata does not say."""
    version: str
    platform: type[Platform] | None
    """None when it is broken."""
    error: str
    """Why it is broken, one line; empty otherwise."""
    probe: Probe
    """Not usable when it is broken, with `error` as the reason."""


def _one_line(error: BaseException) -> str:
    """The kind and the first line of an error: it goes into a table."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _check(name: str, loaded: object) -> type[Platform]:
    """What an entry point resolved to, if it is a platform's class."""
    if not (isinstance(loaded, type) and issubclass(loaded, Platform)):
        raise TypeError(f"{loaded!r} is not a class derived from pysandbox_platform.Platform")
    if missing := loaded.__abstractmethods__:
        raise TypeError(f"{loaded.__name__} lacks {', '.join(sorted(missing))}")
    if getattr(loaded, "name", name) != name:
        raise TypeError(f"{loaded.__name__}.name is {loaded.name!r}, its entry point's is {name!r}")
    return loaded


def _origin(entry_point: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that an entry point comes from.

    stevedore keeps entry points in a cache that forgets this, so it is looked up again.
    """
    for known in _entry_points():
        if (known.name, known.value) == (entry_point.name, entry_point.value) and known.dist:
            return known.dist.name, known.dist.version
    return "?", "?"


def _examine(name: str, entry_point: EntryPoint, loaded: object) -> Found:
    """Checks and probes what could be loaded."""
    package, version = _origin(entry_point)
    try:
        platform = _check(name, loaded)
        probe = platform.probe()
    except (Exception, SystemExit) as error:
        return _broken(name, entry_point, error)
    return Found(name, package, version, platform, "", probe)


def _broken(name: str, entry_point: EntryPoint, error: BaseException) -> Found:
    package, version = _origin(entry_point)
    reason = _one_line(error)
    return Found(name, package, version, None, reason, Probe(False, f"broken: {reason}"))


def platforms() -> list[Found]:
    """All published platforms, probed; the best first, then by name.

    Two packages may publish the same name: both are listed, `load` takes the first.
    """
    found = [item for name in names() for item in _all_named(name)]
    return sorted(found, key=lambda item: (-item.probe.rank, item.name))


def _all_named(name: str) -> list[Found]:
    """What is published under one name. One at a time, since stevedore lets an AssertionError or
    SystemExit of a plugin through, which would end the search for all."""
    from stevedore import NamedExtensionManager

    found: list[Found] = []

    def on_failure(_manager: object, entry_point: EntryPoint, error: BaseException) -> None:
        found.append(_broken(name, entry_point, error))

    try:
        manager: NamedExtensionManager[object] = NamedExtensionManager(
            GROUP, [name], invoke_on_load=False, on_load_failure_callback=on_failure
        )
    except (Exception, SystemExit) as error:
        first = next(item for item in _entry_points() if item.name == name)
        return [_broken(name, first, error)]
    found += [_examine(name, item.entry_point, item.plugin) for item in manager]
    return found


def _entry_points() -> list[EntryPoint]:
    from importlib.metadata import entry_points

    return sorted(entry_points(group=GROUP), key=lambda item: item.name)


def names() -> list[str]:
    """The names that `load` knows, sorted. Imports no platform."""
    return sorted({item.name for item in _entry_points()})


def load(name: str) -> type[Platform]:
    """The class of the platform `name`, without asking whether it is usable.

    Raises PlatformUnavailableError when there is none of that name, naming the known ones, or when
    it can't be loaded.
    """
    value = scan(GROUP).get(name)
    known = [] if value else _entry_points()
    value = value or next((item.value for item in known if item.name == name), None)
    if value:
        try:
            return _check(name, resolve(value))
        except (Exception, SystemExit) as error:
            raise PlatformUnavailableError(
                f"platform {name!r} ({value}) is broken: {_one_line(error)}"
            ) from error
    if not known:
        raise PlatformUnavailableError(
            f"no platform {name!r}: none is installed; try 'pip install pysandbox-platform-ptrace'"
        )
    listed = ", ".join(sorted({item.name for item in known}))
    raise PlatformUnavailableError(f"no platform {name!r}; installed are: {listed}")


def require(name: str) -> type[Platform]:
    """As `load`, and usable here; otherwise PlatformUnavailableError with the probe's reason."""
    platform = load(name)
    probe = platform.probe()
    if not probe.usable:
        raise PlatformUnavailableError(f"platform {name!r} can't be used here: {probe.reason}")
    return platform


def best() -> type[Platform]:
    """The usable platform with the highest rank; PlatformUnavailableError says why there is
    none."""
    chosen: type[Platform] | None = None
    rank = -1
    for name, value in sorted(scan(GROUP).items()):
        try:
            platform = _check(name, resolve(value))
            probe = platform.probe()
        except (Exception, SystemExit):
            continue  # `platforms` says what is wrong with it
        if probe.usable and probe.rank > rank:
            chosen, rank = platform, probe.rank
    return chosen or _best_of_all()


def _best_of_all() -> type[Platform]:
    """As `best`, the long way round: it sees all, and has the reasons where there is none."""
    found = platforms()
    for item in found:
        if item.probe.usable and item.platform is not None:
            return item.platform
    if not found:
        raise PlatformUnavailableError(
            "no platform is installed; try 'pip install pysandbox-platform-ptrace'"
        )
    reasons = "; ".join(f"{item.name}: {item.probe.reason}" for item in found)
    raise PlatformUnavailableError(f"no platform can be used here ({reasons})")
