"""Standard descriptors that the caller has closed.

The lowest free number is what open(2) gives, so a process that was started with a standard
descriptor closed would get something of its own there, and hand it to the program as if it were the
caller's.

Interface: `occupy` before anything is opened.
"""

from __future__ import annotations

import os

CLOSED = -1


def occupy() -> tuple[int, int, int]:
    """Put something useless where a standard descriptor is closed. The caller's standard input,
    output and error; CLOSED for what is not there."""
    found = [0, 1, 2]
    for fd in found:
        try:
            os.fstat(fd)
        except OSError:
            os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # gets this very number
            found[fd] = CLOSED
    return found[0], found[1], found[2]
