/*
 * What the C files of the platform share.
 *
 * Interface: every object belongs to the tracer, the thread that called pt_open(); only the `kick`
 * group of struct pt_platform is touched by others. A function that can fail returns a negative
 * errno and leaves the reason in words with pt_fail().
 *
 * A space is one stub process; a thread is one of its stub threads. A thread that has no context is
 * stopped and waits in its space's pool.
 */
#ifndef PT_INTERNAL_H
#define PT_INTERNAL_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/user.h>

#include "pt_api.h"
#include "pt_stub.h"

_Static_assert(sizeof(struct user_regs_struct) == 27 * 8, "the registers are 27 words");

/* What ring 3 may have in these registers; pysandbox_platform.registers_amd64 has the same. */
enum { USER_CS = 0x33, USER32_CS = 0x23, USER_DS = 0x2b };
enum { EFLAGS_USER = 0x250dd5, EFLAGS_FIXED = 0x202 };

typedef struct pt_thread pt_thread;
typedef struct pt_ctx pt_ctx;

typedef struct {
    uint64_t start, end;
    int prot;
} pt_range;

struct pt_thread {
    pid_t tid;
    bool running;               /* let go, and its stop not handled yet */
    bool has_status;            /* `status` was taken while waiting for another */
    int status;
    pt_thread *next_stashed;
    bool dead;                  /* its exit status was taken: the tid means nothing any more */
    bool has_served;            /* some context has run on it */
    bool clean_xstate;          /* its extended state is the initial one */
    bool regs_known;            /* `regs` is what it holds */
    uint64_t generation;        /* of its space, when it was let go */
    struct user_regs_struct regs;
    pt_space *space;
    pt_ctx *context;
    int cpu;                    /* the one it is pinned to, or -1 */
    pt_thread *next_running, **prev_running;
    pt_thread *next_in_space;
    pt_thread *next_in_pool;
    pt_thread *next_in_bucket;
};

struct pt_space {
    pt_platform *platform;
    pid_t pid;
    int pidfd;                  /* watch.c; -1 while it is not watched */
    pid_t watched;              /* the thread that it is of */
    int nthreads;               /* not counting the dead ones */
    bool dying;                 /* one of its threads was killed: all are */
    int exit_status;            /* of the thread that was seen to die first */
    bool cloning;               /* it may have a thread that is not among `threads` yet */
    pt_thread *threads;
    pt_thread *pool;
    int npool;
    pt_op *ops;                 /* queued changes, in order */
    size_t nops, ops_capacity;
    uint64_t generation;        /* counts the changes */
    pt_range *ranges;           /* what is mapped once the queue is carried out: sorted, disjoint */
    size_t nranges, ranges_capacity;
    pt_space *next, **prev;
};

enum pt_state {
    PT_IDLE,                    /* stopped, the kernel has it */
    PT_DEFERRED,                /* resumed; started by the next pt_wait() or pt_resume() */
    PT_RUNNING,
    PT_READY,                   /* stopped, pt_wait() has not returned it yet */
};

struct pt_ctx {
    pt_context view;            /* first, so that one pointer serves both */
    pt_platform *platform;      /* NULL after release */
    enum pt_state state;
    int stop;                   /* PT_READY: what to report */
    bool interrupt;             /* pt_interrupt() was called since the last resume */
    bool killed;
    pt_space *space;            /* where it was resumed last */
    pt_thread *thread;
    uint64_t cpu_ns;            /* used on threads that it was parted from */
    uint64_t cpu_base_ns;       /* where its thread's account stood when it got it */
    uint8_t *xstate;            /* while no thread holds it; NULL stands for the initial state */
    pt_ctx *next;               /* in the deferred or the ready list */
};

typedef struct {
    pt_ctx *head, **tail;
} pt_list;

enum { PT_BUCKETS = 1024 };     /* of the table tid -> thread */

struct pt_platform {
    /* Hot: what every wait looks at. */
    pt_list deferred;
    pt_list ready;
    int nrunning;               /* contexts in PT_RUNNING */
    pt_thread *running;         /* their threads */
    pt_thread *stashed;         /* threads with has_status */

    /* kick: the words that other threads touch. */
    _Atomic uint32_t kicked;    /* futex word */
    _Atomic uint64_t waiter;    /* what the tracer sleeps on, see kick.c */
    pthread_mutex_t kick_lock;  /* a stub that may be signalled is not reaped meanwhile */
    struct {                    /* the helper thread */
        bool started;
        pthread_t thread;
        _Atomic uint32_t doorbell;      /* futex word: bumped when `armed` changed */
        _Atomic int64_t armed;          /* when the thread wakes up next */
        _Atomic int64_t wanted;         /* the deadline of the wait in progress */
        _Atomic bool stop;
    } helper;

    pt_thread *master;          /* the process that all others are cloned from */
    pt_space master_space;
    pt_space *spaces;
    pt_stub_shared *shared;     /* the batch pages, writable here, read-only in every stub */
    struct {                    /* a clone's child whose stop was seen before its parent's */
        pid_t tid;
        int status;
    } newborn;

    struct {                    /* watch.c */
        int epoll;              /* of the pidfds, -1 for none */
        rlim_t count;           /* of the pidfds */
    } watch;

    pt_ctx **contexts;          /* by index; NULL where free */
    int ncontexts, contexts_capacity, first_free;

    struct {
        uint64_t features;      /* that contexts have */
        uint64_t size;          /* of these, standard form */
        uint64_t kernel_size;   /* of what the host's ptrace takes and gives */
        uint32_t mxcsr_mask;
        uint8_t *initial;       /* kernel_size bytes */
    } xstate;

