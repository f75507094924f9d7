"""The `pysandbox` command: its subcommands and what they take.

Interface: `main` returns the exit status. Subcommands are modules with `HELP`, `OPTIONS` and
`run(parsed)`, imported only when they are asked for: what `pysandbox run -- true` imports is part
of what it costs.
"""

from __future__ import annotations

import signal
import sys
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
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupted start-up needs no traceback
    words = sys.argv[1:] if words is None else words
    if not words:
        sys.stderr.write(USAGE)
        return STATUS_USAGE
    name = words[0]
    if name in ("-h", "--help", "help"):
        sys.stdout.write(USAGE)
        return 0
    if name in ("-V", "--version"):
        from pysandbox import __version__

        sys.stdout.write(f"pysandbox {__version__}\n")
        return 0
    if name not in COMMANDS:
        return fail(f"unknown command {name!r}; the commands are {', '.join(COMMANDS)}")
    return _run_command(name, words[1:])


def _run_command(name: str, words: list[str]) -> int:
    from pysandbox_core.errors import SandboxError

    from pysandbox.options import describe, parse

    command = import_module(COMMANDS[name])
    try:
        parsed = parse(name, command.OPTIONS, words)
        if parsed.has("--help") or parsed.has("-h"):
            sys.stdout.write(f"{command.HELP}\n{describe(name, command.OPTIONS)}")
            return 0
        status: int = command.run(parsed)
        return status
    except SandboxError as error:
        return fail(str(error))


def fail(text: str) -> int:
    """Report a user's mistake in one line."""
    sys.stderr.write(f"pysandbox: {text}\n".encode("utf-8", "backslashreplace").decode())
    return STATUS_USAGE
