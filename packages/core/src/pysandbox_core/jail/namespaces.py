"""Namespaces of the sentry's own. namespaces(7), user_namespaces(7), pid_namespaces(7)

A process joins a new PID namespace only by being born in it, so the process that is to be the
sentry's parent makes that one, and before it the user namespace whose root may make the others.

Interface: `prepare` in the parent, before it forks; `isolate` in the child. Each returns why a
layer is off, by its name; nothing for what is on. A parent that has prepared keeps its rights to
files; what its own uid is called then, and all others, fs/host_ids.py knows.

The user namespace is made by a child that lives no longer than that, and is joined once its ids are
mapped: hosts that let anybody make one and then take the rights in it away (AppArmor does) would
leave a process without ids otherwise.

Ids. Who may set ids (root) maps every id of the caller's to itself. Anybody else can only map their
own uid and gid: all others then look like the overflow id to the sentry.
"""

from __future__ import annotations

import os
from contextlib import suppress
from errno import ENOENT, EPERM

from pysandbox_core.fs import host_ids
from pysandbox_core.host_calls import effective_capabilities, setns, unshare

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_CAN_SET_IDS = 1 << 6 | 1 << 7
"""CAP_SETGID and CAP_SETUID, capabilities(7)."""

_OF_THE_CHILD = (
    ("mountns", CLONE_NEWNS),
    ("netns", CLONE_NEWNET),
    ("ipcns", CLONE_NEWIPC),
    ("utsns", CLONE_NEWUTS),
    ("cgroupns", CLONE_NEWCGROUP),
)


def prepare(without: frozenset[str]) -> dict[str, str]:
    """Enter a user namespace and make a PID namespace; the caller's next child is process 1 of the
    latter."""
    off: dict[str, str] = {}
    off.update((name, "switched off") for name in ("userns", "pidns") if name in without)
    if "userns" not in off:
        reason = _enter_user_namespace()
        if reason:
            off["userns"] = reason
    if "pidns" not in off:
        try:
            unshare(CLONE_NEWPID)
        except OSError as error:
            off["pidns"] = _refusal(error)
    return off


def isolate(without: frozenset[str]) -> dict[str, str]:
    """Make the other namespaces."""
    off = {}
    for name, flag in _OF_THE_CHILD:
        if name in without:
            off[name] = "switched off"
            continue
        try:
            unshare(flag)
        except OSError as error:
            off[name] = _refusal(error)
    return off


def _refusal(error: OSError) -> str:
    return f"the host refuses it: {error.strerror}"


def _enter_user_namespace() -> str:
    """Why this process is in no new user namespace, "" if it is."""
    maps, ids = _wanted_maps()
    try:
        maker = _Maker()
    except OSError as error:
        return _refusal(error)
    try:
        if maker.error:
            return _refusal(OSError(maker.error, os.strerror(maker.error)))
        for name, text in maps:
            _write(f"/proc/{maker.pid}/{name}", text)
        pidfd = os.pidfd_open(maker.pid)
        try:
            setns(pidfd, CLONE_NEWUSER)
        finally:
            os.close(pidfd)
    except OSError as error:
        if error.errno == ENOENT:
            return "there is no /proc to map ids with"
        reason = f"ids can't be mapped into one: {error.strerror}"
        if error.errno == EPERM and not os.geteuid():
            reason += "; root needs CAP_SETUID, CAP_SETGID and CAP_SETFCAP for that"
        return reason
    finally:
        maker.end()
    if ids is not None:
        host_ids.assume(ids)
    return ""


def _wanted_maps() -> tuple[list[tuple[str, str]], host_ids.HostIds | None]:
    """What to write to which file of /proc/PID; and how to show what it does not map."""
    if effective_capabilities() & _CAN_SET_IDS == _CAN_SET_IDS:
        return [
            (kind, _identity(_read(f"/proc/self/{kind}"))) for kind in ("uid_map", "gid_map")
        ], None
    groups = tuple(group for group in os.getgroups() if group != os.getegid())
    uids = _single("uid", os.geteuid(), ())
    gids = _single("gid", os.getegid(), groups)
    maps = [
        ("setgroups", "deny"),
        ("uid_map", f"{uids.inside} {uids.outside} 1"),
        ("gid_map", f"{gids.inside} {gids.outside} 1"),
    ]
    return maps, host_ids.HostIds(uids, gids, groups)


def _single(kind: str, own: int, others: tuple[int, ...]) -> host_ids.IdMap:
    """The map of one id to itself; to its neighbour if it is what all others look like."""
    overflow = int(_read(f"/proc/sys/kernel/overflow{kind}") or 65534)
    return host_ids.IdMap(own - 1 if own == overflow else own, own, overflow, others)


class _Maker:
    """A child in a user namespace of its own, until `end`."""

    def __init__(self) -> None:
        told, tell = os.pipe()
        held, self._hold = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            with suppress(BaseException):
                os.close(self._hold)
                _make(tell, held)
            os._exit(0)
        os.close(tell)
        os.close(held)
        answer = os.read(told, 4)
        os.close(told)
        self.error = int.from_bytes(answer, "little") if answer else EPERM
        """Why it is not, an errno; killed if it could not even say that."""

    def end(self) -> None:
        os.close(self._hold)
        os.waitpid(self.pid, 0)


def _make(tell: int, held: int) -> None:
    """Make the namespace, tell the errno, and wait until there is no more use for it."""
    error = 0
    try:
        unshare(CLONE_NEWUSER)
    except OSError as refused:
        error = refused.errno or 0
    os.write(tell, error.to_bytes(4, "little"))
    os.read(held, 1)


def _identity(text: str) -> str:
    """Every range of ids that the map `text` has, mapped to itself."""
    lines = []
    for line in text.splitlines():
        first, _, count = line.split()
        lines.append(f"{first} {first} {count}\n")
    return "".join(lines)


def _read(path: str) -> str:
    """A small file of /proc, "" where there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
