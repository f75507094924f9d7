/* A process that is killed in the middle of a long call does not finish it first. */
#include "guest.h"
#include <poll.h>
#include <sys/ioctl.h>

#define CHUNK (1L << 20)
#define COUNT 2047L

static char *area;               /* COUNT times the same CHUNK of memory, which all processes share */
static volatile bool *finished;
static int master, file;

static void map_area(void)
{
    int fd = (int)MUST(syscall(SYS_memfd_create, "area", 0));
    MUST(ftruncate(fd, CHUNK));
    area = mmap(NULL, CHUNK * COUNT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (long i = 0; i < COUNT; i++)
        MUST(mmap(area + i * CHUNK, CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0));
    finished = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void by_getrandom(void)
{
    syscall(SYS_getrandom, area, CHUNK * COUNT, 0);
}

static void by_urandom(void)
{
    if (read(open("/dev/urandom", O_RDONLY), area, CHUNK * COUNT) < 0)
        _exit(1);
}

static bool area_is_filled(void)
{
    return *(volatile uint64_t *)area != 0;
}

static void by_typing(void)
{
    memset(area, '\t', CHUNK);
    if (write(master, area, CHUNK * COUNT) < 0)
        _exit(1);
}

static bool master_has_echo(void)
{
    struct pollfd echo = {.fd = master, .events = POLLIN};
    return poll(&echo, 1, 0) == 1;
}

static void by_writing(void)
{
    if (write(file, area, CHUNK * COUNT) < 0)
        _exit(1);
}

static bool file_has_grown(void)
{
    struct stat status;
    MUST(fstat(file, &status));
    return status.st_size > 0;
}

static void killed_in(const char *name, void (*call)(void), bool (*begun)(void))
{
    SECTION(name);
    int status;

    *(volatile uint64_t *)area = 0;
    *finished = false;
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        call();
        *finished = true;
        _exit(0);
    }
    while (!begun())
        sched_yield();
    MUST(kill(pid, SIGKILL));
    MUST(waitpid(pid, &status, 0));
    SHOW(WIFSIGNALED(status));
    SHOW(*finished);
}

int main(void)
{
    map_area();
    killed_in("getrandom", by_getrandom, area_is_filled);
    killed_in("reading random numbers", by_urandom, area_is_filled);

    file = (int)MUST(open("file", O_RDWR | O_CREAT | O_EXCL, 0600));
    MUST(unlink("file"));
    killed_in("writing a file", by_writing, file_has_grown);

    int unlock = 0;
    master = (int)MUST(open("/dev/ptmx", O_RDWR | O_NOCTTY));
    MUST(ioctl(master, TIOCSPTLCK, &unlock));
    MUST(open(ptsname(master), O_RDWR | O_NOCTTY));
    killed_in("typing a line that does not end", by_typing, master_has_echo);
    return 0;
}
