"""Credentials: who a task is. credentials(7), capabilities(7).

A `Credentials` is immutable and shared; a change makes a new one (`replace`), as in Linux.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pysandbox_core.abi.securebits import SECBIT_KEEP_CAPS, SECBIT_NOROOT

__all__ = ["CAP_ALL", "Credentials", "replace"]

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_FOWNER = 3
CAP_FSETID = 4
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_LINUX_IMMUTABLE = 9
CAP_NET_BIND_SERVICE = 10
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13
CAP_IPC_LOCK = 14
CAP_IPC_OWNER = 15
CAP_SYS_CHROOT = 18
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_SYS_NICE = 23
CAP_SYS_RESOURCE = 24
CAP_SYS_TIME = 25
CAP_SYS_TTY_CONFIG = 26
CAP_MKNOD = 27
CAP_LEASE = 28
CAP_SETFCAP = 31
CAP_WAKE_ALARM = 35
CAP_LAST = 40
CAP_ALL = (1 << (CAP_LAST + 1)) - 1


class Credentials(NamedTuple):
    """uids, gids and capability sets of a task; the names are Linux's `struct cred`."""

    uid: int
    gid: int
    euid: int
    egid: int
    suid: int
    sgid: int
    fsuid: int
    fsgid: int
    groups: tuple[int, ...] = ()
    cap_permitted: int = 0
    cap_effective: int = 0
    cap_inheritable: int = 0
    cap_bounding: int = CAP_ALL
    cap_ambient: int = 0
    securebits: int = 0
    no_new_privs: bool = False

    @classmethod
    def for_user(cls, uid: int, gid: int, groups: tuple[int, ...] = ()) -> Credentials:
        """A login as `uid`: root has every capability, anybody else none."""
        capabilities = CAP_ALL if uid == 0 else 0
        return cls(uid, gid, uid, gid, uid, gid, uid, gid, groups, capabilities, capabilities)

    def capable(self, capability: int) -> bool:
        """Is `capability` (a CAP_* number) effective?"""
        return bool(self.cap_effective >> capability & 1)

    def after_exec(self) -> Credentials:
        """What execve(2) leaves of them for a program without set-user-ID bits or capabilities of
        its own. capabilities(7), "Transformation of capabilities during execve()"; Linux:
        cap_bprm_creds_from_file"""
        permitted = 0
        effective = False
        if not self.securebits & SECBIT_NOROOT:
            if 0 in (self.uid, self.euid):
                permitted = self.cap_bounding | self.cap_inheritable
            effective = self.euid == 0
        if self.no_new_privs:
            permitted &= self.cap_permitted
        permitted |= self.cap_ambient
        return replace(
            self,
            suid=self.euid,
            fsuid=self.euid,
            sgid=self.egid,
            fsgid=self.egid,
            cap_permitted=permitted,
            cap_effective=permitted if effective else self.cap_ambient,
            securebits=self.securebits & ~SECBIT_KEEP_CAPS,
        )

    def in_group(self, gid: int) -> bool:
        """Does file access by group `gid` apply? fsgid or a supplementary group."""
        return gid == self.fsgid or gid in self.groups


def replace(creds: Credentials, **changes: Any) -> Credentials:
    """The same credentials but for `changes`."""
    return creds._replace(**changes)
