/* /proc: the files of a process that programs read, and what they say about known facts. */
#include "guest.h"
#include <dirent.h>

static char text[65536];

static const char *slurp(const char *path)
{
    size_t total = 0;
    ssize_t got;
    int fd = open(path, O_RDONLY);
    if (fd == -1) {
        snprintf(text, sizeof text, "%s", guest_errno_name(errno));
        return text;
    }
    while ((got = read(fd, text + total, sizeof text - 1 - total)) > 0)
        total += (size_t)got;
    text[total] = 0;
    close(fd);
    return text;
}

/* The value after "key:" in the text last read, without leading blanks; "absent" where there is none. */
static const char *value_of(const char *key)
{
    static char value[256];
    size_t length = strlen(key);
    for (char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) == 0 && line[length] == ':') {
            line += length + 1;
            line += strspn(line, " \t");
            snprintf(value, sizeof value, "%.*s", (int)strcspn(line, "\n"), line);
            return value;
        }
        if (*line == 0)
            break;
    }
    return "absent";
}

static void status(void)
{
    SECTION("status");
    slurp("/proc/self/status");
    say("Name %s", value_of("Name"));
    say("State %s", value_of("State"));
    SHOW(atoi(value_of("Pid")) == getpid());
    SHOW(atoi(value_of("Tgid")) == getpid());
    SHOW(atoi(value_of("PPid")) == getppid());
    SHOW(atoi(value_of("Uid")) == (int)getuid());
    SHOW(atoi(value_of("Gid")) == (int)getgid());
    SHOW(atoi(value_of("Threads")));
    SHOW(atoi(value_of("VmRSS")) > 0);
    SHOW(atoi(value_of("VmSize")) > 0);
    say("SigIgn %s", value_of("SigIgn"));
    say("SigBlk %s", value_of("SigBlk"));
    static const char *const keys[] = {"Umask", "TracerPid", "FDSize", "Groups", "VmPeak", "VmHWM",
                                       "VmData", "VmStk", "VmExe", "SigQ", "SigPnd", "ShdPnd",
                                       "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
                                       "NoNewPrivs", "Seccomp", "Cpus_allowed", "Cpus_allowed_list",
                                       "voluntary_ctxt_switches"};
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (strcmp(value_of(keys[i]), "absent") == 0)
            say("%s is absent", keys[i]);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGUSR2, SIG_IGN);
    raise(SIGUSR1);
    slurp("/proc/self/status");
    say("SigIgn %s", value_of("SigIgn"));
    say("SigBlk %s", value_of("SigBlk"));
    umask(027);
    slurp("/proc/self/status");
    say("Umask %s", value_of("Umask"));
    umask(022);
}

static void stat_line(void)
{
    SECTION("stat");
    int pid, ppid, pgrp, session;
    char name[64], state;
    slurp("/proc/self/stat");
    char *end = strrchr(text, ')');
    SHOW(sscanf(text, "%d (%63[^)]) %c %d %d %d", &pid, name, &state, &ppid, &pgrp, &session));
    say("%s %c pid %d ppid %d pgrp %d session %d", name, state, pid == getpid(), ppid == getppid(),
        pgrp == getpgrp(), session == getsid(0));
    int fields = 2;
    for (char *p = end + 1; *p != 0; p++)
        fields += *p == ' ';
    SHOW(fields);
    int numbers = 0;
    slurp("/proc/self/statm");
    for (char *p = strtok(text, " \n"); p != NULL; p = strtok(NULL, " \n"))
        numbers++;
    SHOW(numbers);
}

