"""A root of the sentry's own, that holds what the sandbox has of the host and nothing else.
pivot_root(2), mount_setattr(2)

    /lower      what lies below the sandbox's root, read-only
    /bind/N     the binds in order, read-only where they are
    /proc       the processes of the sandbox, by id, or this one's descriptors alone
    /DEVICE     what the platform opens, as /dev/kvm

File systems that speak of the host (proc, sysfs, devtmpfs, ...) are covered by an empty directory
wherever they lie in these. Devices can't be opened, set-user-id bits mean nothing.

Interface: `enter` in a mount namespace of our own. It moves each `Source` to where it lies now, or
raises OSError if the host refuses that, with everything as it was; later failures are SandboxError.
"""

from __future__ import annotations

import os
from contextlib import suppress
from errno import EINVAL, ENOENT
from typing import TYPE_CHECKING

from pysandbox_core.errors import SandboxError
from pysandbox_core.fs.host_tree import KERNEL_INTERFACES
from pysandbox_core.host_calls import mount, mount_setattr, pivot_root, setns, umount2
from pysandbox_core.jail.namespaces import CLONE_NEWNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pysandbox_core.fs.sources import Source

_MS_RDONLY = 0x1
_MS_NOSUID = 0x2
_MS_NODEV = 0x4
_MS_NOEXEC = 0x8
_MS_REMOUNT = 0x20
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MNT_DETACH = 2

_ATTR_RDONLY = 0x1
_ATTR_NOSUID = 0x2
_ATTR_NODEV = 0x4

_AT_FDCWD = -100

_PLACES = ("/tmp", "/mnt", "/run", "/var", "/dev")
_OLD = b"/.host"
_OWN_MOUNTS = b"/proc/self/mountinfo"
_EMPTY_DIRECTORY = b"/.nothing"
_EMPTY_FILE = b"/.empty"


def enter(sources: Sequence[Source], devices: Iterable[bytes], *, own_processes: bool) -> None:
    """Build the root and make it this process's. `devices` are absolute paths of the host's;
    `own_processes`: there is a PID namespace that /proc may show."""
    host_mounts = _interfaces(_OWN_MOUNTS)
    _make_private()
    base = _place()
    try:
        has_proc = _mount_base(base, own_processes)
        if host_mounts is None:
            host_mounts = _interfaces(base + _OWN_MOUNTS, ours=base + b"/proc")
        if host_mounts is None:
            raise OSError(ENOENT, "there is no /proc, and none can be mounted")
        try:
            pivot_root(base, base + _OLD)
        except OSError as error:
            if error.errno != EINVAL:
                raise
            umount2(base, _MNT_DETACH)
            _make_root_a_mount(base)
            has_proc = _mount_base(base, own_processes)
            pivot_root(base, base + _OLD)
    except OSError:
        with suppress(OSError):
            umount2(base, _MNT_DETACH)
        raise
    try:
        os.chdir("/")
        _fill(sources, devices, host_mounts)
        if not has_proc:  # the host hides parts of its own: our descriptors alone
            os.makedirs(b"/proc/self/fd")
            mount(_OLD + b"/proc/self/fd", b"/proc/self/fd", b"", _MS_BIND)
        umount2(_OLD, _MNT_DETACH)
        os.rmdir(_OLD)
        flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        mount(b"", b"/", b"", _MS_REMOUNT | _MS_BIND | flags)
    except OSError as error:
        raise SandboxError(
            f"the jail's root can't be made: {error.strerror}; try again --without=mountns"
        ) from error


def _make_private() -> None:
    """Nothing that is mounted from now on is seen in another mount namespace."""
    try:
        mount(b"", b"/", b"", _MS_REC | _MS_PRIVATE)
        return
    except OSError as error:
        if error.errno != EINVAL:
            raise
    # chroot(2): the mount that our root lies in has no path here. Who joins a mount namespace,
    # also the one he is in, is at its real root.
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    itself = os.pidfd_open(os.getpid())
    try:
        setns(itself, CLONE_NEWNS)
        mount(b"", b"/", b"", _MS_REC | _MS_PRIVATE)
    finally:
        os.fchdir(root)
        os.chroot(".")
        os.close(itself)
        os.close(root)


