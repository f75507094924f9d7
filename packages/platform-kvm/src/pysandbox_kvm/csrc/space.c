/*
 * Address spaces: map, protect, unmap, as changes of page-table entries.
 *
 * Interface: entries change at once; that nobody uses the old ones any more is stale.c's business,
 * done by the next resume, by kv_sync() and by kv_space_release().
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A page less than the lower half, as on Linux: a SYSCALL at the end must not return into the hole
   between the halves, see guest_image_amd64.c. */
#define SPACE_END UINT64_C(0x7ffffffff000)

uint64_t kv_space_end(void)
{
    return SPACE_END;
}

uint64_t kv_guest_kernel(void)
{
    return KERNEL_BASE;
}

uint8_t *kv_guest_image(kv_platform *p)
{
    return p->kernel;
}

kv_space *kv_space_new(kv_platform *p)
{
    kv_space *s = calloc(1, sizeof *s);
    if (!s) {
        kv_fail(p, -ENOMEM, "out of memory");
        return NULL;
    }
    s->platform = p;
    if (tree_take(p, s)) {
        free(s);
        return NULL;
    }
    s->next = p->spaces;
    if (s->next)
        s->next->prev = &s->next;
    s->prev = &p->spaces;
    p->spaces = s;
    return s;
}

void kv_space_release(kv_space *s)
{
    kv_platform *p = s->platform;
    for (int i = 0; i < p->ncontexts; i++) {
        if (p->contexts[i] && p->contexts[i]->space == s) {
            /* Running is against the rules, but must not harm. */
            context_withdraw(p->contexts[i]);
            p->contexts[i]->space = NULL;
        }
    }
    if (s->next)
        s->next->prev = s->prev;
    *s->prev = s->next;
    tree_give(p, s);
    stale_flush(p);
    free(s);
}

static int check(kv_space *s, uint64_t addr, uint64_t length)
{
    if (!s)
        return -EBADF;
    bool inside = addr >= SPACE_START && addr < SPACE_END && length <= SPACE_END - addr;
    if (inside && length && (addr | length) % KV_PAGE == 0)
        return 0;
    return kv_fail(s->platform, -EINVAL, "%#lx bytes at %#lx are not the program's to map", length,
                   addr);
}

/*
 * An entry's bits for a protection. Writable is readable, as on any x86. The dirty bit is set
 * ahead, or KVM would map writable pages read-only at first.
 */
static uint64_t bits_of(int prot)
{
    uint64_t bits = ENTRY_MAPPED;
    if (prot & (PROT_READ | PROT_WRITE | PROT_EXEC))
        bits |= ENTRY_PRESENT | ENTRY_USER | ENTRY_DIRTY;
    if (prot & PROT_WRITE)
        bits |= ENTRY_WRITE;
    if (!(prot & PROT_EXEC))
        bits |= ENTRY_NX;
    return bits;
}

/*
 * What a translation may allow that was kept of an entry. Also of one that tree_take_away() took:
 * between its look at the file and that, the file may have grown and the page been reached.
 */
static uint64_t kept(uint64_t entry)
{
    if (!(entry & ENTRY_ACCESSED) || !(entry & (ENTRY_PRESENT | ENTRY_BEYOND)))
        return 0;
    return ENTRY_PRESENT | (entry & ENTRY_WRITE);
}

/* The entry `old` was replaced by another page, or by none. False when nothing was mapped. */
bool entry_dropped(kv_platform *p, uint64_t old)
{
    if (!(old & ENTRY_MAPPED))
        return false;
    if (kept(old))
        stale_add(p, old & ENTRY_ADDRESS);
    window_unuse(p, window_at(p, old & ENTRY_ADDRESS));
    return true;
}

