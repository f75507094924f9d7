"""The jail's layers by name: what each is for, and what to do where the host refuses it.

Interface: `LAYERS` in the order in which they are entered; `parse_layers` reads a list of names as
the command line and the SDK take it.
"""

from __future__ import annotations

from typing import NamedTuple

from pysandbox_core.errors import InvalidOptionError

_USERNS_ADVICE = (
    "not in a chroot; in a container, let its seccomp profile allow unshare, setns and mount; else "
    "as root: sysctl user.max_user_namespaces=10000, and where they exist "
    "kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0"
)
_NAMESPACE_ADVICE = "needs a user namespace, or root with CAP_SYS_ADMIN"


class Layer(NamedTuple):
    """One wall of the jail."""

    name: str
    """As in `--require NAME`."""
    what: str
    """What the sentry can't do behind it."""
    advice: str
    """How to get it where it is off."""


LAYERS = (
    Layer("userns", "no capability counts outside the sandbox", _USERNS_ADVICE),
    Layer("pidns", "no process but the sandbox's own can be seen or signalled", _NAMESPACE_ADVICE),
    Layer("mountns", "no file outside the root and the binds has a path", _NAMESPACE_ADVICE),
    Layer("netns", "no network interface, no abstract socket of the host's", _NAMESPACE_ADVICE),
    Layer("ipcns", "no System V IPC or message queue of the host's", _NAMESPACE_ADVICE),
    Layer("utsns", "host name and domain are not the host's to change", _NAMESPACE_ADVICE),
    Layer("cgroupns", "the host's control groups have no names", _NAMESPACE_ADVICE),
    Layer("capabilities", "no privilege, not even as root", "needs no more than Linux"),
    Layer("no_new_privs", "no program could give privileges back", "needs Linux 3.5 or later"),
    Layer("undumpable", "no core dump, no debugger of the same user", "needs no more than Linux"),
    Layer(
        "landlock",
        "files are opened where the sandbox has them, no socket is connected",
        "needs Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK, and lsm=…,landlock",
    ),
    Layer(
        "seccomp",
        "the host's system calls that serve the sandbox, and no others",
        "needs a kernel with CONFIG_SECCOMP_FILTER, and a platform that says what it calls",
    ),
)

NAMES = tuple(layer.name for layer in LAYERS)


def parse_layers(text: str) -> frozenset[str]:
    """`seccomp,landlock`: a set of layers; `all` is every one. InvalidOptionError names what is
    unknown."""
    names = frozenset(text.split(",")) if text else frozenset()
    if "all" in names:
        names = names - {"all"} | frozenset(NAMES)
    unknown = sorted(names.difference(NAMES))
    if unknown:
        raise InvalidOptionError(
            f"unknown layer {unknown[0]!r}; the jail has {', '.join(NAMES)}, and `all`"
        )
    return names
