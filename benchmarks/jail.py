"""What the jail adds to a start: from the fork of the sentry until it could start a program.

`python benchmarks/jail.py [ROUNDS]`: sentries with and without a jail, in turns, so that whatever
else the machine does happens to both; medians, in milliseconds.
"""

from __future__ import annotations

import os
import statistics
import sys
import time

from pysandbox_core import config, sentry
from pysandbox_core.choice import choose_platform
from pysandbox_core.jail import allowed, bpf, jail, landlock, namespaces, preload, privileges, root

IMPORTED = (allowed, bpf, jail, landlock, namespaces, preload, privileges, root)
"""Before the clock starts, as `pysandbox run` would have most of them."""


def start(platform: str, *, jailed: bool) -> float:
    """Milliseconds until a sentry is ready."""
    platform_class = choose_platform(platform)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # the front: it comes to be in the jail's user namespace
        started = time.perf_counter()
        prison = jail.Jail() if jailed else None
        child = prison.fork() if prison else os.fork()
        if child:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        ready = sentry.Sentry(config.SandboxConfig(), platform_class, jail=prison, own_fds=[writer])
        os.write(writer, repr(time.perf_counter() - started).encode())
        ready.close()
        os._exit(0)
    os.close(writer)
    text = os.read(reader, 100)
    os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status or not text:
        raise RuntimeError(f"a sentry did not start: {status}")
    return float(text) * 1e3


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    pairs = [(start("ptrace", jailed=False), start("ptrace", jailed=True)) for _ in range(rounds)]
    without, within = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"sentry ready: {without:.1f} ms without a jail, {within:.1f} ms in it,", end=" ")
    print(f"{within - without:.1f} ms more ({len(IMPORTED)} modules imported before)")


if __name__ == "__main__":
    main()
