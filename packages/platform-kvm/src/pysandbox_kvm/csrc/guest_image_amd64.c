/*
 * The guest kernel's pages: its code, descriptor tables, and each vCPU's task state segment.
 *
 * Interface: pure functions of their arguments; kv_guest.h has the layout. Intel SDM volume 3:
 * segment descriptors 3.4.5, task state segment 8.7, gates 6.14.1.
 */
#include "kv_internal.h"

#include <string.h>

enum { HLT = 0xf4 };
enum { GATE_INTERRUPT = 0x8e, GATE_RING_3 = 0x60 };
enum { BREAKPOINT = 3, OVERFLOW = 4 };
enum { DEBUG = 1, NMI = 2, DOUBLE_FAULT = 8, MACHINE_CHECK = 18 };

static const uint8_t IRETQ[] = {0x48, 0xcf};

/* Accessed and present already, so that the processor never writes to the table. */
static const uint64_t GDT[GDT_ENTRIES] = {
    [1] = 0x00cf9b000000ffff,           /* 32-bit code, ring 0 */
    [KERNEL_CS >> 3] = 0x00af9b000000ffff,
    [KERNEL_DS >> 3] = 0x00cf93000000ffff,
    [USER32_CS >> 3] = 0x00cffb000000ffff,
    [USER_DS >> 3] = 0x00cff3000000ffff,
    [USER_CS >> 3] = 0x00affb000000ffff,
};

/* Those that may come while ring 0 still has the program's stack pointer. */
static bool wants_own_stack(int vector)
{
    return vector == DEBUG || vector == NMI || vector == DOUBLE_FAULT || vector == MACHINE_CHECK;
}

static void write_gate(uint8_t *gate, int vector)
{
    uint64_t handler = KERNEL_BASE + CODE_PAGE * KV_PAGE + (uint64_t)vector * STUB_SIZE;
    uint64_t type = GATE_INTERRUPT;
    if (vector == BREAKPOINT || vector == OVERFLOW)
        type |= GATE_RING_3;            /* all others are a #GP when a program asks for them */
    uint64_t ist = wants_own_stack(vector) ? 1 : 0;
    const uint64_t words[2] = {
        (handler & 0xffff) | (uint64_t)KERNEL_CS << 16 | ist << 32 | type << 40 |
            (handler >> 16 & 0xffff) << 48,
        handler >> 32,
    };
    memcpy(gate, words, sizeof words);
}

void guest_image_write(uint8_t *kernel)
{
    uint8_t *code = kernel + CODE_PAGE * KV_PAGE;
    uint8_t *tables = kernel + TABLES_PAGE * KV_PAGE;
    memset(code, HLT, KV_PAGE);
    memcpy(code + IRETQ_STUB, IRETQ, sizeof IRETQ);
    for (int vector = 0; vector < NVECTORS; vector++)
        write_gate(tables + IDT_AT + vector * 16, vector);
    memcpy(tables + GDT_AT, GDT, sizeof GDT);
}

void guest_vcpu_write(uint8_t *kernel, int id)
{
    uint8_t *page = kernel + (FIRST_VCPU_PAGE + id) * KV_PAGE;
    uint64_t addr = KERNEL_BASE + (uint64_t)(FIRST_VCPU_PAGE + id) * KV_PAGE;
    const uint64_t rsp0 = addr + STACK_AT, ist1 = addr + IST_AT;
    const uint16_t no_io_bitmap = TSS_SIZE;
    memset(page, 0, KV_PAGE);
    memcpy(page + TSS_AT + 4, &rsp0, sizeof rsp0);
    memcpy(page + TSS_AT + 36, &ist1, sizeof ist1);
    memcpy(page + TSS_AT + 102, &no_io_bitmap, sizeof no_io_bitmap);
}
