/*
 * From how the vCPU left the guest to why a context stopped.
 *
 * Every way out of ring 3 ends at a HLT of the guest kernel; its address says which vector it was,
 * or SYSCALL. The vCPU still has the program's general registers, the processor has pushed the
 * others to the vCPU's page. What SYSCALL does not push it leaves in RCX and R11.
 *
 * KVM without hardware virtualisation (PVM) enters at SYSCALL's entry with the user's code
 * selector, so the fetch is a page fault there. It is told from a jump of the program's to that
 * address by IF, which SYSCALL clears and no program can.
 *
 * Interface: 1 the context stopped, 0 it may go on, or a negative errno.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

enum { ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_EXEC = 4 };
enum { PF_PRESENT = 1, PF_WRITE = 2, PF_USER = 4, PF_FETCH = 16 };
enum { SPURIOUS_AT_MOST = 64 };
enum { VECTOR_INVALID_OPCODE = 6 };

static struct user_regs_struct *regs_of(kv_ctx *c)
{
    return (struct user_regs_struct *)c->view.regs;
}

void stop_killed(kv_ctx *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->view.message, sizeof c->view.message, format, args);
    va_end(args);
    c->killed = true;
    c->stop = KV_STOP_KILLED;
}

static int exception(kv_ctx *c, int signo, int code, uint64_t addr)
{
    c->view.signo = signo;
    c->view.code = code;
    c->view.fault_addr = addr;
    c->stop = KV_STOP_EXCEPTION;
    return 1;
}

/* All but what a frame has. */
static void store_general(const kv_vcpu *v, kv_ctx *c)
{
    const struct kvm_regs *r = &v->run->s.regs.regs;
    const struct kvm_sregs *s = &v->run->s.regs.sregs;
    *regs_of(c) = (struct user_regs_struct){
        .rax = r->rax, .rbx = r->rbx, .rcx = r->rcx, .rdx = r->rdx,
        .rsi = r->rsi, .rdi = r->rdi, .rbp = r->rbp,
        .r8 = r->r8, .r9 = r->r9, .r10 = r->r10, .r11 = r->r11,
        .r12 = r->r12, .r13 = r->r13, .r14 = r->r14, .r15 = r->r15,
        .orig_rax = (uint64_t)-1,
        .fs_base = s->fs.base, .gs_base = s->gs.base,
        .ds = s->ds.selector, .es = s->es.selector, .fs = s->fs.selector, .gs = s->gs.selector,
    };
}

static void store_frame(kv_ctx *c, const kv_frame *f)
{
    struct user_regs_struct *u = regs_of(c);
    u->rip = f->rip;
    u->cs = f->cs;
    u->eflags = (f->eflags & EFLAGS_USER) | EFLAGS_FIXED;
    u->rsp = f->rsp;
    u->ss = f->ss;
}

/* The vCPU is in ring 3: its registers are the program's. */
void regs_store_user(const kv_vcpu *v, kv_ctx *c)
{
    const struct kvm_regs *r = &v->run->s.regs.regs;
    const struct kvm_sregs *s = &v->run->s.regs.sregs;
    const kv_frame f = {r->rip, s->cs.selector, r->rflags, r->rsp, s->ss.selector};
    store_general(v, c);
    store_frame(c, &f);
}

/* `rsp` is the program's. */
static int syscall_stop(kv_vcpu *v, kv_ctx *c, uint64_t rsp)
{
    store_general(v, c);
    struct user_regs_struct *u = regs_of(c);
    u->rip = u->rcx;
    u->eflags = (u->r11 & EFLAGS_USER) | EFLAGS_FIXED;
    u->rsp = rsp;
    u->cs = USER_CS;
    u->ss = USER_DS;
    u->orig_rax = u->rax;
    c->stop = KV_STOP_SYSCALL;
    return 1;
}

