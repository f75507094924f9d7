/* Programs that take whatever they can get: `hogs WHAT`. Each takes until a call fails, says "refused
 * ERRNO-NAME COUNT", and holds what it has until it is killed or its standard input ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/random.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (1 << 20)

static long taken;

static void hold(void)
{
	char byte;

	while (read(0, &byte, 1) > 0 || errno == EINTR)
		;
	_exit(0);
}

/* The last thing it could not get. */
static void refused(void)
{
	char text[64]; /* without stdio, which may want memory */
	int length = snprintf(text, sizeof text, "refused %s %ld\n", strerrorname_np(errno), taken);

	if (write(1, text, length) == length)
		hold();
	_exit(2);
}

static void raise_limit(int resource)
{
	struct rlimit limit;

	getrlimit(resource, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(resource, &limit);
}

/* Memory. */

static void anonymous(void)
{
	for (;; taken++) {
		char *at = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (at == MAP_FAILED)
			refused();
		memset(at, 1, CHUNK);
	}
}

static void shared(void)
{
	for (;; taken++) {
		char *at = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

		if (at == MAP_FAILED)
			refused();
		memset(at, 1, CHUNK);
	}
}

static void fill(int fd) /* with a chunk, which may be written in part */
{
	static char zeros[CHUNK];
	long done = 0, written;

	while (done < CHUNK) {
		written = write(fd, zeros, CHUNK - done);
		if (written <= 0)
			refused();
		done += written;
	}
}

static void memfd(void)
{
	for (;; taken++) {
		int fd = memfd_create("hog", 0);

		if (fd < 0)
			refused();
		fill(fd);
	}
}

static void tmpfs(void)
{
	int fd = open("/dev/shm/hog", O_RDWR | O_CREAT, 0600);

	for (;; taken++)
		fill(fd);
}

static void stack_frame(int left)
{
	char area[1 << 16];

	memset(area, left, sizeof area);
	__asm__ volatile("" : : "r"(area) : "memory");
	if (left)
		stack_frame(left - 1);
	__asm__ volatile("" : : "r"(area) : "memory");
}

static void *stack_thread(void *argument)
{
	stack_frame(900);
	pause();
	return argument;
}

static void stack(void) /* threads that use the whole of their stacks */
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 << 20);
	for (; taken < 50; taken++) {
		errno = pthread_create(&thread, &attributes, stack_thread, NULL);
		if (errno)
			refused();
	}
	hold();
}

static void reserve(void) /* address space costs nothing, and can't be had without end */
{
	unsigned long size = 1UL << 46;

	for (;; taken++) {
		while (mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED) {
			if (size == 1 << 12)
				refused();
			size >>= 1;
		}
	}
}

static void remap(void)
{
	size_t size = CHUNK;
	char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (;; taken++) {
		at = mremap(at, size, 2 * size, MREMAP_MAYMOVE);
		if (at == MAP_FAILED)
			refused();
		memset(at + size, 1, size);
		size *= 2;
	}
}

static void vmas(void) /* every other page with other rights */
{
	long size = 1L << 33;
	char *at = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	for (long page = 0; page < size / 4096; page += 2, taken++)
		if (mprotect(at + page * 4096, 4096, PROT_NONE))
			refused();
}

static void page_tables(void) /* one page, mapped far apart by many processes */
{
	long apart = 2L << 20, count = 2000;
	int fd = memfd_create("page", 0);

	if (fd < 0 || ftruncate(fd, 4096) < 0)
		refused();
	for (;; taken++) {
		int ends[2];
		char byte;
		pid_t pid = pipe(ends) ? -1 : fork();

		if (pid < 0)
			refused();
		close(ends[!pid ? 0 : 1]);
		if (pid) { /* one after the other */
			(void)!read(ends[0], &byte, 1);
			continue;
		}
		char *at = mmap(NULL, count * apart, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		for (; count--; at += apart) {
			mmap(at, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
			*(volatile char *)at;
		}
		(void)!write(ends[1], "x", 1);
		hold();
	}
}

static void vmas_forked(void) /* and copied by many processes */
{
	long size = 1L << 33;
	char *at = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	for (long page = 0; page < 20000; page += 2)
		mprotect(at + page * 4096, 4096, PROT_NONE);
	for (;; taken++) {
		pid_t pid = fork();

		if (pid < 0)
			refused();
		if (!pid)
			hold();
	}
}

/* Tasks. */

static void forks(void)
{
	for (;; taken++) {
		pid_t pid = fork();

		if (pid < 0)
			refused();
		if (!pid)
			hold();
	}
}

static void *sleeper(void *argument)
{
	pause();
	return argument;
}

static void *waiter(void *argument)
{
	static int word;

	syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL);
	return argument;
}

static void many_threads(void *(*function)(void *))
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 1 << 14);
	for (;; taken++) {
		errno = pthread_create(&thread, &attributes, function, NULL);
		if (errno)
			refused();
	}
}

