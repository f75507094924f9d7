/* Does one thing over and over: `flat WHAT WARM COUNT`. After WARM times it says "warm", waits for a
 * byte, does it COUNT times more, says "done" and waits again; who measures the kernel does so while
 * it waits. A call that fails ends it with status 1. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

static char *self;

static long ok(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
	return result;
}
#define OK(call) ok((long)(call), #call)

static void do_open(void) { close(OK(open("/etc/passwd", O_RDONLY))); }

static void do_opendir(void)
{
	char names[4096];
	int fd = OK(open("/usr", O_RDONLY | O_DIRECTORY));

	OK(syscall(SYS_getdents64, fd, names, sizeof names));
	close(fd);
}

static void do_proc(void)
{
	char text[4096];
	int fd = OK(open("/proc/self/status", O_RDONLY));

	OK(read(fd, text, sizeof text));
	close(fd);
}

static void do_missing(void)
{
	static int number;
	char path[64];

	sprintf(path, "/dev/shm/missing-%d", number++ % 1000);
	if (open(path, O_RDONLY) >= 0)
		exit(1);
}

static void do_create(void)
{
	static int number;
	char path[64];
	int fd;

	sprintf(path, "/dev/shm/file-%d", number++);
	fd = OK(open(path, O_RDWR | O_CREAT | O_EXCL, 0600));
	OK(write(fd, path, sizeof path));
	OK(close(fd));
	OK(unlink(path));
}

static void do_mkdir(void)
{
	static int number;
	char path[64];

	sprintf(path, "/dev/shm/dir-%d", number++);
	OK(mkdir(path, 0700));
	OK(symlink("x", "/dev/shm/link"));
	OK(rename("/dev/shm/link", "/dev/shm/link2"));
	OK(unlink("/dev/shm/link2"));
	OK(rmdir(path));
}

static void do_root(void) /* in the overlay */
{
	static int number;
	char path[64];

	sprintf(path, "/tmp/flat-%d-%d", getpid(), number++);
	close(OK(open(path, O_RDWR | O_CREAT | O_EXCL, 0600)));
	OK(unlink(path));
}

static void do_fork(void)
{
	pid_t pid = OK(fork());

	if (!pid)
		_exit(0);
	OK(waitpid(pid, NULL, 0));
}

static void do_exec(void)
{
	char *argv[] = {self, NULL};
	pid_t pid = OK(vfork());

	if (!pid) {
		execv(self, argv);
		_exit(1);
	}
	OK(waitpid(pid, NULL, 0));
}

static void *nothing(void *argument) { return argument; }

static void do_thread(void)
{
	pthread_t thread;

	OK(-pthread_create(&thread, NULL, nothing, NULL));
	OK(-pthread_join(thread, NULL));
}

static void do_session(void) /* its own, and a process group */
{
	pid_t pid = OK(fork());

	if (!pid) {
		setsid();
		_exit(0);
	}
	OK(waitpid(pid, NULL, 0));
}

static void do_mmap(void)
{
	char *at = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	OK(at == MAP_FAILED ? -1 : 0);
	at[0] = at[1 << 15] = 1;
	OK(mprotect(at + 4096, 4096, PROT_READ));
	OK(munmap(at, 1 << 16));
}

static void do_mmap_file(void)
{
	int fd = OK(open("/etc/passwd", O_RDONLY));
	char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

	OK(at == MAP_FAILED ? -1 : 0);
	at[0] = 1;
	close(fd);
	OK(munmap(at, 4096));
}

static void do_mmap_shared(void)
{
	char *at = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	OK(at == MAP_FAILED ? -1 : 0);
	at[0] = 1;
	OK(munmap(at, 1 << 16));
}

static void do_memfd(void)
{
	int fd = OK(memfd_create("x", 0));
	char *at;

	OK(ftruncate(fd, 8192));
	at = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	OK(at == MAP_FAILED ? -1 : 0);
	at[5000] = 1;
	OK(munmap(at, 8192));
	close(fd);
}

