/* Copy-on-write over fork(2): who sees whose stores, for every kind of memory, several levels deep. */
#include "guest.h"

static int global = 1;

static void levels(int depth, char *memory, char *shared)
{
    memory[depth * PAGE] = (char)('a' + depth);
    shared[depth] = (char)('A' + depth);
    if (depth == 4) {
        for (int i = 0; i < 5; i++)
            say("deepest sees %c %c", memory[i * PAGE], shared[i]);
        return;
    }
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        levels(depth + 1, memory, shared);
        _exit(0);
    }
    reap("level", pid);
    say("level %d: next is %d, shared next is %c", depth, memory[(depth + 1) * PAGE],
        shared[depth + 1]);
}

int main(void)
{
    int local = 1;
    char *heap = malloc(100);
    char *private = pages(300);
    char *untouched = pages(2);
    char *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    strcpy(heap, "parent");
    for (int i = 0; i < 300; i++)
        private[i * PAGE] = 'p';

    SECTION("child writes");
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        global = local = 2;
        strcpy(heap, "child");
        for (int i = 0; i < 300; i++)
            private[i * PAGE] = 'c';
        untouched[0] = 'c';
        strcpy(shared, "from the child");
        _exit(0);
    }
    reap("child", pid);
    int changed = 0;
    for (int i = 0; i < 300; i++)
        changed += private[i * PAGE] != 'p';
    say("global %d local %d heap %s private %d untouched %d shared %s", global, local, heap, changed,
        untouched[0], shared);

    SECTION("parent writes");
    struct latch go = new_latch();
    pid = (pid_t)MUST(fork());
    if (pid == 0) {
        wait_latch(&go);
        int different = 0;
        for (int i = 0; i < 300; i++)
            different += private[i * PAGE] != 'p';
        say("global %d heap %s private %d shared %s", global, heap, different, shared);
        _exit(0);
    }
    global = 3;
    strcpy(heap, "changed");
    memset(private, 'P', 300 * PAGE);
    strcpy(shared, "from the parent");
    open_latch(&go);
    reap("child", pid);

    SECTION("the kernel writes");
    int fds[2];
    MUST(pipe(fds));
    MUST(write(fds[1], "kernel", 6));
    pid = (pid_t)MUST(fork());
    if (pid == 0) {
        MUST(read(fds[0], private, 6));
        show_bytes("child", private, 8);
        _exit(0);
    }
    reap("child", pid);
    show_bytes("parent", private, 8);

    SECTION("levels");
    levels(0, pages(5), shared);

    SECTION("many children");
    for (int i = 0; i < 20; i++) {
        pid = (pid_t)MUST(fork());
        if (pid == 0) {
            private[0] = (char)i;
            _exit(private[0] == i && private[PAGE] == 'P' ? 0 : 1);
        }
        int status;
        MUST(waitpid(pid, &status, 0));
        if (status != 0)
            show_status("child", status);
    }
    SHOW(private[0]);
    return 0;
}