    struct {                    /* affinity.c */
        cpu_set_t original;     /* the tracer's, to go back to */
        bool known;
        bool pinned;            /* the tracer, to `cpu` */
        int cpu;
        unsigned alone;         /* stops in a row with one runnable context */
        _Atomic uint32_t stops; /* since ever, with one runnable context */
        _Atomic bool watched;   /* the helper looks at `stops` now and then */
        _Atomic bool end;       /* the helper's order: choose anew */
        _Atomic bool freed;     /* by the helper: the stub that runs */
        uint32_t stops_seen;    /* the helper's own */
        _Atomic unsigned looks; /* since `cpu` was chosen */
    } affinity;

    pid_t owner;                /* the process that opened it; a fork of it has no stubs */
    bool closed;
    pt_thread *buckets[PT_BUCKETS];
    int nprocesses, nthreads;
    char error[200];
};

/* platform.c */
int pt_fail(pt_platform *p, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool platform_is_mine(const pt_platform *p);

/* tracee.c: one function per ptrace request or wait, errno saved at once. */
int tracee_seize(pid_t tid);
int tracee_interrupt(pid_t tid);
int tracee_get_regs(pid_t tid, struct user_regs_struct *regs);
int tracee_set_regs(pid_t tid, const struct user_regs_struct *regs);
int tracee_poke_reg(pid_t tid, size_t index, uint64_t value);
int tracee_get_xstate(pid_t tid, void *state, size_t *size);
int tracee_set_xstate(pid_t tid, const void *state, size_t size);
int tracee_get_siginfo(pid_t tid, siginfo_t *info);
int tracee_get_event_message(pid_t tid, unsigned long *message);
int tracee_cont(pid_t tid);
int tracee_sysemu(pid_t tid);
int tracee_wait(pid_t tid, int *status);
int tracee_wait_exit(pid_t tid, int *status);
int tracee_wait_any(int *status, int flags);

/* boot.c: the first stub process. */
int boot_master(pt_platform *p);

/* thread.c: stub threads and processes. */
pt_thread *thread_find(const pt_platform *p, pid_t tid);
pt_thread *thread_adopt(pt_space *s, pid_t tid, int cpu);
bool thread_take_status(pt_thread *t, int *status);
int thread_wait(pt_thread *t, int *status);
int thread_take(pt_space *s, pt_thread **taken);
void thread_give(pt_thread *t);
bool thread_is_parked(const pt_thread *t);
int thread_borrow(pt_thread *t);
int thread_return(pt_thread *t);
void thread_died(pt_thread *t, int status);
void thread_running(pt_thread *t);
void thread_stopped(pt_thread *t);
int space_start(pt_space *s);
void space_died(pt_space *s, int status);
void space_end(pt_space *s);

/* ranges.c: what is mapped in a space, and how. */
int ranges_set(pt_space *s, uint64_t start, uint64_t end, int prot);
size_t ranges_first(const pt_space *s, uint64_t addr);
int ranges_prot(const pt_space *s, uint64_t addr);

/* watch.c: what was killed while nobody waits for it. */
int watch_open(pt_platform *p);
void watch_close(pt_platform *p);
void watch_begin(pt_space *s, pid_t tid);
void watch_end(pt_space *s);

/* inject.c */
int inject_clone(pt_thread *t, unsigned long flags, pid_t *child);
int inject_queue(pt_thread *t);
int inject_exit(pt_thread *t);
int inject_bases(pt_thread *t, uint64_t fs_base, uint64_t gs_base);

/* context.c */
int context_start(pt_ctx *c);
int context_continue(pt_ctx *c);
void context_ready(pt_ctx *c, int stop);
void context_killed(pt_ctx *c);
int context_detach(pt_ctx *c);

/* cpu_time.c */
void cpu_time_attach(pt_ctx *c);
void cpu_time_detach(pt_ctx *c);

/* stops.c: from a wait status to a stop. */
int stop_handle(pt_platform *p, pt_thread *t, int status);

/* xstate.c */
int xstate_open(pt_platform *p);
void xstate_close(pt_platform *p);
int xstate_save(pt_ctx *c);
int xstate_load(pt_ctx *c);

/* kick.c */
void waiter_set(pt_platform *p, const pt_thread *t);
void waiter_clear(pt_platform *p);
pid_t waiter_tid(pt_platform *p);
int kick_sleep(pt_platform *p, int64_t deadline);

/* helper.c */
int64_t now_ns(void);
int futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline);
void futex_wake(_Atomic uint32_t *word);
int helper_deadline(pt_platform *p, int64_t deadline);
int helper_wake(pt_platform *p, int64_t when);
void helper_close(pt_platform *p);

/* affinity.c */
void affinity_open(pt_platform *p);
void affinity_opened(pt_platform *p);
void affinity_close(pt_platform *p);
void affinity_alone(pt_platform *p, pt_thread *t);
void affinity_many(pt_platform *p, pt_thread *t);
void affinity_inject(pt_platform *p, pt_thread *t);
void affinity_wait(pt_platform *p);
int64_t affinity_watch(pt_platform *p, int64_t now);

/* list helpers */
static inline void list_init(pt_list *l)
{
    l->head = NULL;
    l->tail = &l->head;
}

static inline void list_push(pt_list *l, pt_ctx *c)
{
    c->next = NULL;
    *l->tail = c;
    l->tail = &c->next;
}

static inline pt_ctx *list_pop(pt_list *l)
{
    pt_ctx *c = l->head;
    if (c && !(l->head = c->next))
        l->tail = &l->head;
    return c;
}

static inline void list_remove(pt_list *l, pt_ctx *c)
{
    for (pt_ctx **at = &l->head; *at; at = &(*at)->next) {
        if (*at == c) {
            if (!(*at = c->next))
                l->tail = at;
            return;
        }
    }
}

#endif
