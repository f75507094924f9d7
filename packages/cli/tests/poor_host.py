"""A host that has less than this one: `python poor_host.py WHAT… -- COMMAND…` runs COMMAND on it.

Run as root. What is taken away, in the order given, and from COMMAND and its children alone:

    user=N            run as uid and gid N, without other groups and without capabilities
    groups=A,B        supplementary groups, before `user`
    no-capabilities   still uid 0, but without one capability
    no-namespaces     unshare, setns, mount and pivot_root are EPERM, as in a container's profile
    no-userns         no more user namespaces may be made, but root has all its rights
    no-filters        seccomp is EINVAL: a kernel without filters
    no-landlock       Landlock's calls are ENOSYS: an old kernel
    old-kernel        openat2, close_range, mount_setattr, faccessat2, pidfd_open are ENOSYS
    masked-proc       parts of /proc are covered, as container engines do it
    no-proc           /proc is not mounted
    read-only         nothing in / can be written, as with docker run --read-only
    chroot            the root is a directory that is no mount point
    inherit=FD        descriptor FD is open on /etc
    kvm-for-all       everybody may use /dev/kvm: nothing less, but what `user` may lack

Another user can run the Python that root has kept for itself: what is in the way to it is covered,
here alone.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
import tempfile
from collections.abc import Callable
from errno import EINVAL, ENOSYS, EPERM
from pathlib import Path

from pysandbox_core.abi.numbers_amd64 import NUMBERS
from pysandbox_core.host_calls import (
    drop_capabilities,
    mount,
    prctl,
    seccomp_filter,
    umount2,
    unshare,
)
from pysandbox_core.jail.namespaces import prepare

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 1, 0x20, 0x1000, 0x4000, 0x40000, 2
CLONE_NEWNS = 0x20000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38


def user(number: str) -> None:
    for capability in range(41):
        prctl(PR_CAPBSET_DROP, capability)
    os.setresgid(int(number), int(number), int(number))
    if not os.environ.pop("POOR_HOST_GROUPS", None):
        os.setgroups([])
    os.setresuid(int(number), int(number), int(number))


def groups(numbers: str) -> None:
    os.setgroups([int(number) for number in numbers.split(",")])
    os.environ["POOR_HOST_GROUPS"] = "set"


def no_capabilities(_: str) -> None:
    for capability in range(41):
        prctl(PR_CAPBSET_DROP, capability)
    drop_capabilities()


def refuse(errno: int, *names: str) -> None:
    """A filter that answers the calls `names` with `errno` and allows all others."""
    load, equal, give = 0x20, 0x15, 0x06
    code = [(load, 0, 0, 0)]
    for name in names:
        code += [(equal, 0, 1, NUMBERS[name]), (give, 0, 0, 0x50000 | errno)]
    code.append((give, 0, 0, 0x7FFF0000))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    seccomp_filter(b"".join(struct.pack("=HBBI", *step) for step in code), 0)


def no_namespaces(_: str) -> None:
    refuse(EPERM, "unshare", "setns", "mount", "pivot_root", "mount_setattr")


def no_userns(_: str) -> None:
    """The limit counts in a user namespace, this one's own."""
    off = prepare(frozenset({"pidns"}))
    assert "userns" not in off, off
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="ascii") as file:
        file.write("0")


def no_filters(_: str) -> None:
    refuse(EINVAL, "seccomp")


def no_landlock(_: str) -> None:
    refuse(ENOSYS, "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")


def old_kernel(_: str) -> None:
    refuse(ENOSYS, "openat2", "close_range", "mount_setattr", "faccessat2", "pidfd_open")


def own_mounts() -> None:
    unshare(CLONE_NEWNS)
    mount(b"", b"/", b"", MS_REC | MS_PRIVATE)


def masked_proc(_: str) -> None:
    own_mounts()
    for path in (b"/proc/bus", b"/proc/fs", b"/proc/irq", b"/proc/acpi"):
        if os.path.isdir(path):
            mount(b"none", path, b"tmpfs", 1)
    mount(b"/dev/null", b"/proc/keys", b"", MS_BIND)


def no_proc(_: str) -> None:
    own_mounts()
    umount2(b"/proc", MNT_DETACH)


def read_only(_: str) -> None:
    own_mounts()
    mount(b"", b"/", b"", MS_REMOUNT | MS_BIND | MS_RDONLY)


def chroot(_: str) -> None:
    own_mounts()
    base = next(place for place in (b"/mnt", b"/media", b"/srv", b"/opt") if os.path.isdir(place))
    mount(b"none", base, b"tmpfs", 0, b"mode=755")
    root = base + b"/root"
    os.mkdir(root)
    os.chmod(root, 0o755)
    whole = {"proc", "dev", "sys", *(path.parts[1] for path in _covered)}
    for name in os.listdir("/"):
        source, target = b"/" + name.encode(), root + b"/" + name.encode()
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
        elif os.path.isdir(source):
            os.mkdir(target)
            mount(source, target, b"", MS_BIND | (MS_REC if name in whole else 0))
    os.chroot(root)
    os.chdir("/")


def kvm_for_all(_: str) -> None:
    own_mounts()
    with tempfile.TemporaryDirectory() as name:
        folder = os.fsencode(name)
        mount(b"none", folder, b"tmpfs", 0)
        node = folder + b"/kvm"
        os.mknod(node, stat.S_IFCHR, os.stat("/dev/kvm").st_rdev)
        os.chmod(node, 0o666)
        mount(node, b"/dev/kvm", b"", MS_BIND)
        umount2(folder, MNT_DETACH)


def inherit(number: str) -> None:
    fd = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(fd, int(number), inheritable=True)


_covered: dict[Path, int] = {}
"""Directory that only root may search -> a descriptor of what it was."""


def let_others_run_python() -> None:
    """Cover the directories that only root may search, on the way to what Python needs, by ones
    that have the way alone."""
    here = [sys.executable, sys.prefix, sys.base_prefix, *sys.path]
    needed = {Path(path).absolute() for path in here if path and os.path.exists(path)}
    for target in sorted(needed | {path.resolve() for path in needed}):
        for directory in reversed(target.parents):
            if directory in _covered or not directory.stat().st_mode & 0o001:
                open_way(directory, target.relative_to(directory).parts[0])


def open_way(directory: Path, name: str) -> None:
    if directory not in _covered:
        if not _covered:
            own_mounts()
        _covered[directory] = os.open(directory, os.O_PATH)
        mount(b"none", os.fsencode(directory), b"tmpfs", 0, b"mode=755")
    entry = directory / name
    if not entry.exists():
        source = Path(f"/proc/self/fd/{_covered[directory]}", name)
        if source.is_dir():
            entry.mkdir()
        else:
            entry.touch()
        mount(os.fsencode(source), os.fsencode(entry), b"", MS_BIND | MS_REC)


def main() -> None:
    separator = sys.argv.index("--")
    if any(what.startswith("user=") for what in sys.argv[1:separator]):
        let_others_run_python()
        for fd in _covered.values():
            os.close(fd)
    for what in sys.argv[1:separator]:
        name, _, value = what.partition("=")
        step: Callable[[str], None] = globals()[name.replace("-", "_")]
        step(value)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: setuid has cleared it
    command = sys.argv[separator + 1 :]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
