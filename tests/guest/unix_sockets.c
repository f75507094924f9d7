/* unix(7): pairs, streams, datagrams, packets, names, descriptors and credentials that are passed. */
#include "guest.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static char buf[256];

static socklen_t name_of(struct sockaddr_un *address, const char *path, size_t length)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

static void pairs(void)
{
    SECTION("pairs");
    int pair[2];
    signal(SIGPIPE, SIG_IGN);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
    CHECK(fcntl(pair[0], F_GETFD));
    say("%#o", (unsigned)fcntl(pair[1], F_GETFL));
    CHECK(read(pair[0], buf, 1));
    CHECK(write(pair[0], "hello", 5));
    CHECK(send(pair[0], " world", 6, 0));
    CHECK(recv(pair[1], buf, 4, MSG_PEEK));
    CHECK(recv(pair[1], buf, sizeof buf, 0));
    show_bytes("stream", buf, 11);
    CHECK(send(pair[1], "back", 4, MSG_DONTWAIT));
    CHECK(recv(pair[0], buf, sizeof buf, MSG_DONTWAIT));
    CHECK(recv(pair[0], buf, sizeof buf, 0));
    CHECK(shutdown(pair[0], SHUT_WR));
    CHECK(write(pair[0], "x", 1));
    CHECK(read(pair[1], buf, 1));
    CHECK(write(pair[1], "still", 5));
    CHECK(read(pair[0], buf, sizeof buf));
    CHECK(shutdown(pair[0], 77));
    close(pair[0]);
    CHECK(write(pair[1], "x", 1));
    CHECK(send(pair[1], "x", 1, MSG_NOSIGNAL));
    CHECK(read(pair[1], buf, 1));
    CHECK(socketpair(AF_INET, SOCK_STREAM, 0, pair));
    CHECK(socketpair(AF_UNIX, 77, 0, pair));
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 5, pair));
    CHECK(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, 8));
    CHECK(socket(12345, SOCK_STREAM, 0));
    CHECK(socket(AF_UNIX, SOCK_RAW | 0x10000, 0));
}

static void boundaries(int type, const char *label)
{
    int pair[2];
    say("%s", label);
    MUST(socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, pair));
    CHECK(send(pair[0], "first", 5, 0));
    CHECK(send(pair[0], "", 0, 0));
    CHECK(send(pair[0], "third message", 13, 0));
    CHECK(recv(pair[1], buf, sizeof buf, 0));
    CHECK(recv(pair[1], buf, sizeof buf, 0));
    struct iovec vec = {buf, 5};
    struct msghdr message = {.msg_iov = &vec, .msg_iovlen = 1};
    CHECK(recvmsg(pair[1], &message, 0));
    SHOW(message.msg_flags == MSG_TRUNC);
    CHECK(recv(pair[1], buf, sizeof buf, 0));
    CHECK(send(pair[0], "truncated", 9, 0));
    CHECK(recv(pair[1], buf, 3, MSG_TRUNC));
    close(pair[0]);
    CHECK(recv(pair[1], buf, sizeof buf, 0));
    CHECK(send(pair[1], "x", 1, MSG_NOSIGNAL));
    close(pair[1]);
}

