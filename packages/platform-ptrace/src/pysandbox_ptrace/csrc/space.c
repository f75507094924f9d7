/*
 * Address spaces: queueing changes, and carrying them out.
 *
 * Interface: a change costs no host call when it is queued. The queue is carried out by the next
 * resume in the space or by pt_sync(), in one go (inject.c).
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

uint64_t pt_space_end(void)
{
    return PT_STUB_BASE;
}

uint64_t pt_stub_syscall(void)
{
    return stub_address(pt_image_after_syscall) - 2;
}

pt_space *pt_space_new(pt_platform *p)
{
    pt_space *s = calloc(1, sizeof *s);
    if (!s) {
        pt_fail(p, -ENOMEM, "out of memory");
        return NULL;
    }
    s->platform = p;
    s->exit_status = s->pidfd = -1;
    s->next = p->spaces;
    if (s->next)
        s->next->prev = &s->next;
    s->prev = &p->spaces;
    p->spaces = s;
    return s;
}

void pt_space_release(pt_space *s)
{
    pt_platform *p = s->platform;
    if (!platform_is_mine(p))
        return;
    for (pt_thread *t = s->threads; t && !p->closed; t = s->dying ? NULL : t->next_in_space) {
        if (t->context && t->context->state == PT_RUNNING)
            space_died(s, -1);          /* against the rules, but must not hang */
        else if (t->context)
            context_detach(t->context);
    }
    space_end(s);
    watch_end(s);
    for (int i = 0; i < p->ncontexts; i++)
        if (p->contexts[i] && p->contexts[i]->space == s)
            p->contexts[i]->space = NULL;
    if (s->next)
        s->next->prev = s->prev;
    *s->prev = s->next;
    free(s->ops);
    free(s->ranges);
    free(s);
}

int pt_space_pid(const pt_space *s)
{
    return s->pid;
}

static int check(pt_space *s, uint64_t addr, uint64_t length)
{
    if (!s)
        return -EBADF;
    bool inside = addr < PT_STUB_BASE && length <= PT_STUB_BASE - addr;
    if (inside && length && (addr | length) % PT_PAGE == 0)
        return 0;
    return pt_fail(s->platform, -EINVAL, "%#lx bytes at %#lx are not the program's to map", length,
                   addr);
}

/* Can the operation be part of the one before it? */
static bool merge(pt_space *s, const pt_op *op)
{
    pt_op *last = s->nops ? &s->ops[s->nops - 1] : NULL;
    if (!last || last->nr != op->nr || last->args[0] + last->args[1] != op->args[0])
        return false;
    if (op->nr != SYS_munmap && last->args[2] != op->args[2])
        return false;
    if (op->nr == SYS_mmap &&
        (last->args[4] != op->args[4] || last->args[5] + last->args[1] != op->args[5]))
        return false;
    last->args[1] += op->args[1];
    return true;
}

static int queue(pt_space *s, const pt_op *op)
{
    s->generation++;
    if (merge(s, op))
        return 0;
    if (s->nops == s->ops_capacity) {
        size_t capacity = s->nops ? s->nops * 2 : 16;
        pt_op *grown = realloc(s->ops, capacity * sizeof *grown);
        if (!grown)
            return pt_fail(s->platform, -ENOMEM, "out of memory");
        s->ops = grown;
        s->ops_capacity = capacity;
    }
    s->ops[s->nops++] = *op;
    return 0;
}

static int note(pt_space *s, uint64_t addr, uint64_t length, int prot)
{
    int error = ranges_set(s, addr, addr + length, prot);
    return error ? pt_fail(s->platform, error, "out of memory") : 0;
}

int pt_map(pt_space *s, uint64_t addr, uint64_t length, int prot, int fd, uint64_t offset)
{
    int error = check(s, addr, length);
    if (error || (error = note(s, addr, length, prot)))
        return error;
    const pt_op op = {.nr = SYS_mmap,
                      .args = {addr, length, (uint64_t)prot, PT_MAP_FLAGS, (uint64_t)fd, offset}};
    return queue(s, &op);
}

/* Only what is mapped: mprotect(2) would stop at a hole. */
int pt_protect(pt_space *s, uint64_t addr, uint64_t length, int prot)
{
    int error = check(s, addr, length);
    uint64_t end = addr + length;
    while (!error && addr < end) {
        size_t i = ranges_first(s, addr);
        if (i == s->nranges || s->ranges[i].start >= end)
            break;
        pt_range r = s->ranges[i];
        uint64_t from = r.start > addr ? r.start : addr, to = r.end < end ? r.end : end;
        const pt_op op = {.nr = SYS_mprotect, .args = {from, to - from, (uint64_t)prot}};
        if (r.prot != prot && !(error = note(s, from, to - from, prot)))
            error = queue(s, &op);
        addr = to;
    }
    return error;
}

int pt_unmap(pt_space *s, uint64_t addr, uint64_t length)
{
    int error = check(s, addr, length);
    if (error)
        return error;
    size_t i = ranges_first(s, addr);
    if (i == s->nranges || s->ranges[i].start >= addr + length)
        return 0;                       /* nothing there */
    if ((error = note(s, addr, length, -1)))
        return error;
    const pt_op op = {.nr = SYS_munmap, .args = {addr, length}};
    return queue(s, &op);
}

int pt_sync(pt_space *s)
{
    if (!s)
        return -EBADF;
    if (!s->nops || s->dying)
        return 0;
    int error = space_start(s);
    if (error)
        return error;
    pt_thread *t = s->threads;
    while (t && t->running)
        t = t->next_in_space;
    bool borrowed = !t;
    if (borrowed) {
        t = s->threads;
        error = thread_borrow(t);
    }
    if (!error)
        error = inject_queue(t);
    if (!error && borrowed)
        error = thread_return(t);
    return error == -ESRCH ? 0 : error; /* a space whose process was killed has nothing mapped */
}
