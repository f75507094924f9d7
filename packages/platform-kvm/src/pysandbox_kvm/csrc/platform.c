/*
 * The platform: opening, closing, errors in words.
 */
#define _GNU_SOURCE
#include "kv_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Notes in words what failed, for kv_error(); returns `error`. */
int kv_fail(kv_platform *p, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->error, sizeof p->error, format, args);
    va_end(args);
    return error;
}

const char *kv_error(const kv_platform *p)
{
    return p->error;
}

int kv_flavour(const kv_platform *p)
{
    return p->flavour;
}

int kv_vcpu_count(const kv_platform *p)
{
    return p->nvcpus;
}

/* A signal that does little but end KVM_RUN, and no other call of the sentry's. */
static int take_signal(kv_platform *p)
{
    struct sigaction action = {.sa_sigaction = watch_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigset_t set;
    if (sigaction(SIGRTMIN + 1, &action, NULL))
        return kv_fail(p, -errno, "sigaction: %s", strerror(errno));
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return 0;
}

/* One that waits awake at first: it is never held for long. */
static void lock_init(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

static int set_up(kv_platform *p)
{
    int error = take_signal(p);
    if (!error)
        error = helper_open(p);
    if (!error)
        error = vm_open(p);
    if (!error)
        error = xstate_open(p);
    if (!error)
        error = tables_open(p);
    if (!error)
        error = windows_open(p);
    return error ? error : runner_open(p);
}

kv_platform *kv_open(int *error, char *message, int message_size)
{
    kv_platform *p = calloc(1, sizeof *p);
    if (!p) {
        *error = -ENOMEM;
        snprintf(message, (size_t)message_size, "out of memory");
        return NULL;
    }
    p->owner = getpid();
    p->kvm_fd = p->vm_fd = -1;
    list_init(&p->queue);
    list_init(&p->computing);
    list_init(&p->ready);
    lock_init(&p->lock);
    pthread_cond_init(&p->work, NULL);
    *error = set_up(p);
    if (!*error)
        return p;
    snprintf(message, (size_t)message_size, "%s", p->error);
    kv_free(p);
    return NULL;
}

static void forget_objects(kv_platform *p)
{
    for (int i = 0; i < p->ncontexts; i++) {
        if (p->contexts[i]) {
            p->contexts[i]->vcpu = NULL;
            p->contexts[i]->platform = NULL;
        }
    }
    for (kv_space *s = p->spaces, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    free(p->contexts);
    list_init(&p->ready);       /* a kv_wait() that comes later finds none of them */
    p->contexts = NULL;
    p->spaces = NULL;
    p->ncontexts = p->contexts_capacity = p->first_free = 0;
}

void kv_close(kv_platform *p)
{
    if (p->closed)
        return;
    p->closed = true;
    if (getpid() != p->owner) {
        forget_objects(p);      /* a fork of the sentry: threads and machine are the sentry's */
        return;
    }
    helper_close(p);
    workers_close(p);
    forget_objects(p);
    vm_close(p);
    windows_close(p);
    tables_close(p);
}

void kv_free(kv_platform *p)
{
    kv_close(p);
    if (getpid() == p->owner) {         /* in a fork they would wait for the sentry's threads */
        pthread_cond_destroy(&p->work);
        pthread_cond_destroy(&p->helper.wake);
        pthread_mutex_destroy(&p->lock);
    }
    free(p);
}
