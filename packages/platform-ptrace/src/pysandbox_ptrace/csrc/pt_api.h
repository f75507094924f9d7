/*
 * What Python may call. The build script hands this file to cffi as it is, without its `#` lines,
 * so it holds plain declarations only.
 *
 * Interface: an `int` or `int64_t` result is 0 or more on success and a negative errno on failure;
 * pt_error() then says in words what failed. Nothing here prints, exits or raises a signal. All
 * calls are made on the thread that called pt_open(), pt_kick() excepted.
 */
#ifndef PT_API_H
#define PT_API_H

#include <stdint.h>

typedef struct pt_platform pt_platform;
typedef struct pt_space pt_space;

enum { PT_STOP_SYSCALL = 1, PT_STOP_FAULT = 2, PT_STOP_EXCEPTION = 3,
       PT_STOP_INTERRUPTED = 4, PT_STOP_KILLED = 5 };

/* pt_wait() found nothing to report: a kick, the time, a signal for this thread, or no reason. */
enum { PT_NOTHING = -10000 };

/* The part of a context that Python sees; the registers come first. */
typedef struct {
    uint64_t regs[27];      /* struct user_regs_struct */
    uint64_t fault_addr;
    int32_t fault_access;
    int32_t signo;
    int32_t code;
    int32_t exit_status;    /* PT_STOP_KILLED: waitpid's status of the thread, -1 when unknown */
    int32_t index;          /* as pt_wait() reports it */
} pt_context;

/* The platform: made with its first stub; freed only when nothing can call pt_kick() any more. */
pt_platform *pt_open(int *error, char *message, int message_size);
void pt_close(pt_platform *p);
void pt_free(pt_platform *p);
const char *pt_error(const pt_platform *p);
int64_t pt_wait(pt_platform *p, int64_t timeout_ns);
void pt_kick(pt_platform *p);
uint64_t pt_read_tsc(const pt_platform *p);
uint64_t pt_space_end(void);
uint64_t pt_stub_syscall(void);     /* address of the stub's own SYSCALL instruction, for tests */
int pt_lost_fd(const pt_platform *p);       /* readable when pt_lost() has something to say */
int pt_lost(pt_platform *p, int *status);   /* 1: a stub was killed, waitpid's status or -1 */
int pt_process_count(const pt_platform *p);
int pt_thread_count(const pt_platform *p);

/* Address spaces. */
pt_space *pt_space_new(pt_platform *p);
void pt_space_release(pt_space *s);
int pt_space_pid(const pt_space *s);
int pt_map(pt_space *s, uint64_t addr, uint64_t length, int prot, int fd, uint64_t offset);
int pt_protect(pt_space *s, uint64_t addr, uint64_t length, int prot);
int pt_unmap(pt_space *s, uint64_t addr, uint64_t length);
int pt_sync(pt_space *s);

/* Contexts; pt_context_free() is for the garbage collector, after pt_context_release(). */
pt_context *pt_context_new(pt_platform *p);
void pt_context_release(pt_context *c);
void pt_context_free(pt_context *c);
int pt_context_tid(const pt_context *c);
uint64_t pt_context_cpu_ns(const pt_context *c);
int pt_resume(pt_context *c, pt_space *s);
int pt_interrupt(pt_context *c);

/* Extended state. pt_xstate_set() gives -EINVAL for a state that the processor would refuse. */
uint64_t pt_xstate_features(const pt_platform *p);
uint64_t pt_xstate_size(const pt_platform *p);
int pt_xstate_get(pt_context *c, uint8_t *state, uint64_t size);
int pt_xstate_set(pt_context *c, const uint8_t *state, uint64_t size);


#endif
