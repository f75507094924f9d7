/*
 * vCPUs: making them, their state from the first instruction on, one function per ioctl.
 *
 * Interface: a vCPU starts in long mode, in ring 0 of the guest kernel, and never sees another
 * mode. Its general and special registers travel in `kvm_run`. A vCPU is used by one thread at a
 * time, and by the same one for good: KVM waits for a grace period of RCU when another thread
 * enters.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

/* Control registers; Intel SDM volume 3, 2.5. */
#define CR0 UINT64_C(0x80050033)        /* PG AM WP NE ET MP PE */
#define CR4 UINT64_C(0x50620)           /* OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PAE */
#define EFER UINT64_C(0xd01)            /* NXE LMA LME SCE */

enum { MSR_HYPERV_GUEST_OS_ID = 0x40000000 };
enum { MSR_STAR = 0xc0000081, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK, MSR_SYSENTER_CS = 0x174 };

static void set_segment(struct kvm_segment *s, uint16_t selector, uint8_t type, bool is_code)
{
    *s = (struct kvm_segment){
        .limit = 0xffffffff,
        .selector = selector,
        .type = type,
        .present = 1,
        .dpl = selector & 3,
        .db = !is_code,
        .s = 1,
        .l = is_code,
        .g = 1,
    };
}

static int set_special(kv_vcpu *v)
{
    struct kvm_sregs s;
    if (ioctl(v->fd, KVM_GET_SREGS, &s))
        return kv_fail(v->platform, -errno, "KVM_GET_SREGS: %s", strerror(errno));
    s.cr0 = CR0;
    s.cr3 = v->root;
    s.cr4 = CR4;
    s.efer = EFER;
    set_segment(&s.cs, KERNEL_CS, 11, true);
    set_segment(&s.ss, KERNEL_DS, 3, false);
    set_segment(&s.ds, 0, 3, false);
    s.ds.dpl = 3;
    s.es = s.fs = s.gs = s.ds;
    s.tr = (struct kvm_segment){
        .base = v->page_addr + TSS_AT,
        .limit = TSS_SIZE - 1,
        .selector = GDT_TSS << 3,
        .type = 11,
        .present = 1,
    };
    s.ldt = (struct kvm_segment){.unusable = 1, .type = 2};
    s.idt = (struct kvm_dtable){
        .base = KERNEL_BASE + TABLES_PAGE * KV_PAGE + IDT_AT,
        .limit = NVECTORS * 16 - 1,
    };
    s.gdt = (struct kvm_dtable){
        .base = KERNEL_BASE + TABLES_PAGE * KV_PAGE + GDT_AT,
        .limit = GDT_ENTRIES * 8 - 1,
    };
    if (ioctl(v->fd, KVM_SET_SREGS, &s))
        return kv_fail(v->platform, -errno, "KVM_SET_SREGS: %s", strerror(errno));
    v->run->s.regs.sregs = s;
    return 0;
}

static int set_msrs(kv_vcpu *v)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entries[5];
    } msrs = {
        .head.nmsrs = 5,
        .entries = {
            {.index = MSR_STAR, .data = UINT64_C(0x0023001000000000)},
            {.index = MSR_LSTAR, .data = v->entry},
            {.index = MSR_CSTAR, .data = KERNEL_BASE + COMPAT_SYSCALL_STUB},
            {.index = MSR_SYSCALL_MASK, .data = SYSCALL_MASK},
            {.index = MSR_SYSENTER_CS, .data = 0},      /* SYSENTER is a #GP */
        },
    };
    int done = ioctl(v->fd, KVM_SET_MSRS, &msrs);
    if (done == 5)
        return 0;
    if (done < 0)
        return kv_fail(v->platform, -errno, "KVM_SET_MSRS: %s", strerror(errno));
    return kv_fail(v->platform, -ENOTSUP, "KVM_SET_MSRS: only %d of 5 were taken", done);
}

/* Hypercalls are undefined instructions, if KVM lets them; see vm.c. */
static void refuse_hypercalls(kv_vcpu *v)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } msr = {
        .head.nmsrs = 1,
        .entry = {.index = MSR_HYPERV_GUEST_OS_ID, .data = 1},
    };
    if (v->platform->has_hyperv)
        ioctl(v->fd, KVM_SET_MSRS, &msr);
}

static int set_xcr0(kv_vcpu *v)
{
    const struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0].value = v->platform->xstate.xcr0};
    if (ioctl(v->fd, KVM_SET_XCRS, &xcrs))
        return kv_fail(v->platform, -errno, "KVM_SET_XCRS: %s", strerror(errno));
    return 0;
}

/* The program sees the host's time-stamp counter, if KVM lets it. */
static void set_tsc(kv_vcpu *v)
{
    uint64_t offset = 0;
    const struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uintptr_t)&offset,
    };
    v->platform->tsc_is_host = !ioctl(v->fd, KVM_SET_DEVICE_ATTR, &attribute);
}

static int set_events(kv_vcpu *v, const struct kvm_vcpu_events *events)
{
    if (ioctl(v->fd, KVM_SET_VCPU_EVENTS, events))
        return kv_fail(v->platform, -errno, "KVM_SET_VCPU_EVENTS: %s", strerror(errno));
    return 0;
}

static int clear_events(kv_vcpu *v)
{
    const struct kvm_vcpu_events events = {.flags = KVM_VCPUEVENT_VALID_SHADOW};
    return set_events(v, &events);
}

