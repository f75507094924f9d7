"""System calls about files that always fail here, and why."""

from __future__ import annotations

from errno import ENOSYS, ENOTSUP, EPERM

from pysandbox_core.declare import refused

refused("name_to_handle_at", ENOTSUP, "no file system here gives out handles")
refused("open_by_handle_at", EPERM, "needs CAP_DAC_READ_SEARCH on the host's file system")
refused("fanotify_init", ENOSYS, "as in a kernel without CONFIG_FANOTIFY; inotify works")
refused("fanotify_mark", ENOSYS, "as in a kernel without CONFIG_FANOTIFY; inotify works")
refused("quotactl", ENOSYS, "no quotas: as in a kernel without CONFIG_QUOTA")
refused("quotactl_fd", ENOSYS, "no quotas: as in a kernel without CONFIG_QUOTA")
refused("swapon", EPERM, "the sandbox has no devices to swap to")
refused("swapoff", EPERM, "the sandbox has no devices to swap to")
refused("acct", ENOSYS, "as in a kernel without CONFIG_BSD_PROCESS_ACCT")
refused("sysfs", ENOSYS, "obsolete; read /proc/filesystems")
refused("lookup_dcookie", ENOSYS, "removed from Linux in 6.7")
refused("nfsservctl", ENOSYS, "removed from Linux in 3.1")
refused("uselib", ENOSYS, "as in a kernel without CONFIG_USELIB")
refused("cachestat", ENOSYS, "the page cache is the host's")
refused("open_tree_attr", ENOSYS, "programs fall back to mount(2)")
refused("file_getattr", ENOSYS, "programs fall back to ioctl(2), which says ENOTTY")
refused("file_setattr", ENOSYS, "programs fall back to ioctl(2), which says ENOTTY")
