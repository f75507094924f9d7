/*
 * What the C files of the platform share.
 *
 * Interface: every object belongs to the kernel's thread, the one that called kv_open(). What the
 * vCPU threads, the helper thread and kv_kick() share with it is in the group `shared` and in the
 * state of contexts, under `lock`. A function that can fail returns a negative errno and leaves the
 * reason in words with kv_fail().
 *
 * A window is a piece of a host file, mapped here and given to the virtual machine at some
 * guest-physical address; a tree is the page tables of one space.
 */
#ifndef KV_INTERNAL_H
#define KV_INTERNAL_H

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>
#include <time.h>

#include "kv_api.h"
#include "kv_guest.h"

_Static_assert(sizeof(struct user_regs_struct) == 27 * 8, "the registers are 27 words");

typedef struct kv_vcpu kv_vcpu;
typedef struct kv_runner kv_runner;
typedef struct kv_ctx kv_ctx;
typedef struct kv_window kv_window;
typedef struct kv_arena kv_arena;

/* Of a thread that runs vCPUs; see watchdog.c. */
typedef struct {
    timer_t timer;
    bool running;
    _Atomic uint32_t *ticks;    /* counts them */
} kv_watch;

struct kv_vcpu {
    kv_platform *platform;
    int fd, id;
    struct kvm_run *run;
    uint8_t *page;              /* its own page of the guest kernel */
    uint64_t page_addr;         /* and where the guest has it */
    uint64_t entry;             /* where SYSCALL goes: in its own view of the code */
    uint64_t answers_id;        /* which answers are in its page, 0 for none */
    uint64_t root;              /* what CR3 holds */
    bool in_user;               /* it was left in ring 3: its selectors are the user's */
    bool broken;                /* its state has to be set anew */
    kv_ctx *holder;             /* whose extended state it holds, or NULL for nobody's */
    uint64_t spurious_addr;     /* of the last page fault that was none */
    unsigned spurious;          /* and how often in a row it came there, without a stop */
    uint64_t last_use;          /* by its thread's count of turns */
    kv_runner *runner;          /* the thread that it belongs to */
    const kv_watch *watch;      /* that thread's */
    _Atomic uint32_t attention; /* shared: leave the guest, soon */
};

enum { RUNNER_VCPUS = 8 };

/* A thread that runs contexts: the kernel's own, or a worker. */
struct kv_runner {
    kv_platform *platform;
    pthread_t thread;
    pid_t tid;
    kv_watch watch;
    kv_vcpu *vcpus[RUNNER_VCPUS];
    int nvcpus;
    uint64_t uses;              /* turns that its vCPUs were given */
    kv_vcpu *running;           /* shared: the one that runs a context now */
};

enum kv_state {
    KV_IDLE,                    /* stopped, the kernel has it */
    KV_QUEUED,                  /* runnable, no vCPU runs it */
    KV_RUNNING,
    KV_READY,                   /* stopped, kv_wait() has not returned it yet */
};

struct kv_ctx {
    kv_context view;            /* first, so that one pointer serves both */
    kv_platform *platform;      /* NULL after release */
    enum kv_state state;        /* shared */
    int stop;                   /* KV_READY: what to report */
    bool interrupt;             /* shared: kv_interrupt() was called since the last resume */
    bool killed;
    uint32_t late;              /* ticks that found it in ring 0, since it came to an exit last */
    kv_space *space;            /* where it was resumed last */
    kv_vcpu *vcpu;              /* that holds its extended state, or NULL */
    kv_vcpu *runs_on;           /* shared; while KV_RUNNING */
    uint8_t *xstate;            /* while no vCPU holds it; NULL stands for the initial state */
    kv_answers answers;         /* that the guest kernel gives for it */
    uint64_t answers_id;        /* no other answers have the same; 0 for none */
    uint64_t cpu_ns;            /* used up to the last stop */
    _Atomic uint64_t cpu_started_ns;    /* its thread's account when it was entered last */
    uint64_t burst_ns;          /* used since the last resume */
    bool computes;              /* its last burst was a long one; it says which queue it is in */
    unsigned passed_over;       /* in the queue, how often */
    kv_ctx *next;               /* in a queue or the ready list */
};

struct kv_space {
    kv_platform *platform;
    uint64_t root;              /* guest-physical address of the top table */
    uint64_t ntables;           /* in its tree */
    kv_space *next, **prev;
};

typedef struct {
    kv_ctx *head, **tail;
} kv_list;

enum { MAX_STALE = 128, MAX_ARENAS = 8192,
       TABLES_SLOTS = 256 };

struct kv_platform {
    pid_t owner;                /* the process that opened it; KVM refuses any other */
    bool closed;
    int kvm_fd, vm_fd;
    int nslots, max_slots;
    unsigned physical_bits;
    struct kvm_cpuid2 *cpuid;
    bool has_hyperv;            /* KVM can be told to refuse hypercalls */
    size_t run_size;
    _Atomic int flavour;

    uint8_t *kernel;            /* the guest kernel's pages */
    uint64_t answers_made;

