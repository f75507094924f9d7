"""Command-line options: a table of what a command takes, read by argparse.

Interface: `parse` takes options up to the first word that is none, or up to `--`. What does not fit
raises InvalidOptionError with one line.

Two things are not argparse's own: an option whose value may be left out takes it only after `=`, or
`--strace PROGRAM` would take the program for a file; and an option is given once, or is repeatable.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple, NoReturn

from pysandbox_core.errors import InvalidOptionError

_REST = "words after the options"


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

    def __init__(self, values: dict[str, list[str] | None]) -> None:
        self._values = values
        rest = values[_REST] or []
        self.rest = rest[1:] if rest[:1] == ["--"] else rest
        """The words after the options."""

    def has(self, name: str) -> bool:
        return self._values[name] is not None

    def get(self, name: str) -> str | None:
        """The value of an option, None if it was not given."""
        values = self._values[name]
        return values[-1] if values else None

    def all(self, name: str) -> list[str]:
        """The values of a repeatable option."""
        return self._values[name] or []


def parse(command: str, options: tuple[Option, ...], words: list[str]) -> Parsed:
    """Sort `words`, which follow `command`, into options and the rest."""
    parser = _parser(command, options)
    values = vars(parser.parse_args(words))
    before = words[: len(words) - len(values[_REST] or ())]
    optional = {option.name for option in options if option.value_optional}
    if optional.intersection(before):
        # `--strace` alone: an empty value after `=` keeps it from taking the next word
        before = [f"{word}=" if word in optional else word for word in before]
        values = vars(parser.parse_args(before + words[len(before) :]))
    for option in options:
        if not option.repeatable and len(values[option.name] or ()) > 1:
            raise InvalidOptionError(f"{option.name} is given twice")
    return Parsed(values)


def describe(command: str, options: tuple[Option, ...]) -> str:
    """The options part of a help text."""
    return _parser(command, options).format_help()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidOptionError(f"{message}; `{self.prog} --help` lists the options")


def _parser(command: str, options: tuple[Option, ...]) -> argparse.ArgumentParser:
    parser = _Parser(
        f"pysandbox {command}",
        usage=argparse.SUPPRESS,  # every command has a text of its own
        add_help=False,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=96),
    )
    for option in options:
        how: dict[str, Any] = {"action": "append", "metavar": option.metavar}
        if not option.metavar:
            how = {"action": "append_const", "const": ""}
        elif option.value_optional:
            how |= {"nargs": "?", "const": ""}
        parser.add_argument(option.name, dest=option.name, help=option.help, **how)
    parser.add_argument(_REST, nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser
