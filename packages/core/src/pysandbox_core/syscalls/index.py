"""Which family declares which system call, so that one is imported when it is first called.

Written by `python -m pysandbox_core.syscall_index`.
"""

from __future__ import annotations

CALLS: dict[str, str] = {
    "advice": "fadvise64 readahead",
    "chroot": "chdir chroot fchdir getcwd pivot_root umask",
    "clone": "clone clone3 fork setns unshare vfork",
    "credentials": (
        "capget capset getegid geteuid getgid getgroups getresgid getresuid getuid setfsgid "
        "setfsuid setgid setgroups setregid setresgid setresuid setreuid setuid"
    ),
    "directories": "getdents getdents64 mkdir mkdirat rmdir",
    "dup": "dup dup2 dup3",
    "epoll": "epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait",
    "eventfd": "eventfd eventfd2",
    "execve": "execve execveat",
    "exit": "exit exit_group",
    "fcntl": "fcntl",
    "futex": "futex futex_waitv",
    "identity": "getpgid getpgrp getpid getppid getsid gettid setpgid setsid",
    "inotify": "inotify_add_watch inotify_init inotify_init1 inotify_rm_watch",
    "ioctl": "ioctl",
    "links": "link linkat mknod mknodat readlink readlinkat symlink symlinkat unlink unlinkat",
    "locks": "flock",
    "madvise": "madvise mincore msync process_madvise",
    "membarrier": "membarrier",
    "memfd": "memfd_create memfd_secret",
    "mlock": "mlock mlock2 mlockall munlock munlockall",
    "mmap": (
        "brk mmap mprotect mremap mseal munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages"
    ),
    "mount": (
        "fsconfig fsmount fsopen fspick listmount mount mount_setattr move_mount open_tree "
        "statmount umount2"
    ),
    "open": "close close_range creat open openat openat2",
    "permissions": (
        "access chmod chown faccessat faccessat2 fchmod fchmodat fchmodat2 fchown fchownat lchown"
    ),
    "pidfd": "kcmp pidfd_getfd pidfd_open pidfd_send_signal",
    "pipe": "pipe pipe2",
    "poll": "poll ppoll pselect6 select",
    "posix_mq": "mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink",
    "prctl": "prctl",
    "process_vm": "process_vm_readv process_vm_writev",
    "read_write": "lseek pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readv write writev",
    "refused": (
        "_sysctl add_key afs_syscall bpf create_module delete_module epoll_ctl_old epoll_wait_old "
        "finit_module futex_requeue futex_wait futex_wake get_kernel_syms get_mempolicy "
        "get_thread_area getpmsg init_module io_cancel io_destroy io_getevents io_pgetevents "
        "io_setup io_submit io_uring_enter io_uring_register io_uring_setup ioperm iopl "
        "kexec_file_load kexec_load keyctl landlock_add_rule landlock_create_ruleset "
        "landlock_restrict_self lsm_get_self_attr lsm_list_modules lsm_set_self_attr "
        "map_shadow_stack mbind migrate_pages modify_ldt move_pages perf_event_open "
        "process_mrelease ptrace putpmsg query_module reboot request_key seccomp security "
        "set_mempolicy set_mempolicy_home_node set_thread_area tuxcall uprobe uretprobe "
        "userfaultfd vhangup vserver"
    ),
    "refused_files": (
        "acct cachestat fanotify_init fanotify_mark file_getattr file_setattr lookup_dcookie "
        "name_to_handle_at nfsservctl open_by_handle_at open_tree_attr quotactl quotactl_fd "
        "swapoff swapon sysfs uselib"
    ),
    "rename": "rename renameat renameat2",
    "rlimit": "getrlimit getrusage prlimit64 setrlimit times",
    "scheduling": (
        "getcpu getpriority ioprio_get ioprio_set sched_get_priority_max sched_get_priority_min "
        "sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval "
        "sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield "
        "setpriority"
    ),
    "signalfd": "signalfd signalfd4",
    "signals": (
        "kill pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo "
        "rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack tgkill tkill"
    ),
    "sockets": (
        "accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg "
        "recvmsg sendmmsg sendmsg sendto setsockopt shutdown socket socketpair"
    ),
    "splice": "copy_file_range sendfile splice tee vmsplice",
    "stat": "fstat lstat newfstatat stat statx",
    "statfs": "fstatfs statfs ustat",
    "sync": "fdatasync fsync sync sync_file_range syncfs",
    "sysv_msg": "msgctl msgget msgrcv msgsnd",
    "sysv_sem": "semctl semget semop semtimedop",
    "sysv_shm": "shmat shmctl shmdt shmget",
    "threads": "arch_prctl get_robust_list rseq set_robust_list set_tid_address",
    "time": (
        "adjtimex clock_adjtime clock_getres clock_gettime clock_nanosleep clock_settime "
        "gettimeofday nanosleep settimeofday time"
    ),
    "timerfd": "timerfd_create timerfd_gettime timerfd_settime",
    "timers": (
        "alarm getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime "
        "timer_settime"
    ),
    "truncate": "fallocate ftruncate truncate",
    "uname": "getrandom personality setdomainname sethostname sysinfo syslog uname",
    "utimens": "futimesat utime utimensat utimes",
    "wait": "wait4 waitid",
    "xattr": (
        "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr "
        "listxattrat llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr "
        "setxattrat"
    ),
}
