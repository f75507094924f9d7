"""Command-line options: a table of what a command takes, its parser and its help.

Interface: `parse` takes options up to the first word that is none, or up to `--`. An option's value
follows after `=` or as the next word; one whose value may be left out takes it only after `=`. What
does not fit raises InvalidOptionError with one line.

Not argparse: it would take the program in `--strace PROGRAM` as the option's value, tells of a
mistake in several lines, and costs some milliseconds of every start.
"""

from __future__ import annotations

from typing import NamedTuple

from pysandbox_core.errors import InvalidOptionError


class Option(NamedTuple):
    """One option of a command."""

    name: str
    """As it is written, `--platform`."""
    metavar: str
    """Its value in the help; empty for an option without one."""
    help: str
    repeatable: bool = False
    value_optional: bool = False


class Parsed:
    """What `parse` found."""

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}
        """Values of every option given, by name; an option without a value has ""."""
        self.rest: list[str] = []
        """The words after the options."""

    def has(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str) -> str | None:
        """The value of an option, None if it was not given."""
        values = self.values.get(name)
        return values[-1] if values else None

    def all(self, name: str) -> list[str]:
        """The values of a repeatable option."""
        return self.values.get(name, [])


def parse(command: str, options: tuple[Option, ...], words: list[str]) -> Parsed:
    """Sort `words`, which follow `command`, into options and the rest."""
    by_name = {option.name: option for option in options}
    parsed = Parsed()
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            position -= 1
            break
        name, equals, value = word.partition("=")
        option = by_name.get(name)
        if option is None:
            raise InvalidOptionError(f"unknown option {name}{_hint(name, by_name, command)}")
        if not option.metavar:
            if equals:
                raise InvalidOptionError(f"{name} takes no value")
        elif not equals and not option.value_optional:
            if position == len(words):
                raise InvalidOptionError(f"{name} needs a value: {name} {option.metavar}")
            value = words[position]
            position += 1
        if name in parsed.values and not option.repeatable:
            raise InvalidOptionError(f"{name} is given twice")
        parsed.values.setdefault(name, []).append(value)
    parsed.rest = words[position:]
    return parsed


def describe(options: tuple[Option, ...]) -> str:
    """The options part of a help text."""
    lines = []
    for option in options:
        usage = option.name
        if option.metavar:
            usage += f"[={option.metavar}]" if option.value_optional else f" {option.metavar}"
        first, *others = option.help.split("\n")
        if len(usage) <= 24:
            lines.append(f"  {usage:<24}  {first}")
        else:
            lines += [f"  {usage}", f"{'':28}{first}"]
        lines += [f"{'':28}{line}" for line in others]
    return "\n".join(lines)


def _hint(name: str, by_name: dict[str, Option], command: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, by_name, 1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; `pysandbox {command} --help` lists what there is"
