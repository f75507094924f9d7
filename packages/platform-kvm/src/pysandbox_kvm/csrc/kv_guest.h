/*
 * The guest kernel: where it lies, and the offsets that its code, KVM and the monitor agree on.
 *
 * Interface: every address space has it at KERNEL_BASE, in the upper half, for ring 0 only. It is
 * one page of code, one of tables (both read-only) and one page for each vCPU, with a view of the
 * code below it. Its code is a HLT for every way out of ring 3, which tells the monitor by its
 * address what happened, and one IRETQ for the way in: where KVM emulates ring 0, every instruction
 * there costs microseconds.
 *
 * It answers a few system calls itself, see guest_image_amd64.c, those whose results are in the
 * vCPU's page. That is found without a register, by its distance from the code: a view is the page
 * of code once more, and LSTAR points into the vCPU's own.
 */
#ifndef KV_GUEST_H
#define KV_GUEST_H

#include <stdbool.h>
#include <stdint.h>

enum { KV_PAGE = 4096, KV_PAGE_SHIFT = 12 };

/*
 * The low half of its address is 0: where KVM emulates a SYSCALL of a 32-bit segment it takes no
 * more than that of the entry's. Ring 0 is then at COMPAT_SYSCALL_STUB, in the page at 0, and must
 * find nothing of the program's there: see SPACE_START.
 */
#define KERNEL_BASE UINT64_C(0xffffffff00000000)
#define SPACE_START UINT64_C(0x10000)
enum {
    CODE_PAGE = 0,
    TABLES_PAGE = 1,
    FIRST_VCPU_PAGE = 2,
    MAX_VCPUS = 64,
    VCPU_STRIDE = 2,            /* each vCPU's page is above its view of the code, which no stack
                                   that overflows can be written to */
    KERNEL_PAGES = FIRST_VCPU_PAGE + MAX_VCPUS * VCPU_STRIDE,
};

static inline int vcpu_page(int id)
{
    return FIRST_VCPU_PAGE + id * VCPU_STRIDE + 1;
}

/* In the code page. */
enum {
    NVECTORS = 32,              /* a vector beyond is a #GP by the IDT's limit */
    STUB_SIZE = 16,
    COMPAT_SYSCALL_STUB = 0x810,
    IRETQ_STUB = 0x820,
    SYSCALL_ENTRY = 0x900,      /* a comparison for each number that is answered */
    SYSCALL_STUB = 0x949,       /* the HLT behind the last one */
    ANSWER_STUBS = 0x950,       /* for each a MOV and, at ANSWER_SYSRETQ, the SYSRETQ */
    ANSWER_SYSRETQ = 7,
    SYSCALL_SIZE = 0xd0,        /* from the entry to the end of the last stub */
};

/* In the tables page. */
enum { IDT_AT = 0, GDT_AT = 0x800, GDT_ENTRIES = 10, GDT_TSS = 8 };

/* In a vCPU's page. The stacks grow down from where they are. */
enum { TSS_AT = 0, TSS_SIZE = 104, ANSWERS_AT = 0x100, IRETQ_FRAME_AT = 0x800, IST_AT = 0xc00,
       STACK_AT = 0x1000 };

/*
 * Vectors whose gates switch to the stack at IST_AT: those that may come while ring 0 still has the
 * program's stack pointer.
 */
enum { VECTOR_DEBUG = 1, VECTOR_NMI = 2, VECTOR_DOUBLE_FAULT = 8, VECTOR_PAGE_FAULT = 14,
       VECTOR_MACHINE_CHECK = 18 };
static inline bool has_own_stack(unsigned vector)
{
    return vector == VECTOR_DEBUG || vector == VECTOR_NMI || vector == VECTOR_DOUBLE_FAULT ||
           vector == VECTOR_PAGE_FAULT || vector == VECTOR_MACHINE_CHECK;
}

/* The system calls that the guest kernel answers for the context that the vCPU runs. */
enum { MAX_ANSWERS = 8 };
typedef struct {
    uint32_t halt_flags;        /* EFLAGS with any of these set: none is answered */
    uint32_t unused;
    uint32_t numbers[MAX_ANSWERS];      /* all of them count: what is not used is a repetition */
    uint64_t values[MAX_ANSWERS];
} kv_answers;

/* Linux's own, since KVM without hardware support runs ring 3 with the host's GDT. */
enum { KERNEL_CS = 0x10, KERNEL_DS = 0x18, USER32_CS = 0x23, USER_DS = 0x2b, USER_CS = 0x33 };

enum { EFLAGS_TF = 0x100, EFLAGS_IF = 0x200, EFLAGS_USER = 0x250dd5, EFLAGS_FIXED = 0x202 };
enum { SYSCALL_MASK = 0x257fd5 };       /* EFLAGS that SYSCALL clears: all it may */

/* What the processor pushes, lowest address first; an error code lies below. */
typedef struct {
    uint64_t rip, cs, eflags, rsp, ss;
} kv_frame;

#endif
