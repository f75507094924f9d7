/*
 * Guest page tables: four levels, one tree for each space.
 *
 * KVM may keep shadows of these tables (where the hardware has no nested paging, or KVM does not
 * use it), and does not see what is written to them from here. Two rules make that safe, on any
 * KVM:
 *
 * - An entry that was made present at an upper level is not changed again while anything can run.
 * - An entry at the lowest level that is taken away or made to allow less is followed by stale.c,
 *   before anything relies on it. The accessed bit says whether anything can have been kept of it.
 *
 * The tree of a space that was released is buried: nothing runs with it any more, so what KVM and
 * the processors have kept of it does no harm, and need not be taken from the other spaces that
 * map the same pages, as stale.c would. In a space that lives, tables stay when all that they
 * mapped is gone. Once many are buried, or there are twice as many as were found to be in use,
 * collect() makes KVM forget all shadows, by taking the slots away and putting them back, and frees
 * what is buried and what maps nothing.
 *
 * Interface: tables are written with atomic stores. Shadow or not, the processor reads them any
 * time.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define TABLES_GPA (UINT64_C(1) << 32)
#define KERNEL_GPA (UINT64_C(5) << 32)
#define TABLES_SIZE (TABLES_SLOTS * SLOT_SIZE)  /* of addresses; backed as needed */
#define SLOT_SIZE (UINT64_C(64) << 20)
#define LINK (ENTRY_PRESENT | ENTRY_WRITE | ENTRY_USER | ENTRY_ACCESSED)

enum { LEVELS = 4, ENTRIES = 512, KERNEL_TOP_ENTRY = 511 };
enum { BURIED_TOO_MANY = 384 };         /* 1.5 MiB of them */
enum { LOOK_AT_LEAST = 4096 };          /* fewer are not looked through for empty ones */
enum { KEEP_FREE = 2048 };              /* the memory of more goes back to the host */

static kv_entry *table_at(const kv_platform *p, uint64_t gpa)
{
    return (kv_entry *)(p->tables.base + (gpa - TABLES_GPA));
}

static int back(kv_platform *p)
{
    uint64_t at = p->tables.backed;
    if (at == TABLES_SIZE)
        return kv_fail(p, -ENOMEM, "the page tables have used up their addresses");
    if (mprotect(p->tables.base + at, SLOT_SIZE, PROT_READ | PROT_WRITE))
        return kv_fail(p, -errno, "memory for page tables: %s", strerror(errno));
    int slot = vm_add_slot(p, TABLES_GPA + at, p->tables.base + at, SLOT_SIZE);
    if (slot < 0)
        return slot;
    p->tables.slots[at / SLOT_SIZE] = slot;
    p->tables.backed += SLOT_SIZE;
    return 0;
}

/* An empty table. */
static int table_new(kv_platform *p, uint64_t *gpa)
{
    if (p->tables.nfree) {
        *gpa = TABLES_GPA + (uint64_t)p->tables.free[--p->tables.nfree] * KV_PAGE;
        memset((void *)table_at(p, *gpa), 0, KV_PAGE);
    } else {
        int error = p->tables.next == p->tables.backed ? back(p) : 0;
        if (error)
            return error;
        *gpa = TABLES_GPA + p->tables.next;
        p->tables.next += KV_PAGE;
    }
    p->tables.count++;
    return 0;
}

