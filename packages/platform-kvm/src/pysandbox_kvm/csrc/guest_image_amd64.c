/*
 * The guest kernel's pages: its code, descriptor tables, and each vCPU's task state segment.
 *
 * Its one piece of code that is more than an instruction answers system calls whose results are
 * constant. At SYSCALL no register is free and the stack is the program's, so it uses neither:
 *
 *              test r11d, [halt_flags]         ; TF, or none is to be answered
 *              jnz  halt
 *              cmp  eax, [numbers + 0]         ; of RAX Linux, too, sees the low half alone
 *              je   answer_0
 *              ...
 *      halt:   hlt
 *      answer_0: mov rax, [values + 0]
 *              sysretq                         ; RIP and EFLAGS from RCX and R11
 *
 * SYSRET is only as safe as RCX: on Intel's processors a non-canonical one is a #GP in ring 0, on
 * the program's stack. RCX is where a SYSCALL ends that was fetched from a page of the program's,
 * so it is enough that none can be mapped next to the hole (space.c). Single steps are left to
 * IRETQ, which like Linux's way back traps behind the next instruction; SYSRET would trap before
 * it. What might come between the two instructions has a stack of its own, and no base is swapped
 * that it could find on the wrong side. With PVM nothing of this is run: the fetch of its first
 * instruction is what the monitor takes for the system call.
 *
 * Interface: pure functions of their arguments; kv_guest.h has the layout. Intel SDM volume 3:
 * segment descriptors 3.4.5, task state segment 8.7, gates 6.14.1.
 */
#include "kv_internal.h"

#include <string.h>

enum { HLT = 0xf4 };
enum { GATE_INTERRUPT = 0x8e, GATE_RING_3 = 0x60 };
enum { BREAKPOINT = 3, OVERFLOW = 4 };

enum { JE = 0x74, JNZ = 0x75 };

static const uint8_t IRETQ[] = {0x48, 0xcf}, SYSRETQ[] = {0x48, 0x0f, 0x07};

/* With a 32-bit displacement from RIP to come. */
static const uint8_t TEST_R11D[] = {0x44, 0x85, 0x1d}, CMP_EAX[] = {0x3b, 0x05},
                     MOV_RAX[] = {0x48, 0x8b, 0x05};

_Static_assert(SYSCALL_STUB == SYSCALL_ENTRY + 9 + 8 * MAX_ANSWERS, "it follows the comparisons");
_Static_assert(SYSCALL_ENTRY + SYSCALL_SIZE == ANSWER_STUBS + MAX_ANSWERS * STUB_SIZE, "all");
_Static_assert(ANSWER_SYSRETQ == sizeof MOV_RAX + 4, "it follows the MOV");
_Static_assert(ANSWERS_AT + sizeof(kv_answers) < IRETQ_FRAME_AT / 2, "far from the stacks");

/* Accessed and present already, so that the processor never writes to the table. */
static const uint64_t GDT[GDT_ENTRIES] = {
    [1] = 0x00cf9b000000ffff,           /* 32-bit code, ring 0 */
    [KERNEL_CS >> 3] = 0x00af9b000000ffff,
    [KERNEL_DS >> 3] = 0x00cf93000000ffff,
    [USER32_CS >> 3] = 0x00cffb000000ffff,
    [USER_DS >> 3] = 0x00cff3000000ffff,
    [USER_CS >> 3] = 0x00affb000000ffff,
};

static void write_gate(uint8_t *gate, unsigned vector)
{
    uint64_t handler = KERNEL_BASE + CODE_PAGE * KV_PAGE + vector * STUB_SIZE;
    uint64_t type = GATE_INTERRUPT;
    if (vector == BREAKPOINT || vector == OVERFLOW)
        type |= GATE_RING_3;            /* all others are a #GP when a program asks for them */
    uint64_t ist = has_own_stack(vector) ? 1 : 0;
    const uint64_t words[2] = {
        (handler & 0xffff) | (uint64_t)KERNEL_CS << 16 | ist << 32 | type << 40 |
            (handler >> 16 & 0xffff) << 48,
        handler >> 32,
    };
    memcpy(gate, words, sizeof words);
}

/* An instruction on a field of the answers, as seen from a view of the code; where it ends. */
static int put(uint8_t *code, int at, const uint8_t *opcode, size_t size, size_t field)
{
    int end = at + (int)size + 4;
    int32_t distance = KV_PAGE + ANSWERS_AT + (int)field - end;
    memcpy(code + at, opcode, size);
    memcpy(code + at + size, &distance, sizeof distance);
    return end;
}

static int put_jump(uint8_t *code, int at, uint8_t opcode, int to)
{
    code[at] = opcode;
    code[at + 1] = (uint8_t)(to - (at + 2));
    return at + 2;
}

static void write_syscall_entry(uint8_t *code)
{
    int at = put(code, SYSCALL_ENTRY, TEST_R11D, sizeof TEST_R11D,
                 offsetof(kv_answers, halt_flags));
    at = put_jump(code, at, JNZ, SYSCALL_STUB);
    for (size_t i = 0; i < MAX_ANSWERS; i++) {
        int stub = ANSWER_STUBS + (int)i * STUB_SIZE;
        at = put(code, at, CMP_EAX, sizeof CMP_EAX, offsetof(kv_answers, numbers[i]));
        at = put_jump(code, at, JE, stub);
        put(code, stub, MOV_RAX, sizeof MOV_RAX, offsetof(kv_answers, values[i]));
        memcpy(code + stub + ANSWER_SYSRETQ, SYSRETQ, sizeof SYSRETQ);
    }
}

void guest_image_write(uint8_t *kernel)
{
    uint8_t *code = kernel + CODE_PAGE * KV_PAGE;
    uint8_t *tables = kernel + TABLES_PAGE * KV_PAGE;
    memset(code, HLT, KV_PAGE);
    memcpy(code + IRETQ_STUB, IRETQ, sizeof IRETQ);
    write_syscall_entry(code);
    for (unsigned vector = 0; vector < NVECTORS; vector++)
        write_gate(tables + IDT_AT + vector * 16, vector);
    memcpy(tables + GDT_AT, GDT, sizeof GDT);
}

void guest_vcpu_write(uint8_t *kernel, int id)
{
    uint8_t *page = kernel + vcpu_page(id) * KV_PAGE;
    uint64_t addr = KERNEL_BASE + (uint64_t)vcpu_page(id) * KV_PAGE;
    const uint64_t rsp0 = addr + STACK_AT, ist1 = addr + IST_AT;
    const uint16_t no_io_bitmap = TSS_SIZE;
    const kv_answers none = {.halt_flags = EFLAGS_FIXED};
    memset(page, 0, KV_PAGE);
    memcpy(page + TSS_AT + 4, &rsp0, sizeof rsp0);
    memcpy(page + TSS_AT + 36, &ist1, sizeof ist1);
    memcpy(page + TSS_AT + 102, &no_io_bitmap, sizeof no_io_bitmap);
    memcpy(page + ANSWERS_AT, &none, sizeof none);
}
