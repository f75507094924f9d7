/*
 * The extended state: x87, SSE, AVX, AVX-512, PKRU; Intel SDM volume 1, chapter 13.
 *
 * Interface: contexts have the components of XCR0 but for AMX's, which a process must ask Linux for
 * and no stub does. The host's ptrace takes and gives the standard form of everything it knows
 * (`kernel_size`); callers see the first `size` bytes, which hold the components that contexts
 * have. The state is only moved when somebody asks for it or a context changes its stub thread.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LEGACY_SIZE = 512, HEADER_SIZE = 64, MXCSR_AT = 24, MXCSR_MASK_AT = 28, SOFTWARE_AT = 464 };
enum { MXCSR_INITIAL = 0x1f80, MXCSR_MASK_DEFAULT = 0xffbf, FCW_INITIAL = 0x37f };
#define X87_SSE UINT64_C(3)
#define AMX (UINT64_C(3) << 17)

static uint64_t read_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* End of a component in the standard form; 0 for none. */
static uint64_t component_end(unsigned i)
{
    unsigned size, offset, c, d;
    if (i < 2)
        return LEGACY_SIZE + HEADER_SIZE;
    if (!__get_cpuid_count(0xd, i, &size, &offset, &c, &d))
        return 0;
    return (uint64_t)offset + size;
}

int xstate_open(pt_platform *p)
{
    uint8_t state[65536] __attribute__((aligned(64)));
    size_t size = sizeof state;
    int error = tracee_get_xstate(p->master->tid, state, &size);
    if (error)
        return pt_fail(p, error, "PTRACE_GETREGSET(NT_X86_XSTATE): %s", strerror(-error));
    p->xstate.kernel_size = size;
    p->xstate.features = read_xcr0() & ~AMX;
    for (unsigned i = 0; i < 63; i++)
        if (p->xstate.features >> i & 1 && component_end(i) > p->xstate.size)
            p->xstate.size = component_end(i);
    if (p->xstate.size > size)
        return pt_fail(p, -ENOTSUP, "the host's extended state has %zu bytes, not %lu", size,
                       p->xstate.size);
    memcpy(&p->xstate.mxcsr_mask, state + MXCSR_MASK_AT, 4);
    if (!p->xstate.mxcsr_mask)
        p->xstate.mxcsr_mask = MXCSR_MASK_DEFAULT;

    p->xstate.initial = calloc(1, size);
    if (!p->xstate.initial)
        return pt_fail(p, -ENOMEM, "out of memory");
    const uint16_t fcw = FCW_INITIAL;
    const uint32_t mxcsr = MXCSR_INITIAL;
    memcpy(p->xstate.initial, &fcw, sizeof fcw);
    memcpy(p->xstate.initial + MXCSR_AT, &mxcsr, sizeof mxcsr);
    memcpy(p->xstate.initial + MXCSR_MASK_AT, &p->xstate.mxcsr_mask, 4);
    /* The master's is still the sentry's. */
    error = tracee_set_xstate(p->master->tid, p->xstate.initial, size);
    return error ? pt_fail(p, error, "PTRACE_SETREGSET(NT_X86_XSTATE): %s", strerror(-error)) : 0;
}

void xstate_close(pt_platform *p)
{
    free(p->xstate.initial);
    p->xstate.initial = NULL;
}

static int allocate(pt_ctx *c)
{
    if (!c->xstate)
        c->xstate = malloc(c->platform->xstate.kernel_size);
    return c->xstate ? 0 : pt_fail(c->platform, -ENOMEM, "out of memory");
}

/* From the thread into the context, which is about to lose it. */
int xstate_save(pt_ctx *c)
{
    if (c->thread->clean_xstate)
        return 0;
    int error = allocate(c);
    size_t size = c->platform->xstate.kernel_size;
    return error ? error : tracee_get_xstate(c->thread->tid, c->xstate, &size);
}