/* Maps what lies in one window; `addr` and `gpa` advance together. */
static int map_piece(kv_space *s, uint64_t addr, uint64_t npages, uint64_t gpa, uint64_t bits)
{
    kv_entry *entry = NULL;
    for (uint64_t i = 0; i < npages; i++, addr += KV_PAGE, gpa += KV_PAGE) {
        if (!entry || addr % (KV_PAGE * 512) == 0) {
            int error = tree_make(s, addr, &entry);
            if (error)
                return error;
        }
        window_use(s->platform, window_at(s->platform, gpa), 1);
        uint64_t old = atomic_exchange(entry++, gpa | bits);
        if (old)
            entry_dropped(s->platform, old);
    }
    return 0;
}

int kv_map(kv_space *s, uint64_t addr, uint64_t length, int prot, int fd, uint64_t offset)
{
    int error = check(s, addr, length);
    if (error)
        return error;
    if (offset % KV_PAGE || offset + length < offset)
        return kv_fail(s->platform, -EINVAL, "a file can't be mapped from byte %#lx on", offset);
    while (!error && length) {
        kv_window *w;
        error = window_get(s->platform, fd, offset, prot & PROT_WRITE, &w);
        if (error)
            break;
        uint64_t size = UINT64_C(1) << w->shift, within = offset & (size - 1);
        uint64_t piece = size - within < length ? size - within : length;
        error = map_piece(s, addr, piece >> KV_PAGE_SHIFT, w->gpa + within, bits_of(prot));
        addr += piece;
        offset += piece;
        length -= piece;
    }
    return error;
}

/* Calls `change` for each entry of the range that is mapped. */
static int each(kv_space *s, uint64_t addr, uint64_t length,
                int (*change)(kv_platform *p, kv_entry *entry, uint64_t bits), uint64_t bits)
{
    uint64_t end = addr + length, covered = 0;
    while (addr < end) {
        kv_entry *entry = tree_find(s, addr, &covered);
        if (!entry) {
            addr = covered < end - addr ? addr + covered : end;
            continue;
        }
        do {
            int error = *entry ? change(s->platform, entry, bits) : 0;
            if (error)
                return error;
            addr += KV_PAGE;
            entry++;
        } while (addr < end && addr % (KV_PAGE * 512));
    }
    return 0;
}

static int unmap_entry(kv_platform *p, kv_entry *entry, uint64_t unused)
{
    (void)unused;
    entry_dropped(p, atomic_exchange(entry, 0));
    return 0;
}

/*
 * The page stays; a translation that was kept of it is stale only if it allows more than the new
 * one. The accessed bit is kept when it was set, since such a translation lives on.
 */
static int protect_entry(kv_platform *p, kv_entry *entry, uint64_t bits)
{
    uint64_t old = *entry, wanted;
    if (!(old & ENTRY_MAPPED))
        return 0;
    if (bits & ENTRY_WRITE && !window_at(p, old & ENTRY_ADDRESS)->writable)
        return kv_fail(p, -EACCES, "a file to be made writable was not open for that");
    do {
        wanted = (old & ENTRY_ADDRESS) | bits;
        bool less = (kept(old) & ~bits) || (bits & ~old & ENTRY_NX);
        if (kept(old) && !less)
            wanted |= ENTRY_ACCESSED;
    } while (!atomic_compare_exchange_weak(entry, &old, wanted));
    if (kept(old) && !(wanted & ENTRY_ACCESSED))
        stale_add(p, old & ENTRY_ADDRESS);
    return 0;
}

int kv_protect(kv_space *s, uint64_t addr, uint64_t length, int prot)
{
    int error = check(s, addr, length);
    return error ? error : each(s, addr, length, protect_entry, bits_of(prot));
}

int kv_unmap(kv_space *s, uint64_t addr, uint64_t length)
{
    int error = check(s, addr, length);
    if (!error)
        error = each(s, addr, length, unmap_entry, 0);
    return error ? error : tree_look(s->platform);
}

int kv_sync(kv_space *s)
{
    return s ? stale_flush(s->platform) : -EBADF;
}
