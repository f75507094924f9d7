/* Record locks: fcntl(2) F_SETLK and its family, OFD locks, flock(2), between processes. */
#include "guest.h"
#include <sys/file.h>

static int fd;

static struct flock region(short type, off_t start, off_t length)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
}

static void show_lock(const char *label, const struct flock *lock)
{
    const char *type = lock->l_type == F_UNLCK ? "unlocked" : lock->l_type == F_RDLCK ? "read" : "write";
    say("%s: %s start %ld length %ld", label, type, (long)lock->l_start, (long)lock->l_len);
}

static void other_process(void)
{
    struct flock lock = region(F_WRLCK, 0, 0);
    pid_t parent = getppid();
    CHECK(fcntl(fd, F_GETLK, &lock));
    show_lock("found", &lock);
    SHOW(lock.l_pid == parent);
    lock = region(F_RDLCK, 0, 5);
    CHECK(fcntl(fd, F_SETLK, &lock));
    lock = region(F_RDLCK, 12, 5);
    CHECK(fcntl(fd, F_SETLK, &lock));
    lock = region(F_WRLCK, 12, 5);
    CHECK(fcntl(fd, F_SETLK, &lock));
    lock = region(F_WRLCK, 30, 5);
    CHECK(fcntl(fd, F_SETLK, &lock));
}

static void posix(void)
{
    SECTION("posix locks");
    struct flock lock = region(F_WRLCK, 0, 10);
    CHECK(fcntl(fd, F_SETLK, &lock));
    lock = region(F_RDLCK, 10, 10);
    CHECK(fcntl(fd, F_SETLK, &lock));
    in_child("other", other_process);
    lock = region(F_UNLCK, 3, 4);
    CHECK(fcntl(fd, F_SETLK, &lock));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        lock = region(F_WRLCK, 3, 4);
        CHECK(fcntl(fd, F_SETLK, &lock));
        lock = region(F_WRLCK, 2, 4);
        CHECK(fcntl(fd, F_GETLK, &lock));
        show_lock("left", &lock);
        lock = region(F_WRLCK, 5, 0);
        CHECK(fcntl(fd, F_GETLK, &lock));
        show_lock("right", &lock);
        _exit(0);
    }
    reap("split", pid);
    close((int)MUST(open("file", O_RDONLY)));
    pid = (pid_t)MUST(fork());
    if (pid == 0) {
        lock = region(F_WRLCK, 0, 0);
        CHECK(fcntl(fd, F_GETLK, &lock));
        show_lock("gone once any descriptor is closed", &lock);
        _exit(0);
    }
    reap("after close", pid);
}

static void errors(void)
{
    SECTION("errors");
    struct flock lock = region(F_WRLCK, 0, 10);
    int reader = (int)MUST(open("file", O_RDONLY));
    int writer = (int)MUST(open("file", O_WRONLY));
    CHECK(fcntl(reader, F_SETLK, &lock));
    lock = region(F_RDLCK, 0, 10);
    CHECK(fcntl(writer, F_SETLK, &lock));
    lock = region(F_WRLCK, -1, 10);
    CHECK(fcntl(fd, F_SETLK, &lock));
    lock = region(77, 0, 10);
    CHECK(fcntl(fd, F_SETLK, &lock));
    lock = region(F_WRLCK, 0, 10);
    lock.l_whence = 9;
    CHECK(fcntl(fd, F_SETLK, &lock));
    lock = region(F_WRLCK, 10, -5);
    CHECK(fcntl(fd, F_SETLK, &lock));
    lock = region(F_UNLCK, 0, 0);
    CHECK(fcntl(fd, F_SETLK, &lock));
    CHECK(fcntl(fd, F_GETLK, &lock));
    CHECK(fcntl(fd, F_SETLK, 8));
    CHECK(fcntl(999, F_SETLK, &lock));
    close(reader);
    close(writer);
}

static void waiting(void)
{
    SECTION("waiting");
    struct flock lock = region(F_WRLCK, 0, 0);
    struct latch ready = new_latch();
    MUST(fcntl(fd, F_SETLK, &lock));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        lock = region(F_WRLCK, 0, 0);
        open_latch(&ready);
        CHECK(fcntl(fd, F_SETLKW, &lock));
        say("child has the lock");
        _exit(0);
    }
    wait_latch(&ready);
    say("parent unlocks");
    lock = region(F_UNLCK, 0, 0);
    MUST(fcntl(fd, F_SETLK, &lock));
    reap("waiter", pid);
}

static void ofd(void)
{
    SECTION("open file description locks");
    int other = (int)MUST(open("file", O_RDWR));
    int copy = (int)MUST(dup(fd));
    struct flock lock = region(F_WRLCK, 0, 10);
    CHECK(fcntl(fd, F_OFD_SETLK, &lock));
    CHECK(fcntl(other, F_OFD_SETLK, &lock));
    CHECK(fcntl(copy, F_OFD_SETLK, &lock));
    lock = region(F_RDLCK, 0, 0);
    CHECK(fcntl(other, F_OFD_GETLK, &lock));
    show_lock("found", &lock);
    SHOW(lock.l_pid);
    CHECK(fcntl(other, F_SETLK, &lock));
    close(copy);
    lock = region(F_RDLCK, 0, 0);
    CHECK(fcntl(other, F_OFD_SETLK, &lock));
    lock = region(F_UNLCK, 0, 0);
    CHECK(fcntl(fd, F_OFD_SETLK, &lock));
    lock = region(F_WRLCK, 0, 0);
    CHECK(fcntl(other, F_OFD_SETLK, &lock));
    close(other);
    lock = region(F_WRLCK, 0, 0);
    CHECK(fcntl(fd, F_OFD_SETLK, &lock));
    lock.l_pid = 1;
    CHECK(fcntl(fd, F_OFD_SETLK, &lock));
    lock = region(F_UNLCK, 0, 0);
    CHECK(fcntl(fd, F_OFD_SETLK, &lock));
}

static void whole_file(void)
{
    SECTION("flock");
    int other = (int)MUST(open("file", O_RDONLY));
    int copy = (int)MUST(dup(fd));
    CHECK(flock(fd, LOCK_EX));
    CHECK(flock(other, LOCK_EX | LOCK_NB));
    CHECK(flock(other, LOCK_SH | LOCK_NB));
    CHECK(flock(copy, LOCK_SH | LOCK_NB));
    CHECK(flock(other, LOCK_SH | LOCK_NB));
    CHECK(flock(fd, LOCK_EX | LOCK_NB));
    CHECK(flock(copy, LOCK_UN));
    CHECK(flock(other, LOCK_EX | LOCK_NB));
    CHECK(flock(fd, LOCK_SH | LOCK_NB));
    close(other);
    CHECK(flock(fd, LOCK_EX | LOCK_NB));
    CHECK(flock(fd, 0));
    CHECK(flock(fd, LOCK_SH | LOCK_EX));
    CHECK(flock(999, LOCK_SH));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        CHECK(flock(fd, LOCK_UN));
        _exit(0);
    }
    reap("child that shares the description", pid);
    other = (int)MUST(open("file", O_RDONLY));
    CHECK(flock(other, LOCK_EX | LOCK_NB));
}

int main(void)
{
    put_file("file", "0123456789");
    fd = (int)MUST(open("file", O_RDWR));
    posix();
    errors();
    waiting();
    ofd();
    whole_file();
    return 0;
}