static void threads(void)
{
	many_threads(sleeper);
}

static void futexes(void)
{
	many_threads(waiter);
}

static void bomb(void)
{
	for (;;)
		if (fork() < 0)
			break;
	refused();
}

/* Descriptors, and what they hold. */

static void descriptors(void)
{
	raise_limit(RLIMIT_NOFILE);
	for (;; taken++)
		if (eventfd(0, 0) < 0)
			refused();
}

static void descriptors_forked(void) /* each of many processes with as many as it may have */
{
	for (;;) {
		pid_t pid = fork();

		if (pid < 0)
			refused();
		if (pid)
			hold();
		while (eventfd(0, 0) >= 0)
			taken++;
		if (errno != EMFILE)
			refused();
	}
}

static void high_descriptor(void)
{
	raise_limit(RLIMIT_NOFILE);
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (dup2(0, limit.rlim_cur - 1) < 0)
		refused();
	forks();
}

static void pipes(void)
{
	static char zeros[CHUNK];

	raise_limit(RLIMIT_NOFILE);
	for (;; taken++) {
		int fds[2];

		if (pipe2(fds, O_NONBLOCK))
			refused();
		fcntl(fds[1], F_SETPIPE_SZ, CHUNK);
		if (write(fds[1], zeros, CHUNK) < 0)
			refused();
	}
}

static void sockets(void)
{
	static char zeros[CHUNK];
	int size = 1 << 30;

	raise_limit(RLIMIT_NOFILE);
	for (;; taken++) {
		int fds[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds))
			refused();
		setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
		while (send(fds[0], zeros, sizeof zeros, 0) > 0)
			;
		if (errno != EAGAIN)
			refused();
	}
}

static void datagrams(void) /* many senders, small messages */
{
	struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0hog"};
	int receiver = socket(AF_UNIX, SOCK_DGRAM, 0);

	raise_limit(RLIMIT_NOFILE);
	bind(receiver, (struct sockaddr *)&name, 6);
	for (;; taken++) {
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair))
			refused();
		while (send(pair[0], "x", 1, 0) > 0)
			;
		if (errno != EAGAIN)
			refused();
		sendto(pair[0], "x", 1, MSG_DONTWAIT, (struct sockaddr *)&name, 6);
	}
}

static void in_flight(void) /* descriptors that only messages hold */
{
	int fds[2];
	struct iovec iov = {"x", 1};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * 2)];
	} control;
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
				 .msg_controllen = sizeof control};

	socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
	for (;; taken++) {
		int next[2];

		if (socketpair(AF_UNIX, SOCK_STREAM, 0, next))
			refused();
		control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int) * 2),
						  .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.header), fds, sizeof fds);
		if (sendmsg(next[0], &message, 0) < 0)
			refused();
		close(fds[0]);
		close(fds[1]);
		fds[0] = next[0];
		fds[1] = next[1];
	}
}

static void backlog(void)
{
	raise_limit(RLIMIT_NOFILE);
	for (;;) {
		struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
		socklen_t length = sizeof name;
		int listener = socket(AF_INET, SOCK_STREAM, 0);

		if (listener < 0 || bind(listener, (struct sockaddr *)&name, sizeof name)
		    || listen(listener, 4096) || getsockname(listener, (struct sockaddr *)&name, &length))
			refused();
		for (int i = 0; i < 4096; i++, taken++) {
			int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

			if (client < 0)
				refused();
			if (connect(client, (struct sockaddr *)&name, sizeof name) && errno != EINPROGRESS)
				refused();
			send(client, "hello", 5, 0);
			close(client);
		}
	}
}

