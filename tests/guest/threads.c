/* Threads: mutex, condition variable, barrier, rwlock, semaphore, TLS, stacks, cancellation, many. */
#include "guest.h"
#include <pthread.h>
#include <semaphore.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static sem_t semaphore;
static long counter;
static int turn;
static __thread int local = 5;

static void *count(void *argument UNUSED)
{
    for (int i = 0; i < 10000; i++) {
        pthread_mutex_lock(&mutex);
        counter++;
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void *take_turns(void *argument)
{
    int me = (int)(intptr_t)argument;
    for (int i = 0; i < 5; i++) {
        pthread_mutex_lock(&mutex);
        while (turn % 3 != me)
            pthread_cond_wait(&condition, &mutex);
        say("turn %d: thread %d", turn, me);
        turn++;
        pthread_cond_broadcast(&condition);
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void *meet(void *argument UNUSED)
{
    intptr_t serial = 0;
    for (int i = 0; i < 20; i++)
        serial += pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD;
    return (void *)serial;
}

static void *thread_local(void *argument)
{
    local += (int)(intptr_t)argument;
    errno = (int)(intptr_t)argument;
    sched_yield();
    return (void *)(intptr_t)(local * 1000 + errno);
}

static void *write_under_lock(void *argument UNUSED)
{
    for (int i = 0; i < 200; i++) {
        pthread_rwlock_wrlock(&rwlock);
        counter++;
        pthread_rwlock_unlock(&rwlock);
        pthread_rwlock_rdlock(&rwlock);
        pthread_rwlock_unlock(&rwlock);
    }
    return NULL;
}

static void *produce(void *argument UNUSED)
{
    for (int i = 0; i < 50; i++)
        sem_post(&semaphore);
    return NULL;
}

static void *block(void *argument UNUSED)
{
    for (;;)
        pause();
    return NULL;
}

static void *deep(void *argument UNUSED)
{
    volatile char stack[512 * 1024];
    for (size_t i = 0; i < sizeof stack; i += PAGE)
        stack[i] = (char)i;
    return (void *)(intptr_t)(stack[PAGE] == 0);
}

static intptr_t run(int threads, void *(*function)(void *))
{
    pthread_t ids[32];
    intptr_t sum = 0;
    for (int i = 0; i < threads; i++)
        pthread_create(&ids[i], NULL, function, (void *)(intptr_t)i);
    for (int i = 0; i < threads; i++) {
        void *result;
        pthread_join(ids[i], &result);
        sum += (intptr_t)result;
    }
    return sum;
}

static void expires(void)
{
    SECTION("timed");
    struct timespec past = {1, 0};
    pthread_mutex_lock(&mutex);
    CODE(pthread_mutex_timedlock(&mutex, &past));
    CODE(pthread_cond_timedwait(&condition, &mutex, &past));
    CODE(pthread_mutex_trylock(&mutex));
    pthread_mutex_unlock(&mutex);
    CHECK(sem_timedwait(&semaphore, &past));
}

static void priority_inheritance(void)
{
    SECTION("priority inheritance");
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    CODE(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT));
    CODE(pthread_mutex_init(&mutex, &attributes));
    counter = 0;
    run(4, count);
    SHOW(counter);
    pthread_mutex_init(&mutex, NULL);
}

int main(void)
{
    void *result;
    pthread_t thread;
    SECTION("mutex");
    run(4, count);
    SHOW(counter);
    SECTION("condition");
    run(3, take_turns);
    SECTION("barrier");
    pthread_barrier_init(&barrier, NULL, 6);
    SHOW(run(6, meet));
    SECTION("thread-local storage");
    SHOW(run(10, thread_local));
    SHOW(local);
    SECTION("rwlock");
    counter = 0;
    run(4, write_under_lock);
    SHOW(counter);
    SECTION("semaphore");
    sem_init(&semaphore, 0, 0);
    pthread_create(&thread, NULL, produce, NULL);
    for (int i = 0; i < 50; i++)
        sem_wait(&semaphore);
    pthread_join(thread, NULL);
    int left;
    sem_getvalue(&semaphore, &left);
    SHOW(left);
    expires();
    SECTION("cancellation");
    pthread_create(&thread, NULL, block, NULL);
    CODE(pthread_cancel(thread));
    CODE(pthread_join(thread, &result));
    SHOW(result == PTHREAD_CANCELED);
    SECTION("stacks");
    SHOW(run(8, deep));
    SECTION("many");
    counter = 0;
    for (int i = 0; i < 5; i++)
        run(32, thread_local);
    SHOW(local);
    priority_inheritance();
    return 0;
}
