/*
 * The platform: opening, closing, errors in words.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <x86intrin.h>

/* Notes in words what failed, for pt_error(); returns `error`. */
int pt_fail(pt_platform *p, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->error, sizeof p->error, format, args);
    va_end(args);
    return error;
}

const char *pt_error(const pt_platform *p)
{
    return p->error;
}

pt_platform *pt_open(int *error, char *message, int message_size)
{
    pt_platform *p = calloc(1, sizeof *p);
    if (!p) {
        *error = -ENOMEM;
        snprintf(message, (size_t)message_size, "out of memory");
        return NULL;
    }
    list_init(&p->deferred);
    list_init(&p->ready);
    pthread_mutex_init(&p->kick_lock, NULL);
    p->helper.armed = p->helper.wanted = INT64_MAX;
    p->owner = getpid();
    p->master_space.pidfd = -1;
    affinity_open(p);
    *error = watch_open(p);
    if (!*error)
        *error = boot_master(p);
    if (!*error)
        *error = xstate_open(p);
    affinity_opened(p);
    if (!*error)
        return p;
    snprintf(message, (size_t)message_size, "%s", p->error);
    pt_close(p);
    pt_free(p);
    return NULL;
}

/* In a process that the sentry forked it is not: the stubs and the helper are the sentry's. */
bool platform_is_mine(const pt_platform *p)
{
    return getpid() == p->owner;
}

void pt_close(pt_platform *p)
{
    if (p->closed)
        return;
    p->closed = true;
    if (!platform_is_mine(p))
        return;
    helper_close(p);
    for (int i = 0; i < p->ncontexts; i++) {
        pt_ctx *c = p->contexts[i];
        if (!c)
            continue;
        c->thread = NULL;       /* ended below */
        c->platform = NULL;
    }
    for (pt_space *s = p->spaces; s; s = s->next) {
        for (pt_thread *t = s->threads; t; t = t->next_in_space)
            t->context = NULL;
        space_end(s);
    }
    while (p->spaces)
        pt_space_release(p->spaces);
    if (p->master)
        space_end(&p->master_space);
    watch_end(&p->master_space);
    p->master = NULL;
    if (p->shared)
        munmap(p->shared, sizeof *p->shared);
    p->shared = NULL;
    affinity_close(p);
    watch_close(p);
    xstate_close(p);
    free(p->contexts);
    list_init(&p->deferred);    /* a pt_wait() that comes later finds none of them */
    list_init(&p->ready);
    p->contexts = NULL;
    p->ncontexts = p->contexts_capacity = p->first_free = 0;
}

void pt_free(pt_platform *p)
{
    pt_close(p);
    pthread_mutex_destroy(&p->kick_lock);
    free(p);
}

uint64_t pt_read_tsc(const pt_platform *p)
{
    (void)p;                /* a stub reads the processor's own counter, as we do */
    return __rdtsc();
}

int pt_process_count(const pt_platform *p)
{
    return p->nprocesses;
}

int pt_thread_count(const pt_platform *p)
{
    return p->nthreads;
}
