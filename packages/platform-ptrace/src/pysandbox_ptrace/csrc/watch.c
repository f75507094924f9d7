/*
 * Noticing that a stub was killed while nobody waits for it.
 *
 * waitpid() tells of the stubs while contexts run. When all of them are stopped, and the kernel
 * sleeps on something else, a stub that the host kills (out of memory, say) would go unnoticed until
 * it is needed. So every stub process has a pidfd, all of them are in one epoll, and the kernel
 * watches that one beside its other descriptors.
 *
 * The pidfd of a process says nothing before every thread is reaped but the first, and only the
 * tracer can do that. So one with several threads is watched by the second's (PIDFD_THREAD, Linux
 * 6.9): all of them are killed together.
 *
 * Interface: watch_begin() is called with the first thread of a process, and with the second;
 * watch_end() before the platform ends it, and for one that was killed when its space is released.
 * At most 1/PT_WATCH_SHARE of the descriptors that the host lets this process have are used. What
 * can't be watched, for there are too many or the host is too old, is found dead when it is needed.
 */
#define _GNU_SOURCE
#include "pt_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif
enum { PT_WATCH_SHARE = 8 };

int watch_open(pt_platform *p)
{
    p->watch.epoll = epoll_create1(EPOLL_CLOEXEC);
    return p->watch.epoll < 0 ? pt_fail(p, -errno, "epoll_create1") : 0;
}

void watch_close(pt_platform *p)
{
    if (p->watch.epoll >= 0)
        close(p->watch.epoll);
    p->watch.epoll = -1;
}

static bool may_watch(const pt_platform *p)
{
    struct rlimit files;
    return !getrlimit(RLIMIT_NOFILE, &files) && p->watch.count < files.rlim_cur / PT_WATCH_SHARE;
}

void watch_begin(pt_space *s, pid_t tid)
{
    pt_platform *p = s->platform;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)tid};
    if (!may_watch(p))
        return;
    int pidfd = (int)syscall(SYS_pidfd_open, tid, tid == s->pid ? 0 : PIDFD_THREAD);
    if (pidfd < 0)
        return;
    if (epoll_ctl(p->watch.epoll, EPOLL_CTL_ADD, pidfd, &event) < 0) {
        close(pidfd);
        return;
    }
    watch_end(s);
    s->pidfd = pidfd;
    s->watched = tid;
    p->watch.count++;
}

void watch_end(pt_space *s)
{
    pt_platform *p = s->platform;
    if (s->pidfd < 0)
        return;
    /* Closing is not enough where the sentry was forked meanwhile: the copy keeps it open. */
    epoll_ctl(p->watch.epoll, EPOLL_CTL_DEL, s->pidfd, NULL);
    close(s->pidfd);
    s->pidfd = -1;
    s->watched = 0;
    p->watch.count--;
}

int pt_lost_fd(const pt_platform *p)
{
    return p->watch.epoll;
}

/* Was a stub killed? `status` is then what waitpid(2) said or will say of it, -1 when unknown. */
int pt_lost(pt_platform *p, int *status)
{
    struct epoll_event event;
    if (p->closed || epoll_wait(p->watch.epoll, &event, 1, 0) <= 0)
        return 0;
    pid_t tid = (pid_t)event.data.u64;
    siginfo_t info = {0};
    *status = -1;
    if (!waitid(P_PID, (id_t)tid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) && info.si_pid == tid)
        *status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
    return 1;
}
