/*
 * The hot path: into the guest with a context, and out again.
 *
 * A context is entered through the guest kernel's IRETQ, from a frame in the vCPU's page: only the
 * general registers change from one entry to the next, which travel in `kvm_run`. The special ones
 * are written when the space, a base or a selector changed.
 *
 * Interface: context_run() is called by the thread that the vCPU belongs to, with the context's
 * extended state attached. It gives 1 when the context stopped, 0 when the vCPU was told to leave
 * the guest; the registers are in `view.regs` either way.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <string.h>

enum { LATE_AT_MOST = 2 };              /* ticks */

static const struct user_regs_struct *regs_of(const kv_ctx *c)
{
    return (const struct user_regs_struct *)c->view.regs;
}

static uint16_t data_selector(uint64_t value)
{
    return value == USER_DS ? USER_DS : 0;
}

static bool canonical(uint64_t addr)
{
    return (uint64_t)((int64_t)(addr << 16) >> 16) == addr;
}

/* Could there be a program with such registers? IRETQ and KVM would refuse others. */
static bool loadable(const struct user_regs_struct *u)
{
    return canonical(u->rip) && canonical(u->fs_base) && canonical(u->gs_base);
}

/* What Linux does when it can't return to such registers: SIGSEGV, as after a #GP. */
static int refuse_regs(kv_ctx *c)
{
    c->view.signo = SIGSEGV;
    c->view.code = SI_KERNEL;
    c->view.fault_addr = 0;
    c->stop = KV_STOP_EXCEPTION;
    return 1;
}

static void load_general(kv_vcpu *v, const struct user_regs_struct *u)
{
    v->run->s.regs.regs = (struct kvm_regs){
        .rax = u->rax, .rbx = u->rbx, .rcx = u->rcx, .rdx = u->rdx,
        .rsi = u->rsi, .rdi = u->rdi, .rbp = u->rbp,
        .r8 = u->r8, .r9 = u->r9, .r10 = u->r10, .r11 = u->r11,
        .r12 = u->r12, .r13 = u->r13, .r14 = u->r14, .r15 = u->r15,
        .rip = KERNEL_BASE + IRETQ_STUB,
        .rsp = v->page_addr + IRETQ_FRAME_AT,
        .rflags = 2,
    };
    *(kv_frame *)(v->page + IRETQ_FRAME_AT) = (kv_frame){
        .rip = u->rip,
        .cs = u->cs == USER32_CS ? USER32_CS : USER_CS,
        .eflags = (u->eflags & EFLAGS_USER) | EFLAGS_FIXED,
        .rsp = u->rsp,
        .ss = USER_DS,
    };
    v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
}

static bool load_segment(struct kvm_segment *s, uint16_t selector, uint64_t base)
{
    bool loaded = !selector || (!s->unusable && s->dpl == 3);   /* a null one needs no more */
    if (s->selector == selector && s->base == base && loaded)
        return false;
    *s = (struct kvm_segment){
        .base = base, .limit = 0xffffffff, .selector = selector, .type = 3, .present = 1,
        .dpl = 3, .db = 1, .s = 1, .g = 1,
    };
    return true;
}

static void to_ring_0(struct kvm_sregs *s)
{
    s->cs = (struct kvm_segment){
        .limit = 0xffffffff, .selector = KERNEL_CS, .type = 11, .present = 1,
        .s = 1, .l = 1, .g = 1,
    };
    s->ss = (struct kvm_segment){
        .limit = 0xffffffff, .selector = KERNEL_DS, .type = 3, .present = 1,
        .s = 1, .db = 1, .g = 1,
    };
}

static void load_special(kv_vcpu *v, const struct user_regs_struct *u, uint64_t root)
{
    struct kvm_sregs *s = &v->run->s.regs.sregs;
    bool changed = v->root != root || v->in_user;
    changed |= load_segment(&s->ds, data_selector(u->ds), 0);
    changed |= load_segment(&s->es, data_selector(u->es), 0);
    changed |= load_segment(&s->fs, data_selector(u->fs), u->fs_base);
    changed |= load_segment(&s->gs, data_selector(u->gs), u->gs_base);
    if (!changed)
        return;
    if (v->in_user)
        to_ring_0(s);
    s->cr3 = v->root = root;
    v->in_user = false;
    v->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
}

