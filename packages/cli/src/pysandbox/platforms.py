"""`pysandbox platforms`: what is installed that can run programs, and what of it can be used
here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysandbox.options import Option, Parsed
from pysandbox.output import say

if TYPE_CHECKING:
    from pysandbox_platform.discovery import Found

HELP = """\
usage: pysandbox platforms

List the platforms that are installed: what package each comes from, whether it can be used here or
why not, and (*) which one is used where none is named.
"""

OPTIONS = (Option("--help", "", "show this"), Option("-h", "", "show this"))


def run(parsed: Parsed) -> int:
    """Print the table; 0 if some platform can be used here, 1 otherwise."""
    from pysandbox_platform import discovery

    found = discovery.platforms()
    if not found:
        say("No platform is installed; try: pip install pysandbox-platform-ptrace\n")
        return 1
    say(table([("", "NAME", "PACKAGE", "VERSION", "USABLE", ""), *rows(found)]))
    return 0 if any(item.probe.usable for item in found) else 1


def rows(found: list[Found]) -> list[tuple[str, ...]]:
    """A row for each platform, best first."""
    default = next((item for item in found if item.probe.usable), None)
    return [
        (
            "*" if item is default else "",
            item.name,
            item.package,
            item.version,
            "broken" if item.error else "yes" if item.probe.usable else "no",
            item.error or item.probe.reason,
        )
        for item in found
    ]


def table(lines: list[tuple[str, ...]]) -> str:
    """Columns as wide as they have to be, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )
