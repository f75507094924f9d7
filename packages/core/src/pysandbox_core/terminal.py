"""Putting the caller's terminal back as it was, however the sandbox ended.

Interface: `save()` before a sandbox starts, by the process that outlives it; the function that it
returns is called when the sandbox has ended. Without a terminal both do nothing.
"""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Callable
from contextlib import suppress


def save(host_fds: tuple[int, ...] = (0, 1, 2)) -> Callable[[], None]:
    """Remember the settings of the terminals among `host_fds`; the result puts them back."""
    saved: dict[int, tuple[int, list[object]]] = {}
    for host_fd in host_fds:
        with suppress(OSError, termios.error):
            device = os.fstat(host_fd).st_rdev
            if os.isatty(host_fd) and device not in saved:
                saved[device] = (host_fd, termios.tcgetattr(host_fd))

    def restore() -> None:
        for host_fd, settings in saved.values():
            with suppress(OSError, termios.error):
                _restore(host_fd, settings)

    return restore


def _restore(host_fd: int, settings: list[object]) -> None:
    """Also from the background, where SIGTTOU would stop us."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        # Output that a program has stopped so is not started by any key: the next who writes,
        # which may be we, would wait for ever. What the user has stopped with ^S is left alone.
        termios.tcflow(host_fd, termios.TCOON)
        if termios.tcgetattr(host_fd) != settings:
            termios.tcsetattr(host_fd, termios.TCSADRAIN, settings)  # type: ignore[arg-type]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
