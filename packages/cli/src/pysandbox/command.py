"""The `pysandbox` command: its subcommands and what they take.

Interface: `main` returns the exit status. Subcommands are modules with `HELP`, `OPTIONS` and
`run(parsed)`, imported only when they are asked for: what `pysandbox run -- true` imports is part
of what it costs.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from importlib import import_module

USAGE = """\
usage: pysandbox run [OPTIONS] [--] PROGRAM [ARGUMENTS]   run a program in a sandbox
       pysandbox platforms                                 list the platforms that are installed
       pysandbox doctor                                    say what this host offers
       pysandbox --version

`pysandbox run --help` lists the options.
"""

COMMANDS = {
    "run": "pysandbox.run",
    "platforms": "pysandbox.platforms",
    "doctor": "pysandbox.doctor",
}

STATUS_USAGE = 125


def main(words: list[str] | None = None) -> int:
    """Do what the command line asks for."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # which the program is to inherit
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupted start-up needs no traceback
    from pysandbox_core.errors import SandboxError

    try:
        return _run(sys.argv[1:] if words is None else words)
    except SandboxError as error:
        return fail(str(error))


def _run(words: list[str]) -> int:
    if not words:
        _tell(USAGE)
        return STATUS_USAGE
    name = words[0]
    if name in ("-h", "--help", "help"):
        _say(USAGE)
        return 0
    if name in ("-V", "--version"):
        from pysandbox import __version__

        _say(f"pysandbox {__version__}\n")
        return 0
    if name not in COMMANDS:
        return fail(f"unknown command {name!r}; the commands are {', '.join(COMMANDS)}")
    return _run_command(name, words[1:])


def _run_command(name: str, words: list[str]) -> int:
    from pysandbox.options import describe, parse

    command = import_module(COMMANDS[name])
    parsed = parse(name, command.OPTIONS, words)
    if parsed.has("--help") or parsed.has("-h"):
        _say(f"{command.HELP}\n{describe(name, command.OPTIONS)}")
        return 0
    if parsed.rest and name != "run":
        return fail(f"{name} takes no arguments, and {parsed.rest[0]!r} is one")
    status: int = command.run(parsed)
    return status


def _say(text: str) -> None:
    from pysandbox.output import say

    say(text)


def fail(text: str) -> int:
    """Report a user's mistake in one line."""
    _tell(f"pysandbox: {text}\n")
    return STATUS_USAGE


def _tell(text: str) -> None:
    """Write to standard error, if anybody reads it: the status says it too."""
    if sys.stderr is not None:
        with suppress(OSError):
            os.write(2, text.encode("utf-8", "backslashreplace"))
