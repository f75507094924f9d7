/* pty(7), termios(3), tty_ioctl(2): a pseudo-terminal pair, modes, line discipline, job control. */
#include "guest.h"
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

static int master, slave;
static char buf[256];

static void pair(void)
{
    SECTION("pair");
    int number = -1, locked = -1;
    master = (int)MUST(open("/dev/ptmx", O_RDWR | O_NOCTTY));
    CHECK(ioctl(master, TIOCGPTN, &number));
    CHECK(ioctl(master, TIOCGPTLCK, &locked));
    SHOW(locked);
    char name[64];
    CHECK(grantpt(master));
    SHOW(ptsname_r(master, name, sizeof name));
    CHECK(open(name, O_RDWR | O_NOCTTY));
    CHECK(unlockpt(master));
    slave = (int)MUST(open(name, O_RDWR | O_NOCTTY));
    CHECK(isatty(slave));
    CHECK(isatty(master));
    struct stat st;
    MUST(fstat(slave, &st));
    say("type %o owned %d", st.st_mode & S_IFMT, st.st_uid == getuid());
}

static void discipline(void)
{
    SECTION("line discipline");
    int count = -1;
    struct termios termios;
    CHECK(tcgetattr(slave, &termios));
    say("i %o o %o c %o l %o", termios.c_iflag, termios.c_oflag, termios.c_cflag & CSIZE,
        termios.c_lflag);
    CHECK(write(master, "hello\n", 6));
    CHECK(read(slave, buf, sizeof buf));
    show_bytes("line", buf, 6);
    CHECK(read(master, buf, sizeof buf));
    show_bytes("echo", buf, 7);
    CHECK(write(slave, "out\n", 4));
    CHECK(read(master, buf, sizeof buf));
    show_bytes("output", buf, 5);
    CHECK(write(master, "abc\177d\n", 6));
    CHECK(read(slave, buf, sizeof buf));
    show_bytes("erased", buf, 4);
    MUST(read(master, buf, sizeof buf));
    CHECK(write(master, "part", 4));
    struct pollfd entry = {slave, POLLIN, 0};
    CHECK(poll(&entry, 1, 0));
    CHECK(write(master, "\4", 1));
    CHECK(read(slave, buf, sizeof buf));
    CHECK(write(master, "\4", 1));
    CHECK(read(slave, buf, sizeof buf));
    termios.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    termios.c_cc[VMIN] = 1;
    termios.c_cc[VTIME] = 0;
    CHECK(tcsetattr(slave, TCSADRAIN, &termios));
    MUST(read(master, buf, sizeof buf));
    CHECK(write(master, "x", 1));
    CHECK(poll(&entry, 1, -1));
    CHECK(ioctl(slave, FIONREAD, &count));
    SHOW(count);
    CHECK(read(slave, buf, sizeof buf));
    cfmakeraw(&termios);
    CHECK(tcsetattr(slave, TCSAFLUSH, &termios));
    CHECK(write(slave, "raw\n", 4));
    CHECK(read(master, buf, sizeof buf));
}

static void sizes(void)
{
    SECTION("window size");
    struct winsize size = {25, 80, 0, 0}, got = {9, 9, 9, 9};
    CHECK(ioctl(slave, TIOCGWINSZ, &got));
    say("%u x %u", got.ws_row, got.ws_col);
    CHECK(ioctl(master, TIOCSWINSZ, &size));
    CHECK(ioctl(slave, TIOCGWINSZ, &got));
    say("%u x %u", got.ws_row, got.ws_col);
}

static void controlling(void)
{
    struct termios termios;
    int number = -1;
    MUST(setsid());
    CHECK(tcgetpgrp(slave));
    CHECK(ioctl(slave, TIOCSCTTY, 0));
    SHOW(tcgetpgrp(slave) == getpgrp());
    SHOW(tcgetsid(slave) == getpid());
    int tty = (int)MUST(open("/dev/tty", O_RDWR));
    MUST(tcgetattr(slave, &termios));
    termios.c_lflag |= ISIG | ICANON;
    MUST(tcsetattr(slave, TCSANOW, &termios));
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGHUP, SIG_IGN);
    MUST(write(master, "\3", 1));
    SHOW(sigwaitinfo(&set, NULL) == SIGINT);
    struct winsize size = {10, 20, 0, 0};
    MUST(ioctl(master, TIOCSWINSZ, &size));
    SHOW(sigwaitinfo(&set, NULL) == SIGWINCH);
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        setpgid(0, 0);
        char byte;
        read(tty, &byte, 1) ? (void)0 : (void)0;
        _exit(7);
    }
    setpgid(pid, pid);
    int status;
    SHOW(waitpid(pid, &status, WUNTRACED) == pid);
    show_status("background read", status);
    CHECK(tcsetpgrp(tty, pid));
    SHOW(tcgetpgrp(tty) == pid);
    MUST(write(master, "x\n", 2));
    kill(pid, SIGCONT);
    reap("foreground read", pid);
    signal(SIGTTOU, SIG_IGN);
    CHECK(tcsetpgrp(tty, getpgrp()));
    CHECK(tcsetpgrp(tty, 1 << 29));
    CHECK(ioctl(tty, TIOCNOTTY));
    CHECK(ioctl(slave, TIOCGPGRP, &number));
    CHECK(open("/dev/tty", O_RDWR));
}

static void hanging_up(void)
{
    SECTION("hanging up");
    struct pollfd entry = {master, POLLIN, 0};
    close(slave);
    CHECK(poll(&entry, 1, -1));
    SHOW(entry.revents & POLLHUP);
    CHECK(read(master, buf, sizeof buf));
}

int main(void)
{
    if (access("/dev/ptmx", R_OK | W_OK) == -1) {
        SECTION("pair");
        skip("this host gives no pseudo-terminals");
        return 0;
    }
    pair();
    discipline();
    sizes();
    SECTION("controlling terminal");
    in_child("controlling", controlling);
    hanging_up();
    return 0;
}
