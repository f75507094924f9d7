"""execve(2), execveat(2)"""

from __future__ import annotations

from errno import EINVAL, ENOENT
from typing import TYPE_CHECKING

from pysandbox_core import task_exec
from pysandbox_core.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from pysandbox_core.declare import AtFlags, DirFd, Result, StringArrayPtr, UserPath, syscall
from pysandbox_core.errors import ERESTARTNOHAND, Interrupted, LinuxError
from pysandbox_core.fs.open_file import open_for_exec
from pysandbox_core.loader.stack import strings_budget
from pysandbox_core.waiting import Turn

if TYPE_CHECKING:
    from pysandbox_core.task import Task

_NOTE = "set-user-ID bits and file capabilities are ignored, as with no_new_privs"


@syscall("execve", note=_NOTE)
def execve(task: Task, pathname: UserPath, argv: StringArrayPtr, envp: StringArrayPtr) -> Result:
    """Run the program at `pathname` in place of this one. execve(2)

    Does not return if it succeeds. Errors, first match wins: EFAULT, ENAMETOOLONG, ENOENT pathname;
    errors of its resolution; EACCES no regular file or not executable; ETXTBSY; EFAULT, E2BIG argv,
    envp; ENOEXEC, ELOOP, ELIBBAD, EIO; EAGAIN.
    """
    path = task.mm.read_path(pathname)
    if not path:
        raise LinuxError(ENOENT)
    return _run(task, AT_FDCWD, path, argv, envp, 0)


@syscall("execveat", note=_NOTE)
def execveat(
    task: Task,
    dirfd: DirFd,
    pathname: UserPath,
    argv: StringArrayPtr,
    envp: StringArrayPtr,
    flags: AtFlags,
) -> Result:
    """execve of a path from a directory, or, with AT_EMPTY_PATH, of an open file. execveat(2)

    Errors: EINVAL flags; ELOOP a symbolic link with AT_SYMLINK_NOFOLLOW; ENOENT a script through a
    close-on-exec descriptor; those of execve.
    """
    path = task.mm.read_path(pathname)
    if not path and not flags & AT_EMPTY_PATH:
        raise LinuxError(ENOENT)
    if flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW):
        raise LinuxError(EINVAL)
    return _run(task, dirfd, path, argv, envp, flags)


def _run(task: Task, dirfd: int, path: bytes, argv: int, envp: int, flags: int) -> Result:
    file = open_for_exec(task, dirfd, path, follow=not flags & AT_SYMLINK_NOFOLLOW)
    turn = Turn(task)

    def pause() -> None:
        if not turn.goes_on(killable_only=True):
            raise Interrupted(ERESTARTNOHAND)

    try:
        budget = strings_budget(task.group.limits.stack)
        arguments, budget = task.mm.read_string_array(argv, budget, pause)
        environment, _ = task.mm.read_string_array(envp, budget, pause)
    except LinuxError:
        file.decref()
        raise
    name, comm, reopenable = path, None, True
    if dirfd != AT_FDCWD and path[:1] != b"/":
        name = b"/dev/fd/%d" % dirfd + (b"/" + path if path else b"")
        reopenable = dirfd not in task.files.cloexec
        if not path and file.path is not None:
            comm = file.path.dentry.name
    task_exec.execute(task, file, name, arguments, environment, comm=comm, reopenable=reopenable)
    return None
