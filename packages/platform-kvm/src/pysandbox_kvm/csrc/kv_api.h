/*
 * What Python may call. The build script hands this file to cffi as it is, without its `#` lines,
 * so it holds plain declarations only.
 *
 * Interface: an `int` or `int64_t` result is 0 or more on success and a negative errno on failure;
 * kv_error() then says in words what failed. Nothing here prints, exits or raises a signal. All
 * calls are made on the thread that called kv_open(), kv_kick() excepted.
 */
#ifndef KV_API_H
#define KV_API_H

#include <stdint.h>

typedef struct kv_platform kv_platform;
typedef struct kv_space kv_space;

enum { KV_STOP_SYSCALL = 1, KV_STOP_FAULT = 2, KV_STOP_EXCEPTION = 3,
       KV_STOP_INTERRUPTED = 4, KV_STOP_KILLED = 5 };

/* kv_wait() found nothing to report: a kick, the time, a signal for this thread, or no reason. */
enum { KV_NOTHING = -10000 };

/* How SYSCALL arrives: not seen yet, at the entry in ring 0, or as a page fault at the entry. */
enum { KV_FLAVOUR_UNKNOWN = 0, KV_FLAVOUR_HARDWARE = 1, KV_FLAVOUR_PVM = 2 };

/* The part of a context that Python sees; the registers come first. */
typedef struct {
    uint64_t regs[27];      /* struct user_regs_struct */
    uint64_t fault_addr;
    int32_t fault_access;
    int32_t signo;
    int32_t code;
    int32_t index;          /* as kv_wait() reports it */
    char message[128];      /* KV_STOP_KILLED: what happened */
} kv_context;

/* The platform; freed only when nothing can call kv_kick() any more. */
kv_platform *kv_open(int *error, char *message, int message_size);
void kv_close(kv_platform *p);
void kv_free(kv_platform *p);
const char *kv_error(const kv_platform *p);
int64_t kv_wait(kv_platform *p, int64_t timeout_ns);
void kv_kick(kv_platform *p);
uint64_t kv_read_tsc(const kv_platform *p);
uint64_t kv_space_end(void);
uint64_t kv_guest_kernel(void);     /* where the guest kernel lies, for tests */
uint8_t *kv_guest_image(kv_platform *p);    /* its pages, for tests, which damage them */
int kv_flavour(const kv_platform *p);
int kv_vcpu_count(const kv_platform *p);
int kv_stats_fd(kv_platform *p, int vcpu);  /* KVM's statistics of a vCPU; the caller closes it */
uint64_t kv_table_count(const kv_platform *p);
uint64_t kv_host_bytes(const kv_platform *p);

/* Address spaces. */
kv_space *kv_space_new(kv_platform *p);
void kv_space_release(kv_space *s);
int kv_map(kv_space *s, uint64_t addr, uint64_t length, int prot, int fd, uint64_t offset);
int kv_protect(kv_space *s, uint64_t addr, uint64_t length, int prot);
int kv_unmap(kv_space *s, uint64_t addr, uint64_t length);
int kv_sync(kv_space *s);

/* Contexts; kv_context_free() is for the garbage collector, after kv_context_release(). */
kv_context *kv_context_new(kv_platform *p);
void kv_context_release(kv_context *c);
void kv_context_free(kv_context *c);
uint64_t kv_context_cpu_ns(const kv_context *c);
int kv_resume(kv_context *c, kv_space *s);
int kv_interrupt(kv_context *c);
int kv_constant_results(kv_context *c, int count, const uint32_t *numbers, const uint64_t *values);

/* Extended state. kv_xstate_set() gives -EINVAL for a state that the processor would refuse. */
uint64_t kv_xstate_features(const kv_platform *p);
uint64_t kv_xstate_size(const kv_platform *p);
int kv_xstate_get(kv_context *c, uint8_t *state, uint64_t size);
int kv_xstate_set(kv_context *c, const uint8_t *state, uint64_t size);

#endif
