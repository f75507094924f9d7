/* What the guest test programs share.
 *
 * Interface: a program of tests/guest is about one family of system calls. It prints what Linux does
 * as lines that are the same on every run and every host: results, errno names, contents; never an
 * address, a pid, a time, an inode number, or a size that the host chooses. The harness runs it
 * natively and in the sandbox, in an empty working directory, and compares the lines.
 *
 * SECTION starts a part that is compared for itself; skip() inside one says that this host can't show
 * what the part is about, and the harness leaves that part out. Output is line buffered, so that a
 * child that prints whole lines and a parent that waits for it need no flush.
 */
#ifndef GUEST_H
#define GUEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))
#define PAGE 4096UL
#define NOBODY 65534
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

__attribute__((constructor)) static void guest_start(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
}

static inline const char *guest_errno_name(int number)
{
    const char *name = strerrorname_np(number);
    return name != NULL ? name : "unknown errno";
}

static inline long guest_check(const char *text, long value, bool show_value)
{
    int saved = errno;
    if (value == -1)
        printf("%s = -1 %s\n", text, guest_errno_name(saved));
    else if (show_value)
        printf("%s = %ld\n", text, value);
    else
        printf("%s: ok\n", text);
    errno = saved;
    return value;
}

static inline long guest_must(const char *text, int line, long value)
{
    if (value == -1) {
        printf("line %d: %s failed: %s\n", line, text, guest_errno_name(errno));
        exit(1);
    }
    return value;
}

/* Print a call with its result, or with the errno it failed with. */
#define CHECK(call) guest_check(#call, (errno = 0, (long)(call)), true)
/* The same for a result that differs from run to run, of which only success counts. */
#define OK(call) guest_check(#call, (errno = 0, (long)(call)), false)
/* Print a call that returns an error number instead of setting errno: pthread_*, posix_*. */
#define CODE(call) guest_code(#call, (call))
/* Print the value of an integer expression. */
#define SHOW(expression) printf("%s: %ld\n", #expression, (long)(expression))
/* Set-up that has to work; the program fails where it does not. */
#define MUST(call) guest_must(#call, __LINE__, (long)(call))

#define SECTION(name) printf("# %s\n", name)

static inline UNUSED void guest_code(const char *text, int number)
{
    printf("%s: %s\n", text, number == 0 ? "ok" : guest_errno_name(number));
}

/* One line of output. */
__attribute__((format(printf, 1, 2))) static inline UNUSED void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

static inline UNUSED void skip(const char *reason)
{
    printf("SKIP %s\n", reason);
}

/* Print bytes, those that are not printable as \xNN. */
static inline UNUSED void show_bytes(const char *label, const void *bytes, size_t length)
{
    const unsigned char *p = bytes;
    printf("%s: \"", label);
    for (size_t i = 0; i < length; i++) {
        if (p[i] >= ' ' && p[i] < 127 && p[i] != '"' && p[i] != '\\')
            putchar(p[i]);
        else
            printf("\\x%02x", p[i]);
    }
    printf("\"\n");
}

static inline UNUSED const char *signal_name(int signo)
{
    static char text[32];
    const char *name = signo > 0 && signo < 32 ? sigabbrev_np(signo) : NULL;
    if (name != NULL)
        snprintf(text, sizeof text, "SIG%s", name);
    else if (signo >= SIGRTMIN && signo <= SIGRTMAX)
        snprintf(text, sizeof text, "SIGRTMIN+%d", signo - SIGRTMIN);
    else
        snprintf(text, sizeof text, "signal %d", signo);
    return text;
}

/* Print a status of wait(2) in words. */
static inline UNUSED void show_status(const char *label, int status)
{
    if (WIFEXITED(status))
        say("%s: exited %d", label, WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        say("%s: killed by %s", label, signal_name(WTERMSIG(status)));
    else if (WIFSTOPPED(status))
        say("%s: stopped by %s", label, signal_name(WSTOPSIG(status)));
    else if (WIFCONTINUED(status))
        say("%s: continued", label);
    else
        say("%s: status %#x", label, (unsigned)status);
}

/* Wait for a child and print how it ended. */
static inline UNUSED void reap(const char *label, pid_t pid)
{
    int status = 0;
    pid_t got;
    do {
        got = waitpid(pid, &status, 0);
    } while (got == -1 && errno == EINTR);
    if (got != pid)
        say("%s: waitpid failed: %s", label, guest_errno_name(errno));
    else
        show_status(label, status);
}

/* Run `body` in a child, which exits 0 after it, and print how the child ended. */
static inline UNUSED void in_child(const char *label, void (*body)(void))
{
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        body();
        fflush(stdout);
        _exit(0);
    }
    reap(label, pid);
}

/* Become an ordinary user where the caller is root, so that both see the same from here on. */
static inline UNUSED void become_ordinary(void)
{
    if (geteuid() == 0) {
        MUST(syscall(SYS_setgroups, 0, NULL));
        MUST(setresgid(NOBODY, NOBODY, NOBODY));
        MUST(setresuid(NOBODY, NOBODY, NOBODY));
    }
}

/* A file with these contents, replacing what was there. */
static inline UNUSED void put_file(const char *path, const char *text)
{
    int fd = (int)MUST(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
    size_t length = strlen(text);
    if (write(fd, text, length) != (ssize_t)length)
        say("put_file %s: short write", path);
    close(fd);
}

/* Print the contents of a file, or why it can't be read. */
static inline UNUSED void show_file(const char *path)
{
    char text[512];
    int fd = open(path, O_RDONLY);
    ssize_t length = fd == -1 ? -1 : read(fd, text, sizeof text);
    if (length == -1)
        say("%s: %s", path, guest_errno_name(errno));
    else
        show_bytes(path, text, (size_t)length);
    if (fd != -1)
        close(fd);
}

/* Anonymous private memory, readable and writable. */
static inline UNUSED void *pages(size_t count)
{
    void *memory = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST((long)memory);
    return memory;
}

/* A two-way latch between processes: made before fork, each end waits for and opens the other's. */
struct latch {
    int fds[2];
};

static inline UNUSED struct latch new_latch(void)
{
    struct latch latch;
    MUST(pipe(latch.fds));
    return latch;
}

static inline UNUSED void open_latch(struct latch *latch)
{
    MUST(write(latch->fds[1], "x", 1));
}

static inline UNUSED void wait_latch(struct latch *latch)
{
    char byte;
    ssize_t got;
    do {
        got = read(latch->fds[0], &byte, 1);
    } while (got == -1 && errno == EINTR);
    MUST(got);
}

#endif