    struct {                    /* tables.c */
        uint8_t *base;
        uint64_t next;          /* bytes handed out */
        uint64_t backed;        /* bytes that have a slot */
        int slots[TABLES_SLOTS];
        uint32_t *free;         /* tables given back, by number */
        size_t nfree, free_capacity;
        uint64_t kernel_entry;  /* of every top table */
        uint64_t count;         /* in use */
        uint64_t look_at;       /* so many in spaces that live, some may be empty */
        uint64_t *graves;       /* roots of released spaces, until they are collected */
        size_t ngraves, graves_capacity;
        uint64_t buried;        /* tables in them */
    } tables;

    struct {                    /* windows.c */
        kv_arena *arenas[MAX_ARENAS];
        int narenas;
        int nslots, nempty;     /* arenas that have one; of these, those without a window */
        kv_window **buckets;
        size_t nbuckets, count;
        kv_window *unused, **unused_tail;       /* those that nothing refers to, oldest first */
        int nunused;
    } windows;

    struct {                    /* stale.c: memory that vCPUs may still reach by old translations */
        uint8_t *from, *to;
    } stale[MAX_STALE];
    int nstale;
    int stale_error;            /* some of it could not be ended: nothing is to run any more */

    kv_space *spaces;
    kv_ctx **contexts;          /* by index; NULL where free */
    int ncontexts, contexts_capacity, first_free;

    int nvcpus, max_vcpus;      /* ids handed out */
    int ncpus;                  /* processors that there are for threads */

    struct {
        uint64_t features;      /* that contexts have */
        uint64_t size;          /* of these, standard form */
        uint64_t xcr0;          /* of the guest, may be more */
        uint32_t mxcsr_mask;
        uint8_t initial[4096];
    } xstate;
    bool tsc_is_host;           /* a context's time-stamp counter is the host's */

    pthread_mutex_t lock;       /* of all that follows */
    pthread_cond_t work;        /* `woken` is not 0, or stop */
    kv_list queue, computing;   /* runnable contexts, see schedule.c */
    int nqueued, ncomputing;    /* in both; in `computing` */
    kv_list ready;
    kv_runner main;             /* the thread that opened it, the kernel's */
    kv_runner *workers[MAX_VCPUS];
    int nworkers, max_workers;
    int nrunning;               /* contexts that workers run */
    int nidle;                  /* workers without one */
    int nawake;                 /* of these, how many look for one without sleeping */
    _Atomic int woken;          /* and how many are to take one */
    bool paused;                /* workers take nothing */
    bool sleeping;              /* the kernel's thread waits for an event */
    bool stop;                  /* workers end */
    int worker_error;           /* a worker could not go on; the words are in `error` */
    _Atomic uint32_t kicked;
    _Atomic uint32_t event;     /* futex word: bumped for whatever ends a kv_wait() */

    struct {                    /* helper.c: deadlines, and turns where vCPUs are few */
        bool started, stop;
        pthread_t thread;
        pthread_cond_t wake;
        int64_t deadline;       /* of the inline run in progress; INT64_MAX for none */
        int64_t armed;          /* when the thread wakes up next */
    } helper;

    char error[200];
};

