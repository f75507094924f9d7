/*
 * The virtual machine: /dev/kvm, what it must be able to do, memory slots.
 *
 * Interface: it has no devices, no interrupt controller and no firmware. What can't be done without
 * is checked here, each with words of its own.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { API_VERSION = 12, MAX_CPUID = 256, PHYSICAL_BITS_AT_LEAST = 36 };

/* Why the device can't be opened, and what to do about it. */
static int refuse_device(kv_platform *p, int error)
{
    struct stat status;
    if (error == -ENOENT)
        return kv_fail(p, error,
                       "there is no /dev/kvm: the host has no KVM, or its module (kvm_intel, "
                       "kvm_amd) is not loaded");
    if (error == -ENODEV || error == -ENXIO)
        return kv_fail(p, error,
                       "/dev/kvm has no driver: virtualisation is off in the firmware, or the "
                       "module is not loaded");
    if (error == -EPERM)        /* not its mode, which is EACCES */
        return kv_fail(p, error,
                       "no permission for /dev/kvm: its mode is not what refuses it, but the "
                       "device rules of a container (docker run --device /dev/kvm) or a security "
                       "module");
    if (error == -EACCES && stat("/dev/kvm", &status) == 0) {
        const struct group *group = getgrgid(status.st_gid);
        if ((status.st_mode & 060) == 060 && status.st_gid)
            return kv_fail(p, error,
                           "no permission for /dev/kvm: it is for members of the group %s (gid %u)",
                           group ? group->gr_name : "?", status.st_gid);
        return kv_fail(p, error, "no permission for /dev/kvm: it is for uid %u only",
                       status.st_uid);
    }
    return kv_fail(p, error, "opening /dev/kvm: %s", strerror(-error));
}

static const struct {
    int number;
    const char *name;
} NEEDED[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
    {KVM_CAP_XCRS, "KVM_CAP_XCRS"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_SYNC_REGS, "KVM_CAP_SYNC_REGS"},
};

