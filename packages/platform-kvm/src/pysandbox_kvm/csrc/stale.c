/*
 * Stale translations: what vCPUs may still reach though the page tables no longer say so.
 *
 * A vCPU may have kept a translation in its TLB, and KVM in a shadow page table. Both are ended by
 * taking the memory itself from the virtual machine for a moment: MADV_DONTNEED on the window drops
 * no data, the file has it, but makes KVM forget every way to these pages, in all vCPUs, running or
 * not, before it returns. Whoever still maps them finds them again with the next access. It needs
 * no code in the guest, no stop of the vCPUs, and works the same with nested paging and without.
 *
 * Interface: stale_add() for every page whose entry was taken away or allows less now; nothing
 * relies on that before stale_flush(). Once that has failed it fails for good: nobody can say what
 * is still within reach.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/*
 * Pages between two stale ones that are taken along: fewer calls, a few more faults. They are of
 * the same window: what lies between two of them may be this process's own memory, and lost.
 */
enum { GAP = 16 * KV_PAGE };

static void forget(kv_platform *p, uint8_t *from, uint8_t *to)
{
    if (madvise(from, (size_t)(to - from), MADV_DONTNEED))
        p->stale_error = kv_fail(p, -errno, "MADV_DONTNEED of a window: %s", strerror(errno));
}

void stale_add(kv_platform *p, uint64_t gpa)
{
    kv_window *w = window_at(p, gpa);
    uint8_t *page = w->memory + (gpa - w->gpa);
    for (int i = p->nstale - 1; i >= 0 && i >= p->nstale - 4; i--) {
        uint8_t *from = p->stale[i].from, *to = p->stale[i].to;
        bool near = page + KV_PAGE + GAP >= from && page <= to + GAP;
        if (!near || from < w->memory || to > w->memory + (UINT64_C(1) << w->shift))
            continue;
        if (page < from)
            p->stale[i].from = page;
        if (page + KV_PAGE > to)
            p->stale[i].to = page + KV_PAGE;
        return;
    }
    if (p->nstale == MAX_STALE)
        stale_flush(p);                 /* early, which is as good */
    p->stale[p->nstale].from = page;
    p->stale[p->nstale++].to = page + KV_PAGE;
}

int stale_flush(kv_platform *p)
{
    for (int i = 0; i < p->nstale; i++)
        forget(p, p->stale[i].from, p->stale[i].to);
    p->nstale = 0;
    windows_trim(p);
    return p->stale_error;
}
