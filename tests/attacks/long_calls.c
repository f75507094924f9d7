/*
 * One system call that takes as long as a program can make it.
 *
 * Usage: long_calls NAME. It says "now" before the call, and "done" after it.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096L
#define RW (PROT_READ | PROT_WRITE)

static void *ok(void *result, const char *what)
{
	if (result == MAP_FAILED) {
		perror(what);
		exit(1);
	}
	return result;
}
#define MAP(...) ok(mmap(__VA_ARGS__), "mmap")

static void say(const char *word)
{
	if (write(1, word, strlen(word)) < 0)
		exit(1);
}

static void hole_by_hole(void) /* each is looked for in all mappings of the file */
{
	long count = 10000;
	int fd = memfd_create("pages", 0);
	if (ftruncate(fd, count * PAGE) < 0)
		exit(1);
	char *area = MAP(NULL, count * PAGE, RW, MAP_SHARED, fd, 0);
	for (long i = 0; i < count; i++) /* last first, so that no two are one */
		MAP(area + i * PAGE, PAGE, RW, MAP_SHARED | MAP_FIXED, fd, (count - 1 - i) * PAGE);
	say("now\n");
	madvise(area, count * PAGE, MADV_REMOVE);
}

static void populate(void) /* more than there is, of which the untouched is taken back */
{
	say("now\n");
	MAP(NULL, 1L << 40, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_POPULATE, -1, 0);
}

static void populate_for_writing(void)
{
	char *area =
		MAP(NULL, 1L << 40, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	say("now\n");
	madvise(area, 1L << 40, MADV_POPULATE_WRITE);
}

static void lock(void)
{
	char *area =
		MAP(NULL, 1L << 40, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	say("now\n");
	mlock(area, 1L << 40);
}

static const struct {
	const char *name;
	void (*call)(void);
} CALLS[] = {
	{"hole-by-hole", hole_by_hole},
	{"populate", populate},
	{"populate-for-writing", populate_for_writing},
	{"lock", lock},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof CALLS / sizeof CALLS[0]; i++)
		if (!strcmp(argv[1], CALLS[i].name)) {
			CALLS[i].call();
			say("done\n");
			return 0;
		}
	return 2;
}
