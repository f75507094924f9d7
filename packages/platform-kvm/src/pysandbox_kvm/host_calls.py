"""The host's system calls that the KVM platform makes once it is open;
Documentation/virt/kvm/api.rst

Interface: `HOST_CALLS`, for the filter of the jail. vCPUs and memory slots are made when they are
first needed; machines are not.
"""

from __future__ import annotations

from pysandbox_platform.host_calls import HostCall, one_of

# linux/kvm.h: 0xAE is KVM's type, the sizes are those of the structures on x86-64
_KVM_RUN = 0xAE80
_KVM_CREATE_VCPU = 0xAE41
_KVM_SET_USER_MEMORY_REGION = 0x4020AE46
_KVM_GET_SREGS = 0x8138AE83
_KVM_SET_SREGS = 0x4138AE84
_KVM_SET_MSRS = 0x4008AE89
_KVM_SET_CPUID2 = 0x4008AE90
_KVM_GET_VCPU_EVENTS = 0x8040AE9F
_KVM_SET_VCPU_EVENTS = 0x4040AEA0
_KVM_GET_XSAVE = 0x9000AEA4
_KVM_SET_XSAVE = 0x5000AEA5
_KVM_SET_XCRS = 0x4188AEA7
_KVM_SET_DEVICE_ATTR = 0x4018AEE1

_MADV_DONTFORK = 10
"""A fork of the sentry's has no use for what the guest sees."""

HOST_CALLS = (
    HostCall(
        "ioctl",
        (
            one_of(
                1, _KVM_RUN, _KVM_GET_SREGS, _KVM_SET_SREGS, _KVM_GET_XSAVE, _KVM_SET_XSAVE,
                _KVM_GET_VCPU_EVENTS, _KVM_SET_VCPU_EVENTS, _KVM_SET_USER_MEMORY_REGION,
                _KVM_CREATE_VCPU, _KVM_SET_CPUID2, _KVM_SET_MSRS, _KVM_SET_XCRS,
                _KVM_SET_DEVICE_ATTR,
            ),
        ),
    ),
    HostCall("madvise", (one_of(2, _MADV_DONTFORK),)),
    HostCall("tgkill"),
    HostCall("process_vm_readv"),
    HostCall("timer_create"),
    HostCall("timer_settime"),
    HostCall("timer_delete"),
)  # fmt: skip