/* platform.c */
int kv_fail(kv_platform *p, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int64_t now_ns(void);

/* vm.c: the virtual machine; one function per ioctl, errno saved at once. */
int vm_open(kv_platform *p);
void vm_close(kv_platform *p);
int vm_set_slot(kv_platform *p, int slot, uint64_t gpa, void *memory, uint64_t size);
int vm_add_slot(kv_platform *p, uint64_t gpa, void *memory, uint64_t size);

/* guest_image_amd64.c */
void guest_image_write(uint8_t *kernel);
void guest_vcpu_write(uint8_t *kernel, int id);

/* vcpu.c */
int vcpu_new(kv_platform *p, kv_vcpu **made);
void vcpu_free(kv_vcpu *v);
int vcpu_reset(kv_vcpu *v);
int vcpu_run(kv_vcpu *v);
int vcpu_get_xsave(kv_vcpu *v, void *state);
int vcpu_set_xsave(kv_vcpu *v, const void *state);
int vcpu_settle(kv_vcpu *v);
void vcpu_kick(kv_vcpu *v);

/* What KVM looks at before it enters the guest. */
static inline _Atomic uint8_t *vcpu_immediate_exit(kv_vcpu *v)
{
    return (_Atomic uint8_t *)&v->run->immediate_exit;
}

/* watchdog.c */
void watch_signal(int signo, siginfo_t *info, void *unused);
int watch_start(kv_platform *p, kv_watch *w);
void watch_stop(kv_watch *w);

/* run.c */
int context_run(kv_vcpu *v, kv_ctx *c);

/* stops.c */
int stop_handle(kv_vcpu *v, kv_ctx *c);
int stop_memory_fault(kv_vcpu *v, kv_ctx *c);
bool is_in_entry(const kv_vcpu *v);
int stop_in_entry(kv_vcpu *v, kv_ctx *c);
void stop_killed(kv_ctx *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void regs_store_user(const kv_vcpu *v, kv_ctx *c);

/* answers.c */
void answers_load(kv_vcpu *v, const kv_ctx *c);

/* tables.c: page tables. */
enum { ENTRY_PRESENT = 1, ENTRY_WRITE = 2, ENTRY_USER = 4, ENTRY_ACCESSED = 0x20,
       ENTRY_DIRTY = 0x40,
       ENTRY_MAPPED = 0x200,    /* software: something is mapped, be it without access */
       ENTRY_BEYOND = 0x400 };  /* software: taken away to learn who reaches beyond a file's end */
#define ENTRY_NX (UINT64_C(1) << 63)
#define ENTRY_ADDRESS UINT64_C(0x000ffffffffff000)

typedef _Atomic uint64_t kv_entry;

int tables_open(kv_platform *p);
void tables_close(kv_platform *p);
int tree_take(kv_platform *p, kv_space *s);
void tree_give(kv_platform *p, kv_space *s);
kv_entry *tree_find(kv_space *s, uint64_t addr, uint64_t *covered);
int tree_make(kv_space *s, uint64_t addr, kv_entry **entry);
int tree_look(kv_platform *p);
bool tree_take_away(kv_space *s);
bool page_is_beyond(uint8_t *page);

/* windows.c: host files in guest-physical memory. */
enum { KEEP_UNUSED = 64, MANY_ARENAS = 16, KEEP_OF_MANY = 8 };

struct kv_window {
    uint64_t dev, ino;
    int64_t changed_s, changed_ns;      /* of a file that is only read; see windows.c */
    bool writable;
    uint8_t shift;                      /* of its size */
    uint64_t number;                    /* its offset in the file, in its size */
    uint64_t gpa;
    uint8_t *memory;
    uint64_t uses;                      /* page-table entries that refer to it */
    kv_window *next_in_bucket;
    kv_window *next_unused, **prev_unused;      /* prev is NULL while it is in use */
};

int windows_open(kv_platform *p);
void windows_close(kv_platform *p);
int window_get(kv_platform *p, int fd, uint64_t offset, bool write, kv_window **found);
kv_window *window_at(const kv_platform *p, uint64_t gpa);
uint8_t *window_memory(const kv_platform *p, uint64_t gpa);
void window_use(kv_platform *p, kv_window *w, uint64_t npages);
void window_unuse(kv_platform *p, kv_window *w);
void windows_trim(kv_platform *p);

/* Is there something to trim? A window that is kept keeps its arena's slot. */
static inline bool windows_are_many(const kv_platform *p)
{
    return p->windows.nunused > (p->windows.nslots > MANY_ARENAS ? KEEP_OF_MANY : KEEP_UNUSED);
}

/* stale.c */
void stale_add(kv_platform *p, uint64_t gpa);
int stale_flush(kv_platform *p);

/* space.c */
bool entry_dropped(kv_platform *p, uint64_t old);

/* xstate.c */
int xstate_open(kv_platform *p);
int xstate_save(kv_ctx *c);
int xstate_attach(kv_vcpu *v, kv_ctx *c);
int xstate_signal_code(kv_vcpu *v, bool simd);

/* schedule.c */
void queue_push(kv_ctx *c);
void queue_remove(kv_ctx *c);
void context_ready(kv_ctx *c, int stop);
kv_ctx *schedule_take(kv_runner *r);
int schedule_turn(kv_runner *r, kv_ctx *c);
int schedule_inline(kv_platform *p, int64_t deadline);
int schedule_hand_out(kv_platform *p);
bool schedule_is_crowded(const kv_platform *p);

/* workers.c */
int runner_open(kv_platform *p);
int runner_add_vcpu(kv_runner *r, kv_vcpu **made);
const kv_vcpu *runner_find_vcpu(const kv_runner *r, int id);
int worker_wake(kv_platform *p);
void workers_kick(kv_platform *p);
void workers_pause(kv_platform *p);
int workers_go_on(kv_platform *p);
void workers_close(kv_platform *p);

/* wait.c */
void event_post(kv_platform *p);
int event_wait(kv_platform *p, int64_t deadline);

/* context.c */
void context_withdraw(kv_ctx *c);
uint64_t thread_cpu_ns(void);

/* helper.c */
int helper_open(kv_platform *p);
void helper_close(kv_platform *p);
int helper_deadline(kv_platform *p, int64_t deadline);
int helper_turns(kv_platform *p);
void futex_wake(_Atomic uint32_t *word);
int futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline);

/* list helpers */
static inline void list_init(kv_list *l)
{
    l->head = NULL;
    l->tail = &l->head;
}

static inline void list_push(kv_list *l, kv_ctx *c)
{
    c->next = NULL;
    *l->tail = c;
    l->tail = &c->next;
}

static inline kv_ctx *list_pop(kv_list *l)
{
    kv_ctx *c = l->head;
    if (c && !(l->head = c->next))
        l->tail = &l->head;
    return c;
}

static inline bool list_remove(kv_list *l, kv_ctx *c)
{
    for (kv_ctx **at = &l->head; *at; at = &(*at)->next) {
        if (*at == c) {
            if (!(*at = c->next))
                l->tail = at;
            return true;
        }
    }
    return false;
}

#endif
