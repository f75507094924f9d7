/* Two threads move much to one file at once: one after the other, whatever the order. write(2) */
#include "guest.h"

#include <pthread.h>

#define SIZE (24L << 20)

static int fd;
static char *letters[2];
static pthread_barrier_t start;

static void *at_the_start(void *letters)
{
    pthread_barrier_wait(&start);
    return (void *)pwrite(fd, letters, SIZE, 0);
}

static void *at_the_position(void *letters)
{
    pthread_barrier_wait(&start);
    return (void *)write(fd, letters, SIZE);
}

static void *truncating(void *unused UNUSED)
{
    pthread_barrier_wait(&start);
    return (void *)(long)ftruncate(fd, 0);
}

static void *reading(void *into)
{
    pthread_barrier_wait(&start);
    return (void *)read(fd, into, SIZE);
}

static void at_once(void *(*one)(void *), void *(*other)(void *))
{
    pthread_t threads[2];
    void *results[2];
    MUST(pthread_create(&threads[0], NULL, one, letters[0]));
    MUST(pthread_create(&threads[1], NULL, other, letters[1]));
    for (int i = 0; i < 2; i++) {
        MUST(pthread_join(threads[i], &results[i]));
        SHOW(results[i]);
    }
}

static bool same(const char *bytes, long size)
{
    return memcmp(bytes, bytes + 1, (size_t)size - 1) == 0;
}

static void new_file(int flags)
{
    fd = (int)MUST(open("file", O_RDWR | O_CREAT | O_TRUNC | flags, 0600));
    memset(letters[0], 'a', SIZE);
    memset(letters[1], 'b', SIZE);
}

static void show_halves(void)
{
    char *bytes = mmap(NULL, 2 * SIZE, PROT_READ, MAP_SHARED, fd, 0);
    SHOW(lseek(fd, 0, SEEK_END));
    SHOW(same(bytes, SIZE));
    SHOW(same(bytes + SIZE, SIZE));
    SHOW(bytes[0] != bytes[SIZE]);
    munmap(bytes, 2 * SIZE);
    close(fd);
}

int main(void)
{
    struct stat status;
    MUST(pthread_barrier_init(&start, NULL, 2));
    letters[0] = malloc(SIZE);
    letters[1] = malloc(SIZE);

    SECTION("writing the same bytes");
    new_file(0);
    at_once(at_the_start, at_the_start);
    char *bytes = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
    SHOW(same(bytes, SIZE));
    munmap(bytes, SIZE);
    close(fd);

    SECTION("writing at one position");
    new_file(0);
    at_once(at_the_position, at_the_position);
    SHOW(lseek(fd, 0, SEEK_CUR));
    show_halves();

    SECTION("appending");
    new_file(O_APPEND);
    at_once(at_the_start, at_the_position);
    show_halves();

    SECTION("reading at one position");
    new_file(0);
    MUST(write(fd, letters[0], SIZE));
    MUST(write(fd, letters[1], SIZE));
    MUST(lseek(fd, 0, SEEK_SET));
    at_once(reading, reading);
    SHOW(same(letters[0], SIZE));
    SHOW(same(letters[1], SIZE));
    SHOW(letters[0][0] != letters[1][0]);
    SHOW(lseek(fd, 0, SEEK_CUR));
    close(fd);

    SECTION("truncating meanwhile");
    new_file(0);
    at_once(at_the_start, truncating);
    MUST(fstat(fd, &status));
    say("%s", status.st_size == 0 || status.st_size == SIZE ? "whole or nothing" : "something else");
    close(fd);

    MUST(unlink("file"));
    return 0;
}
