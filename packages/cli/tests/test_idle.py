"""A sandbox whose tasks all sleep does not wake up, not once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from command_line import children_of_this_test, pysandbox, start

PROGRAMS = {
    "sleeping": "echo ready; exec sleep 1000",
    "waiting for input": "echo ready; read line",
    "waiting for a child": "echo ready; sleep 1000 & wait",
    "waiting for a pipe": "echo ready; sleep 1000 | cat",
    "threads": "exec python3 -c 'import threading, time\n"
    "for _ in range(3): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
    'print("ready", flush=True); threading.Event().wait()\'',
}


def wake_ups() -> dict[str, int]:
    """How often each thread of the sandbox has gone to sleep until now."""
    counts = {}
    for pid, _ in children_of_this_test():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            for thread in Path(f"/proc/{pid}/task").iterdir():
                for line in (thread / "status").read_text().splitlines():
                    if line.startswith("voluntary_ctxt_switches"):
                        counts[thread.name] = int(line.split()[1])
    return counts


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_wakes_up(name: str) -> None:
    process = start("run", "--", "/bin/sh", "-c", PROGRAMS[name], stdin=-1)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    # until it has settled, and the host has got around to everything: another sandbox's whole life
    before = None
    while before != wake_ups():
        before = wake_ups()
        pysandbox("run", "--", "/bin/true")
    for _ in range(3):
        pysandbox("run", "--", "/bin/true")
        assert wake_ups() == before
    process.kill()
    process.communicate()