/* SYSCALL of a 32-bit segment, which only AMD's processors have. `rsp` is the program's. */
static int compat_syscall_stop(kv_vcpu *v, kv_ctx *c, uint64_t rsp)
{
    store_general(v, c);
    struct user_regs_struct *u = regs_of(c);
    u->rip = (u->rcx - 2) & 0xffffffff;
    u->eflags = (u->r11 & EFLAGS_USER) | EFLAGS_FIXED;
    u->rsp = rsp;
    u->cs = USER32_CS;
    u->ss = USER_DS;
    return exception(c, SIGILL, ILL_ILLOPN, u->rip);
}

static void note_flavour(kv_platform *p, int flavour)
{
    if (atomic_load_explicit(&p->flavour, memory_order_relaxed) != flavour)
        atomic_store(&p->flavour, flavour);
}

bool is_in_entry(const kv_vcpu *v)
{
    const struct kvm_sync_regs *s = &v->run->s.regs;
    return s->regs.rip - v->entry < SYSCALL_SIZE && (s->sregs.cs.selector & 3) == 0;
}

/*
 * The vCPU was made to leave while the guest kernel looked whether it has an answer. It must not go
 * on: if it has, nothing would stop the program that it returns to. Up to the SYSRETQ nothing has
 * changed, so the call is a stop like any other; there, it has been answered.
 */
int stop_in_entry(kv_vcpu *v, kv_ctx *c)
{
    const struct kvm_regs *r = &v->run->s.regs.regs;
    uint64_t at = r->rip - v->entry + SYSCALL_ENTRY;
    note_flavour(v->platform, KV_FLAVOUR_HARDWARE);
    if (at < ANSWER_STUBS || at % STUB_SIZE != ANSWER_SYSRETQ)
        return syscall_stop(v, c, r->rsp);
    const kv_frame f = {r->rcx, USER_CS, r->r11, r->rsp, USER_DS};
    store_general(v, c);
    store_frame(c, &f);
    return 0;
}

static int access_of(uint64_t error_code)
{
    if (error_code & PF_FETCH)
        return ACCESS_EXEC;
    return error_code & PF_WRITE ? ACCESS_WRITE : ACCESS_READ;
}

static bool allows(uint64_t entry, int access)
{
    if (!(entry & ENTRY_PRESENT))
        return false;
    if (access == ACCESS_EXEC)
        return !(entry & ENTRY_NX);
    return access == ACCESS_READ || entry & ENTRY_WRITE;
}

/* The same one again and again is none: better a fault too many than a program that hangs. */
static bool is_spurious(kv_vcpu *v, uint64_t addr)
{
    v->spurious = addr == v->spurious_addr ? v->spurious + 1 : 0;
    v->spurious_addr = addr;
    return v->spurious < SPURIOUS_AT_MOST;
}

static int page_fault(kv_vcpu *v, kv_ctx *c, const kv_frame *f, uint64_t error_code)
{
    uint64_t addr = v->run->s.regs.sregs.cr2, covered;
    if (addr == v->entry && f->rip == v->entry && !(f->eflags & EFLAGS_IF)) {
        note_flavour(v->platform, KV_FLAVOUR_PVM);
        return syscall_stop(v, c, f->rsp);
    }
    store_general(v, c);
    store_frame(c, f);
    c->view.fault_addr = addr;
    c->view.fault_access = access_of(error_code);
    kv_entry *at = addr < kv_space_end() ? tree_find(c->space, addr, &covered) : NULL;
    uint64_t entry = at ? *at : 0;
    /* A translation from before the page was made to allow more: it is gone now. */
    if (allows(entry, c->view.fault_access) && is_spurious(v, addr))
        return 0;
    bool beyond = entry & ENTRY_BEYOND;
    if (beyond) {               /* told; the next access finds out anew, the file may grow */
        atomic_compare_exchange_strong(at, &entry, (entry & ~ENTRY_BEYOND) | ENTRY_PRESENT);
        if (!page_is_beyond(window_memory(v->platform, entry & ENTRY_ADDRESS)))
            return 0;           /* it has, since the entry was taken away */
    }
    c->view.signo = beyond ? SIGBUS : SIGSEGV;
    c->view.code = beyond ? BUS_ADRERR : entry & ENTRY_MAPPED ? SEGV_ACCERR : SEGV_MAPERR;
    c->stop = KV_STOP_FAULT;
    return 1;
}

