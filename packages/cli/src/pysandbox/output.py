"""What the command itself has to say on standard output: help, lists, reports.

Interface: `say` writes text there, all of it and at once. That it can't is a SandboxError; a reader
that has gone away ends the process as it ends other programs, with SIGPIPE.
"""

from __future__ import annotations

import os
import signal
import sys

from pysandbox_core.errors import SandboxError


def say(text: str) -> None:
    """Write `text` to standard output."""
    if sys.stdout is None:  # closed by the caller: descriptor 1 may be something of our own
        raise SandboxError("standard output is closed")
    left = text.encode("utf-8", "backslashreplace")
    try:
        while left:
            left = left[os.write(1, left) :]
    except BrokenPipeError:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    except OSError as error:
        raise SandboxError(f"standard output can't be written: {error.strerror}") from None
