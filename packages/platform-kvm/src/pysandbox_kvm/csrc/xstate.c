/*
 * The extended state: x87, SSE, AVX, AVX-512; Intel SDM volume 1, chapter 13.
 *
 * Interface: contexts have the components of XCR0 that need no more than XCR0: not AMX, which a
 * process must ask Linux for, nor protection keys, which want a bit of CR4. These are in the
 * guest's XCR0 all the same: KVM writes the register twice on each entry where it is not the
 * host's. KVM takes and gives the standard form. A context's state stays in the vCPU that ran it
 * last until another context needs that vCPU or somebody asks for it.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

enum { LEGACY_SIZE = 512, HEADER_SIZE = 64, KVM_SIZE = 4096 };
enum { FCW_AT = 0, FSW_AT = 2, MXCSR_AT = 24, MXCSR_MASK_AT = 28, SOFTWARE_AT = 464 };
enum { MXCSR_INITIAL = 0x1f80, MXCSR_MASK_DEFAULT = 0xffbf, FCW_INITIAL = 0x37f };
#define X87_SSE UINT64_C(3)
#define PROTECTION_KEYS UINT64_C(0x200)
#define WANTED UINT64_C(0xe7)           /* x87 SSE AVX, opmask ZMM_Hi256 Hi16_ZMM */

static const struct kvm_cpuid_entry2 *leaf_d(const kv_platform *p, uint32_t index)
{
    for (uint32_t i = 0; i < p->cpuid->nent; i++)
        if (p->cpuid->entries[i].function == 0xd && p->cpuid->entries[i].index == index)
            return &p->cpuid->entries[i];
    return NULL;
}

/* End of a component in the standard form; 0 for none. */
static uint64_t component_end(const kv_platform *p, unsigned i)
{
    if (i < 2)
        return LEGACY_SIZE + HEADER_SIZE;
    const struct kvm_cpuid_entry2 *leaf = leaf_d(p, i);
    return leaf ? (uint64_t)leaf->ebx + leaf->eax : 0;
}

/*
 * The protection-key rights, which a program can change by XRSTOR though they have no effect: KVM
 * keeps those of the context before where the area has none. They are in every one, as 0.
 */
static uint64_t rights(const kv_platform *p)
{
    return p->xstate.xcr0 & PROTECTION_KEYS;
}

int xstate_open(kv_platform *p)
{
    const struct kvm_cpuid_entry2 *leaf = leaf_d(p, 0);
    if (!leaf)
        return kv_fail(p, -ENOTSUP, "the processor has no XSAVE");
    p->xstate.features = (leaf->eax | (uint64_t)leaf->edx << 32) & WANTED;
    p->xstate.xcr0 = (leaf->eax | (uint64_t)leaf->edx << 32) & (WANTED | PROTECTION_KEYS);
    for (unsigned i = 0; i < 63; i++)
        if (p->xstate.features >> i & 1 && component_end(p, i) > p->xstate.size)
            p->xstate.size = component_end(p, i);
    if (p->xstate.size > KVM_SIZE)
        return kv_fail(p, -ENOTSUP, "an extended state of %lu bytes", p->xstate.size);
    uint8_t area[LEGACY_SIZE] __attribute__((aligned(16))) = {0};
    _fxsave64(area);
    memcpy(&p->xstate.mxcsr_mask, area + MXCSR_MASK_AT, 4);
    if (!p->xstate.mxcsr_mask)
        p->xstate.mxcsr_mask = MXCSR_MASK_DEFAULT;
    const uint16_t fcw = FCW_INITIAL;
    const uint32_t mxcsr = MXCSR_INITIAL;
    memcpy(p->xstate.initial + FCW_AT, &fcw, sizeof fcw);
    memcpy(p->xstate.initial + MXCSR_AT, &mxcsr, sizeof mxcsr);
    memcpy(p->xstate.initial + MXCSR_MASK_AT, &p->xstate.mxcsr_mask, 4);
    /* Present, though initial: not every XRSTOR takes MXCSR from an area without SSE state. */
    const uint64_t present = X87_SSE | rights(p);
    memcpy(p->xstate.initial + LEGACY_SIZE, &present, sizeof present);
    return 0;
}

static int allocate(kv_ctx *c)
{
    if (!c->xstate)
        c->xstate = malloc(KVM_SIZE);
    return c->xstate ? 0 : kv_fail(c->platform, -ENOMEM, "out of memory");
}

/* From its vCPU, which does not run, into the context. */
int xstate_save(kv_ctx *c)
{
    kv_vcpu *v = c->vcpu;
    if (!v)
        return 0;
    int error = allocate(c);
    if (error || (error = vcpu_get_xsave(v, c->xstate)))
        return error;
    v->holder = NULL;
    c->vcpu = NULL;
    return 0;
}