/* What Linux makes of the vectors that always mean the same; arch/x86/kernel/traps.c. */
static const struct {
    int8_t signo;
    bool at_instruction;        /* si_addr is RIP */
    uint8_t code;
} SIGNALS[NVECTORS] = {
    [0] = {SIGFPE, true, FPE_INTDIV},
    [3] = {SIGTRAP, false, SI_KERNEL},
    [4] = {SIGSEGV, false, SI_KERNEL},
    [5] = {SIGSEGV, false, SI_KERNEL},
    [6] = {SIGILL, true, ILL_ILLOPN},
    [10] = {SIGSEGV, false, SI_KERNEL},
    [11] = {SIGBUS, false, SI_KERNEL},
    [12] = {SIGBUS, false, SI_KERNEL},
    [13] = {SIGSEGV, false, SI_KERNEL},
    [17] = {SIGBUS, false, BUS_ADRALN},
};

/*
 * INT n of ring 3 is a #GP unless its gate allows it, but PVM makes a #UD of it. The instruction is
 * read by the host's kernel, since its file may end before it.
 */
static bool is_int_n(kv_space *s, uint64_t rip)
{
    enum { INT_N = 0xcd };
    uint64_t covered;
    const kv_entry *at = rip < kv_space_end() ? tree_find(s, rip, &covered) : NULL;
    uint64_t entry = at ? *at : 0;
    if (!(entry & ENTRY_PRESENT))
        return false;
    uint8_t opcode = 0;
    uint8_t *memory = window_memory(s->platform, entry & ENTRY_ADDRESS) + rip % KV_PAGE;
    const struct iovec to = {&opcode, 1}, from = {memory, 1};
    return process_vm_readv(s->platform->owner, &to, 1, &from, 1, 0) == 1 && opcode == INT_N;
}

static bool has_error_code(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
}

static int vector_stop(kv_vcpu *v, kv_ctx *c, unsigned vector)
{
    int stack = has_own_stack(vector) ? IST_AT : STACK_AT;
    const kv_frame *f = (const kv_frame *)(v->page + stack) - 1;
    uint64_t error_code = has_error_code(vector) ? ((const uint64_t *)f)[-1] : 0;
    if ((v->run->s.regs.regs.rsp & ~UINT64_C(0x7ff)) == v->page_addr) {
        /* Taken by ring 0, below the IRETQ's frame: the processor refused the registers. */
        return exception(c, SIGSEGV, SI_KERNEL, 0);
    }
    if (vector == VECTOR_PAGE_FAULT && f->cs == KERNEL_CS && f->rip == COMPAT_SYSCALL_STUB)
        return compat_syscall_stop(v, c, f->rsp);       /* emulated, see KERNEL_BASE */
    if (vector == VECTOR_DEBUG && f->cs == KERNEL_CS && f->rip == KERNEL_BASE + IRETQ_STUB)
        return 0;               /* that of a context that left the guest before it was taken */
    if ((f->cs & 3) != 3) {
        stop_killed(c, "exception %u in the guest kernel at %#lx", vector, f->rip);
        v->broken = true;
        return 1;
    }
    if (vector == VECTOR_PAGE_FAULT)
        return page_fault(v, c, f, error_code);
    store_general(v, c);
    store_frame(c, f);
    if (vector == VECTOR_DEBUG)
        return exception(c, SIGTRAP, f->eflags & EFLAGS_TF ? TRAP_TRACE : TRAP_BRKPT, f->rip);
    if (vector == 16 || vector == 19) {
        int code = xstate_signal_code(v, vector == 19);
        return code < 0 ? code : exception(c, SIGFPE, code, f->rip);
    }
    if (vector == VECTOR_INVALID_OPCODE && is_int_n(c->space, f->rip))
        return exception(c, SIGSEGV, SI_KERNEL, 0);
    if (SIGNALS[vector].signo)
        return exception(c, SIGNALS[vector].signo, SIGNALS[vector].code,
                         SIGNALS[vector].at_instruction ? f->rip : 0);
    stop_killed(c, "exception %u, which no program can cause, at %#lx", vector, f->rip);
    return 1;
}

