"""Looking at a sentry from the host: which process it is, and how much memory is its own."""

from __future__ import annotations

import os
from pathlib import Path


def children(pid: int) -> list[int]:
    """Of all threads of a process."""
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        found += Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
    return [int(child) for child in found]


def sentry_of(front: int) -> int:
    """The sentry that the process `front` (the command, or the SDK's server) has forked."""
    (sentry,) = children(front)
    return sentry


def anonymous_bytes(pid: int) -> int:
    """Memory that is the process's alone: what its own objects take, and not the sandbox's pages.
    proc_pid_status(5), RssAnon"""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"no RssAnon in /proc/{pid}/status")


def open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
