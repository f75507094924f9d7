/*
 * Windows: pieces of host files, mapped here once and shown to all spaces that map any of them.
 *
 * Windows lie in arenas, ranges of addresses with one memory slot each. KVM looks a page up in this
 * process's mappings when the guest first reaches it, so files come and go in an arena without
 * another call to KVM; a page beyond a file's end is then KVM_RUN's EFAULT, not a SIGBUS here.
 *
 * For each page of a slot KVM keeps where it is mapped from, used or not, and a program may take a
 * window for every page that it has: kv_host_bytes() counts that, and an arena in which there is no
 * window gives its slot back, but for a few. Its addresses stay.
 *
 * A file is known by device and inode number. One that is only read also by the time of its last
 * change, since overlayfs keeps these numbers when it copies a file up; with a writable descriptor
 * it has done so. A large file is taken in pieces of 16 MiB, a small one of 2 MiB.
 *
 * Interface: window_get() gives a window that is not in use yet; it stays until the caller has used
 * it or calls windows_trim(), which ends those that nothing refers to but for a few.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define ARENAS_GPA (UINT64_C(8) << 32)
#define ARENA_SIZE (UINT64_C(1) << ARENA_SHIFT)
#define LARGE_FILE (UINT64_C(256) << 20)

enum { ARENA_SHIFT = 28, UNIT_SHIFT = 21, UNITS = 1 << (ARENA_SHIFT - UNIT_SHIFT) };
enum { SMALL_SHIFT = 21, LARGE_SHIFT = 24 };
enum { FIRST_BUCKETS = 256, KEEP_EMPTY = 2 };
enum { SLOT_BYTES = 10 };       /* for a page: struct kvm_rmap_head, and a count of write tracking */
enum { MAPPING_BYTES = 200 };   /* of a window: struct vm_area_struct */

struct kv_arena {
    uint8_t *memory;
    int slot;
    bool has_slot;
    int nfree;
    kv_window *units[UNITS];    /* what lies there; NULL where free */
};

int windows_open(kv_platform *p)
{
    p->windows.unused_tail = &p->windows.unused;
    p->windows.nbuckets = FIRST_BUCKETS;
    p->windows.buckets = calloc(FIRST_BUCKETS, sizeof(kv_window *));
    return p->windows.buckets ? 0 : kv_fail(p, -ENOMEM, "out of memory");
}

void windows_close(kv_platform *p)
{
    for (size_t i = 0; i < p->windows.nbuckets && p->windows.buckets; i++) {
        for (kv_window *w = p->windows.buckets[i], *next; w; w = next) {
            next = w->next_in_bucket;
            free(w);
        }
    }
    for (int i = 0; i < p->windows.narenas; i++) {
        munmap(p->windows.arenas[i]->memory, ARENA_SIZE);
        free(p->windows.arenas[i]);
    }
    free(p->windows.buckets);
    p->windows.buckets = NULL;
    p->windows.narenas = 0;
}

static uint64_t arena_gpa(int number)
{
    return ARENAS_GPA + (uint64_t)number * ARENA_SIZE;
}

static int arena_new(kv_platform *p)
{
    if (p->windows.narenas == MAX_ARENAS)
        return kv_fail(p, -ENOSPC, "too much of files is mapped");
    kv_arena *a = calloc(1, sizeof *a);
    if (!a)
        return kv_fail(p, -ENOMEM, "out of memory");
    a->memory = mmap(NULL, ARENA_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                     0);
    if (a->memory == MAP_FAILED) {
        free(a);
        return kv_fail(p, -errno, "addresses for windows: %s", strerror(errno));
    }
    madvise(a->memory, ARENA_SIZE, MADV_DONTFORK);
    a->slot = vm_add_slot(p, arena_gpa(p->windows.narenas), a->memory, ARENA_SIZE);
    if (a->slot < 0) {
        int error = a->slot;
        munmap(a->memory, ARENA_SIZE);
        free(a);
        return error;
    }
    a->has_slot = true;
    p->windows.nslots++;
    p->windows.nempty++;
    a->nfree = UNITS;
    p->windows.arenas[p->windows.narenas++] = a;
    return 0;
}

/* Finds `n` free units in a row; their number, or -1. */
static int units_find(const kv_arena *a, int n)
{
    for (int at = 0, run = 0; at < UNITS && a->nfree >= n; at++) {
        run = a->units[at] ? 0 : run + 1;
        if (run == n)
            return at - n + 1;
    }
    return -1;
}

