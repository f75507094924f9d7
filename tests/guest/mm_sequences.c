/* Long pseudo-random sequences of mmap, munmap, mprotect, mremap, madvise, msync, mlock, mincore and
 * fork in a window of address space, with good and bad arguments: every result, the contents of all
 * pages, and the window's lines of /proc/self/maps.
 */
#include "guest.h"

#define WINDOW_PAGES 48UL
#define WINDOW 0x100000000000UL
#define FILE_PAGES 20

static uint64_t state;

static unsigned long next(unsigned long limit)
{
    state = state * 6364136223846793005UL + 1442695040888963407UL;
    return (state >> 33) % limit;
}

static char *place(void)
{
    return (char *)WINDOW + next(WINDOW_PAGES) * PAGE;
}

static size_t length_of(char *at)
{
    size_t left = (size_t)((char *)WINDOW + WINDOW_PAGES * PAGE - at);
    size_t length = (1 + next(12)) * PAGE;
    if (next(8) == 0)
        length -= 1 + next(PAGE - 1);
    return length < left ? length : left;
}

static void show(const char *name, char *at, size_t length, long result)
{
    if (result >= (long)WINDOW)
        say("%s %ld+%zu: page %ld", name, (long)(at - (char *)WINDOW) / (long)PAGE, length,
            (result - (long)WINDOW) / (long)PAGE);
    else
        say("%s %ld+%zu: %s", name, (long)(at - (char *)WINDOW) / (long)PAGE, length,
            result == -1 ? guest_errno_name(errno) : "0");
}

/* The first byte of every page, as the kernel reads it: a page that can't be read gives '-'. */
static void show_contents(int zero)
{
    char line[WINDOW_PAGES + 1];
    for (unsigned long i = 0; i < WINDOW_PAGES; i++) {
        char byte;
        ssize_t got = pwrite(zero, (char *)WINDOW + i * PAGE, 1, 0);
        if (got == 1)
            MUST(pread(zero, &byte, 1, 0));
        line[i] = got == -1 ? '-' : byte == 0 ? '.' : byte;
    }
    line[WINDOW_PAGES] = 0;
    say("%s", line);
}

/* Protections of the window; neighbours that Linux could merge but has not count as one. */
static void show_maps(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4400], last[8] = "";
    unsigned long start, end, run_start = 0, run_end = 0;
    while (fgets(line, sizeof line, maps) != NULL) {
        char flags[8];
        if (sscanf(line, "%lx-%lx %7s", &start, &end, flags) != 3 || start < WINDOW ||
            start >= WINDOW + WINDOW_PAGES * PAGE)
            continue;
        if (start == run_end && strcmp(flags, last) == 0) {
            run_end = end;
            continue;
        }
        if (run_end != 0)
            printf(" %lu-%lu%s", (run_start - WINDOW) / PAGE, (run_end - WINDOW) / PAGE, last);
        run_start = start;
        run_end = end;
        strcpy(last, flags);
    }
    if (run_end != 0)
        printf(" %lu-%lu%s", (run_start - WINDOW) / PAGE, (run_end - WINDOW) / PAGE, last);
    printf("\n");
    fclose(maps);
}

/* Store into pages that let us; through the kernel, so that none of them is a fault of ours. */
static void scribble(int letters)
{
    for (int i = 0; i < 4; i++) {
        char *at = place();
        off_t letter = (off_t)next(26);
        show("store", at, 1, pread(letters, at, 1, letter) == -1 ? -1 : 0);
    }
}