/* Makes the vCPU, which does not run, hold the context's state; under the lock. */
int xstate_attach(kv_vcpu *v, kv_ctx *c)
{
    if (v->holder == c)
        return 0;
    int error = v->holder ? xstate_save(v->holder) : 0;
    if (!error)
        error = xstate_save(c);
    if (error)
        return error;
    error = vcpu_set_xsave(v, c->xstate ? c->xstate : c->platform->xstate.initial);
    if (error)
        return kv_fail(c->platform, error, "KVM_SET_XSAVE: %s", strerror(-error));
    v->holder = c;
    c->vcpu = v;
    return 0;
}

/* si_code of the floating-point exception just taken, as Linux's fpu__exception_code() has it. */
int xstate_signal_code(kv_vcpu *v, bool simd)
{
    uint8_t state[KVM_SIZE];
    int error = vcpu_get_xsave(v, state);
    if (error)
        return error;
    uint32_t mxcsr, raised;
    uint16_t fcw, fsw;
    memcpy(&mxcsr, state + MXCSR_AT, sizeof mxcsr);
    memcpy(&fcw, state + FCW_AT, sizeof fcw);
    memcpy(&fsw, state + FSW_AT, sizeof fsw);
    raised = simd ? mxcsr & ~(mxcsr >> 7) : fsw & (uint32_t)~fcw;
    if (raised & 0x01)
        return FPE_FLTINV;
    if (raised & 0x04)
        return FPE_FLTDIV;
    if (raised & 0x08)
        return FPE_FLTOVF;
    if (raised & 0x12)
        return FPE_FLTUND;
    return raised & 0x20 ? FPE_FLTRES : 0;
}

uint64_t kv_xstate_features(const kv_platform *p)
{
    return p->xstate.features;
}

uint64_t kv_xstate_size(const kv_platform *p)
{
    return p->xstate.size;
}

/* `size` is kv_xstate_size(). */
int kv_xstate_get(kv_context *view, uint8_t *state, uint64_t size)
{
    kv_ctx *c = (kv_ctx *)view;
    kv_platform *p = c->platform;
    if (!p)
        return -EBADF;
    if (c->state != KV_IDLE || size != p->xstate.size)
        return -EINVAL;
    uint8_t held[KVM_SIZE];
    pthread_mutex_lock(&p->lock);       /* a worker may want the vCPU for another context */
    int error = c->vcpu ? vcpu_get_xsave(c->vcpu, held) : 0;
    memcpy(state, c->vcpu ? held : c->xstate ? c->xstate : p->xstate.initial, size);
    pthread_mutex_unlock(&p->lock);
    if (error)
        return error;
    /* Bytes that the processor leaves to software, in which the host's kernel describes itself. */
    memset(state + SOFTWARE_AT, 0, LEGACY_SIZE - SOFTWARE_AT);
    uint64_t present;
    memcpy(&present, state + LEGACY_SIZE, sizeof present);
    present &= p->xstate.features;
    memcpy(state + LEGACY_SIZE, &present, sizeof present);
    return 0;
}

/* Is it a state that XRSTOR takes? Volume 1, 13.8. */
static bool valid(const kv_platform *p, const uint8_t *state, uint64_t size)
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
        if (header[0] >> i & 1 && component_end(p, i) > size)
            return false;
    return true;
}

/* `size` is kv_xstate_size() or less; what is missing is initial. */
int kv_xstate_set(kv_context *view, const uint8_t *state, uint64_t size)
{
    kv_ctx *c = (kv_ctx *)view;
    kv_platform *p = c->platform;
    if (!p)
        return -EBADF;
    if (c->state != KV_IDLE || size > p->xstate.size ||
        (size != LEGACY_SIZE && size < LEGACY_SIZE + HEADER_SIZE) || !valid(p, state, size))
        return -EINVAL;
    uint8_t all[KVM_SIZE] = {0};
    memcpy(all, state, size);
    memset(all + SOFTWARE_AT, 0, LEGACY_SIZE - SOFTWARE_AT);
    uint64_t present = X87_SSE;
    if (size > LEGACY_SIZE)
        memcpy(&present, all + LEGACY_SIZE, sizeof present);
    present |= rights(p);
    memcpy(all + LEGACY_SIZE, &present, sizeof present);
    pthread_mutex_lock(&p->lock);
    int error = c->vcpu ? vcpu_set_xsave(c->vcpu, all) : allocate(c);
    if (!error && !c->vcpu)
        memcpy(c->xstate, all, sizeof all);
    pthread_mutex_unlock(&p->lock);
    if (error && error != -EINVAL && error != -ENOMEM)
        kv_fail(p, error, "KVM_SET_XSAVE: %s", strerror(-error));
    return error;
}