/*
 * Everything as it was when the vCPU was new, but for the extended state. Its page too: exceptions
 * in the guest kernel may have filled it from its stack's top down to the task state segment.
 */
int vcpu_reset(kv_vcpu *v)
{
    guest_vcpu_write(v->platform->kernel, v->id);
    v->answers_id = 0;
    v->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
    v->run->kvm_dirty_regs = 0;
    v->root = 0;
    v->in_user = false;
    int error = clear_events(v);
    if (!error)
        error = set_special(v);
    if (!error)
        error = set_msrs(v);
    if (!error)
        error = set_xcr0(v);
    v->broken = error != 0;
    return error;
}

static int set_up(kv_vcpu *v)
{
    kv_platform *p = v->platform;
    v->fd = ioctl(p->vm_fd, KVM_CREATE_VCPU, (unsigned long)v->id);
    if (v->fd < 0)
        return kv_fail(p, -errno, "KVM_CREATE_VCPU: %s", strerror(errno));
    v->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (v->run == MAP_FAILED) {
        v->run = NULL;
        return kv_fail(p, -errno, "mapping a vCPU: %s", strerror(errno));
    }
    if (ioctl(v->fd, KVM_SET_CPUID2, p->cpuid))
        return kv_fail(p, -errno, "KVM_SET_CPUID2: %s", strerror(errno));
    int error = vcpu_reset(v);
    if (error)
        return error;
    set_tsc(v);
    refuse_hypercalls(v);
    return 0;
}

int vcpu_new(kv_platform *p, kv_vcpu **made)
{
    kv_vcpu *v = calloc(1, sizeof *v);
    if (!v)
        return kv_fail(p, -ENOMEM, "out of memory");
    v->platform = p;
    v->id = p->nvcpus++;
    v->page = p->kernel + vcpu_page(v->id) * KV_PAGE;
    v->page_addr = KERNEL_BASE + (uint64_t)vcpu_page(v->id) * KV_PAGE;
    v->entry = v->page_addr - KV_PAGE + SYSCALL_ENTRY;
    v->fd = -1;
    int error = set_up(v);
    if (error) {
        vcpu_free(v);
        return error;
    }
    *made = v;
    return 0;
}

void vcpu_free(kv_vcpu *v)
{
    if (v->run)
        munmap(v->run, v->platform->run_size);
    if (v->fd >= 0)
        close(v->fd);
    free(v);
}

int vcpu_run(kv_vcpu *v)
{
    return ioctl(v->fd, KVM_RUN, 0) ? -errno : 0;
}

int vcpu_get_xsave(kv_vcpu *v, void *state)
{
    if (ioctl(v->fd, KVM_GET_XSAVE, state))
        return kv_fail(v->platform, -errno, "KVM_GET_XSAVE: %s", strerror(errno));
    return 0;
}

int vcpu_set_xsave(kv_vcpu *v, const void *state)
{
    return ioctl(v->fd, KVM_SET_XSAVE, state) ? -errno : 0;
}

/* vCPUs are numbered from 0, in the order in which they were made. */
int kv_stats_fd(kv_platform *p, int vcpu)
{
    pthread_mutex_lock(&p->lock);       /* a worker may make one more */
    const kv_vcpu *v = runner_find_vcpu(&p->main, vcpu);
    for (int i = 0; !v && i < p->nworkers; i++)
        v = runner_find_vcpu(p->workers[i], vcpu);
    pthread_mutex_unlock(&p->lock);
    if (p->closed || !v)
        return kv_fail(p, -EINVAL, "there is no vCPU %d", vcpu);
    int fd = ioctl(v->fd, KVM_GET_STATS_FD, 0);
    return fd < 0 ? kv_fail(p, -errno, "KVM_GET_STATS_FD: %s", strerror(errno)) : fd;
}

/*
 * Make the vCPU fit for another context, if it is: 1 if an exception is on its way into the guest,
 * which has to be taken first. Otherwise what holds one back for an instruction (MOV to SS) is
 * over: the next context would find it, and with its EFLAGS an Intel processor would not enter. SDM
 * volume 3, 27.3.1.5; what was held back is dropped in vector_stop().
 */
int vcpu_settle(kv_vcpu *v)
{
    struct kvm_vcpu_events events;
    if (ioctl(v->fd, KVM_GET_VCPU_EVENTS, &events))
        return kv_fail(v->platform, -errno, "KVM_GET_VCPU_EVENTS: %s", strerror(errno));
    if (events.exception.injected || events.exception.pending)
        return 1;
    if (!events.interrupt.shadow)
        return 0;
    events.interrupt.shadow = 0;
    events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
    return set_events(v, &events);
}

/*
 * Makes it leave the guest; under the lock, while a thread has it. context_run() clears
 * `immediate_exit` before it looks at `attention` a last time, so whichever of the two stores below
 * comes too late for that, the other one is seen: by context_run(), or by KVM. That takes one order
 * of all four accesses: a processor lets plain loads overtake stores.
 */
void vcpu_kick(kv_vcpu *v)
{
    atomic_store(&v->attention, 1);
    atomic_store(vcpu_immediate_exit(v), 1);
    syscall(SYS_tgkill, v->platform->owner, v->runner->tid, SIGRTMIN + 1);
}

uint64_t kv_read_tsc(const kv_platform *p)
{
    return p->tsc_is_host ? __rdtsc() : 0;
}