static void map_something(int file)
{
    static const int prots[] = {PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ,
                                PROT_NONE, PROT_READ | PROT_EXEC};
    char *at = place();
    size_t length = length_of(at);
    int prot = prots[next(ARRAY_SIZE(prots))];
    int fixed = next(4) == 0 ? MAP_FIXED_NOREPLACE : MAP_FIXED;
    void *result;
    switch (next(4)) {
    case 0:
        result = mmap(at, length, prot, fixed | MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        break;
    case 1:
        result = mmap(at, length, prot, fixed | MAP_PRIVATE, file, (off_t)(next(8) * PAGE));
        break;
    case 2:
        result = mmap(at, length, prot, fixed | MAP_SHARED, file, (off_t)(next(8) * PAGE));
        break;
    default:
        result = mmap(at, length, prot, fixed | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    show("mmap", at, length, (long)result);
}

static void change_something(void)
{
    static const int advices[] = {MADV_DONTNEED, MADV_DONTNEED, MADV_WILLNEED, MADV_NORMAL,
                                  MADV_DONTFORK, MADV_DOFORK, MADV_WIPEONFORK, MADV_KEEPONFORK,
                                  MADV_POPULATE_READ, MADV_POPULATE_WRITE, 99};
    static const int prots[] = {PROT_READ, PROT_READ | PROT_WRITE, PROT_NONE,
                                PROT_READ | PROT_WRITE | PROT_EXEC};
    char *at = place(), *to;
    size_t length = length_of(at);
    unsigned char residency[WINDOW_PAGES];
    if (next(12) == 0)
        at++;
    switch (next(9)) {
    case 0:
        show("munmap", at, length, munmap(at, length));
        break;
    case 1:
    case 2:
        show("mprotect", at, length, mprotect(at, length, prots[next(ARRAY_SIZE(prots))]));
        break;
    case 3:
    case 4:
        to = place();
        /* One page: Linux 6.17 has begun to move several mappings at once. */
        size_t size = next(2) == 0 ? PAGE : (length_of(to) + PAGE - 1) & -PAGE;
        unsigned long flags = MREMAP_MAYMOVE | MREMAP_FIXED | (next(6) == 0 ? 4 : 0);
        if (next(8) == 0)
            flags &= ~(unsigned long)MREMAP_MAYMOVE;
        if (to >= at + PAGE || to + size <= at)
            show("mremap", at, PAGE, syscall(SYS_mremap, at, PAGE, size, flags, to));
        break;
    case 5:
    case 6:
        show("madvise", at, length, madvise(at, length, advices[next(ARRAY_SIZE(advices))]));
        break;
    case 7:
        show("msync", at, length, msync(at, length, (int)next(8)));
        break;
    default:
        show("mincore", at, length, mincore(at, length, residency));
    }
}

static void run(uint64_t seed, int file, int zero, int letters)
{
    say("# sequence %d", (int)seed);
    state = seed;
    MUST(munmap((void *)WINDOW, WINDOW_PAGES * PAGE));
    for (int step = 0; step < 60; step++) {
        if (next(2) == 0)
            map_something(file);
        else
            change_something();
        scribble(letters);
        if (step % 5 == 0) {
            show_contents(zero);
            show_maps();
        }
        if (step % 20 == 0) {
            pid_t pid = (pid_t)MUST(fork());
            if (pid == 0) {
                scribble(letters);
                show_contents(zero);
                show_maps();
                _exit(0);
            }
            reap("child", pid);
            show_contents(zero);
        }
    }
}

int main(void)
{
    int letters = (int)MUST(open("letters", O_RDWR | O_CREAT, 0600));
    MUST(write(letters, "abcdefghijklmnopqrstuvwxyz", 26));
    int zero = (int)MUST(open("scratch", O_RDWR | O_CREAT, 0600));
    for (uint64_t seed = 1; seed <= 40; seed++) {
        int file = (int)MUST(open("file", O_RDWR | O_CREAT | O_TRUNC, 0600));
        for (int i = 0; i < FILE_PAGES; i++)
            MUST(pwrite(file, "0123456789", 1 + i % 10, i * (off_t)PAGE + 0));
        for (int i = 0; i < FILE_PAGES; i++) {
            char digit = (char)('A' + i);
            MUST(pwrite(file, &digit, 1, i * (off_t)PAGE));
        }
        run(seed, file, zero, letters);
        close(file);
    }
    return 0;
}