static void units_set(kv_platform *p, kv_arena *a, int at, int n, kv_window *w)
{
    for (int i = 0; i < n; i++)
        a->units[at + i] = w;
    p->windows.nempty -= a->nfree == UNITS;
    a->nfree += w ? -n : n;
    p->windows.nempty += a->nfree == UNITS;
}

/* An arena without a slot is to be used again. */
static int arena_show(kv_platform *p, int number)
{
    kv_arena *a = p->windows.arenas[number];
    int error = a->has_slot ? 0 : vm_set_slot(p, a->slot, arena_gpa(number), a->memory, ARENA_SIZE);
    if (error || a->has_slot)
        return error;
    a->has_slot = true;
    p->windows.nslots++;
    p->windows.nempty++;
    return 0;
}

/* An arena in which there is nothing any more gives its slot back, if there are others. */
static void arena_hide(kv_platform *p, int number)
{
    kv_arena *a = p->windows.arenas[number];
    if (a->nfree < UNITS || p->windows.nempty <= KEEP_EMPTY ||
        vm_set_slot(p, a->slot, arena_gpa(number), a->memory, 0))
        return;
    a->has_slot = false;
    p->windows.nslots--;
    p->windows.nempty--;
}

/* Gives a window its addresses. */
static int place(kv_platform *p, kv_window *w)
{
    int n = 1 << (w->shift - UNIT_SHIFT);
    for (int i = 0;; i++) {
        if (i == p->windows.narenas) {
            int error = arena_new(p);
            if (error)
                return error;
        }
        kv_arena *a = p->windows.arenas[i];
        int at = units_find(a, n);
        if (at < 0)
            continue;
        int error = arena_show(p, i);
        if (error)
            return error;
        units_set(p, a, at, n, w);
        uint64_t offset = (uint64_t)at << UNIT_SHIFT;
        w->memory = a->memory + offset;
        w->gpa = arena_gpa(i) + offset;
        return 0;
    }
}

static void displace(kv_platform *p, kv_window *w)
{
    uint64_t at = w->gpa - ARENAS_GPA;
    int number = (int)(at >> ARENA_SHIFT);
    units_set(p, p->windows.arenas[number], (int)(at % ARENA_SIZE >> UNIT_SHIFT),
              1 << (w->shift - UNIT_SHIFT), NULL);
    arena_hide(p, number);
}

kv_window *window_at(const kv_platform *p, uint64_t gpa)
{
    uint64_t at = gpa - ARENAS_GPA;
    return p->windows.arenas[at >> ARENA_SHIFT]->units[at % ARENA_SIZE >> UNIT_SHIFT];
}

/* Where a page of a window is here. From any thread: arenas stay. */
uint8_t *window_memory(const kv_platform *p, uint64_t gpa)
{
    uint64_t at = gpa - ARENAS_GPA;
    return p->windows.arenas[at >> ARENA_SHIFT]->memory + at % ARENA_SIZE;
}

static size_t bucket_of(const kv_platform *p, const kv_window *w)
{
    uint64_t hash = (w->ino * 31 + w->dev) * 0x9e3779b97f4a7c15 + w->number;
    return (hash * 0x9e3779b97f4a7c15 >> 32) % p->windows.nbuckets;
}

static bool same(const kv_window *a, const kv_window *b)
{
    return a->ino == b->ino && a->number == b->number && a->dev == b->dev &&
           a->writable == b->writable && a->shift == b->shift && a->changed_s == b->changed_s &&
           a->changed_ns == b->changed_ns;
}

static void rehash(kv_platform *p)
{
    size_t old_count = p->windows.nbuckets;
    kv_window **old = p->windows.buckets, **grown = calloc(old_count * 2, sizeof *grown);
    if (!grown)
        return;                         /* the lists are longer then */
    p->windows.buckets = grown;
    p->windows.nbuckets = old_count * 2;
    for (size_t i = 0; i < old_count; i++) {
        for (kv_window *w = old[i], *next; w; w = next) {
            next = w->next_in_bucket;
            kv_window **bucket = &grown[bucket_of(p, w)];
            w->next_in_bucket = *bucket;
            *bucket = w;
        }
    }
    free(old);
}

