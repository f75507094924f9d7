"""/proc/PID/{mounts,mountinfo,mountstats}: what is mounted, below the process's root.

Linux: fs/proc_namespace.c.
"""

from __future__ import annotations

from os import major, minor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pysandbox_core.fs.dentry import Dentry, Path
    from pysandbox_core.fs.mount import Mount
    from pysandbox_core.kernel import Kernel
    from pysandbox_core.task import Task

PATH_MAX = 4096


def escape(text: bytes) -> bytes:
    """As mangle(): characters that would end a field are written in octal."""
    for character in b"\\ \t\n#":
        text = text.replace(b"%c" % character, b"\\%03o" % character)
    return text


def visible(kernel: Kernel, root: Path) -> Iterator[tuple[Mount, bytes]]:
    """Every mount that is below `root`, and where it is from there; not where that is longer than a
    path may be."""
    places: dict[Mount, bytes | None] = {}
    for mount in kernel.mounts.all():  # each after its parent
        place = places[mount] = _place(mount, root, places)
        if place is not None:
            yield mount, place


def _place(mount: Mount, root: Path, places: dict[Mount, bytes | None]) -> bytes | None:
    """Where `mount` is, given the places of those above: they may be stacked 10^5 high."""
    parent = mount.parent
    if mount is root.mount:
        return b"/"
    if parent is None:
        return None
    if parent is root.mount:
        above, top = b"", root.dentry
    else:
        known = places[parent]
        if known is None:
            return None
        above, top = known.rstrip(b"/"), parent.root
    inside = _way(mount.mountpoint, top, PATH_MAX - len(above))
    return None if inside is None else above + inside or b"/"


def _way(dentry: Dentry, top: Dentry, longest: int) -> bytes | None:
    """The path from `top` to `dentry`, empty if they are the same; None if it does not lead there,
    or if it is too long."""
    names = []
    while dentry is not top:
        longest -= len(dentry.name) + 1
        if dentry.parent is dentry or longest <= 0:
            return None
        names.append(b"/" + dentry.name)
        dentry = dentry.parent
    names.reverse()
    return b"".join(names)


def _options(mount: Mount, names: bytes) -> bytes:
    extra = mount.fs.options()
    return names + b"," + extra if extra else names


def mounts(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/mounts"""
    return b"" if target.exited else mounts_text(target.kernel, target.fs.root)


def mounts_text(kernel: Kernel, root: Path) -> bytes:
    """Lines as fstab(5) has them."""
    return b"".join(
        b"%s %s %s %s 0 0\n"
        % (
            escape(mount.source or b"none"), escape(where), mount.fs.type_name,
            _options(mount, mount.option_names()),
        )
        for mount, where in visible(kernel, root)
    )  # fmt: skip


def mountinfo(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/mountinfo"""
    return b"" if target.exited else mountinfo_text(target.kernel, target.fs.root)


def mountinfo_text(kernel: Kernel, root: Path) -> bytes:
    """Lines of proc_pid_mountinfo(5)."""
    lines = []
    for mount, where in visible(kernel, root):
        dev = mount.fs.dev
        parent = 1 if mount.parent is None else mount.parent.id
        inside = _root_inside(mount)
        writable = b"ro" if mount.read_only else b"rw"
        lines.append(
            b"%d %d %d:%d %s %s %s - %s %s %s\n"
            % (
                mount.id, parent, major(dev), minor(dev), escape(inside), escape(where),
                mount.option_names(), mount.fs.type_name, escape(mount.source or b"none"),
                _options(mount, writable),
            )
        )  # fmt: skip
    return b"".join(lines)


def _root_inside(mount: Mount) -> bytes:
    """The path inside the file system that is seen at the mount's top; the end of a long one."""
    names: list[bytes] = []
    dentry = mount.root
    left = PATH_MAX
    while dentry.parent is not dentry and left > 0:
        names.append(dentry.name)
        left -= len(dentry.name) + 1
        dentry = dentry.parent
    names.reverse()
    return b"/" + b"/".join(names)


def mountstats(reader: Task, target: Task, whole: bool) -> bytes:
    """/proc/PID/mountstats"""
    if target.exited:
        return b""
    return b"".join(
        b"device %s mounted on %s with fstype %s\n"
        % (escape(mount.source or b"none"), escape(where), mount.fs.type_name)
        for mount, where in visible(target.kernel, target.fs.root)
    )