static void table_free(kv_platform *p, uint64_t gpa)
{
    p->tables.count--;
    if (p->tables.nfree == p->tables.free_capacity) {
        size_t capacity = p->tables.nfree ? p->tables.nfree * 2 : 1024;
        uint32_t *grown = realloc(p->tables.free, capacity * sizeof *grown);
        if (!grown)
            return;                     /* lost until the platform is closed */
        p->tables.free = grown;
        p->tables.free_capacity = capacity;
    }
    p->tables.free[p->tables.nfree++] = (uint32_t)((gpa - TABLES_GPA) / KV_PAGE);
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Gives the host the memory of tables that were freed, from the `first` on the list on. */
static void give_memory_back(kv_platform *p, size_t first)
{
    uint32_t *free_ones = p->tables.free;
    size_t end = p->tables.nfree;
    if (first < KEEP_FREE)
        first = KEEP_FREE;
    if (first >= end)
        return;
    qsort(free_ones + first, end - first, sizeof *free_ones, by_number);
    for (size_t i = first, n; i < end; i += n) {
        for (n = 1; i + n < end && free_ones[i + n] == free_ones[i] + n;)
            n++;
        madvise(p->tables.base + (uint64_t)free_ones[i] * KV_PAGE, n * KV_PAGE, MADV_DONTNEED);
    }
}

/* The tables through which every space sees the guest kernel. */
static int link_kernel(kv_platform *p)
{
    uint64_t gpa[LEVELS - 1];
    for (int i = 0; i < LEVELS - 1; i++) {
        int error = table_new(p, &gpa[i]);
        if (error)
            return error;
    }
    p->tables.kernel_entry = gpa[0] | LINK;
    table_at(p, gpa[0])[KERNEL_BASE >> 30 & 511] = gpa[1] | LINK;
    table_at(p, gpa[1])[KERNEL_BASE >> 21 & 511] = gpa[2] | LINK;
    kv_entry *pages = table_at(p, gpa[2]);
    for (int i = 0; i < KERNEL_PAGES; i++) {
        uint64_t flags = ENTRY_PRESENT | ENTRY_ACCESSED | ENTRY_DIRTY;
        if (i >= FIRST_VCPU_PAGE && (i - vcpu_page(0)) % VCPU_STRIDE) {
            pages[i] = pages[CODE_PAGE];        /* a view */
            continue;
        }
        if (i != CODE_PAGE)
            flags |= ENTRY_NX;
        if (i >= FIRST_VCPU_PAGE)
            flags |= ENTRY_WRITE;
        pages[i] = (KERNEL_GPA + (uint64_t)i * KV_PAGE) | flags;
    }
    return 0;
}

int tables_open(kv_platform *p)
{
    uint8_t *base = mmap(NULL, TABLES_SIZE, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *kernel = mmap(NULL, KERNEL_PAGES * KV_PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p->tables.base = base == MAP_FAILED ? NULL : base;
    p->kernel = kernel == MAP_FAILED ? NULL : kernel;
    if (!p->tables.base || !p->kernel)
        return kv_fail(p, -errno, "addresses for page tables: %s", strerror(errno));
    madvise(base, TABLES_SIZE, MADV_DONTFORK);
    madvise(kernel, KERNEL_PAGES * KV_PAGE, MADV_DONTFORK);
    guest_image_write(kernel);
    int slot = vm_add_slot(p, KERNEL_GPA, kernel, KERNEL_PAGES * KV_PAGE);
    if (slot < 0)
        return slot;
    p->tables.look_at = LOOK_AT_LEAST;
    int error = back(p);
    return error ? error : link_kernel(p);
}

void tables_close(kv_platform *p)
{
    if (p->tables.base)
        munmap(p->tables.base, TABLES_SIZE);
    if (p->kernel)
        munmap(p->kernel, KERNEL_PAGES * KV_PAGE);
    free(p->tables.graves);
    free(p->tables.free);
    p->tables.base = p->kernel = NULL;
    p->tables.graves = NULL;
    p->tables.free = NULL;
}

uint64_t kv_table_count(const kv_platform *p)
{
    return p->tables.count;
}

/* Gives a space its tree: a top table. */
int tree_take(kv_platform *p, kv_space *s)
{
    int error = table_new(p, &s->root);
    if (error)
        return error;
    s->ntables = 1;
    table_at(p, s->root)[KERNEL_TOP_ENTRY] = p->tables.kernel_entry;
    return 0;
}

static unsigned index_at(uint64_t addr, int level)
{
    return addr >> (KV_PAGE_SHIFT + 9 * (level - 1)) & (ENTRIES - 1);
}

/*
 * The lowest-level entry of an address, or NULL where no table reaches; `covered` is then how many
 * bytes from `addr` on it does not reach.
 */
kv_entry *tree_find(kv_space *s, uint64_t addr, uint64_t *covered)
{
    kv_platform *p = s->platform;
    kv_entry *table = table_at(p, s->root);
    for (int level = LEVELS; level > 1; level--) {
        uint64_t entry = table[index_at(addr, level)];
        if (!(entry & ENTRY_PRESENT)) {
            uint64_t span = UINT64_C(1) << (KV_PAGE_SHIFT + 9 * (level - 1));
            *covered = span - (addr & (span - 1));
            return NULL;
        }
        table = table_at(p, entry & ENTRY_ADDRESS);
    }
    return &table[index_at(addr, 1)];
}

/* As tree_find(), making the tables that are missing. */
int tree_make(kv_space *s, uint64_t addr, kv_entry **entry)
{
    kv_platform *p = s->platform;
    kv_entry *table = table_at(p, s->root);
    for (int level = LEVELS; level > 1; level--) {
        kv_entry *at = &table[index_at(addr, level)];
        if (!(*at & ENTRY_PRESENT)) {
            uint64_t gpa;
            int error = table_new(p, &gpa);
            if (error)
                return error;
            s->ntables++;
            atomic_store(at, gpa | LINK);
        }
        table = table_at(p, *at & ENTRY_ADDRESS);
    }
    *entry = &table[index_at(addr, 1)];
    return 0;
}

/* Calls `visit` for every table below, the lowest level first. */
static void walk(kv_platform *p, uint64_t gpa, int level,
                 void (*visit)(kv_platform *, uint64_t gpa, int level, void *), void *argument)
{
    kv_entry *table = table_at(p, gpa);
    unsigned end = level == LEVELS ? ENTRIES / 2 : ENTRIES;     /* the upper half is shared */
    for (unsigned i = 0; level > 1 && i < end; i++)
        if (table[i] & ENTRY_PRESENT)
            walk(p, table[i] & ENTRY_ADDRESS, level - 1, visit, argument);
    visit(p, gpa, level, argument);
}

/* What is left is a tree that maps nothing. */
static void clear(kv_platform *p, uint64_t gpa, int level, void *unused)
{
    (void)unused;
    kv_entry *table = table_at(p, gpa);
    for (unsigned i = 0; level == 1 && i < ENTRIES; i++) {
        uint64_t old = table[i];
        if (old & ENTRY_MAPPED)
            window_unuse(p, window_at(p, old & ENTRY_ADDRESS));
        if (old)
            table[i] = 0;
    }
}

static void give_back(kv_platform *p, uint64_t gpa, int level, void *unused)
{
    (void)level;
    (void)unused;
    table_free(p, gpa);
}

/* Frees the tables below that map nothing. Is the table itself such a one now? */
static bool prune(kv_space *s, uint64_t gpa, int level)
{
    kv_platform *p = s->platform;
    kv_entry *table = table_at(p, gpa);
    unsigned end = level == LEVELS ? ENTRIES / 2 : ENTRIES;
    bool empty = true;
    for (unsigned i = 0; i < end; i++) {
        uint64_t entry = table[i], below = entry & ENTRY_ADDRESS;
        if (level > 1 && entry && prune(s, below, level - 1)) {
            table[i] = 0;
            table_free(p, below);
            s->ntables--;
        } else if (entry) {
            empty = false;
        }
    }
    return empty;
}

static void free_unused(kv_platform *p)
{
    size_t first = p->tables.nfree;
    for (size_t i = 0; i < p->tables.ngraves; i++)
        walk(p, p->tables.graves[i], LEVELS, give_back, NULL);
    p->tables.ngraves = 0;
    p->tables.buried = 0;
    bool looked = p->tables.count > p->tables.look_at;
    for (kv_space *t = p->spaces; looked && t; t = t->next)
        prune(t, t->root, LEVELS);
    uint64_t next = p->tables.count * 2 < LOOK_AT_LEAST ? LOOK_AT_LEAST : p->tables.count * 2;
    if (looked || next < p->tables.look_at)
        p->tables.look_at = next;
    give_memory_back(p, first);
}

/* Frees what maps nothing. Nothing runs meanwhile: without the slots it would find no tables. */
static int collect(kv_platform *p)
{
    int error = 0;
    workers_pause(p);
    for (uint64_t at = 0; !error && at < p->tables.backed; at += SLOT_SIZE) {
        int slot = p->tables.slots[at / SLOT_SIZE];
        error = vm_set_slot(p, slot, TABLES_GPA + at, p->tables.base + at, 0);
        if (!error)
            error = vm_set_slot(p, slot, TABLES_GPA + at, p->tables.base + at, SLOT_SIZE);
    }
    if (!error)
        free_unused(p);
    int going_on = workers_go_on(p);
    return error ? error : going_on;
}

/* Some of a space's tables may map nothing any more. */
int tree_look(kv_platform *p)
{
    return p->tables.count - p->tables.buried > p->tables.look_at ? collect(p) : 0;
}

/* Takes back a space's tree. An error does no harm here; the next run says what is wrong. */
void tree_give(kv_platform *p, kv_space *s)
{
    walk(p, s->root, LEVELS, clear, NULL);
    if (p->tables.ngraves == p->tables.graves_capacity) {
        size_t capacity = p->tables.ngraves ? p->tables.ngraves * 2 : 16;
        uint64_t *grown = realloc(p->tables.graves, capacity * sizeof *grown);
        if (!grown)
            return;                     /* its tables are lost until the platform is closed */
        p->tables.graves = grown;
        p->tables.graves_capacity = capacity;
    }
    p->tables.graves[p->tables.ngraves++] = s->root;
    p->tables.buried += s->ntables;
    if (p->tables.buried > BURIED_TOO_MANY)
        collect(p);
}

/* Is the page beyond the end of its file, as far as mapping it goes? */
bool page_is_beyond(uint8_t *page)
{
    return madvise(page, KV_PAGE, MADV_POPULATE_READ) && (errno == EFAULT || errno == EHWPOISON);
}

static void take_away(kv_platform *p, uint64_t gpa, int level, void *found)
{
    kv_entry *table = table_at(p, gpa);
    for (unsigned i = 0; level == 1 && i < ENTRIES; i++) {
        uint64_t entry = table[i];
        if (!(entry & ENTRY_PRESENT) || !(entry & ENTRY_ACCESSED) ||
            !page_is_beyond(window_memory(p, entry & ENTRY_ADDRESS)))
            continue;
        uint64_t without = (entry & ~(uint64_t)ENTRY_PRESENT) | ENTRY_BEYOND;
        atomic_compare_exchange_strong(&table[i], &entry, without);
        *(bool *)found = true;          /* or the kernel changed it just now */
    }
}

/*
 * Makes every page fault in the guest that was reached for but is beyond the end of its file: the
 * guest then says itself at which address and how it was reached, where KVM only says that it could
 * not get at some memory. False when there is none.
 */
bool tree_take_away(kv_space *s)
{
    bool found = false;
    walk(s->platform, s->root, LEVELS, take_away, &found);
    return found;
}
