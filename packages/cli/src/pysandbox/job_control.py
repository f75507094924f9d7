"""Job control of the command: stopping with the program (^Z), and going on with it.

Interface: `Job` for the front, on whose signals and requests of the sentry it acts.
"""

from __future__ import annotations

import os
import signal

from pysandbox_core.sentry import PROGRAM_CONTINUED


class Job:
    """Stopping with the program, and going on with it.

    A program may stop itself. We stop with it only where a shell with jobs has started us, or when
    we were asked to (^Z), or are in the background, where it may want to read from the terminal: a
    script in the foreground would wait for us for ever, whatever our timeout.

    A SIGCONT may come before we have stopped: a shell sees that the script around us has, and the
    user is quick. It ends the stop that is under way, as the host does it for its own.
    """

    def __init__(self, sentry: int, requests: int) -> None:
        self._sentry = sentry
        self._requests = requests
        self._leads = os.getpgrp() == os.getpid()
        self._was_told = False
        """To stop, by SIGTSTP."""
        self._was_continued = False
        """The sentry has a SIGCONT to forward, and has not said so yet."""
        self._stopping = False
        """The sentry was sent SIGSTOP; when it has stopped, so do we."""

    def signalled(self, signo: int) -> None:
        if signo == signal.SIGTSTP:
            self._was_told = True
        elif signo == signal.SIGCONT:
            self._was_told = self._stopping = False
            self._was_continued = True

    def read_requests(self) -> None:
        """There may be some."""
        try:
            said = os.read(self._requests, 1 << 16)
        except OSError:  # somebody else's signal
            return
        _, continued, last = said.rpartition(PROGRAM_CONTINUED)
        if continued:
            self._was_continued = False
        if not last or self._was_continued:
            return
        if self._leads or self._was_told or is_in_background():
            os.kill(self._sentry, signal.SIGSTOP)
            self._stopping = True
            self._was_told = False

    def sentry_stopped(self) -> None:
        """It stops with its program; whoever continues us continues both."""
        if self._stopping and signal.SIGCONT not in signal.sigpending():
            self._stopping = False
            os.kill(os.getpid(), signal.SIGSTOP)


def is_in_background() -> bool:
    """Does the terminal belong to others now? Who reads from it is stopped then."""
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(fd) != os.getpgrp()
    finally:
        os.close(fd)
