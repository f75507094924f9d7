/*
 * Processor time of contexts: the host's account of their stub threads, read when it is asked for.
 *
 * A context may run on several threads, one after the other, and a thread may have served another
 * context before: cpu_time_attach() notes where the thread's account stood, cpu_time_detach() adds
 * what was used since. There is no clock for a thread of another process, so that proc(5) it is.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Nanoseconds that a thread has run for, 0 where the host does not say. */
static uint64_t thread_cpu_ns(const pt_thread *t)
{
    char text[64];
    snprintf(text, sizeof text, "/proc/%d/schedstat", t->tid);
    int fd = open(text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size <= 0)
        return 0;
    text[size] = 0;
    return strtoull(text, NULL, 10);
}

static uint64_t used(const pt_ctx *c)
{
    uint64_t now = thread_cpu_ns(c->thread);
    return now > c->cpu_base_ns ? now - c->cpu_base_ns : 0;
}

void cpu_time_attach(pt_ctx *c)
{
    pt_thread *t = c->thread;
    c->cpu_base_ns = t->has_served ? thread_cpu_ns(t) : 0;
    t->has_served = true;
}

void cpu_time_detach(pt_ctx *c)
{
    c->cpu_ns += used(c);
}

uint64_t pt_context_cpu_ns(const pt_context *view)
{
    const pt_ctx *c = (const pt_ctx *)view;
    return c->cpu_ns + (c->thread ? used(c) : 0);
}
