/*
 * Constant results: system calls that the guest kernel answers without an exit.
 *
 * Interface: a context's answers change while the kernel has it, and are copied into the page of
 * the vCPU that is to run it only where others are in it: entering the guest costs a comparison.
 */
#include "kv_internal.h"

#include <errno.h>

/* What there is no room for stays a stop. */
int kv_constant_results(kv_context *view, int count, const uint32_t *numbers, const uint64_t *values)
{
    kv_ctx *c = (kv_ctx *)view;
    kv_platform *p = c->platform;
    if (!p)
        return -EBADF;
    if (c->state != KV_IDLE)
        return kv_fail(p, -EBUSY, "constant results of a context that is running");
    if (count > MAX_ANSWERS)
        count = MAX_ANSWERS;
    c->answers_id = count ? ++p->answers_made : 0;
    c->answers.halt_flags = EFLAGS_TF;
    for (int i = 0; count && i < MAX_ANSWERS; i++) {
        c->answers.numbers[i] = numbers[i < count ? i : 0];
        c->answers.values[i] = values[i < count ? i : 0];
    }
    return 0;
}

/* By the thread that the vCPU belongs to. */
void answers_load(kv_vcpu *v, const kv_ctx *c)
{
    kv_answers *loaded = (kv_answers *)(v->page + ANSWERS_AT);
    if (c->answers_id)
        *loaded = c->answers;
    else
        loaded->halt_flags = EFLAGS_FIXED;      /* set in any EFLAGS */
    v->answers_id = c->answers_id;
}