static void streams(void)
{
    SECTION("named streams");
    struct sockaddr_un address, peer;
    socklen_t length = name_of(&address, "socket", 7), peer_length = sizeof peer;
    int server = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    int client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    CHECK(accept(server, NULL, NULL));
    CHECK(listen(server, 1));
    CHECK(connect(client, (struct sockaddr *)&address, length));
    CHECK(bind(server, (struct sockaddr *)&address, length));
    CHECK(connect(client, (struct sockaddr *)&address, length));
    CHECK(listen(server, 5));
    CHECK(connect(client, (struct sockaddr *)&address, length));
    CHECK(connect(client, (struct sockaddr *)&address, length));
    int connection = (int)MUST(accept4(server, (struct sockaddr *)&peer, &peer_length, SOCK_CLOEXEC));
    SHOW(peer_length);
    CHECK(fcntl(connection, F_GETFD));
    CHECK(write(client, "request", 7));
    CHECK(read(connection, buf, sizeof buf));
    peer_length = sizeof peer;
    CHECK(getpeername(client, (struct sockaddr *)&peer, &peer_length));
    say("peer %s length %u", peer.sun_path, peer_length);
    peer_length = sizeof peer;
    CHECK(getsockname(connection, (struct sockaddr *)&peer, &peer_length));
    say("own %s length %u", peer.sun_path, peer_length);
    peer_length = sizeof peer;
    CHECK(getsockname(client, (struct sockaddr *)&peer, &peer_length));
    SHOW(peer_length);
    peer_length = 4;
    CHECK(getsockname(server, (struct sockaddr *)&peer, &peer_length));
    SHOW(peer_length);
    int second = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    CHECK(bind(second, (struct sockaddr *)&address, length));
    CHECK(getpeername(second, (struct sockaddr *)&peer, &peer_length));
    struct stat st;
    MUST(stat("socket", &st));
    say("type %o", st.st_mode & S_IFMT);
    CHECK(open("socket", O_RDWR));
    MUST(unlink("socket"));
    CHECK(connect(second, (struct sockaddr *)&address, length));
    put_file("file", "x");
    length = name_of(&address, "file", 5);
    CHECK(connect(second, (struct sockaddr *)&address, length));
    length = name_of(&address, "absent/socket", 14);
    CHECK(bind(second, (struct sockaddr *)&address, length));
    CHECK(bind(second, (struct sockaddr *)&address, 200));
    CHECK(bind(second, (struct sockaddr *)8, 10));
    address.sun_family = AF_INET;
    CHECK(bind(second, (struct sockaddr *)&address, 20));
    CHECK(connect(second, (struct sockaddr *)&address, 20));
    close(server);
    CHECK(write(connection, "after", 5));
    CHECK(read(client, buf, sizeof buf));
    close(connection);
    CHECK(read(client, buf, sizeof buf));
}

static void abstract(void)
{
    SECTION("abstract names");
    struct sockaddr_un address, other;
    socklen_t size = sizeof other;
    char name[64];
    int length = snprintf(name, sizeof name, "%cguest-%d", 0, getpid());
    socklen_t total = name_of(&address, name, (size_t)length);
    int server = (int)MUST(socket(AF_UNIX, SOCK_SEQPACKET, 0));
    CHECK(bind(server, (struct sockaddr *)&address, total));
    CHECK(listen(server, 5));
    int client = (int)MUST(socket(AF_UNIX, SOCK_SEQPACKET, 0));
    CHECK(connect(client, (struct sockaddr *)&address, total - 1));
    CHECK(connect(client, (struct sockaddr *)&address, total));
    int wrong = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
    CHECK(connect(wrong, (struct sockaddr *)&address, total));
    CHECK(bind(wrong, (struct sockaddr *)&address, total));
    close(server);
    CHECK(connect(wrong, (struct sockaddr *)&address, total));
    int automatic = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    CHECK(bind(automatic, (struct sockaddr *)&address, sizeof(sa_family_t)));
    CHECK(getsockname(automatic, (struct sockaddr *)&other, &size));
    SHOW(size);
    SHOW(other.sun_path[0]);
}