static void do_pipe(void)
{
	int fds[2];

	OK(pipe(fds));
	OK(write(fds[1], &fds, sizeof fds));
	close(fds[0]);
	close(fds[1]);
}

static void do_unix(void) /* with a descriptor in flight that nobody receives */
{
	int fds[2];
	struct msghdr message = {0};
	struct iovec iov = {fds, 4};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {{.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};

	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	memcpy(CMSG_DATA(&control.header), &fds[1], sizeof(int));
	message.msg_iov = &iov;
	message.msg_iovlen = 1;
	message.msg_control = &control;
	message.msg_controllen = sizeof control;
	OK(sendmsg(fds[0], &message, 0));
	close(fds[0]);
	close(fds[1]);
}

static void do_datagram(void)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0flat"};
	int fd = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
	int other = OK(socket(AF_UNIX, SOCK_DGRAM, 0));

	OK(bind(fd, (struct sockaddr *)&name, 8));
	OK(sendto(other, "x", 1, 0, (struct sockaddr *)&name, 8));
	close(other);
	close(fd);
}

static void do_tcp(void)
{
	struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t length = sizeof name;
	int listener = OK(socket(AF_INET, SOCK_STREAM, 0));
	int client = OK(socket(AF_INET, SOCK_STREAM, 0)), other = OK(socket(AF_INET, SOCK_STREAM, 0));
	int server;

	OK(bind(listener, (struct sockaddr *)&name, sizeof name));
	OK(listen(listener, 5));
	OK(getsockname(listener, (struct sockaddr *)&name, &length));
	OK(connect(client, (struct sockaddr *)&name, sizeof name));
	OK(connect(other, (struct sockaddr *)&name, sizeof name)); /* is never accepted */
	server = OK(accept(listener, NULL, NULL));
	OK(write(client, "hello", 5));
	close(server);
	close(client);
	close(other);
	close(listener);
}

static void do_udp(void)
{
	struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t length = sizeof name;
	int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));

	OK(bind(fd, (struct sockaddr *)&name, sizeof name));
	OK(getsockname(fd, (struct sockaddr *)&name, &length));
	OK(sendto(fd, "x", 1, 0, (struct sockaddr *)&name, sizeof name));
	close(fd);
}

static void do_epoll(void)
{
	struct epoll_event event = {.events = EPOLLIN};
	int fd = OK(epoll_create1(0)), inner = OK(epoll_create1(0)), counter = OK(eventfd(1, 0));

	OK(epoll_ctl(fd, EPOLL_CTL_ADD, counter, &event));
	OK(epoll_ctl(inner, EPOLL_CTL_ADD, counter, &event));
	OK(epoll_ctl(fd, EPOLL_CTL_ADD, inner, &event));
	OK(epoll_wait(fd, &event, 1, 0));
	close(counter);
	close(fd);
	close(inner);
}

static void do_timer(void)
{
	struct itimerspec soon = {.it_value = {1000, 0}, .it_interval = {1000, 0}};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	timer_t timer;
	int fd = OK(timerfd_create(CLOCK_MONOTONIC, 0));

	OK(timerfd_settime(fd, 0, &soon, NULL));
	close(fd);
	OK(timer_create(CLOCK_MONOTONIC, &event, &timer));
	OK(timer_settime(timer, 0, &soon, NULL));
	OK(timer_delete(timer));
}

static void do_poll(void) /* waits, with a timeout that does not pass, and one that does */
{
	struct timespec moment = {0, 1000};
	struct pollfd none;

	OK(ppoll(&none, 0, &moment, NULL));
}

static void handler(int number) { (void)number; }

static void do_signal(void)
{
	union sigval value = {.sival_int = 1};
	sigset_t set;
	int fd;

	signal(SIGUSR1, handler);
	raise(SIGUSR1);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	OK(sigqueue(getpid(), SIGRTMIN, value));
	fd = OK(signalfd(-1, &set, 0));
	OK(sigwaitinfo(&set, NULL));
	close(fd);
}

static void do_inotify(void)
{
	int fd = OK(inotify_init1(IN_NONBLOCK));

	OK(inotify_add_watch(fd, "/dev/shm", IN_ALL_EVENTS));
	do_create();
	close(fd);
}

