"""What the jail would be here: found out by entering one.

Interface: `try_jail` in a process without other threads; it is as it was afterwards. A child does
what a sandbox's start does as far as the jail goes, tells what came of it, and ends; nothing
untrusted runs in it.
"""

from __future__ import annotations

import json
import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from pysandbox_platform import Platform

from pysandbox_core.config import SandboxConfig
from pysandbox_core.fs.sources import find_sources
from pysandbox_core.jail.jail import Jail

if TYPE_CHECKING:
    from typing import NoReturn

_TIMEOUT_MS = 30_000
"""For a host that hangs; entering takes some milliseconds."""


class Trial(NamedTuple):
    """What came of it."""

    off: dict[str, str]
    """Why a layer is off, by its name."""
    failure: str = ""
    """Why there would be no sandbox at all; `off` says nothing then."""


def try_jail(platform: type[Platform] | None) -> Trial:
    """Enter a jail with every layer that the host allows, and open `platform` in it, if there is
    one."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        _try_in_child(platform, tell)
    os.close(tell)
    text = b""
    poll = select.poll()
    poll.register(told, select.POLLIN)
    while poll.poll(_TIMEOUT_MS):
        more = os.read(told, 1 << 16)
        if not more:
            break
        text += more
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(told)
    status = os.waitpid(pid, 0)[1]
    try:
        return Trial(**json.loads(text))
    except ValueError:
        return Trial({}, f"entering it ended with wait status {status:#x}, and without a word")


def _try_in_child(platform: type[Platform] | None, tell: int) -> NoReturn:
    """In a process that the namespaces can be made of; its child is in them."""
    try:
        jail = Jail()
        sentry = jail.fork()
        if sentry:
            os.close(tell)
            os._exit(os.waitpid(sentry, 0)[1] & 0x7F)
        answer = Trial(_enter(jail, platform, tell))
    except Exception as error:
        answer = Trial({}, str(error) or type(error).__name__)
    with suppress(OSError):
        os.write(tell, json.dumps(answer._asdict()).encode())
    os._exit(0)


def _enter(jail: Jail, platform: type[Platform] | None, tell: int) -> dict[str, str]:
    jail.close_inherited({tell})
    jail.enter(find_sources(SandboxConfig()), platform or _NoPlatform, [])
    if platform is not None:
        platform()  # ends with this process
    jail.seal(platform or _NoPlatform)
    return jail.off


class _NoPlatform(Platform):
    """Stands for one where none can be used; never made."""

    name = "none"
    host_calls = ()
