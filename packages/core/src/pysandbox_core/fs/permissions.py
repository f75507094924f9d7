"""Who may do what to a file. path_resolution(7), inode(7), capabilities(7)

Interface: functions that return nothing and raise the errno Linux gives, in Linux's order. They
look at the file-system ids (`fsuid`, `fsgid`) and the effective capabilities. Access control lists
do not exist here: the mode bits decide.

Linux: inode_permission(), may_create(), may_delete() in fs/namei.c; fs/attr.c.
"""

from __future__ import annotations

from errno import EACCES, EISDIR, ENOENT, ENOTDIR, EPERM, EROFS
from stat import S_ISGID, S_ISUID, S_IXGRP
from typing import TYPE_CHECKING

from pysandbox_core.credentials import (
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    CAP_FSETID,
)
from pysandbox_core.errors import LinuxError

if TYPE_CHECKING:
    from pysandbox_core.credentials import Credentials
    from pysandbox_core.fs.dentry import Dentry, Path
    from pysandbox_core.fs.inode import Inode
    from pysandbox_core.fs.mount import Mount

MAY_EXEC = 1
MAY_WRITE = 2
MAY_READ = 4

S_IFMT = 0o170000
S_IFDIR = 0o040000
S_IFREG = 0o100000
S_IFLNK = 0o120000
S_ISVTX = 0o1000


def check_access(creds: Credentials, inode: Inode, wanted: int) -> None:
    """EACCES unless `creds` may do `wanted` (MAY_* bits) to `inode`. generic_permission()"""
    mode = inode.mode
    if inode.uid == creds.fsuid:
        granted = mode >> 6
    elif (mode ^ mode >> 3) & wanted and creds.in_group(inode.gid):
        granted = mode >> 3
    else:
        granted = mode
    if not wanted & ~granted & 7:
        return
    effective = creds.cap_effective
    if effective:
        if mode & S_IFMT == S_IFDIR:
            if not wanted & MAY_WRITE and effective >> CAP_DAC_READ_SEARCH & 1:
                return
            if effective >> CAP_DAC_OVERRIDE & 1:
                return
        else:
            if wanted == MAY_READ and effective >> CAP_DAC_READ_SEARCH & 1:
                return
            if (not wanted & MAY_EXEC or mode & 0o111) and effective >> CAP_DAC_OVERRIDE & 1:
                return
    raise LinuxError(EACCES)


def check_writable_mount(mount: Mount) -> None:
    """EROFS on a read-only mount. mnt_want_write()"""
    if mount.flags & 1:
        raise LinuxError(EROFS)


def may_create(creds: Credentials, directory: Dentry) -> None:
    """May names be added to `directory`?"""
    if directory.unlinked:
        raise LinuxError(ENOENT)
    assert directory.inode is not None
    check_access(creds, directory.inode, MAY_WRITE | MAY_EXEC)


def may_delete(creds: Credentials, directory: Inode, victim: Inode, is_dir: bool) -> None:
    """May the name of `victim` be taken out of `directory`, as a directory (`is_dir`) or not?"""
    check_access(creds, directory, MAY_WRITE | MAY_EXEC)
    check_sticky(creds, directory, victim)
    if is_dir:
        if not victim.is_dir:
            raise LinuxError(ENOTDIR)
    elif victim.is_dir:
        raise LinuxError(EISDIR)


def check_sticky(creds: Credentials, directory: Inode, inode: Inode) -> None:
    """EPERM where the sticky bit keeps others' files in `directory`. inode(7)"""
    if (
        directory.mode & S_ISVTX
        and creds.fsuid not in (inode.uid, directory.uid)
        and not creds.capable(CAP_FOWNER)
    ):
        raise LinuxError(EPERM)


def is_owner(creds: Credentials, inode: Inode) -> bool:
    """The file's owner, or as good as. inode_owner_or_capable()"""
    return creds.fsuid == inode.uid or creds.capable(CAP_FOWNER)


