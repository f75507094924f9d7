/* The initial stack: alignment, argc, argv, envp, the auxiliary vector; how the stack grows. */
#include "guest.h"
#include <elf.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/resource.h>

static int deepest;

static int __attribute__((noinline)) recurse(int depth)
{
    volatile char frame[1000];
    frame[0] = (char)depth;
    deepest = depth;
    return depth == 0 ? 0 : recurse(depth - 1) + frame[0] * 0 + 1;
}

static void overflow(void)
{
    recurse(1 << 30);
}

static void limited_stack(void)
{
    struct rlimit limit = {256 * 1024, 256 * 1024};
    MUST(setrlimit(RLIMIT_STACK, &limit));
    recurse(4000);
}

static void far_below(void)
{
    char here, *volatile below = &here;
    below -= 64UL << 20;
    *(volatile char *)below = 1;
}

static const char *const names[] = {
    [AT_PHDR] = "AT_PHDR", [AT_PHENT] = "AT_PHENT", [AT_PHNUM] = "AT_PHNUM", [AT_BASE] = "AT_BASE",
    [AT_ENTRY] = "AT_ENTRY", [AT_PAGESZ] = "AT_PAGESZ", [AT_UID] = "AT_UID", [AT_EUID] = "AT_EUID",
    [AT_GID] = "AT_GID", [AT_EGID] = "AT_EGID", [AT_SECURE] = "AT_SECURE", [AT_RANDOM] = "AT_RANDOM",
    [AT_EXECFN] = "AT_EXECFN", [AT_PLATFORM] = "AT_PLATFORM", [AT_HWCAP] = "AT_HWCAP",
    [AT_CLKTCK] = "AT_CLKTCK", [AT_SYSINFO_EHDR] = "AT_SYSINFO_EHDR", [AT_FLAGS] = "AT_FLAGS",
    [AT_HWCAP2] = "AT_HWCAP2", [AT_MINSIGSTKSZ] = "AT_MINSIGSTKSZ",
};

int main(int argc, char **argv, char **envp)
{
    SECTION("layout");
    SHOW(argc);
    SHOW((uintptr_t)(argv - 1) % 16);
    SHOW(*(long *)(argv - 1) == argc);
    SHOW(argv[argc] == NULL);
    SHOW(envp == argv + argc + 1);
    char **end = envp;
    while (*end != NULL)
        end++;
    ElfW(auxv_t) *auxv = (ElfW(auxv_t) *)(end + 1);
    SHOW(argv[0] > (char *)auxv);
    char *strings = argv[0];
    int adjacent = 1;
    for (char **variable = envp; *variable != NULL; variable++)
        adjacent &= *variable > strings;
    SHOW(adjacent);

    SECTION("auxiliary vector");
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (names[i] == NULL)
            continue;
        int found = 0;
        for (ElfW(auxv_t) *entry = auxv; entry->a_type != AT_NULL; entry++)
            found += entry->a_type == i;
        say("%s %d", names[i], found);
    }
    SHOW(getauxval(AT_PAGESZ));
    SHOW(getauxval(AT_CLKTCK));
    SHOW(getauxval(AT_UID) == getuid() && getauxval(AT_EUID) == geteuid());
    SHOW(getauxval(AT_GID) == getgid() && getauxval(AT_EGID) == getegid());
    SHOW(getauxval(AT_SECURE));
    SHOW(getauxval(AT_FLAGS));
    SHOW(getauxval(AT_PHENT) == sizeof(ElfW(Phdr)));
    say("%s", (char *)getauxval(AT_PLATFORM));
    SHOW(strcmp((char *)getauxval(AT_EXECFN), argv[0]));
    SHOW((uintptr_t)getauxval(AT_RANDOM) > (uintptr_t)auxv);
    unsigned char *random = (unsigned char *)getauxval(AT_RANDOM), all = 0;
    for (int i = 0; i < 16; i++)
        all |= random[i];
    SHOW(all != 0);
    ElfW(Phdr) *program = (ElfW(Phdr) *)getauxval(AT_PHDR);
    int loads = 0, stack_executable = -1;
    for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++) {
        loads += program[i].p_type == PT_LOAD;
        if (program[i].p_type == PT_GNU_STACK)
            stack_executable = (program[i].p_flags & PF_X) != 0;
    }
    SHOW(loads > 0);
    SHOW(stack_executable);

    SECTION("growing");
    SHOW(recurse(7000));
    in_child("overflow", overflow);
    in_child("a lower limit", limited_stack);
    in_child("far below the stack", far_below);
    return 0;
}