static int check_capabilities(kv_platform *p)
{
    int version = ioctl(p->kvm_fd, KVM_GET_API_VERSION, 0);
    if (version != API_VERSION)
        return kv_fail(p, -ENOTSUP, "KVM has interface version %d, not %d", version, API_VERSION);
    for (size_t i = 0; i < sizeof NEEDED / sizeof *NEEDED; i++)
        if (ioctl(p->kvm_fd, KVM_CHECK_EXTENSION, NEEDED[i].number) <= 0)
            return kv_fail(p, -ENOTSUP, "KVM lacks %s", NEEDED[i].name);
    int sync = ioctl(p->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS);
    if ((sync & (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS)) !=
        (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS))
        return kv_fail(p, -ENOTSUP, "KVM_CAP_SYNC_REGS lacks the registers");
    p->max_slots = ioctl(p->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
    if (p->max_slots <= 0)
        p->max_slots = 32;              /* what the documentation says to assume */
    int max_vcpus = ioctl(p->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if (max_vcpus < 2)
        return kv_fail(p, -ENOTSUP, "KVM allows %d virtual processors only", max_vcpus);
    p->max_vcpus = max_vcpus < MAX_VCPUS ? max_vcpus : MAX_VCPUS;
    return 0;
}

/* Bits of CPUID that a context does not have. */
static const struct {
    uint32_t function;
    uint32_t ecx, edx;
} HIDDEN[] = {
    /* MONITOR, VMX, x2APIC, TSC deadline: there is no APIC. */
    {1, 1 << 3 | 1 << 5 | 1 << 21 | 1 << 24, 0},
    /* Protection keys, shadow stacks, IBT and AMX need what CR4 and XCR0 do not switch on. */
    {7, 1 << 3 | 1 << 7, 1 << 20 | 1 << 22 | 1 << 24 | 1 << 25},
    {0x80000001, 1 << 2, 0},            /* SVM */
};

/*
 * Hyper-V's interface says that a hypercall from ring 3 is a #UD, as on a processor without
 * hypervisor. KVM's own says that it sets RAX to -1, so KVM is told that the guest knows Hyper-V's:
 * by this leaf, to which no other leads, and a model-specific register, see vcpu.c.
 */
static const struct kvm_cpuid_entry2 HYPERV_INTERFACE = {.function = 0x40000001, .eax = 0x31237648};

static bool is_hypervisor_leaf(uint32_t function)
{
    return function >> 28 == 4;         /* KVM's own, for guests that know it */
}

/* What the processor says of itself: the host's, less what is hidden. */
static int read_cpuid(kv_platform *p)
{
    struct kvm_cpuid2 *all = calloc(1, sizeof *all + MAX_CPUID * sizeof *all->entries);
    if (!all)
        return kv_fail(p, -ENOMEM, "out of memory");
    p->cpuid = all;
    all->nent = MAX_CPUID;
    if (ioctl(p->kvm_fd, KVM_GET_SUPPORTED_CPUID, all))
        return kv_fail(p, -errno, "KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
    uint32_t n = 0;
    p->physical_bits = PHYSICAL_BITS_AT_LEAST;
    for (uint32_t i = 0; i < all->nent; i++) {
        struct kvm_cpuid_entry2 *e = &all->entries[i];
        if (is_hypervisor_leaf(e->function))
            continue;
        for (size_t j = 0; j < sizeof HIDDEN / sizeof *HIDDEN; j++) {
            if (e->function == HIDDEN[j].function && e->index == 0) {
                e->ecx &= ~HIDDEN[j].ecx;
                e->edx &= ~HIDDEN[j].edx;
            }
        }
        if (e->function == 0x80000008 && (e->eax & 0xff) >= PHYSICAL_BITS_AT_LEAST)
            p->physical_bits = e->eax & 0xff;
        all->entries[n++] = *e;
    }
    p->has_hyperv = ioctl(p->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_HYPERV) > 0 && n < MAX_CPUID;
    if (p->has_hyperv)
        all->entries[n++] = HYPERV_INTERFACE;
    all->nent = n;
    return 0;
}

/* Or KVM would write its own hypercall instruction over another processor's, in the program. */
static void keep_hypercalls(const kv_platform *p)
{
    int quirks = ioctl(p->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_DISABLE_QUIRKS2);
    if (quirks <= 0 || !(quirks & KVM_X86_QUIRK_FIX_HYPERCALL_INSN))
        return;
    const struct kvm_enable_cap disable = {
        .cap = KVM_CAP_DISABLE_QUIRKS2,
        .args = {KVM_X86_QUIRK_FIX_HYPERCALL_INSN},
    };
    ioctl(p->vm_fd, KVM_ENABLE_CAP, &disable);
}

int vm_open(kv_platform *p)
{
    p->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (p->kvm_fd < 0)
        return refuse_device(p, -errno);
    int error = check_capabilities(p);
    if (error || (error = read_cpuid(p)))
        return error;
    do {
        p->vm_fd = ioctl(p->kvm_fd, KVM_CREATE_VM, 0);
    } while (p->vm_fd < 0 && errno == EINTR);
    if (p->vm_fd < 0)
        return kv_fail(p, -errno, "KVM_CREATE_VM: %s", strerror(errno));
    int size = ioctl(p->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run))
        return kv_fail(p, -ENOTSUP, "KVM_GET_VCPU_MMAP_SIZE gives %d", size);
    p->run_size = (size_t)size;
    keep_hypercalls(p);
    return 0;
}

void vm_close(kv_platform *p)
{
    if (p->vm_fd >= 0)
        close(p->vm_fd);
    if (p->kvm_fd >= 0)
        close(p->kvm_fd);
    p->vm_fd = p->kvm_fd = -1;
    free(p->cpuid);
    p->cpuid = NULL;
}

/* Size 0 takes the slot away. */
int vm_set_slot(kv_platform *p, int slot, uint64_t gpa, void *memory, uint64_t size)
{
    const struct kvm_userspace_memory_region region = {
        .slot = (uint32_t)slot,
        .guest_phys_addr = gpa,
        .memory_size = size,
        .userspace_addr = (uintptr_t)memory,
    };
    if (ioctl(p->vm_fd, KVM_SET_USER_MEMORY_REGION, &region))
        return kv_fail(p, -errno, "KVM_SET_USER_MEMORY_REGION of %#lx bytes at %#lx: %s", size, gpa,
                       strerror(errno));
    return 0;
}

/* Gives the slot's number. */
int vm_add_slot(kv_platform *p, uint64_t gpa, void *memory, uint64_t size)
{
    if (p->nslots == p->max_slots)
        return kv_fail(p, -ENOSPC, "KVM's %d memory slots are used up", p->max_slots);
    if (gpa + size > UINT64_C(1) << p->physical_bits)
        return kv_fail(p, -ENOSPC, "%u bits of guest-physical addresses are used up",
                       p->physical_bits);
    int error = vm_set_slot(p, p->nslots, gpa, memory, size);
    return error ? error : p->nslots++;
}
