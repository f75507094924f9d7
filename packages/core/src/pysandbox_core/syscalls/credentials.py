"""Who a task acts as: setuid(2), setresuid(2), setgroups(2), capset(2) and their kin.
credentials(7)

Interface: credentials belong to one thread; C libraries make all threads change theirs. Every
change goes through `commit`, which does what Linux's commit_creds does besides.

Linux: kernel/sys.c, kernel/cred.c, kernel/capability.c, security/commoncap.c.
"""

from __future__ import annotations

from errno import EINVAL, EPERM, ESRCH
from struct import Struct, pack, unpack
from typing import TYPE_CHECKING

from pysandbox_core.abi.securebits import SECBIT_KEEP_CAPS, SECBIT_NO_SETUID_FIXUP
from pysandbox_core.constant_results import publish
from pysandbox_core.credentials import (
    CAP_ALL,
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    CAP_FSETID,
    CAP_LINUX_IMMUTABLE,
    CAP_MKNOD,
    CAP_SETGID,
    CAP_SETPCAP,
    CAP_SETUID,
    Credentials,
    replace,
)
from pysandbox_core.declare import Gid, Int, Result, Uid, UserAddr, syscall
from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.task import Task

_KEEP = 0xFFFFFFFF
"""-1: leave this id as it is."""
_NGROUPS_MAX = 65536
_GROUP_BYTES = 40
"""What a number of a group takes: the number, and its place in a tuple."""
_CAP_MAC_OVERRIDE = 32
_FS_CAPABILITIES = sum(
    1 << capability
    for capability in (
        CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID,
        CAP_LINUX_IMMUTABLE, CAP_MKNOD, _CAP_MAC_OVERRIDE,
    )
)  # fmt: skip
"""CAP_FS_SET: what follows the file-system uid."""

# capget(2): header versions -> 32-bit words of each set.
_CAPABILITY_WORDS = {0x19980330: 1, 0x20071026: 2, 0x20080522: 2}
_CAPABILITY_VERSION = 0x20080522
_CAP_HEADER = Struct("<Ii")


def commit(task: Task, new: Credentials) -> None:
    """Make `new` the task's credentials. A change of who acts on files makes the memory undumpable
    and takes the parent-death signal away. Linux: commit_creds"""
    old = task.creds
    if (old.euid, old.egid, old.fsuid, old.fsgid) != (
        new.euid,
        new.egid,
        new.fsuid,
        new.fsgid,
    ) or new.cap_permitted & ~old.cap_permitted:
        task.mm.dumpable = 0
        task.pdeath_signal = 0
    task.creds = new
    publish(task)


def _fix_capabilities(old: Credentials, new: Credentials) -> Credentials:
    """What becomes of capabilities when uids change to and from 0. Linux: cap_emulate_setxuid"""
    if new.securebits & SECBIT_NO_SETUID_FIXUP:
        return new
    permitted, effective, ambient = new.cap_permitted, new.cap_effective, new.cap_ambient
    if 0 in (old.uid, old.euid, old.suid) and 0 not in (new.uid, new.euid, new.suid):
        if not new.securebits & SECBIT_KEEP_CAPS:
            permitted = effective = 0
        ambient = 0
    if old.euid == 0 != new.euid:
        effective = 0
    if old.euid != 0 == new.euid:
        effective = permitted
    return replace(new, cap_permitted=permitted, cap_effective=effective, cap_ambient=ambient)


@syscall("getuid")
def getuid(task: Task) -> Result:
    """The real user id. getuid(2)"""
    return task.creds.uid


@syscall("geteuid")
def geteuid(task: Task) -> Result:
    """The effective user id. geteuid(2)"""
    return task.creds.euid


@syscall("getgid")
def getgid(task: Task) -> Result:
    """The real group id. getgid(2)"""
    return task.creds.gid


@syscall("getegid")
def getegid(task: Task) -> Result:
    """The effective group id. getegid(2)"""
    return task.creds.egid


@syscall("getresuid")
def getresuid(task: Task, ruid: UserAddr, euid: UserAddr, suid: UserAddr) -> Result:
    """Store the real, effective and saved user id. EFAULT. getresuid(2)"""
    creds = task.creds
    task.mm.write_u32(ruid, creds.uid)
    task.mm.write_u32(euid, creds.euid)
    task.mm.write_u32(suid, creds.suid)
    return 0


@syscall("getresgid")
def getresgid(task: Task, rgid: UserAddr, egid: UserAddr, sgid: UserAddr) -> Result:
    """Store the real, effective and saved group id. EFAULT. getresgid(2)"""
    creds = task.creds
    task.mm.write_u32(rgid, creds.gid)
    task.mm.write_u32(egid, creds.egid)
    task.mm.write_u32(sgid, creds.sgid)
    return 0