def _make_root_a_mount(base: bytes) -> None:
    """pivot_root(2) moves mounts that lie in another one: the root of a chroot(2) is no mount, and
    the initramfs lies in none. As a mount at `base` it is one."""
    mount(b"/", base, b"", _MS_BIND | _MS_REC)
    os.chdir(base)
    os.chroot(".")


def _place() -> bytes:
    """Where the new root is put together: any directory will do, it is out of sight afterwards.
    Ours is there if no other is."""
    known = next((place for place in _PLACES if os.path.isdir(place)), os.path.dirname(os.__file__))
    return os.fsencode(known)


def _mount_base(base: bytes, own_processes: bool) -> bool:
    """An empty root with, if the host lets us, a /proc that has the processes of our PID namespace
    and nothing else of proc(5). Is there one?"""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    mount(b"pysandbox", base, b"tmpfs", flags, b"mode=0755,size=1m")
    mount_setattr(_AT_FDCWD, base, _ATTR_NOSUID)  # tells a host that can't do it, while we can stop
    os.mkdir(base + _OLD)
    os.mkdir(base + b"/proc")
    for options in (b"subset=pid", b"") if own_processes else ():
        with suppress(OSError):
            mount(b"proc", base + b"/proc", b"proc", flags, options)
            return True
    return False


def _fill(
    sources: Sequence[Source], devices: Iterable[bytes], host_mounts: list[tuple[bytes, bool]]
) -> None:
    os.mkdir(_EMPTY_DIRECTORY, 0o555)
    _touch(_EMPTY_FILE)
    os.mkdir(b"/bind")
    for number, source in enumerate(sources):
        place = b"/bind/%d" % number if number else b"/lower"
        os.mkdir(place)
        if source.name:  # one file, in a directory that has nothing else
            _touch(place + b"/" + source.name)
            _bind(source.path, place + b"/" + source.name, writable=source.writable)
        else:
            _bind(source.path, place, writable=source.writable)
            _cover(source.path, place, host_mounts)
            _cover_files(place, source.hidden)
        source.directory = place
    for device in devices:
        if os.path.exists(_OLD + device):
            os.makedirs(os.path.dirname(device), exist_ok=True)
            _touch(device)
            mount(_OLD + device, device, b"", _MS_BIND)


def _bind(source: bytes, place: bytes, *, writable: bool) -> None:
    mount(_OLD + os.path.realpath(source), place, b"", _MS_BIND | _MS_REC)
    attributes = _ATTR_NOSUID | _ATTR_NODEV | (0 if writable else _ATTR_RDONLY)
    mount_setattr(_AT_FDCWD, place, attributes)


def _cover(source: bytes, place: bytes, host_mounts: list[tuple[bytes, bool]]) -> None:
    """Hide the file systems that speak of the host, beneath `source` as it lies at `place`."""
    prefix = source.rstrip(b"/") + b"/"
    for path, is_directory in host_mounts:
        if path == source:
            mount(_EMPTY_DIRECTORY, place, b"", _MS_BIND)
        elif path.startswith(prefix):
            target = place + b"/" + path[len(prefix) :]
            with suppress(FileNotFoundError):  # it lies below another one, which is covered
                mount(_EMPTY_DIRECTORY if is_directory else _EMPTY_FILE, target, b"", _MS_BIND)


def _cover_files(place: bytes, paths: Iterable[bytes]) -> None:
    """Hide files, beneath `place`."""
    for path in paths:
        target = place + b"/" + path
        if os.path.isfile(target) and os.path.realpath(target) == target:  # no link, its text leads
            mount(_EMPTY_FILE, target, b"", _MS_BIND)  # elsewhere in this root


def _touch(path: bytes) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))


def _interfaces(mounts: bytes, ours: bytes = b"") -> list[tuple[bytes, bool]] | None:
    """(mount point, is it a directory?) of every kernel interface of the host, outer ones first,
    without `ours`. `mounts` is the file that says it; None if it is not there.
    proc_pid_mountinfo(5)"""
    try:
        with open(mounts, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        fields = line.split(b" ")
        kind = fields[fields.index(b"-", 6) + 1].decode()
        if kind in KERNEL_INTERFACES:
            path = fields[4].decode("unicode_escape").encode("latin-1")
            if path != ours:
                found.append((path, os.path.isdir(path)))
    return found
