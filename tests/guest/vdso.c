/* The vDSO: where it is, what it exports, and that its clocks and the system calls agree. */
#include "guest.h"
#include <elf.h>
#include <sys/auxv.h>
#include <sys/time.h>

static long long in_ns(struct timespec t)
{
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Is a function of that name among the vDSO's dynamic symbols? */
static bool exports(const char *base, const char *name)
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)base;
    const Elf64_Phdr *program = (const Elf64_Phdr *)(base + header->e_phoff);
    const Elf64_Sym *symbols = NULL;
    const char *strings = NULL;
    uint64_t bias = 0, count = 0;
    for (int i = 0; i < header->e_phnum; i++)
        if (program[i].p_type == PT_LOAD)
            bias = (uint64_t)base + program[i].p_offset - program[i].p_vaddr;
    for (int i = 0; i < header->e_phnum; i++) {
        if (program[i].p_type != PT_DYNAMIC)
            continue;
        for (const Elf64_Dyn *dyn = (const Elf64_Dyn *)(base + program[i].p_offset);
             dyn->d_tag != DT_NULL; dyn++) {
            if (dyn->d_tag == DT_SYMTAB)
                symbols = (const Elf64_Sym *)(bias + dyn->d_un.d_ptr);
            else if (dyn->d_tag == DT_STRTAB)
                strings = (const char *)(bias + dyn->d_un.d_ptr);
        }
    }
    if (symbols == NULL || strings == NULL || (const char *)symbols > strings)
        return false;
    count = (uint64_t)(strings - (const char *)symbols) / sizeof *symbols;
    for (uint64_t i = 0; i < count; i++)
        if (strcmp(strings + symbols[i].st_name, name) == 0)
            return symbols[i].st_shndx != SHN_UNDEF;
    return false;
}

int main(void)
{
    static const char *const names[] = {"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time",
                                        "__vdso_getcpu", "__vdso_clock_getres"};
    static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME,
                                       CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE};
    SECTION("image");
    const char *base = (const char *)getauxval(AT_SYSINFO_EHDR);
    SHOW(base != NULL);
    if (base != NULL) {
        SHOW(memcmp(base, ELFMAG, SELFMAG));
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
            say("%s %d", names[i], exports(base, names[i]));
    }
    SECTION("clocks agree with the system call");
    for (size_t i = 0; i < ARRAY_SIZE(clocks); i++) {
        int ordered = 0;
        for (int round = 0; round < 200; round++) {
            struct timespec one, two, three;
            clock_gettime(clocks[i], &one);
            syscall(SYS_clock_gettime, clocks[i], &two);
            clock_gettime(clocks[i], &three);
            ordered += in_ns(one) <= in_ns(two) && in_ns(two) <= in_ns(three);
        }
        say("clock %d: %d of 200 in order", clocks[i], ordered);
    }
    SECTION("it moves");
    struct timespec start, now, previous;
    int backwards = 0;
    clock_gettime(CLOCK_MONOTONIC, &start);
    previous = start;
    do {
        clock_gettime(CLOCK_MONOTONIC, &now);
        backwards += in_ns(now) < in_ns(previous);
        previous = now;
    } while (in_ns(now) - in_ns(start) < 20000000);
    SHOW(backwards);
    struct timeval tv;
    gettimeofday(&tv, NULL);
    clock_gettime(CLOCK_REALTIME, &now);
    SHOW(now.tv_sec - tv.tv_sec <= 1);
    SHOW(time(NULL) - tv.tv_sec <= 1);
    SECTION("errors through it");
    CHECK(clock_gettime(1000, &now));
    return 0;
}
