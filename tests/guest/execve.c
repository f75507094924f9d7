/* execve(2), execveat(2): arguments, what survives, scripts, errors. Runs itself as the new program. */
#include "guest.h"
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/prctl.h>

static char self[PATH_MAX];

static void run(const char *label, const char *path, char *const argv[], char *const envp[])
{
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        execve(path, argv, envp);
        say("%s: %s", label, guest_errno_name(errno));
        _exit(99);
    }
    reap(label, pid);
}

static void run_plain(const char *label, const char *path)
{
    char *argv[] = {"name", "one", "two words", NULL};
    char *envp[] = {"A=1", "PATH=/bin:/usr/bin", NULL};
    run(label, path, argv, envp);
}

/* What the program does when it is the one executed: print what it was given. */
static int executed(int argc, char **argv, char **envp)
{
    sigset_t set;
    struct sigaction usr1, usr2, term;
    for (int i = 0; i < argc; i++)
        if (strlen(argv[i]) < 100)
            say("  argv[%d] %s", i, strcmp(argv[i], self) == 0 ? "SELF" : argv[i]);
        else
            say("  argv[%d] has %zu bytes", i, strlen(argv[i]));
    for (char **variable = envp; *variable != NULL; variable++)
        say("  env %s", *variable);
    sigprocmask(SIG_BLOCK, NULL, &set);
    sigaction(SIGUSR1, NULL, &usr1);
    sigaction(SIGUSR2, NULL, &usr2);
    sigaction(SIGTERM, NULL, &term);
    say("  blocked %d ignored %d default %d", sigismember(&set, SIGTERM),
        usr1.sa_handler == SIG_IGN, usr2.sa_handler == SIG_DFL);
    say("  fds 50 %d 51 %d", fcntl(50, F_GETFD), fcntl(51, F_GETFD));
    say("  leader %d", getpid() == (int)syscall(SYS_gettid));
    return argc;
}

static void on_signal(int signo UNUSED)
{
}

static void survives(void)
{
    SECTION("what survives");
    char *argv[] = {"executed", "x", NULL}, *envp[] = {NULL};
    sigset_t set;
    dup2(0, 50);
    dup3(0, 51, O_CLOEXEC);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, on_signal);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    run("survives", self, argv, envp);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    close(50);
    close(51);
}

static void arguments(void)
{
    SECTION("arguments");
    char *envp[] = {"A=1", "B=", "=odd", NULL};
    char *none[] = {"executed", NULL};
    run("no arguments", self, none, envp);
    char *empty[] = {"executed", "", "last", NULL};
    run("an empty one", self, empty, envp);
    char *longer = malloc(131072);
    memset(longer, 'l', 131071);
    longer[131071] = 0;
    char *big[] = {"executed", longer, NULL};
    run("131071 bytes", self, big, envp);
    longer = malloc(131073);
    memset(longer, 'l', 131072);
    longer[131072] = 0;
    big[1] = longer;
    run("131072 bytes", self, big, envp);
    char **many = calloc(100001, sizeof *many);
    for (int i = 0; i < 100000; i++)
        many[i] = "a string of some thirty bytes or so, repeated";
    run("too many", self, many, envp);
}

static void scripts(void)
{
    SECTION("scripts");
    char text[PATH_MAX + 64];
    put_file("script", "#!/bin/sh\necho \"$0\" \"$#\" \"$1\" \"$2\"\nexit 7\n");
    MUST(chmod("script", 0755));
    run_plain("sh", "./script");
    put_file("options", "#!/bin/sh -e\nfalse\necho not reached\n");
    MUST(chmod("options", 0755));
    run_plain("with an option", "./options");
    snprintf(text, sizeof text, "#! %s  several words \n", self);
    put_file("self", text);
    MUST(chmod("self", 0755));
    run_plain("one argument of several words", "./self");
    put_file("nested", "#!./script\n");
    MUST(chmod("nested", 0755));
    run_plain("nested", "./nested");
    put_file("loop", "#!./loop\n");
    MUST(chmod("loop", 0755));
    run_plain("loop", "./loop");
    put_file("absent-interpreter", "#!/nowhere/at/all\n");
    MUST(chmod("absent-interpreter", 0755));
    run_plain("absent interpreter", "./absent-interpreter");
    put_file("blank", "#!   \n");
    MUST(chmod("blank", 0755));
    run_plain("blank", "./blank");
    put_file("dir-interpreter", "#!/\n");
    MUST(chmod("dir-interpreter", 0755));
    run_plain("directory as interpreter", "./dir-interpreter");
}