def new_owner(creds: Credentials, directory: Inode, mode: int) -> tuple[int, int, int]:
    """uid, gid and mode of a file that is made in `directory`: set-group-ID directories hand down
    their group, and the bit to directories. inode_init_owner()"""
    if not directory.mode & S_ISGID:
        return creds.fsuid, creds.fsgid, mode
    if mode & S_IFMT == S_IFDIR:
        mode |= S_ISGID
    elif mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP and not (
        creds.in_group(directory.gid) or creds.capable(CAP_FSETID)
    ):
        mode &= ~S_ISGID
    return creds.fsuid, directory.gid, mode


def mode_after_chmod(creds: Credentials, inode: Inode, mode: int) -> int:
    """EPERM unless the owner asks; the set-group-ID bit is not for strangers to the group.
    chmod(2)"""
    if not is_owner(creds, inode):
        raise LinuxError(EPERM)
    if not creds.in_group(inode.gid) and not creds.capable(CAP_FSETID):
        mode &= ~S_ISGID
    return mode


def mode_after_chown(creds: Credentials, inode: Inode, uid: int | None, gid: int | None) -> int:
    """EPERM unless `creds` may give `inode` to `uid` and `gid` (None: unchanged). The permission
    bits without set-user-ID and set-group-ID, which a change of owner takes from all but
    directories."""
    capable = creds.capable(CAP_CHOWN)
    owns = creds.fsuid == inode.uid
    if uid is not None and not (owns and uid == inode.uid) and not capable:
        raise LinuxError(EPERM)
    if gid is not None and not capable:
        if not owns or not (gid == inode.gid or creds.in_group(gid)):
            raise LinuxError(EPERM)
    mode = inode.mode & 0o7777
    if not inode.is_dir:
        mode = without_suid(creds, inode, mode)
    return mode


def without_suid(creds: Credentials, inode: Inode, mode: int) -> int:
    """`mode` as it is after a change of owner: setattr_should_drop_suidgid()"""
    mode &= ~S_ISUID
    if mode & S_IXGRP or not (creds.in_group(inode.gid) or creds.capable(CAP_FSETID)):
        mode &= ~S_ISGID
    return mode


def drop_privileges_on_write(creds: Credentials, inode: Inode) -> None:
    """Writing to a file takes set-user-ID and set-group-ID from it. file_remove_privs()"""
    mode = inode.mode
    if mode & (S_ISUID | S_ISGID) and mode & S_IFMT == S_IFREG and not creds.capable(CAP_FSETID):
        left = mode & ~S_ISUID
        if mode & S_IXGRP or not creds.in_group(inode.gid):
            left &= ~S_ISGID
        if left != mode:
            inode.set_mode(left & 0o7777)


def may_follow_link(creds: Credentials, directory: Inode, link: Inode) -> None:
    """In a sticky directory that all may write, only links of one's own or of the directory's owner
    are followed: fs.protected_symlinks = 1, as distributions set it. proc_sys_fs(5)"""
    if directory.mode & 0o1002 == 0o1002 and link.uid not in (creds.fsuid, directory.uid):
        raise LinuxError(EACCES)


def may_create_in_sticky(creds: Credentials, directory: Inode, inode: Inode) -> None:
    """O_CREAT that meets an existing fifo or regular file of somebody else in a sticky directory
    that all may write: fs.protected_fifos = fs.protected_regular = 1. proc_sys_fs(5)"""
    kind = inode.mode & S_IFMT
    if (
        directory.mode & 0o1002 == 0o1002
        and kind in (S_IFREG, 0o010000)
        and inode.uid not in (directory.uid, creds.fsuid)
    ):
        raise LinuxError(EACCES)


def may_link(creds: Credentials, path: Path) -> None:
    """fs.protected_hardlinks = 1: only files that are one's own, or plain ones that one may read
    and write. proc_sys_fs(5)"""
    inode = path.inode
    if is_owner(creds, inode):
        return
    mode = inode.mode
    if (
        mode & S_IFMT != S_IFREG
        or mode & S_ISUID
        or mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP
    ):
        raise LinuxError(EPERM)
    try:
        check_access(creds, inode, MAY_READ | MAY_WRITE)
    except LinuxError:
        raise LinuxError(EPERM) from None
