/* getrlimit(2), setrlimit, prlimit64: values, inheritance, who may raise them, errors. */
#include "guest.h"
#include <sys/resource.h>

static void ordinary(void)
{
    struct rlimit limit = {10, 20}, raised = {10, 30}, above = {30, 20};
    become_ordinary();
    CHECK(setrlimit(RLIMIT_CORE, &limit));
    CHECK(setrlimit(RLIMIT_CORE, &raised));
    CHECK(setrlimit(RLIMIT_CORE, &above));
    CHECK(getrlimit(RLIMIT_CORE, &limit));
    say("%ld %ld", (long)limit.rlim_cur, (long)limit.rlim_max);
    limit.rlim_cur = 20;
    CHECK(setrlimit(RLIMIT_CORE, &limit));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        getrlimit(RLIMIT_CORE, &limit);
        say("inherited %ld %ld", (long)limit.rlim_cur, (long)limit.rlim_max);
        execl("/bin/sh", "sh", "-c", "ulimit -c; ulimit -Hc", (char *)NULL);
        _exit(127);
    }
    reap("child", pid);
}

int main(void)
{
    struct rlimit limit, lowered;
    SECTION("values");
    for (int resource = 0; resource < 16; resource++) {
        CHECK(getrlimit(resource, &limit));
        SHOW(limit.rlim_cur <= limit.rlim_max);
    }
    CHECK(getrlimit(16, &limit));
    CHECK(setrlimit(16, &limit));
    CHECK(syscall(SYS_getrlimit, RLIMIT_CORE, 8));
    CHECK(syscall(SYS_setrlimit, RLIMIT_CORE, 8));
    SECTION("prlimit");
    CHECK(prlimit(0, RLIMIT_CORE, NULL, &limit));
    lowered = (struct rlimit){0, limit.rlim_max};
    CHECK(prlimit(getpid(), RLIMIT_CORE, &lowered, &limit));
    CHECK(prlimit(0, RLIMIT_CORE, NULL, &limit));
    say("%ld", (long)limit.rlim_cur);
    CHECK(prlimit(1 << 29, RLIMIT_CORE, NULL, &limit));
    CHECK(prlimit(0, 99, NULL, &limit));
    CHECK(syscall(SYS_prlimit64, 0, RLIMIT_CORE, 8, NULL));
    CHECK(syscall(SYS_prlimit64, 0, RLIMIT_CORE, NULL, 8));
    SECTION("ordinary user");
    if (limit.rlim_max < 20)
        skip("the hard limit on core files is lower than the values tried");
    else
        in_child("ordinary", ordinary);
    SECTION("priorities");
    CHECK(getpriority(PRIO_PROCESS, 0));
    CHECK(setpriority(PRIO_PROCESS, 0, 5));
    CHECK(getpriority(PRIO_PROCESS, 0));
    CHECK(getpriority(99, 0));
    CHECK(getpriority(PRIO_PROCESS, 1 << 29));
    CHECK(nice(3));
    CHECK(nice(100));
    return 0;
}