static void datagrams(void)
{
    SECTION("named datagrams");
    struct sockaddr_un one, two, from;
    socklen_t one_length = name_of(&one, "one", 4), two_length = name_of(&two, "two", 4);
    socklen_t size = sizeof from;
    int first = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    int second = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
    MUST(bind(first, (struct sockaddr *)&one, one_length));
    CHECK(send(second, "x", 1, 0));
    CHECK(sendto(second, "nameless", 8, 0, (struct sockaddr *)&one, one_length));
    CHECK(recvfrom(first, buf, sizeof buf, 0, (struct sockaddr *)&from, &size));
    SHOW(size);
    MUST(bind(second, (struct sockaddr *)&two, two_length));
    CHECK(sendto(second, "named", 5, 0, (struct sockaddr *)&one, one_length));
    size = sizeof from;
    CHECK(recvfrom(first, buf, sizeof buf, 0, (struct sockaddr *)&from, &size));
    say("from %s", from.sun_path);
    CHECK(connect(second, (struct sockaddr *)&one, one_length));
    CHECK(send(second, "connected", 9, 0));
    CHECK(recv(first, buf, sizeof buf, MSG_DONTWAIT));
    CHECK(recv(first, buf, sizeof buf, MSG_DONTWAIT));
    CHECK(listen(first, 1));
    CHECK(accept(first, NULL, NULL));
    MUST(unlink("one"));
    CHECK(sendto(second, "x", 1, 0, (struct sockaddr *)&one, one_length));
    CHECK(send(second, "x", 1, 0));
    close(first);
    CHECK(send(second, "x", 1, 0));
}

/* Send a descriptor, with or without credentials, over `fd`. */
static long pass(int fd, int passed)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec vec = {"f", 1};
    struct msghdr message = {.msg_iov = &vec, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &passed, sizeof passed);
    return sendmsg(fd, &message, 0);
}

/* Receive, print what came along, and return the descriptor, if any. */
static int take(int fd, int flags)
{
    char control[256] = {0};
    struct iovec vec = {buf, sizeof buf};
    struct msghdr message = {.msg_iov = &vec, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    int passed = -1;
    CHECK(recvmsg(fd, &message, flags));
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_type == SCM_RIGHTS) {
            memcpy(&passed, CMSG_DATA(header), sizeof passed);
            say("descriptors: %zu", (header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        } else if (header->cmsg_type == SCM_CREDENTIALS) {
            struct ucred credentials;
            memcpy(&credentials, CMSG_DATA(header), sizeof credentials);
            say("credentials: pid %d uid %d gid %d", credentials.pid == getpid(),
                credentials.uid == getuid(), credentials.gid == getgid());
        }
    }
    return passed;
}

static void ancillary(void)
{
    SECTION("descriptors and credentials");
    int pair[2], fds[2], on = 1;
    struct ucred credentials;
    socklen_t size = sizeof credentials;
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    MUST(pipe(fds));
    CHECK(pass(pair[0], fds[0]));
    close(fds[0]);
    int received = take(pair[1], 0);
    MUST(write(fds[1], "through", 7));
    CHECK(read(received, buf, sizeof buf));
    CHECK(fcntl(received, F_GETFD));
    close(received);
    CHECK(pass(pair[0], fds[1]));
    received = take(pair[1], MSG_CMSG_CLOEXEC);
    CHECK(fcntl(received, F_GETFD));
    CHECK(pass(pair[0], 999));
    CHECK(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    CHECK(send(pair[0], "c", 1, 0));
    take(pair[1], 0);
    CHECK(getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &credentials, &size));
    SHOW(credentials.pid == getpid() && credentials.uid == getuid());
    CHECK(pass(pair[0], pair[0]));
    close(pair[0]);
    close(pair[1]);
    say("a socket in its own queue was closed");
}

/* Descriptors whose numbers can't be stored do not come, and what does not take any keeps none. */
static void lost_descriptors(void)
{
    SECTION("descriptors that get lost");
    int pair[2], fds[2];
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec vec = {"f", 1};
    struct msghdr message = {.msg_iov = &vec, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    void *read_only = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    MUST(pipe2(fds, O_NONBLOCK));
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fds[1], sizeof(int));
    CHECK(sendmsg(pair[0], &message, MSG_OOB));
    CHECK(pass(pair[0], fds[1]));
    message.msg_control = read_only;
    vec.iov_base = buf;
    CHECK(recvmsg(pair[1], &message, 0));
    SHOW(message.msg_flags == MSG_CTRUNC);
    CHECK(read(fds[0], buf, sizeof buf));
    close(fds[1]);
    CHECK(read(fds[0], buf, sizeof buf));
    int next = dup(0);
    SHOW(next == fds[1]);
    close(next);
    close(fds[0]);
    close(pair[0]);
    close(pair[1]);
}

static void between_processes(void)
{
    SECTION("between processes");
    int pair[2];
    static char block[300000];
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        close(pair[0]);
        CHECK(write(pair[1], block, sizeof block));
        _exit(0);
    }
    close(pair[1]);
    long total = 0, got;
    while ((got = read(pair[0], block, 10000)) > 0)
        total += got;
    reap("writer", pid);
    SHOW(total);
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    pid = (pid_t)MUST(fork());
    if (pid == 0) {
        for (int i = 0; i < 3; i++)
            MUST(write(pair[1], "1234", 4));
        _exit(0);
    }
    CHECK(recv(pair[0], buf, 12, MSG_WAITALL));
    reap("three writes", pid);
}

