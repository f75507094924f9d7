"""System calls that are always refused, each with the errno that programs handle best, and why.

ENOSYS where a kernel may be built without the call, so that programs have another way; EPERM where
it is there and an unprivileged process is told no.
"""

from __future__ import annotations

from errno import ENOSYS, EPERM

from pysandbox_core.declare import refused

_NEVER = "no kernel for x86-64 has it any more, or ever had"
for _name in (
    "_sysctl", "afs_syscall", "create_module", "epoll_ctl_old", "epoll_wait_old", "get_kernel_syms",
    "get_thread_area", "getpmsg", "putpmsg", "query_module", "security", "set_thread_area",
    "tuxcall", "vserver",
):  # fmt: skip
    refused(_name, ENOSYS, _NEVER)

_MACHINE = "the machine is the host's"
for _name in (
    "delete_module", "finit_module", "init_module", "ioperm", "iopl", "kexec_file_load",
    "kexec_load", "reboot",
):  # fmt: skip
    refused(_name, EPERM, _MACHINE)

refused("vhangup", EPERM, "takes CAP_SYS_TTY_CONFIG on the host's terminals")
refused("ptrace", EPERM, "programs can't trace each other")
refused("bpf", EPERM, "as with kernel.unprivileged_bpf_disabled")
refused("userfaultfd", EPERM, "as with vm.unprivileged_userfaultfd=0")
refused("modify_ldt", ENOSYS, "no segments but the flat ones")
refused("perf_event_open", ENOSYS, "no performance counters")
refused("seccomp", ENOSYS, "programs can't filter system calls; prctl(PR_SET_SECCOMP) is EINVAL")
refused("map_shadow_stack", ENOSYS, "no shadow stacks")
refused("process_mrelease", ENOSYS, "memory comes back when a process ends")

_AIO = "asynchronous I/O of the old kind; C libraries use threads instead"
for _name in (
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit",
):  # fmt: skip
    refused(_name, ENOSYS, _AIO)

for _name in ("io_uring_enter", "io_uring_register", "io_uring_setup"):
    refused(_name, ENOSYS, "no io_uring; programs fall back on epoll and threads")

for _name in ("add_key", "keyctl", "request_key"):
    refused(_name, ENOSYS, "no key retention service")

for _name in (
    "get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy",
    "set_mempolicy_home_node",
):  # fmt: skip
    refused(_name, ENOSYS, "one memory node, as in a kernel without NUMA")

for _name in ("landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self"):
    refused(_name, ENOSYS, "no Landlock inside of the sandbox")

for _name in ("lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr"):
    refused(_name, ENOSYS, "no security modules")

for _name in ("uprobe", "uretprobe"):
    refused(_name, ENOSYS, "the kernel's own way back from a user probe")

for _name in ("futex_requeue", "futex_wait", "futex_wake"):
    refused(_name, ENOSYS, "new names for what futex(2) does; C libraries use that")
