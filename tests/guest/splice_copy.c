/* splice(2), tee(2), vmsplice(2), sendfile(2), copy_file_range(2). */
#include "guest.h"
#include <sys/sendfile.h>
#include <sys/uio.h>

static int in, out, fds[2];

static void sendfiles(void)
{
    SECTION("sendfile");
    off_t offset = 4;
    CHECK(sendfile(out, in, &offset, 6));
    SHOW(offset);
    CHECK(lseek(in, 0, SEEK_CUR));
    CHECK(sendfile(out, in, NULL, 5));
    CHECK(lseek(in, 0, SEEK_CUR));
    show_file("out");
    CHECK(sendfile(out, in, NULL, 1000));
    CHECK(sendfile(out, in, NULL, 1000));
    CHECK(sendfile(out, in, NULL, 0));
    offset = -1;
    CHECK(sendfile(out, in, &offset, 5));
    CHECK(sendfile(in, out, NULL, 5));
    CHECK(sendfile(999, in, NULL, 5));
    CHECK(sendfile(out, 999, NULL, 5));
    CHECK(sendfile(out, fds[0], NULL, 5));
    CHECK(syscall(SYS_sendfile, out, in, 8, 5));
    MUST(lseek(in, 0, SEEK_SET));
    CHECK(sendfile(fds[1], in, NULL, 5));
    char buf[16];
    CHECK(read(fds[0], buf, sizeof buf));
    show_bytes("through the pipe", buf, 5);
}

static void splices(void)
{
    SECTION("splice and tee");
    char buf[32];
    int second[2];
    loff_t offset = 10;
    MUST(pipe(second));
    CHECK(splice(in, &offset, fds[1], NULL, 6, 0));
    SHOW(offset);
    CHECK(tee(fds[0], second[1], 4, 0));
    CHECK(read(second[0], buf, sizeof buf));
    show_bytes("tee", buf, 4);
    MUST(ftruncate(out, 0));
    offset = 2;
    CHECK(splice(fds[0], NULL, out, &offset, 100, 0));
    SHOW(offset);
    show_file("out");
    CHECK(splice(in, NULL, out, NULL, 5, 0));
    CHECK(splice(fds[0], &offset, out, NULL, 5, 0));
    CHECK(splice(fds[0], NULL, out, NULL, 5, SPLICE_F_NONBLOCK));
    CHECK(tee(fds[0], second[1], 5, SPLICE_F_NONBLOCK));
    CHECK(tee(in, second[1], 5, 0));
    CHECK(splice(999, NULL, fds[1], NULL, 5, 0));
    CHECK(splice(in, NULL, fds[1], NULL, 5, 0x100));
    CHECK(splice(fds[0], NULL, fds[1], NULL, 5, 0));
    struct iovec vec[] = {{"from", 4}, {" memory", 7}};
    CHECK(vmsplice(fds[1], vec, 2, 0));
    CHECK(splice(fds[0], NULL, second[1], NULL, 8, 0));
    CHECK(read(second[0], buf, sizeof buf));
    show_bytes("pipe to pipe", buf, 8);
    CHECK(read(fds[0], buf, sizeof buf));
    show_bytes("left", buf, 3);
}

static void copies(void)
{
    SECTION("copy_file_range");
    loff_t from = 2, to = 0;
    MUST(ftruncate(out, 0));
    MUST(lseek(in, 0, SEEK_SET));
    MUST(lseek(out, 0, SEEK_SET));
    CHECK(copy_file_range(in, &from, out, &to, 5, 0));
    SHOW(from);
    SHOW(to);
    CHECK(lseek(in, 0, SEEK_CUR));
    CHECK(copy_file_range(in, NULL, out, NULL, 4, 0));
    show_file("out");
    CHECK(copy_file_range(in, NULL, out, NULL, 1000, 0));
    CHECK(copy_file_range(in, NULL, out, NULL, 1000, 0));
    CHECK(copy_file_range(in, NULL, out, NULL, 10, 1));
    from = 0;
    to = 3;
    CHECK(copy_file_range(in, &from, in, &to, 5, 0));
    CHECK(copy_file_range(fds[0], NULL, out, NULL, 10, 0));
    CHECK(copy_file_range(999, NULL, out, NULL, 10, 0));
    CHECK(copy_file_range(MUST(open(".", O_RDONLY)), NULL, out, NULL, 10, 0));
    int both = (int)MUST(open("in", O_RDWR));
    from = 0;
    to = 20;
    CHECK(copy_file_range(both, &from, both, &to, 5, 0));
    from = 0;
    to = 3;
    CHECK(copy_file_range(both, &from, both, &to, 5, 0));
    show_file("in");
}

int main(void)
{
    put_file("in", "abcdefghijklmnopqrst");
    put_file("out", "");
    in = (int)MUST(open("in", O_RDONLY));
    out = (int)MUST(open("out", O_RDWR));
    MUST(pipe(fds));
    sendfiles();
    splices();
    copies();
    return 0;
}
