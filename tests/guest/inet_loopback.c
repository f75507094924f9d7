/* ip(7), tcp(7), udp(7) over the loopback: connections, datagrams, options, refusals. */
#include "guest.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static char buf[256];

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static struct sockaddr_in bound(int fd)
{
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    MUST(bind(fd, (struct sockaddr *)&address, sizeof address));
    MUST(getsockname(fd, (struct sockaddr *)&address, &size));
    return address;
}

static void tcp(void)
{
    SECTION("TCP");
    int on = 1, value = -1;
    socklen_t size;
    signal(SIGPIPE, SIG_IGN);
    int server = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    CHECK(setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    struct sockaddr_in address = bound(server), peer;
    SHOW(ntohs(address.sin_port) > 0);
    int client = (int)MUST(socket(AF_INET, SOCK_STREAM, IPPROTO_TCP));
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address));
    CHECK(accept(server, NULL, NULL));
    CHECK(listen(server, 10));
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address));
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address));
    size = sizeof peer;
    int connection = (int)MUST(accept(server, (struct sockaddr *)&peer, &size));
    SHOW(peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    struct sockaddr_in own;
    size = sizeof own;
    CHECK(getsockname(client, (struct sockaddr *)&own, &size));
    SHOW(own.sin_port == peer.sin_port);
    size = sizeof own;
    CHECK(getpeername(client, (struct sockaddr *)&own, &size));
    SHOW(own.sin_port == address.sin_port);
    CHECK(write(client, "request", 7));
    CHECK(recv(connection, buf, sizeof buf, 0));
    CHECK(send(connection, "an answer", 9, 0));
    CHECK(recv(client, buf, 9, MSG_WAITALL));
    show_bytes("answer", buf, 9);
    CHECK(recv(client, buf, 1, MSG_DONTWAIT));
    CHECK(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    size = sizeof value;
    CHECK(getsockopt(client, IPPROTO_TCP, TCP_NODELAY, &value, &size));
    SHOW(value);
    CHECK(setsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on));
    CHECK(getsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &value, &size));
    SHOW(value);
    CHECK(getsockopt(server, SOL_SOCKET, SO_ACCEPTCONN, &value, &size));
    SHOW(value);
    CHECK(shutdown(client, SHUT_WR));
    CHECK(recv(connection, buf, sizeof buf, 0));
    CHECK(write(client, "x", 1));
    CHECK(write(connection, "late", 4));
    CHECK(recv(client, buf, 4, MSG_WAITALL));
    CHECK(close(connection));
    CHECK(recv(client, buf, 1, 0));
    int second = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    CHECK(bind(second, (struct sockaddr *)&address, sizeof address));
    close(server);
    CHECK(connect(second, (struct sockaddr *)&address, sizeof address));
    int unconnected = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    CHECK(read(unconnected, buf, 1));
    CHECK(write(unconnected, buf, 1));
    CHECK(shutdown(unconnected, SHUT_RD));
    CHECK(getpeername(unconnected, (struct sockaddr *)&own, &size));
}

static void nonblocking(void)
{
    SECTION("non-blocking connect");
    int server = (int)MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)), value = -1;
    socklen_t size = sizeof value;
    struct sockaddr_in address = bound(server);
    MUST(listen(server, 1));
    CHECK(accept(server, NULL, NULL));
    int client = (int)MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address));
    struct pollfd entry = {client, POLLOUT, 0};
    CHECK(poll(&entry, 1, -1));
    SHOW(entry.revents);
    CHECK(getsockopt(client, SOL_SOCKET, SO_ERROR, &value, &size));
    SHOW(value);
    entry = (struct pollfd){server, POLLIN, 0};
    CHECK(poll(&entry, 1, -1));
    SHOW(accept4(server, NULL, NULL, SOCK_NONBLOCK) >= 0);
    close(server);
    client = (int)MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    SHOW(connect(client, (struct sockaddr *)&address, sizeof address));
    entry = (struct pollfd){client, POLLOUT, 0};
    CHECK(poll(&entry, 1, -1));
    SHOW((entry.revents & POLLERR) != 0);
}

