/*
 * The table of what is mapped in a space: sorted, disjoint, merged where neighbours are alike.
 *
 * Interface: it is brought up to date when a change is queued, so it says what will be once the
 * queue is carried out. Two things need it: protecting a range with holes (mprotect(2) stops at the
 * first), and telling a write from a read when a page faults (stops.c).
 */
#include "pt_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { UNMAPPED = -1 };

/* Index of the first range that ends behind `addr`. */
size_t ranges_first(const pt_space *s, uint64_t addr)
{
    size_t low = 0, high = s->nranges;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->ranges[middle].end <= addr)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The protection at an address, or -1. */
int ranges_prot(const pt_space *s, uint64_t addr)
{
    size_t i = ranges_first(s, addr);
    return i < s->nranges && s->ranges[i].start <= addr ? s->ranges[i].prot : UNMAPPED;
}

/* Makes [start, end) all `prot`, mapped or not before; -1 unmaps. */
int ranges_set(pt_space *s, uint64_t start, uint64_t end, int prot)
{
    size_t first = ranges_first(s, start), last = first;
    pt_range put[3];
    size_t nput = 0;

    /* [first, last) are the ranges that the new one meets; what sticks out of them stays. */
    while (last < s->nranges && s->ranges[last].start < end)
        last++;
    if (first < last && s->ranges[first].start < start)
        put[nput++] = (pt_range){s->ranges[first].start, start, s->ranges[first].prot};
    if (prot != UNMAPPED)
        put[nput++] = (pt_range){start, end, prot};
    if (first < last && s->ranges[last - 1].end > end)
        put[nput++] = (pt_range){end, s->ranges[last - 1].end, s->ranges[last - 1].prot};

    /* Neighbours on either side may now be alike. */
    if (nput && first > 0 && s->ranges[first - 1].end == put[0].start &&
        s->ranges[first - 1].prot == put[0].prot)
        put[0].start = s->ranges[--first].start;
    if (nput && last < s->nranges && s->ranges[last].start == put[nput - 1].end &&
        s->ranges[last].prot == put[nput - 1].prot)
        put[nput - 1].end = s->ranges[last++].end;
    size_t n = 0;
    for (size_t i = 0; i < nput; i++) {
        if (n && put[n - 1].end == put[i].start && put[n - 1].prot == put[i].prot)
            put[n - 1].end = put[i].end;
        else
            put[n++] = put[i];
    }

    size_t count = s->nranges - (last - first) + n;
    if (count > s->ranges_capacity) {
        size_t capacity = count * 2 + 16;
        pt_range *grown = realloc(s->ranges, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        s->ranges = grown;
        s->ranges_capacity = capacity;
    }
    if (s->nranges > last && n != last - first)
        memmove(s->ranges + first + n, s->ranges + last, (s->nranges - last) * sizeof *s->ranges);
    if (n)
        memcpy(s->ranges + first, put, n * sizeof *put);
    s->nranges = count;
    return 0;
}
