/*
 * The guest kernel: where it lies, and the offsets that its code, KVM and the monitor agree on.
 *
 * Interface: every address space has it at KERNEL_BASE, in the upper half, for ring 0 only. It is
 * one page of code, one of tables (both read-only) and one page for each vCPU. Its code is a HLT
 * for every way out of ring 3, which tells the monitor by its address what happened, and one IRETQ
 * for the way in: where KVM emulates ring 0, every instruction there costs microseconds.
 */
#ifndef KV_GUEST_H
#define KV_GUEST_H

#include <stdint.h>

enum { KV_PAGE = 4096, KV_PAGE_SHIFT = 12 };

#define KERNEL_BASE UINT64_C(0xffffffff80000000)
enum {
    CODE_PAGE = 0,
    TABLES_PAGE = 1,
    FIRST_VCPU_PAGE = 2,
    MAX_VCPUS = 64,
    KERNEL_PAGES = FIRST_VCPU_PAGE + MAX_VCPUS,
};

/* In the code page. */
enum {
    NVECTORS = 32,              /* a vector beyond is a #GP by the IDT's limit */
    STUB_SIZE = 16,
    SYSCALL_STUB = 0x800,
    COMPAT_SYSCALL_STUB = 0x810,
    IRETQ_STUB = 0x820,
};
#define SYSCALL_ENTRY (KERNEL_BASE + SYSCALL_STUB)

/* In the tables page. */
enum { IDT_AT = 0, GDT_AT = 0x800, GDT_ENTRIES = 10, GDT_TSS = 8 };

/* In a vCPU's page. The stacks grow down from where they are. */
enum { TSS_AT = 0, TSS_SIZE = 104, IRETQ_FRAME_AT = 0x800, IST_AT = 0xc00, STACK_AT = 0x1000 };

/* Linux's own, since KVM without hardware support runs ring 3 with the host's GDT. */
enum { KERNEL_CS = 0x10, KERNEL_DS = 0x18, USER32_CS = 0x23, USER_DS = 0x2b, USER_CS = 0x33 };

enum { EFLAGS_TF = 0x100, EFLAGS_IF = 0x200, EFLAGS_USER = 0x250dd5, EFLAGS_FIXED = 0x202 };
enum { SYSCALL_MASK = 0x257fd5 };       /* EFLAGS that SYSCALL clears: all it may */

/* What the processor pushes, lowest address first; an error code lies below. */
typedef struct {
    uint64_t rip, cs, eflags, rsp, ss;
} kv_frame;

#endif