static void epolls(void) /* 10^5 watches of few files */
{
	struct epoll_event event = {.events = EPOLLIN};

	raise_limit(RLIMIT_NOFILE);
	for (;;) {
		int fd = epoll_create1(0), files[100];

		if (fd < 0)
			refused();
		for (int i = 0; i < 100; i++) {
			files[i] = dup(0);
			if (files[i] < 0)
				refused();
			if (epoll_ctl(fd, EPOLL_CTL_ADD, files[i], &event) && errno == EPERM)
				files[i] = dup2(fd, files[i]);
			else
				taken++;
		}
		for (int i = 0; i < 100 && taken < 100000; i++)
			close(files[i]);
		if (taken >= 100000) {
			errno = 0;
			refused();
		}
	}
}

static void nesting(void)
{
	struct epoll_event event = {.events = EPOLLIN};
	int inner = epoll_create1(0);

	for (;; taken++) {
		int outer = epoll_create1(0);

		if (outer < 0 || epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event))
			refused();
		inner = outer;
	}
}

static void inotifies(void)
{
	raise_limit(RLIMIT_NOFILE);
	for (;;) {
		int fd = inotify_init1(0);

		if (fd < 0)
			refused();
		inotify_add_watch(fd, "/dev/shm", IN_ALL_EVENTS);
		for (int i = 0; i < 1000; i++, taken++) {
			char path[300];

			memset(path, 'n', sizeof path);
			sprintf(path + 220, "%d-%ld", getpid(), taken);
			memcpy(path, "/dev/shm/", 9);
			int file = open(path, O_RDWR | O_CREAT, 0600);

			if (file < 0 || unlink(path))
				refused();
			close(file);
		}
	}
}

static void timers(void)
{
	struct itimerspec often = {{0, 1000000}, {0, 1000000}};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	sigset_t set;

	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (;; taken++) {
		timer_t timer;

		if (timer_create(CLOCK_MONOTONIC, &event, &timer))
			refused();
		if (timer_settime(timer, 0, &often, NULL))
			refused();
	}
}

static void timerfds(void)
{
	struct itimerspec often = {{0, 1000000}, {0, 1000000}};

	raise_limit(RLIMIT_NOFILE);
	for (;; taken++) {
		int fd = timerfd_create(CLOCK_MONOTONIC, 0);

		if (fd < 0 || timerfd_settime(fd, 0, &often, NULL))
			refused();
	}
}

static void signals(void)
{
	sigset_t set;

	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise_limit(RLIMIT_SIGPENDING);
	for (;; taken++)
		if (sigqueue(getpid(), SIGRTMIN + taken % 30, (union sigval){0}))
			refused();
}

/* Names. */

static void inodes(void)
{
	char path[300];

	memset(path, 'n', sizeof path);
	memcpy(path, "/dev/shm/", 9);
	for (;; taken++) {
		sprintf(path + 240, "%023ld", taken);
		if (mknod(path, S_IFREG | 0600, 0))
			refused();
	}
}

static void attributes(void)
{
	static char value[60000];

	for (;; taken++) {
		char path[64];

		sprintf(path, "/dev/shm/%ld", taken);
		if (mknod(path, S_IFREG | 0600, 0) || setxattr(path, "user.x", value, sizeof value, 0))
			refused();
	}
}

static void depth(void)
{
	if (chdir("/dev/shm"))
		refused();
	for (;; taken++)
		if (mkdir("deep", 0700) || chdir("deep"))
			refused();
}

static void links(void)
{
	static char target[4000];

	memset(target, 'x', sizeof target - 1);
	for (;; taken++) {
		char path[64];

		sprintf(path, "/dev/shm/%ld", taken);
		if (symlink(target, path))
			refused();
	}
}

static void missing(void) /* names that are not there are remembered */
{
	for (; taken < 200000; taken++) {
		char path[64];

		sprintf(path, "/dev/shm/%ld", taken);
		access(path, F_OK);
	}
	errno = 0;
	refused();
}

/* Objects with a life of their own. */

static void messages(void)
{
	struct { long type; char text[1]; } message = {1, "x"};

	for (;;) {
		int queue = msgget(IPC_PRIVATE, 0600);

		if (queue < 0)
			refused();
		while (!msgsnd(queue, &message, 0, IPC_NOWAIT))
			taken++;
		if (errno != EAGAIN)
			refused();
	}
}

static void queues(void)
{
	raise_limit(RLIMIT_NOFILE);
	for (;; taken++) {
		char name[32], text[8192] = "x";
		struct mq_attr attr = {.mq_maxmsg = 10, .mq_msgsize = 8192};

		sprintf(name, "/hog-%ld", taken);
		mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_NONBLOCK, 0600, &attr);

		if (queue < 0)
			refused();
		while (!mq_send(queue, text, sizeof text, 0))
			;
	}
}

