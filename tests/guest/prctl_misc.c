/* prctl(2), arch_prctl(2), personality(2), uname(2), sysinfo(2), getrandom(2), getcpu(2), sched(7). */
#include "guest.h"
#include <asm/prctl.h>
#include <linux/seccomp.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

static void process_control(void)
{
    SECTION("prctl");
    char name[17] = {0};
    int value = -1;
    CHECK(prctl(PR_SET_NAME, "a name that is too long"));
    CHECK(prctl(PR_GET_NAME, name));
    say("%s", name);
    CHECK(prctl(PR_SET_NAME, 8));
    CHECK(prctl(PR_GET_PDEATHSIG, &value));
    SHOW(value);
    CHECK(prctl(PR_SET_PDEATHSIG, SIGTERM));
    CHECK(prctl(PR_GET_PDEATHSIG, &value));
    SHOW(value);
    CHECK(prctl(PR_SET_PDEATHSIG, 200));
    CHECK(prctl(PR_SET_PDEATHSIG, 0));
    CHECK(prctl(PR_GET_DUMPABLE));
    CHECK(prctl(PR_SET_DUMPABLE, 0));
    CHECK(prctl(PR_GET_DUMPABLE));
    CHECK(prctl(PR_SET_DUMPABLE, 2));
    CHECK(prctl(PR_SET_DUMPABLE, 1));
    CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0));
    CHECK(prctl(PR_GET_TIMERSLACK) > 0);
    CHECK(prctl(PR_SET_TIMERSLACK, 1000));
    CHECK(prctl(PR_GET_TIMERSLACK));
    CHECK(prctl(PR_GET_CHILD_SUBREAPER, &value));
    SHOW(value);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    CHECK(prctl(PR_GET_CHILD_SUBREAPER, &value));
    SHOW(value);
    CHECK(prctl(PR_GET_SECCOMP));
    CHECK(prctl(123456));
    CHECK(prctl(-1));
}

static void parent_dies(void)
{
    int fds[2];
    char byte;
    struct latch ready = new_latch();
    MUST(pipe(fds));
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        if (fork() == 0) {
            MUST(prctl(PR_SET_PDEATHSIG, SIGUSR1));
            close(fds[0]);
            open_latch(&ready);
            for (;;)
                pause();
        }
        wait_latch(&ready);
        _exit(0);
    }
    close(fds[1]);
    reap("parent", pid);
    CHECK(read(fds[0], &byte, 1));
    int status;
    SHOW(wait(&status) > 0);
    show_status("child", status);
}

static void architecture(void)
{
    SECTION("arch_prctl");
    unsigned long base = 0, fs = 0, word = 0x1234567890abcdef, got;
    CHECK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
    SHOW(fs != 0);
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, &word));
    CHECK(syscall(SYS_arch_prctl, ARCH_GET_GS, &base));
    SHOW(base == (unsigned long)&word);
    __asm__ volatile("movq %%gs:0, %0" : "=r"(got));
    SHOW(got == word);
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, 1UL << 47));
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, -1L));
    CHECK(syscall(SYS_arch_prctl, ARCH_GET_FS, 8));
    CHECK(syscall(SYS_arch_prctl, 0x9999, 0));
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, 0));
}

static void names(void)
{
    SECTION("personality and names");
    struct utsname name;
    CHECK(personality(0xffffffff));
    CHECK(uname(&name));
    say("%s %s", name.sysname, name.machine);
    SHOW(strlen(name.release) > 0 && strlen(name.version) > 0 && strlen(name.nodename) > 0);
    CHECK(syscall(SYS_uname, 8));
    char host[65];
    CHECK(gethostname(host, sizeof host));
    SHOW(strcmp(host, name.nodename));
}

static void information(void)
{
    SECTION("sysinfo");
    struct sysinfo info;
    CHECK(sysinfo(&info));
    SHOW(info.totalram > 0 && info.freeram <= info.totalram && info.mem_unit > 0);
    SHOW(info.procs > 0 && info.uptime > 0);
    CHECK(syscall(SYS_sysinfo, 8));
}

static void randomness(void)
{
    SECTION("getrandom");
    unsigned char one[64] = {0}, two[64] = {0};
    CHECK(getrandom(one, sizeof one, 0));
    CHECK(getrandom(two, sizeof two, GRND_NONBLOCK));
    SHOW(memcmp(one, two, sizeof one) != 0);
    CHECK(getrandom(one, 0, 0));
    CHECK(getrandom(one, 10, GRND_RANDOM));
    CHECK(getrandom(one, 10, 0x100));
    CHECK(getrandom(one, 10, GRND_RANDOM | 4));
    CHECK(syscall(SYS_getrandom, 8, 10, 0));
}

static void scheduling(void)
{
    SECTION("scheduling");
    struct sched_param param = {.sched_priority = 0};
    struct timespec interval;
    cpu_set_t set, one;
    CHECK(sched_yield());
    CHECK(sched_getscheduler(0));
    CHECK(sched_getparam(0, &param));
    SHOW(param.sched_priority);
    CHECK(sched_setscheduler(0, SCHED_BATCH, &param));
    CHECK(sched_getscheduler(0));
    CHECK(sched_setscheduler(0, SCHED_OTHER, &param));
    param.sched_priority = 5;
    CHECK(sched_setscheduler(0, SCHED_OTHER, &param));
    CHECK(sched_setscheduler(0, 77, &param));
    CHECK(sched_getscheduler(1 << 29));
    CHECK(sched_getscheduler(-1));
    CHECK(sched_get_priority_min(SCHED_FIFO));
    CHECK(sched_get_priority_max(SCHED_FIFO));
    CHECK(sched_get_priority_max(SCHED_OTHER));
    CHECK(sched_get_priority_max(77));
    CHECK(sched_rr_get_interval(0, &interval));
    CHECK(sched_getaffinity(0, sizeof set, &set));
    SHOW(CPU_COUNT(&set) > 0);
    SHOW(CPU_COUNT(&set) == sysconf(_SC_NPROCESSORS_ONLN));
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set)) {
            CPU_SET(cpu, &one);
            break;
        }
    CHECK(sched_setaffinity(0, sizeof one, &one));
    MUST(sched_getaffinity(0, sizeof set, &set));
    SHOW(CPU_EQUAL(&set, &one));
    CPU_ZERO(&one);
    CHECK(sched_setaffinity(0, sizeof one, &one));
    CHECK(sched_getaffinity(-1, sizeof set, &set));
    CHECK(sched_setaffinity(-1, sizeof set, &set));
    CHECK(syscall(SYS_sched_getaffinity, 0, 1, &set));
    CHECK(syscall(SYS_sched_getaffinity, 0, 128, 8));
    unsigned cpu = 9999, node = 9999;
    CHECK(syscall(SYS_getcpu, &cpu, &node, NULL));
    SHOW(cpu < 4096 && node < 4096);
    CHECK(syscall(SYS_getcpu, NULL, NULL, NULL));
    CHECK(syscall(SYS_getcpu, 8, NULL, NULL));
    CHECK(syscall(SYS_membarrier, 0, 0, 0) > 0);
    CHECK(syscall(SYS_membarrier, 0, 1, 0));
}

int main(void)
{
    process_control();
    SECTION("PR_SET_PDEATHSIG");
    in_child("parent dies", parent_dies);
    architecture();
    names();
    information();
    randomness();
    scheduling();
    return 0;
}