static void do_lock(void)
{
	struct flock lock = {.l_type = F_WRLCK, .l_len = 10};
	int fd = OK(open("/dev/shm/lock", O_RDWR | O_CREAT, 0600));

	OK(flock(fd, LOCK_EX));
	OK(fcntl(fd, F_SETLK, &lock));
	close(fd);
	OK(unlink("/dev/shm/lock"));
}

static void do_ipc(void)
{
	struct { long type; char text[8]; } message = {1, "x"};
	struct sembuf up = {0, 1, SEM_UNDO};
	int queue = OK(msgget(IPC_PRIVATE, 0600)), set = OK(semget(IPC_PRIVATE, 2, 0600));
	int segment = OK(shmget(IPC_PRIVATE, 8192, 0600));
	char *at = shmat(segment, NULL, 0);

	at[0] = 1;
	OK(msgsnd(queue, &message, 8, 0));
	OK(semop(set, &up, 1));
	OK(msgctl(queue, IPC_RMID, NULL));
	OK(semctl(set, 0, IPC_RMID));
	OK(shmctl(segment, IPC_RMID, NULL));
	OK(shmdt(at));
}

static void do_mq(void)
{
	long attributes[8] = {0, 2, 64};
	int fd = OK(syscall(SYS_mq_open, "flat", O_RDWR | O_CREAT, 0600, attributes));

	OK(syscall(SYS_mq_timedsend, fd, "x", 1, 0, NULL));
	close(fd);
	OK(syscall(SYS_mq_unlink, "flat"));
}

static void do_pty(void)
{
	int fd = OK(posix_openpt(O_RDWR | O_NOCTTY));

	OK(write(fd, "x", 1));
	close(fd);
}

static void do_xattr(void)
{
	int fd = OK(open("/dev/shm/x", O_RDWR | O_CREAT, 0600));

	OK(syscall(SYS_fsetxattr, fd, "user.x", "value", 5, 0));
	close(fd);
	OK(unlink("/dev/shm/x"));
}

static void do_limits(void) { OK(kill(getpid(), 0)); OK(getppid()); }

static void do_fault(void) /* forks, and both sides write the memory that they share */
{
	static char area[1 << 16];
	pid_t pid = OK(fork());

	memset(area, 1, sizeof area);
	if (!pid)
		_exit(0);
	OK(waitpid(pid, NULL, 0));
}

static const struct {
	const char *name;
	void (*function)(void);
} actions[] = {
	{"open", do_open}, {"opendir", do_opendir}, {"proc", do_proc}, {"missing", do_missing},
	{"create", do_create}, {"mkdir", do_mkdir}, {"root", do_root}, {"fork", do_fork},
	{"exec", do_exec}, {"thread", do_thread}, {"session", do_session}, {"mmap", do_mmap},
	{"mmap-file", do_mmap_file}, {"mmap-shared", do_mmap_shared}, {"memfd", do_memfd},
	{"pipe", do_pipe}, {"unix", do_unix}, {"datagram", do_datagram}, {"tcp", do_tcp},
	{"udp", do_udp}, {"epoll", do_epoll}, {"timer", do_timer}, {"poll", do_poll},
	{"signal", do_signal}, {"inotify", do_inotify}, {"lock", do_lock}, {"ipc", do_ipc},
	{"mq", do_mq}, {"pty", do_pty}, {"xattr", do_xattr}, {"nothing", do_limits},
	{"fault", do_fault},
};

static void say_and_wait(const char *word)
{
	char byte;

	puts(word);
	fflush(stdout);
	if (read(0, &byte, 1) != 1)
		exit(2);
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 0; /* the program that do_exec starts */
	self = argv[0];
	for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
		if (!strcmp(actions[i].name, argv[1])) {
			for (long left = atol(argv[2]); left; left--)
				actions[i].function();
			say_and_wait("warm");
			for (long left = atol(argv[3]); left; left--)
				actions[i].function();
			say_and_wait("done");
			return 0;
		}
	return 3;
}
