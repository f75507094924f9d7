"""Reading entry points without importlib.metadata, whose import alone takes 20 to 40 ms.

The format is setuptools' `entry_points.txt`, an INI file beside each installed distribution's
metadata (Python Packaging User Guide, "Entry points specification").

Interface: `scan(group)` looks where importlib.metadata looks, in the same order, on the file system
only. Distributions in zip files and from custom finders are not seen: a caller that misses a name
asks importlib.metadata.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

_METADATA = (".dist-info", ".egg-info")


def _parse(text: str, group: str) -> Iterator[tuple[str, str]]:
    """Names and values of section `group`, extras removed."""
    inside = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            inside = line == f"[{group}]"
        elif inside and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            if value:
                yield name.strip(), value.partition("[")[0].strip()


def _files() -> Iterator[bytes]:
    """What is in each entry_points.txt on the path."""
    for directory in sys.path:
        try:
            entries = os.listdir(directory or ".")
        except OSError:
            continue
        for entry in entries:
            if entry.endswith(_METADATA):
                try:
                    with open(os.path.join(directory, entry, "entry_points.txt"), "rb") as file:
                        yield file.read()
                except OSError:
                    continue


def scan(group: str) -> dict[str, str]:
    """Name -> "module:attribute" of everything in the group; the first on the path counts."""
    found: dict[str, str] = {}
    for data in _files():
        if group.encode() in data:
            for name, value in _parse(data.decode("utf-8", "replace"), group):
                found.setdefault(name, value)
    return found


def resolve(value: str) -> object:
    """Imports "module:attribute"; raises what the import raises."""
    module, _, attributes = value.partition(":")
    __import__(module)
    found: object = sys.modules[module]
    for attribute in filter(None, attributes.split(".")):
        found = getattr(found, attribute)
    return found