@syscall("setuid")
def setuid(task: Task, uid: Uid) -> Result:
    """Set the effective user id, with CAP_SETUID all of them. EINVAL, EPERM. setuid(2)"""
    old = task.creds
    if uid == _KEEP:
        raise LinuxError(EINVAL)
    if old.capable(CAP_SETUID):
        new = replace(old, uid=uid, suid=uid, euid=uid, fsuid=uid)
    elif uid in (old.uid, old.suid):
        new = replace(old, euid=uid, fsuid=uid)
    else:
        raise LinuxError(EPERM)
    commit(task, _fix_capabilities(old, new))
    return 0


@syscall("setgid")
def setgid(task: Task, gid: Gid) -> Result:
    """Set the effective group id, with CAP_SETGID all of them. EINVAL, EPERM. setgid(2)"""
    old = task.creds
    if gid == _KEEP:
        raise LinuxError(EINVAL)
    if old.capable(CAP_SETGID):
        new = replace(old, gid=gid, sgid=gid, egid=gid, fsgid=gid)
    elif gid in (old.gid, old.sgid):
        new = replace(old, egid=gid, fsgid=gid)
    else:
        raise LinuxError(EPERM)
    commit(task, new)
    return 0


@syscall("setreuid")
def setreuid(task: Task, ruid: Uid, euid: Uid) -> Result:
    """Set the real and effective user id; -1 leaves one alone. EPERM. setreuid(2)"""
    old = task.creds
    if not old.capable(CAP_SETUID) and (
        ruid not in (_KEEP, old.uid, old.euid) or euid not in (_KEEP, old.uid, old.euid, old.suid)
    ):
        raise LinuxError(EPERM)
    new_uid = old.uid if ruid == _KEEP else ruid
    new_euid = old.euid if euid == _KEEP else euid
    save = ruid != _KEEP or euid not in (_KEEP, old.uid)
    suid = new_euid if save else old.suid
    new = replace(old, uid=new_uid, euid=new_euid, suid=suid, fsuid=new_euid)
    commit(task, _fix_capabilities(old, new))
    return 0


@syscall("setregid")
def setregid(task: Task, rgid: Gid, egid: Gid) -> Result:
    """Set the real and effective group id; -1 leaves one alone. EPERM. setregid(2)"""
    old = task.creds
    if not old.capable(CAP_SETGID) and (
        rgid not in (_KEEP, old.gid, old.egid) or egid not in (_KEEP, old.gid, old.egid, old.sgid)
    ):
        raise LinuxError(EPERM)
    new_gid = old.gid if rgid == _KEEP else rgid
    new_egid = old.egid if egid == _KEEP else egid
    save = rgid != _KEEP or egid not in (_KEEP, old.gid)
    sgid = new_egid if save else old.sgid
    commit(task, replace(old, gid=new_gid, egid=new_egid, sgid=sgid, fsgid=new_egid))
    return 0


@syscall("setresuid")
def setresuid(task: Task, ruid: Uid, euid: Uid, suid: Uid) -> Result:
    """Set the real, effective and saved user id; -1 leaves one alone. EPERM. setresuid(2)"""
    old = task.creds
    allowed = (_KEEP, old.uid, old.euid, old.suid)
    if not old.capable(CAP_SETUID) and not {ruid, euid, suid} <= set(allowed):
        raise LinuxError(EPERM)
    uid = old.uid if ruid == _KEEP else ruid
    new_euid = old.euid if euid == _KEEP else euid
    new_suid = old.suid if suid == _KEEP else suid
    new = replace(old, uid=uid, euid=new_euid, suid=new_suid, fsuid=new_euid)
    commit(task, _fix_capabilities(old, new))
    return 0


@syscall("setresgid")
def setresgid(task: Task, rgid: Gid, egid: Gid, sgid: Gid) -> Result:
    """Set the real, effective and saved group id; -1 leaves one alone. EPERM. setresgid(2)"""
    old = task.creds
    allowed = (_KEEP, old.gid, old.egid, old.sgid)
    if not old.capable(CAP_SETGID) and not {rgid, egid, sgid} <= set(allowed):
        raise LinuxError(EPERM)
    gid = old.gid if rgid == _KEEP else rgid
    new_egid = old.egid if egid == _KEEP else egid
    new_sgid = old.sgid if sgid == _KEEP else sgid
    commit(task, replace(old, gid=gid, egid=new_egid, sgid=new_sgid, fsgid=new_egid))
    return 0