static bool in_ring_0(const kv_vcpu *v)
{
    return (v->run->s.regs.sregs.cs.selector & 3) == 0;
}

/*
 * The guest was left in the middle. A vCPU that is in ring 0, or about to take an exception, goes
 * on to the stop that it is on its way to; it takes an instruction or two, or is_lost(). 1: it has
 * to.
 */
static int leave(kv_vcpu *v, kv_ctx *c)
{
    const struct kvm_sync_regs *s = &v->run->s.regs;
    if (v->run->kvm_dirty_regs & KVM_SYNC_X86_REGS) {
        v->root = 0;                    /* it never entered: load_special() is to be done again */
        v->in_user = (s->sregs.cs.selector & 3) == 3;
        return 0;
    }
    if (in_ring_0(v))
        return s->regs.rip != KERNEL_BASE + IRETQ_STUB;
    if (s->regs.rip == v->entry && !(s->regs.rflags & EFLAGS_IF))
        return 1;                       /* PVM, see stops.c */
    int pending = vcpu_settle(v);
    if (pending)
        return pending;
    regs_store_user(v, c);
    v->in_user = true;
    return 0;
}

/* After KVM_RUN was ended: has it been in ring 0 for longer than anything there can take? */
static bool is_lost(const kv_vcpu *v, kv_ctx *c, bool must_go_on, uint32_t ticks)
{
    if (!must_go_on && !in_ring_0(v))
        c->late = 0;
    else if (ticks)
        c->late++;
    return c->late >= LATE_AT_MOST;
}

/* KVM_RUN until something happened: 1 an exit, 0 told to leave. */
static int enter(kv_vcpu *v, kv_ctx *c)
{
    bool must_go_on = false;
    uint32_t ticks = atomic_load_explicit(v->watch->ticks, memory_order_relaxed);
    for (;;) {
        atomic_store(vcpu_immediate_exit(v), 0);
        if (atomic_load(&v->attention) && !must_go_on)
            return leave(v, c);
        int error = vcpu_run(v);
        if (!error)
            return 1;
        if (error == -EFAULT)
            return stop_memory_fault(v, c);
        if (error != -EINTR && error != -EAGAIN)
            return kv_fail(v->platform, error, "KVM_RUN: %s", strerror(-error));
        if (is_in_entry(v)) {
            c->late = 0;
            return stop_in_entry(v, c);
        }
        int result = leave(v, c);
        if (result < 0)
            return result;
        must_go_on = result;
        uint32_t now = atomic_load(v->watch->ticks);
        if (is_lost(v, c, must_go_on, now - ticks)) {
            stop_killed(c, "it does not come out of the guest kernel, at %#llx",
                        (unsigned long long)v->run->s.regs.regs.rip);
            v->broken = true;
            return 1;
        }
        if (!must_go_on)
            return 0;
        ticks = now;
    }
}

int context_run(kv_vcpu *v, kv_ctx *c)
{
    if (v->broken) {
        int error = vcpu_reset(v);
        if (error)
            return error;
    }
    for (;;) {
        if (!loadable(regs_of(c)))
            return refuse_regs(c);
        load_general(v, regs_of(c));
        load_special(v, regs_of(c), c->space->root);
        if (v->answers_id != c->answers_id)
            answers_load(v, c);
        c->stop = 0;
        int result = enter(v, c);
        if (result == 1)
            c->late = 0;
        if (result == 1 && !c->stop)
            result = stop_handle(v, c);
        else if (result == 0)
            return 0;
        if (result && result != -EAGAIN) {
            v->spurious = 0;            /* it got on */
            return result;
        }
    }
}
