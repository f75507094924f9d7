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

#include "kv_api.h"
#include "kv_guest.h"

_Static_assert(sizeof(struct user_regs_struct) == 27 * 8, "the registers are 27 words");

typedef struct kv_vcpu kv_vcpu;
typedef struct kv_ctx kv_ctx;
typedef struct kv_window kv_window;
typedef struct kv_arena kv_arena;

struct kv_vcpu {
    kv_platform *platform;
    int fd, id;
    struct kvm_run *run;
    uint8_t *page;              /* its own page of the guest kernel */
    uint64_t page_addr;         /* and where the guest has it */
    uint64_t root;              /* what CR3 holds */
    bool in_user;               /* it was left in ring 3: its selectors are the user's */
    bool broken;                /* its state has to be set anew */
    kv_ctx *holder;             /* whose extended state it holds, or NULL for nobody's */
    uint64_t spurious_addr;     /* of the last page fault that was none */
    unsigned spurious;          /* and how often in a row it came there */
    uint64_t last_use;          /* of the kernel's own vCPUs */

    /* Shared. */
    kv_ctx *current;            /* what it runs */
    pid_t tid;                  /* the thread that runs it */
    _Atomic uint32_t attention; /* leave the guest, soon */

    pthread_t thread;           /* of a worker */
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
    kv_space *space;            /* where it was resumed last */
    kv_vcpu *vcpu;              /* that holds its extended state, or NULL */
    kv_vcpu *runs_on;           /* shared; while KV_RUNNING */
    uint8_t *xstate;            /* while no vCPU holds it; NULL stands for the initial state */
    uint64_t cpu_ns;            /* used up to the last stop */
    uint64_t cpu_started_ns;    /* its thread's account when it was entered last */
    kv_ctx *next;               /* in the queue or the ready list */
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

/* Trees of released spaces: all their tables are linked, nothing is mapped. */
typedef struct {
    uint64_t root, ntables;
} kv_tree;

enum { MAIN_VCPUS = 2, MAX_STALE = 128, MAX_POOLED = 64, MAX_ARENAS = 8192,
       TABLES_SLOTS = 256 };

struct kv_platform {
    pid_t owner;                /* the process that opened it; KVM refuses any other */
    pid_t main_tid;
    bool closed;
    int kvm_fd, vm_fd;
    int nslots, max_slots;
    unsigned physical_bits;
    struct kvm_cpuid2 *cpuid;
    size_t run_size;
    _Atomic int flavour;

    uint8_t *kernel;            /* the guest kernel's pages */

    struct {                    /* tables.c */
        uint8_t *base;
        uint64_t next;          /* bytes handed out */
        uint64_t backed;        /* bytes that have a slot */
        int slots[TABLES_SLOTS];
        uint64_t free;          /* list of tables given back, by offset; 0 ends it */
        uint64_t kernel_entry;  /* of every top table */
        uint64_t count;         /* in use */
        kv_tree pool[MAX_POOLED];
        int npooled;
        kv_tree *graves;        /* trees too large to keep, until tables_collect() */
        size_t ngraves, graves_capacity;
        uint64_t buried;        /* tables in them */
    } tables;

    struct {                    /* windows.c */
        kv_arena *arenas[MAX_ARENAS];
        int narenas;
        kv_window **buckets;
        size_t nbuckets, count;
        kv_window *unused, **unused_tail;       /* those that nothing refers to, oldest first */
        int nunused;
    } windows;

    struct {                    /* stale.c: memory that vCPUs may still reach by old translations */
        uint8_t *from, *to;
    } stale[MAX_STALE];
    int nstale;

    kv_space *spaces;
    kv_ctx **contexts;          /* by index; NULL where free */
    int ncontexts, contexts_capacity, first_free;

    kv_vcpu *main_vcpus[MAIN_VCPUS];
    uint64_t uses;
    int nvcpus;                 /* ids handed out */

    struct {
        uint64_t features;      /* that contexts have */
        uint64_t size;          /* of these, standard form */
        uint64_t xcr0;          /* of the guest, may be more */
        uint32_t mxcsr_mask;
        uint8_t initial[4096];
    } xstate;
    bool tsc_is_host;           /* a context's time-stamp counter is the host's */

    pthread_mutex_t lock;       /* of all that follows */
    pthread_cond_t work;        /* the queue is no longer empty, or stop */
    kv_list queue;              /* runnable contexts */
    kv_list ready;
    int nqueued;
    int nworkers_running;       /* contexts that worker vCPUs run */
    int nidle;                  /* workers that wait for work */
    kv_vcpu *workers[MAX_VCPUS];
    int nworkers, max_workers;
    kv_vcpu *inline_vcpu;       /* the one that the kernel's thread is running */
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
int vcpu_has_pending(kv_vcpu *v);
void vcpu_kick(kv_vcpu *v);

/* run.c */
int context_run(kv_vcpu *v, kv_ctx *c);

/* stops.c */
int stop_handle(kv_vcpu *v, kv_ctx *c);
int stop_memory_fault(kv_vcpu *v, kv_ctx *c);
void stop_killed(kv_ctx *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void regs_store_user(const kv_vcpu *v, kv_ctx *c);

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
bool tree_take_away(kv_space *s);
bool page_is_beyond(uint8_t *page);

/* windows.c: host files in guest-physical memory. */
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
void context_ready(kv_ctx *c, int stop);
int schedule_hand_out(kv_platform *p);
int schedule_inline(kv_platform *p, kv_ctx *c);
void schedule_close(kv_platform *p);
void context_withdraw(kv_ctx *c);
void event_post(kv_platform *p);
uint64_t thread_cpu_ns(void);

/* helper.c */
int helper_open(kv_platform *p);
void helper_close(kv_platform *p);
int helper_start(kv_platform *p);
int helper_deadline(kv_platform *p, int64_t deadline);
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
