"""`pysandbox doctor`: what this host offers to sandboxes, line by line, and how to get the rest.

Interface: `checks()` gives a `Finding` for each thing looked at. Every check looks for itself,
changes nothing, and never raises. What one platform alone needs is not looked at here: its probe
says it, and `platform_findings` passes it on. Which layers the jail would have is not guessed:
`jail_findings` enters one.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING, NamedTuple

from pysandbox.options import Option, Parsed
from pysandbox.output import say

if TYPE_CHECKING:
    from collections.abc import Iterator

HELP = """\
usage: pysandbox doctor

Say what this host offers to sandboxes: what the kernel has, which layers of the jail are on, how to
get those that are off, and what each installed platform and hook plugin says of itself. The layers
are found out by entering a jail with the platform that a sandbox would use.
"""

OPTIONS = (Option("--help", "", "show this"), Option("-h", "", "show this"))

YES, NO, INFO = "ok", "missing", "info"
ON, OFF = "on", "off"
"""Of a layer of the jail."""


class Finding(NamedTuple):
    """One line of the report."""

    state: str
    """YES, NO, INFO, ON or OFF."""
    what: str
    text: str
    advice: str = ""
    """How to get it, for what is missing or off."""


def run(parsed: Parsed) -> int:
    """Print the report; 0 if a sandbox can run here, 1 otherwise."""
    sections = platform_findings()
    layers, summary = jail_findings()
    for finding in (*checks(), *layers, *hook_findings(), *sections):
        say(f"{finding.state:<8} {finding.what:<18} {finding.text}\n")
        if finding.state in (NO, OFF) and finding.advice:
            say(f"{'':<27} -> {finding.advice}\n")
    usable = any(f.state == YES and f.what.startswith("platform ") for f in sections)
    say(f"\n{summary}\n")
    say("A sandbox can run here.\n" if usable else "No platform is usable.\n")
    return 0 if usable else 1


def checks() -> Iterator[Finding]:
    """What the host offers, whatever platforms are installed."""
    machine = platform.machine()
    yield Finding(
        YES if machine == "x86_64" else NO,
        "architecture",
        machine,
        "PySandbox runs on x86-64 alone",
    )
    yield Finding(INFO, "kernel", f"{platform.system()} {platform.release()}")
    yield Finding(INFO, "python", f"{platform.python_version()} ({sys.executable})")
    yield Finding(INFO, "processors", str(len(os.sched_getaffinity(0))))
    yield memfd()


def memfd() -> Finding:
    """memfd_create(2), which holds the sandbox's memory."""
    try:
        os.close(os.memfd_create("pysandbox-doctor", os.MFD_CLOEXEC))
    except OSError as error:
        return Finding(NO, "memfd", str(error), "needs a kernel of 3.17 or later")
    return Finding(YES, "memfd", "memory files can be made")


def jail_findings() -> tuple[list[Finding], str]:
    """Each layer of the jail, as it is in a trial, and what that comes to, in a line."""
    from pysandbox_core.choice import AUTO, choose_platform
    from pysandbox_core.errors import PlatformChoiceError
    from pysandbox_core.jail.layers import LAYERS
    from pysandbox_core.jail.trial import try_jail

    try:
        platform_class = choose_platform(AUTO)
    except PlatformChoiceError:
        platform_class = None
    trial = try_jail(platform_class)
    if trial.failure:
        return [Finding(NO, "jail", trial.failure)], "The jail can't be entered."
    findings = [
        Finding(
            OFF if layer.name in trial.off else ON,
            f"layer {layer.name}",
            trial.off.get(layer.name) or layer.what,
            layer.advice,
        )
        for layer in LAYERS
    ]
    if not trial.off:
        return findings, "The jail is complete."
    return findings, f"The jail has no {', no '.join(trial.off)}."


def platform_findings() -> list[Finding]:
    """What each installed platform says of itself."""
    from pysandbox_platform import discovery

    findings = []
    for item in discovery.platforms():
        usable = item.probe.usable
        findings.append(
            Finding(YES if usable else NO, f"platform {item.name}", item.error or item.probe.reason)
        )
        findings += [
            Finding(INFO, f"  {name}", value) for name, value in sorted(item.probe.details.items())
        ]
    if not findings:
        advice = "pip install pysandbox-platform-ptrace"
        findings.append(Finding(NO, "platforms", "none is installed", advice))
    return findings


def hook_findings() -> Iterator[Finding]:
    """The hook plugins that every sandbox of this environment calls."""
    from pysandbox_core.hook_calls import GROUP
    from pysandbox_platform.entry_points import resolve, scan

    for name, value in sorted(scan(GROUP).items()):
        try:
            resolve(value)
        except (Exception, SystemExit) as error:
            reason = f"broken: {type(error).__name__}: {error}"
            yield Finding(NO, f"hooks {name}", reason, f"repair or remove what publishes {value}")
        else:
            yield Finding(YES, f"hooks {name}", f"used by every sandbox ({value})")
