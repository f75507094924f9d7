"""`pysandbox doctor`: what this host offers to sandboxes, line by line, and how to get the rest.

Interface: `checks()` gives a `Finding` for each thing looked at. Every check looks for itself,
changes nothing, and never raises: what can't be found out is said to be unknown.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING, NamedTuple

from pysandbox.options import Option, Parsed

if TYPE_CHECKING:
    from collections.abc import Iterator

HELP = """\
usage: pysandbox doctor

Say what this host offers to sandboxes: the kernel's features that platforms and the sentry use, how
to get those that are missing, and what each installed platform and hook plugin says of itself.
"""

OPTIONS = (Option("--help", "", "show this"), Option("-h", "", "show this"))

YES, NO, INFO = "ok", "missing", "info"


class Finding(NamedTuple):
    """One line of the report."""

    state: str
    """YES, NO or INFO."""
    what: str
    text: str
    advice: str = ""
    """How to get it, for what is missing."""


def run(parsed: Parsed) -> int:
    """Print the report; 0 if a sandbox can run here, 1 otherwise."""
    findings = [*checks(), *hook_findings()]
    sections = platform_findings()
    for finding in (*findings, *sections):
        sys.stdout.write(f"{finding.state:<8} {finding.what:<18} {finding.text}\n")
        if finding.state == NO and finding.advice:
            sys.stdout.write(f"{'':<27} -> {finding.advice}\n")
    usable = any(f.state == YES and f.what.startswith("platform ") for f in sections)
    sys.stdout.write("\n" + ("A sandbox can run here.\n" if usable else "No platform is usable.\n"))
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
    yield yama()
    yield seccomp()
    yield user_namespaces()
    yield landlock()
    yield kvm()
    yield memfd()


def yama() -> Finding:
    """May a process trace its own children? Documentation/admin-guide/LSM/Yama.rst"""
    scope = _read("/proc/sys/kernel/yama/ptrace_scope")
    if not scope:
        return Finding(YES, "ptrace", "not restricted (no Yama)")
    meanings = {
        "0": "not restricted",
        "1": "children may be traced, which is all that is needed",
        "2": "only with CAP_SYS_PTRACE",
        "3": "switched off until the next boot",
    }
    state = YES if scope in ("0", "1") else NO
    return Finding(
        state,
        "ptrace",
        f"Yama scope {scope}: {meanings.get(scope, 'unknown')}",
        "as root: sysctl kernel.yama.ptrace_scope=1 (scope 3 needs a reboot)",
    )


def seccomp() -> Finding:
    """Filters for the stubs, and later for the sentry. seccomp(2)"""
    actions = _read("/proc/sys/kernel/seccomp/actions_avail")
    filters = "kill_process" in actions
    return Finding(
        YES if filters else NO,
        "seccomp",
        f"filters with {actions}" if filters else "no filters",
        "needs a kernel with CONFIG_SECCOMP_FILTER, 4.14 or later",
    )


def user_namespaces() -> Finding:
    """Can this user make a user namespace? Tried in a child, for sysctls do not tell all."""
    advice = (
        "as root: sysctl user.max_user_namespaces=10000, and where they exist "
        "kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0"
    )
    try:
        import subprocess

        code = (
            "import ctypes, os, sys; libc = ctypes.CDLL(None, use_errno=True); "
            "sys.exit(0 if libc.unshare(0x10000000) == 0 else ctypes.get_errno() or 1)"
        )
        status = subprocess.run([sys.executable, "-I", "-c", code], check=False).returncode
    except OSError as error:
        return Finding(NO, "user namespaces", f"unknown: {error}", advice)
    if status == 0:
        return Finding(YES, "user namespaces", "this user can make them")
    return Finding(NO, "user namespaces", f"refused: {os.strerror(status)}", advice)


def landlock() -> Finding:
    """Is the Landlock security module there? Documentation/userspace-api/landlock.rst"""
    modules = _read("/sys/kernel/security/lsm")
    if "landlock" in modules.split(","):
        return Finding(YES, "landlock", "enabled")
    version = _landlock_version()
    if version > 0:
        return Finding(YES, "landlock", f"ABI version {version}")
    return Finding(
        NO,
        "landlock",
        "not enabled",
        "needs a kernel of 5.13 or later with CONFIG_SECURITY_LANDLOCK, and lsm=…,landlock",
    )


def _landlock_version() -> int:
    """What landlock_create_ruleset(2) says to LANDLOCK_CREATE_RULESET_VERSION; 0 if it is not
    there."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(444, None, 0, 1)))


def kvm() -> Finding:
    """Is /dev/kvm there, and may we use it?"""
    path = "/dev/kvm"
    if not os.path.exists(path):
        return Finding(
            NO,
            "kvm",
            "no /dev/kvm",
            "only for the kvm platform: load kvm_intel or kvm_amd, or let the hypervisor nest",
        )
    if os.access(path, os.R_OK | os.W_OK):
        return Finding(YES, "kvm", "/dev/kvm can be opened")
    return Finding(NO, "kvm", "/dev/kvm: permission denied", "as root: usermod -aG kvm USER")


def memfd() -> Finding:
    """memfd_create(2), which holds the sandbox's memory."""
    try:
        os.close(os.memfd_create("pysandbox-doctor", os.MFD_CLOEXEC))
    except OSError as error:
        return Finding(NO, "memfd", str(error), "needs a kernel of 3.17 or later")
    return Finding(YES, "memfd", "memory files can be made")


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


def _read(path: str) -> str:
    """The contents of a small file of the kernel's, "" if it can't be read."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