static void segments(void)
{
	for (;; taken++) {
		int id = shmget(IPC_PRIVATE, CHUNK, 0600);
		char *at = id < 0 ? (void *)-1 : shmat(id, NULL, 0);

		if (at == (void *)-1)
			refused();
		memset(at, 1, CHUNK);
	}
}

static void semaphores(void)
{
	for (;; taken++)
		if (semget(IPC_PRIVATE, 32000, 0600) < 0)
			refused();
}

static void locks(void)
{
	int fd = open("/dev/shm/locks", O_RDWR | O_CREAT, 0600);

	for (;; taken++) {
		struct flock lock = {.l_type = F_WRLCK, .l_start = taken * 2, .l_len = 1};

		if (fcntl(fd, F_SETLK, &lock))
			refused();
	}
}

static void arguments(void) /* as long as they may be, and longer */
{
	for (size_t count = 1;; count *= 2, taken++) {
		char **argv = calloc(count + 2, sizeof *argv), *word = malloc(100001);

		memset(word, 'a', 100000);
		word[100000] = 0;
		argv[0] = "/bin/true";
		for (size_t i = 1; i <= count; i++)
			argv[i] = word;
		pid_t pid = fork();

		if (!pid) {
			execve("/bin/true", argv, argv);
			_exit(errno);
		}
		int status;

		waitpid(pid, &status, 0);
		if (status) {
			errno = WEXITSTATUS(status);
			refused();
		}
	}
}

static void entropy(void) /* more than there may be, of memory that is mapped often */
{
	int pool = open("/dev/urandom", O_RDWR), fd = memfd_create("hog", 0);
	long size = 2047L * CHUNK;
	char *at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct rand_pool_info *info = (void *)at;

	if (ftruncate(fd, CHUNK))
		refused();
	for (long done = 0; done < size; done += CHUNK)
		if (mmap(at + done, CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
			refused();
	info->entropy_count = 0;
	info->buf_size = size - sizeof *info;
	ioctl(pool, RNDADDENTROPY, info);
	refused();
}

static void output(void)
{
	static char text[1 << 16];

	memset(text, 'o', sizeof text);
	for (long left = 4096; left; left--)
		if (write(1, text, sizeof text) < 0)
			break;
	_exit(0);
}

static void processor(void)
{
	for (;;)
		;
}

static void calls(void)
{
	for (;;)
		syscall(SYS_getppid);
}

static void listing(void) /* what a directory had, kept by many who read it */
{
	char names[4096];

	raise_limit(RLIMIT_NOFILE);
	for (int i = 0; i < 2000; i++) {
		char path[64];

		sprintf(path, "/dev/shm/%d", i);
		mknod(path, S_IFREG | 0600, 0);
	}
	for (;; taken++) {
		int fd = open("/dev/shm", O_RDONLY | O_DIRECTORY);

		if (fd < 0 || syscall(SYS_getdents64, fd, names, sizeof names) < 0)
			refused();
	}
}

static const struct {
	const char *name;
	void (*function)(void);
} hogs[] = {
#define HOG(name) {#name, name}
	HOG(anonymous), HOG(shared), HOG(memfd), HOG(tmpfs), HOG(stack), HOG(reserve), HOG(remap),
	HOG(vmas), HOG(page_tables), HOG(vmas_forked), HOG(forks), HOG(bomb), HOG(threads),
	HOG(descriptors),
	HOG(descriptors_forked), HOG(high_descriptor), HOG(pipes), HOG(sockets), HOG(datagrams),
	HOG(in_flight), HOG(backlog), HOG(epolls), HOG(nesting), HOG(inotifies), HOG(timers),
	HOG(timerfds), HOG(signals), HOG(inodes), HOG(attributes), HOG(depth), HOG(links),
	HOG(missing), HOG(messages), HOG(queues), HOG(segments), HOG(semaphores), HOG(locks),
	HOG(futexes), HOG(arguments), HOG(entropy), HOG(output), HOG(processor), HOG(calls), HOG(listing),
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof hogs / sizeof *hogs; i++)
		if (!strcmp(hogs[i].name, argv[1])) {
			errno = 0;
			hogs[i].function();
		}
	return 3;
}