static int halt(kv_vcpu *v, kv_ctx *c)
{
    const struct kvm_regs *r = &v->run->s.regs.regs;
    uint64_t at = r->rip - 1 - KERNEL_BASE;     /* of the HLT that was carried out */
    if (r->rip - 1 == v->entry + (SYSCALL_STUB - SYSCALL_ENTRY)) {
        note_flavour(v->platform, KV_FLAVOUR_HARDWARE);
        return syscall_stop(v, c, r->rsp);
    }
    if (at < NVECTORS * STUB_SIZE && at % STUB_SIZE == 0)
        return vector_stop(v, c, (unsigned)(at / STUB_SIZE));
    if (at == COMPAT_SYSCALL_STUB)
        return compat_syscall_stop(v, c, r->rsp);
    stop_killed(c, "the guest halted at %#llx", (unsigned long long)r->rip);
    v->broken = true;
    return 1;
}

/* For people: what the guest did, where the exit's number does not say it. */
static const char *exit_name(uint32_t reason)
{
    switch (reason) {
    case KVM_EXIT_IO:
        return "port I/O";
    case KVM_EXIT_MMIO:
        return "memory that there is not";
    case KVM_EXIT_DEBUG:
        return "a debug exception";
    case KVM_EXIT_INTR:
        return "a signal";
    default:
        return "unexpected";
    }
}

int stop_handle(kv_vcpu *v, kv_ctx *c)
{
    const struct kvm_run *run = v->run;
    switch (run->exit_reason) {
    case KVM_EXIT_HLT:
        return halt(v, c);
    case KVM_EXIT_SHUTDOWN:
        stop_killed(c, "the virtual processor shut down (triple fault)");
        break;
    case KVM_EXIT_FAIL_ENTRY:
        stop_killed(c, "the processor refused to enter the guest (reason %#llx)",
                    (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        stop_killed(c, "KVM met an internal error (suberror %u) at %#llx", run->internal.suberror,
                    (unsigned long long)run->s.regs.regs.rip);
        break;
    default:
        stop_killed(c, "an exit of KVM that nothing here asks for (%s, reason %u) at %#llx",
                    exit_name(run->exit_reason), run->exit_reason,
                    (unsigned long long)run->s.regs.regs.rip);
    }
    v->broken = true;
    return 1;
}

/*
 * KVM could not get at memory that the guest may reach: a page beyond the end of its file. It does
 * not say where; the guest has to do that itself, see tree_take_away().
 */
int stop_memory_fault(kv_vcpu *v, kv_ctx *c)
{
    if ((v->run->s.regs.sregs.cs.selector & 3) != 3) {
        stop_killed(c, "KVM can't get at the guest kernel's memory, at %#llx",
                    (unsigned long long)v->run->s.regs.regs.rip);
        v->broken = true;
        return 1;
    }
    regs_store_user(v, c);
    v->in_user = true;
    if (tree_take_away(c->space) || is_spurious(v, regs_of(c)->rip))
        return -EAGAIN;
    /* Out of memory, or a file system's error. */
    c->view.fault_addr = 0;
    c->view.fault_access = ACCESS_READ;
    c->view.signo = SIGBUS;
    c->view.code = BUS_ADRERR;
    c->stop = KV_STOP_FAULT;
    return 1;
}