static void transfer(void)
{
    SECTION("a megabyte");
    static char block[65536];
    int server = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in address = bound(server);
    MUST(listen(server, 1));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        int client = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
        MUST(connect(client, (struct sockaddr *)&address, sizeof address));
        for (int i = 0; i < 16; i++) {
            memset(block, 'a' + i, sizeof block);
            size_t sent = 0;
            while (sent < sizeof block)
                sent += (size_t)MUST(send(client, block + sent, sizeof block - sent, 0));
        }
        _exit(0);
    }
    int connection = (int)MUST(accept(server, NULL, NULL));
    long total = 0, got;
    unsigned long sum = 0;
    while ((got = recv(connection, block, sizeof block, 0)) > 0) {
        for (long i = 0; i < got; i++)
            sum += (unsigned char)block[i] * (unsigned long)((total + i) % 7 + 1);
        total += got;
    }
    reap("sender", pid);
    SHOW(total);
    SHOW(sum);
}

static void udp(void)
{
    SECTION("UDP");
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    int one = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0)), two = (int)MUST(socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in first = bound(one), second = bound(two);
    CHECK(sendto(two, "datagram", 8, 0, (struct sockaddr *)&first, sizeof first));
    CHECK(recvfrom(one, buf, sizeof buf, 0, (struct sockaddr *)&from, &size));
    SHOW(from.sin_port == second.sin_port);
    CHECK(sendto(two, "", 0, 0, (struct sockaddr *)&first, sizeof first));
    CHECK(recv(one, buf, sizeof buf, 0));
    CHECK(recv(one, buf, sizeof buf, MSG_DONTWAIT));
    CHECK(sendto(two, "0123456789", 10, 0, (struct sockaddr *)&first, sizeof first));
    CHECK(recv(one, buf, 4, MSG_TRUNC));
    CHECK(send(two, "x", 1, 0));
    CHECK(connect(two, (struct sockaddr *)&first, sizeof first));
    CHECK(send(two, "connected", 9, 0));
    CHECK(recv(one, buf, sizeof buf, 0));
    CHECK(write(two, "written", 7));
    CHECK(read(one, buf, sizeof buf));
    CHECK(sendto(one, buf, 65508, 0, (struct sockaddr *)&second, sizeof second));
    CHECK(listen(one, 1));
    CHECK(bind(one, (struct sockaddr *)&first, sizeof first));
    close(one);
    CHECK(send(two, "to nobody", 9, 0));
    struct pollfd entry = {two, POLLIN, 0};
    CHECK(poll(&entry, 1, -1));
    CHECK(recv(two, buf, sizeof buf, 0));
}

static void errors(void)
{
    SECTION("errors");
    int fd = (int)MUST(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in address = loopback(0), foreign = loopback(0);
    struct sockaddr unspecified = {.sa_family = AF_UNSPEC};
    foreign.sin_addr.s_addr = htonl(0xc0000201);
    CHECK(bind(fd, (struct sockaddr *)&address, 4));
    CHECK(bind(fd, (struct sockaddr *)&foreign, sizeof foreign));
    address.sin_family = 77;
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address));
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address));
    CHECK(connect(fd, (struct sockaddr *)&address, 1));
    CHECK(connect(fd, &unspecified, sizeof unspecified));
    CHECK(connect(fd, (struct sockaddr *)8, sizeof address));
    CHECK(connect(0, (struct sockaddr *)&address, sizeof address));
    CHECK(connect(999, (struct sockaddr *)&address, sizeof address));
    CHECK(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
    CHECK(socket(AF_INET, 77, 0));
    CHECK(getsockopt(fd, IPPROTO_TCP, 12345, buf, &(socklen_t){4}));
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, buf, 1));
    CHECK(getsockopt(fd, SOL_SOCKET, SO_TYPE, (void *)8, &(socklen_t){4}));
    CHECK(syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, buf, 8));
}

static void ipv6(void)
{
    SECTION("IPv6");
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t size = sizeof address;
    int server = socket(AF_INET6, SOCK_STREAM, 0);
    if (server == -1 || bind(server, (struct sockaddr *)&address, sizeof address) == -1) {
        skip("this host has no IPv6 loopback");
        return;
    }
    MUST(getsockname(server, (struct sockaddr *)&address, &size));
    MUST(listen(server, 1));
    int client = (int)MUST(socket(AF_INET6, SOCK_STREAM, 0));
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address));
    int connection = (int)MUST(accept(server, NULL, NULL));
    CHECK(write(connection, "six", 3));
    CHECK(read(client, buf, sizeof buf));
}

int main(void)
{
    tcp();
    nonblocking();
    transfer();
    udp();
    errors();
    ipv6();
    return 0;
}