static void errors(void)
{
    SECTION("errors");
    put_file("text", "echo no shebang\n");
    MUST(chmod("text", 0755));
    run_plain("text", "./text");
    put_file("empty", "");
    MUST(chmod("empty", 0755));
    run_plain("empty", "./empty");
    put_file("elf", "\177ELF");
    MUST(chmod("elf", 0755));
    run_plain("truncated ELF", "./elf");
    put_file("plain", "#!/bin/sh\n");
    MUST(chmod("plain", 0644));
    run_plain("not executable", "./plain");
    run_plain("absent", "./absent");
    run_plain("directory", ".");
    run_plain("a file as directory", "./text/x");
    run_plain("empty path", "");
    CHECK(syscall(SYS_execve, 8, NULL, NULL));
    CHECK(syscall(SYS_execve, self, 8, NULL));
    char *bad[] = {"x", (char *)8, NULL};
    CHECK(syscall(SYS_execve, self, bad, NULL));
    put_file("busy", "#!/bin/sh\nexit 3\n");
    MUST(chmod("busy", 0755));
    int fd = (int)MUST(open("busy", O_WRONLY));
    run_plain("open for writing", "./busy");
    close(fd);
    run_plain("closed again", "./busy");
}

static void at(void)
{
    SECTION("execveat");
    char *argv[] = {"executed", NULL}, *envp[] = {NULL};
    put_file("exit9", "#!/bin/sh\nexit 9\n");
    MUST(chmod("exit9", 0755));
    MUST(symlink("exit9", "link9"));
    int dir = (int)MUST(open(".", O_RDONLY));
    int fd = (int)MUST(open("exit9", O_RDONLY));
    int closing = (int)MUST(open("exit9", O_RDONLY | O_CLOEXEC));
    static const struct { const char *label, *path; int which, flags; } table[] = {
        {"relative", "exit9", 0, 0},          {"empty path", "", 1, AT_EMPTY_PATH},
        {"no flag", "", 1, 0},                {"close on exec", "", 2, AT_EMPTY_PATH},
        {"nofollow", "link9", 0, AT_SYMLINK_NOFOLLOW},
        {"bad flag", "exit9", 0, 1},          {"bad fd", "exit9", 3, 0},
    };
    int fds[] = {dir, fd, closing, 999};
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        pid_t pid = (pid_t)MUST(fork());
        if (pid == 0) {
            fclose(stderr);
            syscall(SYS_execveat, fds[table[i].which], table[i].path, argv, envp, table[i].flags);
            say("%s: %s", table[i].label, guest_errno_name(errno));
            _exit(99);
        }
        int status;
        MUST(waitpid(pid, &status, 0));
        show_status(table[i].label, status);
    }
}

static void *exec_from_thread(void *argument UNUSED)
{
    char *argv[] = {"executed", "from a thread", NULL}, *envp[] = {NULL};
    execve(self, argv, envp);
    return NULL;
}

static void *sleep_for_ever(void *argument UNUSED)
{
    pause();
    return NULL;
}

static void threaded(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, sleep_for_ever, NULL);
    pthread_create(&thread, NULL, exec_from_thread, NULL);
    pause();
}

static void names(void)
{
    SECTION("names");
    char *argv[] = {"cat", "/proc/self/comm", NULL}, *envp[] = {NULL};
    prctl(PR_SET_NAME, "renamed");
    run("comm", "/bin/cat", argv, envp);
    char *argv0[] = {"another-name", "/proc/self/comm", NULL};
    run("comm with another argv[0]", "/bin/cat", argv0, envp);
}

int main(int argc, char **argv, char **envp)
{
    MUST(readlink("/proc/self/exe", self, sizeof self - 1));
    if (argc > 0 && (strcmp(argv[0], "executed") == 0 || argc > 1))
        return executed(argc, argv, envp);
    survives();
    arguments();
    scripts();
    errors();
    at();
    SECTION("threads");
    in_child("threads", threaded);
    names();
    return 0;
}