/* What tells this piece of this file from all others. */
static int identify(kv_platform *p, int fd, uint64_t offset, bool write, kv_window *key)
{
    struct stat status;
    if (fstat(fd, &status))
        return kv_fail(p, -errno, "a file to be mapped: %s", strerror(errno));
    int flags = fcntl(fd, F_GETFL);
    memset(key, 0, sizeof *key);
    key->writable = (flags & O_ACCMODE) == O_RDWR;
    if (write && !key->writable)
        return kv_fail(p, -EACCES, "a file to be mapped writable is not open for that");
    key->dev = status.st_dev;
    key->ino = status.st_ino;
    if (!key->writable) {
        key->changed_s = status.st_ctim.tv_sec;
        key->changed_ns = status.st_ctim.tv_nsec;
    }
    key->shift = (uint64_t)status.st_size >= LARGE_FILE ? LARGE_SHIFT : SMALL_SHIFT;
    key->number = offset >> key->shift;
    return 0;
}

static int map_file(kv_platform *p, kv_window *w, int fd)
{
    size_t size = (size_t)1 << w->shift;
    off_t offset = (off_t)(w->number << w->shift);
    int flags = MAP_SHARED | MAP_FIXED;
    int prot = w->writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *got = mmap(w->memory, size, prot, flags, fd, offset);
    if (got == MAP_FAILED && w->writable && errno == EPERM)     /* sealed against writing */
        got = mmap(w->memory, size, PROT_READ, flags, fd, offset);
    if (got == MAP_FAILED)
        return kv_fail(p, -errno, "mapping a file: %s", strerror(errno));
    madvise(w->memory, size, MADV_DONTFORK);
    return 0;
}

static void unused_remove(kv_platform *p, kv_window *w)
{
    if (!w->prev_unused)
        return;
    *w->prev_unused = w->next_unused;
    if (w->next_unused)
        w->next_unused->prev_unused = w->prev_unused;
    else
        p->windows.unused_tail = w->prev_unused;
    w->prev_unused = NULL;
    p->windows.nunused--;
}

static void unused_add(kv_platform *p, kv_window *w)
{
    w->next_unused = NULL;
    w->prev_unused = p->windows.unused_tail;
    *p->windows.unused_tail = w;
    p->windows.unused_tail = &w->next_unused;
    p->windows.nunused++;
}

int window_get(kv_platform *p, int fd, uint64_t offset, bool write, kv_window **found)
{
    kv_window key;
    int error = identify(p, fd, offset, write, &key);
    if (error)
        return error;
    for (kv_window *w = p->windows.buckets[bucket_of(p, &key)]; w; w = w->next_in_bucket) {
        if (same(w, &key)) {
            *found = w;
            return 0;
        }
    }
    kv_window *w = malloc(sizeof *w);
    if (!w)
        return kv_fail(p, -ENOMEM, "out of memory");
    *w = key;
    if ((error = place(p, w))) {
        free(w);
        return error;
    }
    if ((error = map_file(p, w, fd))) {
        displace(p, w);
        free(w);
        return error;
    }
    if (++p->windows.count > p->windows.nbuckets)
        rehash(p);
    kv_window **bucket = &p->windows.buckets[bucket_of(p, w)];
    w->next_in_bucket = *bucket;
    *bucket = w;
    unused_add(p, w);
    *found = w;
    return 0;
}

void window_use(kv_platform *p, kv_window *w, uint64_t npages)
{
    unused_remove(p, w);
    w->uses += npages;
}

void window_unuse(kv_platform *p, kv_window *w)
{
    if (!--w->uses)
        unused_add(p, w);
}

static void window_end(kv_platform *p, kv_window *w)
{
    kv_window **at = &p->windows.buckets[bucket_of(p, w)];
    while (*at != w)
        at = &(*at)->next_in_bucket;
    *at = w->next_in_bucket;
    p->windows.count--;
    unused_remove(p, w);
    /* Replaced by nothing, not unmapped: the addresses stay the arena's. */
    mmap(w->memory, (size_t)1 << w->shift, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    madvise(w->memory, (size_t)1 << w->shift, MADV_DONTFORK);
    displace(p, w);
    free(w);
}

/* Ends the oldest of those that nothing refers to, also not what is stale. */
void windows_trim(kv_platform *p)
{
    while (windows_are_many(p))
        window_end(p, p->windows.unused);
}

/* About what the host keeps for what is mapped here, but for page tables. */
uint64_t kv_host_bytes(const kv_platform *p)
{
    return (uint64_t)p->windows.nslots * (ARENA_SIZE / KV_PAGE) * SLOT_BYTES +
           p->windows.count * MAPPING_BYTES;
}
