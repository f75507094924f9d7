/*
 * What a stub process holds: one page of code and a few pages of batch, at one address in every
 * stub.
 *
 * Interface: the layout below is shared with the assembly of stub_image_amd64.c, which has the same
 * numbers; _Static_asserts there keep them together. This file is included by assembly-bearing C
 * only through the macros, so the constants are plain numbers.
 */
#ifndef PT_STUB_H
#define PT_STUB_H

#define PT_PAGE 0x1000
#define PT_TASK_SIZE 0x7ffffffff000     /* end of user space with 4-level page tables */
#define PT_STUB_BASE 0x7fffffff0000     /* the code page; programs end below */
#define PT_STUB_SHARED 0x7fffffff1000   /* the batch pages */
#define PT_SHARED_PAGES 4
#define PT_STUB_SIZE 0x5000             /* both */
#define PT_FILTER_OFFSET 0xc00          /* of the seccomp program in the code page */

#define PT_CLONE_PROCESS 0x00008600     /* CLONE_FILES | CLONE_FS | CLONE_PARENT, no exit signal */
#define PT_CLONE_THREAD 0x00010f00      /* CLONE_VM | FS | FILES | SIGHAND | THREAD */
#define PT_MAP_FLAGS 0x11               /* MAP_SHARED | MAP_FIXED */

#ifndef __ASSEMBLER__
#include <stddef.h>
#include <stdint.h>

/* One system call of a batch; byte offsets are those of the stub's loop. */
typedef struct {
    uint64_t nr;            /*  0 */
    uint64_t args[6];       /*  8 */
    uint64_t unused;        /* 56: 64 bytes each */
} pt_op;

typedef struct {
    /* Start-up only: what the first stub is told before it lets go of the sentry's memory. */
    uint32_t go;            /*  0: futex word */
    uint32_t rseq_size;     /*  4: 0 when no rseq area is registered */
    uint64_t rseq_addr;     /*  8 */
    uint32_t rseq_signature;/* 16 */
    int32_t code_fd;        /* 20 */
    int32_t batch_fd;       /* 24 */
    uint32_t unused;        /* 28 */
    uint64_t region;        /* 32: where code and batch lie in the sentry */
    uint64_t core_limit[2]; /* 40: struct rlimit */
    uint64_t pad;           /* 56 */
    pt_op ops[PT_PAGE * PT_SHARED_PAGES / sizeof(pt_op) - 1];   /* 64 */
} pt_stub_shared;

enum { PT_BATCH_MAX = sizeof(((pt_stub_shared *)0)->ops) / sizeof(pt_op) };

/* The image, and offsets of its entry points from its start. */
extern const uint8_t pt_image_begin[], pt_image_end[];
extern const uint8_t pt_image_batch[];          /* r12: pt_op *, r13: count */
extern const uint8_t pt_image_after_syscall[];  /* the only RIP that the filter knows */
extern const uint8_t pt_image_batch_end[];      /* after its int3 */
extern const uint8_t pt_image_bases[];          /* fs_base = rdi, gs_base = rsi */
extern const uint8_t pt_image_bases_end[];

static inline uint64_t stub_address(const uint8_t *symbol)
{
    return PT_STUB_BASE + (uint64_t)(symbol - pt_image_begin);
}

/* Writes the code page, image and seccomp program, into a file; returns 0 or a negative errno. */
int stub_image_write(int fd);
#endif

#endif