static void options(void)
{
    SECTION("options");
    int pair[2], value = -1;
    socklen_t size = sizeof value;
    struct timeval timeout = {0, 2000};
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    CHECK(getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &value, &size));
    SHOW(value == SOCK_STREAM);
    CHECK(getsockopt(pair[0], SOL_SOCKET, SO_DOMAIN, &value, &size));
    SHOW(value == AF_UNIX);
    CHECK(getsockopt(pair[0], SOL_SOCKET, SO_ERROR, &value, &size));
    SHOW(value);
    CHECK(getsockopt(pair[0], SOL_SOCKET, SO_ACCEPTCONN, &value, &size));
    SHOW(value);
    CHECK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout));
    CHECK(read(pair[0], buf, 1));
    CHECK(getsockopt(pair[0], SOL_SOCKET, 12345, &value, &size));
    CHECK(setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &value, 1));
    CHECK(setsockopt(999, SOL_SOCKET, SO_PASSCRED, &value, 4));
    CHECK(setsockopt(0, SOL_SOCKET, SO_PASSCRED, &value, 4));
    CHECK(send(0, "x", 1, 0));
    CHECK(ioctl(pair[0], FIONREAD, &value));
    SHOW(value);
    CHECK(lseek(pair[0], 0, SEEK_SET));
    CHECK(syscall(SYS_sendto, pair[0], 8, 10, 0, NULL, 0));
    CHECK(syscall(SYS_sendmsg, pair[0], 8, 0));
    CHECK(syscall(SYS_recvmsg, pair[0], 8, 0));
}

static void batches(void)
{
    SECTION("sendmmsg and recvmmsg");
    int pair[2];
    char in[3][16];
    struct mmsghdr messages[3];
    struct iovec out_vec[3] = {{"one", 3}, {"three", 5}, {"x", 1}}, in_vec[3];
    MUST(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair));
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < 3; i++) {
        messages[i].msg_hdr.msg_iov = &out_vec[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        in_vec[i] = (struct iovec){in[i], sizeof in[i]};
    }
    CHECK(sendmmsg(pair[0], messages, 3, 0));
    for (int i = 0; i < 3; i++)
        messages[i].msg_hdr.msg_iov = &in_vec[i];
    CHECK(recvmmsg(pair[1], messages, 3, 0, NULL));
    say("lengths %u %u %u", messages[0].msg_len, messages[1].msg_len, messages[2].msg_len);
    CHECK(recvmmsg(pair[1], messages, 3, 0, NULL));
    CHECK(sendmmsg(pair[0], messages, 0, 0));
}

int main(void)
{
    pairs();
    SECTION("message boundaries");
    boundaries(SOCK_DGRAM, "datagrams");
    boundaries(SOCK_SEQPACKET, "packets");
    streams();
    abstract();
    datagrams();
    ancillary();
    lost_descriptors();
    between_processes();
    options();
    batches();
    return 0;
}