@syscall("setfsuid")
def setfsuid(task: Task, uid: Uid) -> Result:
    """Set the user id that file access goes by; returns the one before, and never fails.
    setfsuid(2)"""
    old = task.creds
    if uid in (old.uid, old.euid, old.suid, old.fsuid) or (
        uid != _KEEP and old.capable(CAP_SETUID)
    ):
        effective = old.cap_effective
        if not old.securebits & SECBIT_NO_SETUID_FIXUP:
            if old.fsuid == 0 != uid:
                effective &= ~_FS_CAPABILITIES
            if old.fsuid != 0 == uid:
                effective |= old.cap_permitted & _FS_CAPABILITIES
        commit(task, replace(old, fsuid=uid, cap_effective=effective))
    return old.fsuid


@syscall("setfsgid")
def setfsgid(task: Task, gid: Gid) -> Result:
    """Set the group id that file access goes by; returns the one before, and never fails.
    setfsgid(2)"""
    old = task.creds
    if gid in (old.gid, old.egid, old.sgid, old.fsgid) or (
        gid != _KEEP and old.capable(CAP_SETGID)
    ):
        commit(task, replace(old, fsgid=gid))
    return old.fsgid


@syscall("getgroups")
def getgroups(task: Task, size: Int, group_list: UserAddr) -> Result:
    """Store the supplementary groups; returns how many, also with size 0. EINVAL too small, EFAULT.
    getgroups(2)"""
    groups = task.creds.groups
    if size < 0 or 0 < size < len(groups):
        raise LinuxError(EINVAL)
    if size:
        task.mm.write(group_list, pack(f"<{len(groups)}I", *groups))
    return len(groups)


@syscall("setgroups")
def setgroups(task: Task, size: Int, group_list: UserAddr) -> Result:
    """Set the supplementary groups. EPERM without CAP_SETGID, EINVAL size, EFAULT. setgroups(2)"""
    if not task.creds.capable(CAP_SETGID):
        raise LinuxError(EPERM)
    if not 0 <= size <= _NGROUPS_MAX:
        raise LinuxError(EINVAL)
    task.kernel.memory.grow(size * _GROUP_BYTES)
    groups = unpack(f"<{size}I", task.mm.read(group_list, 4 * size)) if size else ()
    if _KEEP in groups:
        raise LinuxError(EINVAL)
    commit(task, replace(task.creds, groups=tuple(sorted(groups))))
    return 0


@syscall("capget")
def capget(task: Task, header: UserAddr, data: UserAddr) -> Result:
    """Store the capability sets of a thread. EINVAL version or pid, ESRCH, EFAULT. capget(2)"""
    words, pid = _read_header(task, header)
    if not words:
        if not data:
            return 0  # how programs ask for the version
        raise LinuxError(EINVAL)
    if not data:
        return 0
    if pid < 0:
        raise LinuxError(EINVAL)
    target = task.kernel.tasks.get(pid) if pid else task
    if target is not None:
        creds = target.creds
    elif pid in task.kernel.groups:
        creds = Credentials.for_user(0, 0)  # process 1, the kernel's own
    else:
        raise LinuxError(ESRCH)
    sets = (creds.cap_effective, creds.cap_permitted, creds.cap_inheritable)
    low_to_high = [each >> 32 * word & 0xFFFFFFFF for word in range(words) for each in sets]
    task.mm.write(data, pack(f"<{len(low_to_high)}I", *low_to_high))
    return 0


@syscall("capset")
def capset(task: Task, header: UserAddr, data: UserAddr) -> Result:
    """Set the calling thread's capability sets. EINVAL version, EPERM another thread or more than
    capabilities(7) allows, EFAULT. capset(2)"""
    words, pid = _read_header(task, header)
    if not words:
        raise LinuxError(EINVAL)
    if pid not in (0, task.tid):
        raise LinuxError(EPERM)
    numbers = unpack(f"<{3 * words}I", task.mm.read(data, 12 * words))
    effective, permitted, inheritable = (
        sum(numbers[3 * word + each] << 32 * word for word in range(words)) & CAP_ALL
        for each in range(3)
    )
    old = task.creds
    if (
        (not old.capable(CAP_SETPCAP) and inheritable & ~(old.cap_inheritable | old.cap_permitted))
        or inheritable & ~(old.cap_inheritable | old.cap_bounding)
        or permitted & ~old.cap_permitted
        or effective & ~permitted
    ):
        raise LinuxError(EPERM)
    new = replace(
        old,
        cap_effective=effective,
        cap_permitted=permitted,
        cap_inheritable=inheritable,
        cap_ambient=old.cap_ambient & permitted & inheritable,
    )
    commit(task, new)
    return 0


def _read_header(task: Task, header: int) -> tuple[int, int]:
    """(words in a set, pid) of struct __user_cap_header; 0 words, and the right version stored, for
    a version that is not known."""
    version, pid = task.mm.unpack(header, _CAP_HEADER)
    words = _CAPABILITY_WORDS.get(version, 0)
    if not words:
        task.mm.write_u32(header, _CAPABILITY_VERSION)
    return words, pid