/* From the context into its new thread. */
int xstate_load(pt_ctx *c)
{
    pt_thread *t = c->thread;
    pt_platform *p = c->platform;
    if (!c->xstate && t->clean_xstate)
        return 0;
    const uint8_t *state = c->xstate ? c->xstate : p->xstate.initial;
    int error = tracee_set_xstate(t->tid, state, p->xstate.kernel_size);
    t->clean_xstate = !error && !c->xstate;
    free(c->xstate);
    c->xstate = NULL;
    return error && error != -ESRCH
               ? pt_fail(p, error, "PTRACE_SETREGSET(NT_X86_XSTATE): %s", strerror(-error))
               : error;
}

uint64_t pt_xstate_features(const pt_platform *p)
{
    return p->xstate.features;
}

uint64_t pt_xstate_size(const pt_platform *p)
{
    return p->xstate.size;
}

/* `size` is pt_xstate_size(). */
int pt_xstate_get(pt_context *view, uint8_t *state, uint64_t size)
{
    pt_ctx *c = (pt_ctx *)view;
    pt_platform *p = c->platform;
    if (!p)
        return -EBADF;
    if (c->state != PT_IDLE || size != p->xstate.size)
        return -EINVAL;
    if (!c->thread) {
        memcpy(state, c->xstate ? c->xstate : p->xstate.initial, size);
    } else {
        uint8_t all[p->xstate.kernel_size];
        size_t got = sizeof all;
        int error = tracee_get_xstate(c->thread->tid, all, &got);
        if (error)
            return pt_fail(p, error, "PTRACE_GETREGSET(NT_X86_XSTATE): %s", strerror(-error));
        memcpy(state, all, size);
    }
    /* Bytes that the processor leaves to software, in which the host's kernel describes itself. */
    memset(state + SOFTWARE_AT, 0, LEGACY_SIZE - SOFTWARE_AT);
    return 0;
}

/* Is it a state that XRSTOR takes? Volume 1, 13.8. */
static bool valid(const pt_platform *p, const uint8_t *state, uint64_t size)
{
    uint64_t header[HEADER_SIZE / 8];
    uint32_t mxcsr;
    memcpy(&mxcsr, state + MXCSR_AT, sizeof mxcsr);
    if (mxcsr & ~p->xstate.mxcsr_mask)
        return false;
    if (size == LEGACY_SIZE)
        return true;
    memcpy(header, state + LEGACY_SIZE, sizeof header);
    if (header[0] & ~p->xstate.features)
        return false;
    for (int i = 1; i < HEADER_SIZE / 8; i++)
        if (header[i])
            return false;               /* compacted, or bits that are reserved */
    for (unsigned i = 2; i < 63; i++)
        if (header[0] >> i & 1 && component_end(i) > size)
            return false;
    return true;
}

/* `size` is pt_xstate_size() or less; what is missing is initial. */
int pt_xstate_set(pt_context *view, const uint8_t *state, uint64_t size)
{
    pt_ctx *c = (pt_ctx *)view;
    pt_platform *p = c->platform;
    if (!p)
        return -EBADF;
    if (c->state != PT_IDLE || size > p->xstate.size ||
        (size != LEGACY_SIZE && size < LEGACY_SIZE + HEADER_SIZE) || !valid(p, state, size))
        return -EINVAL;
    uint8_t all[p->xstate.kernel_size];
    memset(all, 0, sizeof all);
    memcpy(all, state, size);
    memset(all + SOFTWARE_AT, 0, LEGACY_SIZE - SOFTWARE_AT);
    if (size == LEGACY_SIZE) {
        const uint64_t features = X87_SSE;
        memcpy(all + LEGACY_SIZE, &features, sizeof features);
    }
    int error = 0;
    if (!c->thread) {
        if (!(error = allocate(c)))
            memcpy(c->xstate, all, sizeof all);
        return error;
    }
    error = tracee_set_xstate(c->thread->tid, all, sizeof all);
    c->thread->clean_xstate = false;
    if (error == -EINVAL)
        return error;
    return error ? pt_fail(p, error, "PTRACE_SETREGSET(NT_X86_XSTATE): %s", strerror(-error)) : 0;
}