static void mappings(void)
{
    SECTION("maps");
    char line[256], perms[8], *data;
    put_file("mapped", "contents");
    int fd = (int)MUST(open("mapped", O_RDWR));
    data = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *anonymous = mmap(NULL, 3 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *block = malloc(10);
    FILE *maps = fopen("/proc/self/maps", "r");
    unsigned long start, end, offset;
    int stack = 0, heap = 0, vdso = 0, exe = 0, last_sorted = 1;
    unsigned long previous = 0;
    while (fgets(line, sizeof line, maps) != NULL) {
        int at = 0;
        if (sscanf(line, "%lx-%lx %7s %lx %*x:%*x %*u %n", &start, &end, perms, &offset, &at) < 4)
            say("odd line %s", line);
        char *name = line + at;
        name[strcspn(name, "\n")] = 0;
        last_sorted &= start >= previous && end > start;
        previous = end;
        stack += strcmp(name, "[stack]") == 0 && (unsigned long)&at >= start && (unsigned long)&at < end;
        heap += strcmp(name, "[heap]") == 0;
        vdso += strcmp(name, "[vdso]") == 0;
        exe += strcmp(strrchr(name, '/') ? strrchr(name, '/') + 1 : "", "proc_fs") == 0;
        if (start == (unsigned long)data)
            say("file %s %lx %lu pages %s", perms, offset, (end - start) / PAGE, strrchr(name, '/'));
        if (start <= (unsigned long)anonymous && (unsigned long)anonymous < end)
            say("anonymous %s", perms);
    }
    fclose(maps);
    free(block);
    say("stack %d heap %d vdso %d exe %d sorted %d", stack, heap, vdso, exe >= 3, last_sorted);
    MUST(unlink("mapped"));
    SHOW(strstr(slurp("/proc/self/maps"), "/mapped (deleted)\n") != NULL);
    MUST(munmap(data, 2 * PAGE));
    SHOW(strstr(slurp("/proc/self/maps"), "/mapped (deleted)\n") != NULL);
}

static void links(void)
{
    SECTION("links");
    char target[PATH_MAX] = {0}, cwd[PATH_MAX];
    int fds[2];
    MUST(readlink("/proc/self/exe", target, sizeof target));
    SHOW(strcmp(strrchr(target, '/'), "/proc_fs"));
    memset(target, 0, sizeof target);
    MUST(readlink("/proc/self/cwd", target, sizeof target));
    SHOW(strcmp(target, getcwd(cwd, sizeof cwd)));
    memset(target, 0, sizeof target);
    MUST(readlink("/proc/self/root", target, sizeof target));
    say("root %s", target);
    memset(target, 0, sizeof target);
    MUST(readlink("/proc/self", target, sizeof target));
    SHOW(atoi(target) == getpid());
    memset(target, 0, sizeof target);
    MUST(readlink("/proc/thread-self", target, sizeof target));
    SHOW(strstr(target, "/task/") != NULL);
    MUST(pipe(fds));
    snprintf(text, sizeof text, "/proc/self/fd/%d", fds[0]);
    memset(target, 0, sizeof target);
    MUST(readlink(text, target, sizeof target));
    SHOW(strncmp(target, "pipe:[", 6));
    snprintf(text, sizeof text, "/proc/self/fd/%d", fds[1]);
    int again = (int)MUST(open(text, O_WRONLY));
    MUST(write(again, "via proc", 8));
    CHECK(read(fds[0], target, sizeof target));
    put_file("file", "some contents");
    int fd = (int)MUST(open("file", O_RDONLY | O_APPEND | O_CLOEXEC));
    MUST(lseek(fd, 5, SEEK_SET));
    snprintf(text, sizeof text, "/proc/self/fdinfo/%d", fd);
    char path[64];
    strcpy(path, text);
    slurp(path);
    say("pos %s flags %s", value_of("pos"), value_of("flags"));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    MUST(unlink("file"));
    memset(target, 0, sizeof target);
    MUST(readlink(path, target, sizeof target));
    say("%s", strrchr(target, '/'));
    show_file(path);
    CHECK(open("/proc/self/fd/999", O_RDONLY));
    CHECK(readlink("/proc/self/fd/x", target, sizeof target));
}

static void descriptors(void)
{
    SECTION("fd directory");
    close(100);
    MUST(dup2(0, 100));
    MUST(dup2(0, 102));
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    int seen = 0, total = 0;
    while ((entry = readdir(dir)) != NULL) {
        int fd = atoi(entry->d_name);
        total++;
        if (fd == 100 || fd == 102 || (fd == 0 && entry->d_name[0] == '0'))
            seen++;
    }
    closedir(dir);
    SHOW(seen);
    SHOW(total > 5);
    dir = opendir("/proc/self/task");
    total = 0;
    while ((entry = readdir(dir)) != NULL)
        total += atoi(entry->d_name) == getpid();
    closedir(dir);
    SHOW(total);
}

static void texts(void)
{
    SECTION("arguments");
    int fd = (int)MUST(open("/proc/self/cmdline", O_RDONLY));
    ssize_t length = read(fd, text, sizeof text);
    SHOW(length > 0 && text[length - 1] == 0 && strcmp(strrchr(text, '/'), "/proc_fs") == 0);
    close(fd);
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        char *argv[] = {"cat", "/proc/self/cmdline", "/proc/self/environ", NULL};
        char *envp[] = {"ONE=1", "TWO=22", NULL};
        int out = (int)MUST(open("out", O_WRONLY | O_CREAT, 0600));
        dup2(out, 1);
        execve("/bin/cat", argv, envp);
        _exit(127);
    }
    reap("cat", pid);
    show_file("out");
    slurp("/proc/self/comm");
    say("comm %s", text);
    fd = (int)MUST(open("/proc/self/comm", O_WRONLY));
    CHECK(write(fd, "new name", 8));
    slurp("/proc/self/comm");
    say("comm %s", text);
    SHOW(strncmp(slurp("/proc/self/auxv"), "ENOENT", 6) != 0);
    SHOW(strstr(slurp("/proc/self/limits"), "Max open files") != NULL);
    SHOW(strstr(slurp("/proc/self/mounts"), " / ") != NULL);
    SHOW(strstr(slurp("/proc/self/mountinfo"), " / / ") != NULL);
    SHOW(strlen(slurp("/proc/self/cgroup")) > 0);
    SHOW(strlen(slurp("/proc/self/io")) > 0);
    SHOW(strlen(slurp("/proc/self/smaps")) > 0);
    SHOW(atoi(slurp("/proc/self/oom_score_adj")));
    SHOW(strlen(slurp("/proc/self/wchan")) < 100);
}

static void memory(void)
{
    SECTION("mem");
    static char data[] = "in memory";
    char buf[16] = {0};
    int fd = (int)MUST(open("/proc/self/mem", O_RDWR));
    CHECK(pread(fd, buf, 9, (off_t)(uintptr_t)data));
    show_bytes("read", buf, 9);
    CHECK(pwrite(fd, "IN", 2, (off_t)(uintptr_t)data));
    show_bytes("written", data, 9);
    CHECK(pread(fd, buf, 9, 8));
}

static void global_files(void)
{
    SECTION("the system");
    SHOW(atoi(slurp("/proc/meminfo") + strlen("MemTotal:")) > 0);
    SHOW(strstr(text, "MemAvailable:") != NULL && strstr(text, "SwapTotal:") != NULL);
    SHOW(strstr(slurp("/proc/cpuinfo"), "processor\t: 0\n") != NULL);
    SHOW(strncmp(slurp("/proc/stat"), "cpu ", 4));
    SHOW(strstr(text, "\nbtime ") != NULL);
    SHOW(strncmp(slurp("/proc/version"), "Linux version ", 14));
    double up = 0, idle = 0;
    SHOW(sscanf(slurp("/proc/uptime"), "%lf %lf", &up, &idle));
    double load;
    SHOW(sscanf(slurp("/proc/loadavg"), "%lf", &load));
    SHOW(strstr(slurp("/proc/filesystems"), "nodev\tproc\n") != NULL);
    SHOW(strlen(slurp("/proc/sys/kernel/hostname")) > 0);
    say("%s", slurp("/proc/sys/kernel/ostype"));
    SHOW(atoi(slurp("/proc/sys/kernel/pid_max")) > 0);
    SHOW(atoi(slurp("/proc/sys/vm/overcommit_memory")) >= 0);
    SHOW(strlen(slurp("/proc/sys/kernel/random/boot_id")));
    SHOW(strlen(slurp("/proc/sys/kernel/random/uuid")));
    struct stat st;
    MUST(stat("/proc/self/status", &st));
    say("%o size %ld", st.st_mode, (long)st.st_size);
    CHECK(stat("/proc/self", &st) == 0 && S_ISDIR(st.st_mode));
    CHECK(stat("/proc/999999999", &st));
    CHECK(open("/proc/absent", O_RDONLY));
    CHECK(open("/proc/self/absent", O_RDONLY));
    CHECK(mkdir("/proc/new", 0755));
    CHECK(unlink("/proc/version"));
}

static void other_process(void)
{
    SECTION("another process");
    char path[64];
    struct latch ready = new_latch();
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        open_latch(&ready);
        for (;;)
            pause();
    }
    wait_latch(&ready);
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    slurp(path);
    SHOW(atoi(value_of("PPid")) == getpid());
    int fd = (int)MUST(open(path, O_RDONLY));
    kill(pid, SIGKILL);
    siginfo_t info;
    MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
    slurp(path);
    say("State %s", value_of("State"));
    waitpid(pid, NULL, 0);
    say("%s", slurp(path));
    CHECK(read(fd, text, sizeof text));
}

int main(void)
{
    umask(022);
    stat_line();
    status();
    mappings();
    links();
    descriptors();
    texts();
    memory();
    global_files();
    other_process();
    return 0;
}
