/* svipc(7) and mq_overview(7): shared memory, semaphores, message queues, private to the program. */
#include "guest.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

struct message {
    long type;
    char text[64];
};

static void shared_memory(void)
{
    SECTION("shared memory");
    struct shmid_ds ds;
    int id = shmget(IPC_PRIVATE, 10000, IPC_CREAT | 0600);
    if (id == -1 && errno == ENOSYS) {
        skip("no System V shared memory");
        return;
    }
    char *one = shmat(id, NULL, 0), *two = shmat(id, NULL, SHM_RDONLY);
    SHOW(one != MAP_FAILED && two != MAP_FAILED && one != two);
    strcpy(one, "shared");
    say("%s", two);
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        strcpy(one, "child");
        _exit(0);
    }
    reap("child", pid);
    say("%s", two);
    CHECK(shmctl(id, IPC_STAT, &ds));
    say("size %zu attached %ld mode %o", ds.shm_segsz, (long)ds.shm_nattch, ds.shm_perm.mode);
    CHECK(shmdt(two));
    CHECK(shmdt(two));
    CHECK(shmctl(id, IPC_RMID, NULL));
    say("%s", one);
    CHECK(shmctl(id, IPC_STAT, &ds) == 0 && (ds.shm_perm.mode & SHM_DEST));
    CHECK(shmdt(one));
    CHECK(shmctl(id, IPC_STAT, &ds));
    CHECK((long)shmat(id, NULL, 0));
    CHECK(shmget(IPC_PRIVATE, 0, 0600));
    CHECK(shmget(0x7e57aaaa, 100, 0));
}

/* Attaching: where, how, how often; segments that go with their last attachment. */
static void attachments(void)
{
    SECTION("attachments");
    struct shmid_ds ds;
    int id = (int)MUST(shmget(IPC_PRIVATE, 3 * PAGE, IPC_CREAT | 0600));
    char *place = pages(8);
    MUST(munmap(place, 8 * PAGE));
    SHOW(shmat(id, place, 0) == place);
    CHECK((long)shmat(id, place + PAGE, 0));
    CHECK((long)shmat(id, place + PAGE + 1, 0));
    SHOW(shmat(id, place + PAGE + 1, SHM_RND | SHM_REMAP) == place + PAGE);
    CHECK((long)shmat(id, NULL, SHM_REMAP));
    CHECK(shmdt(place + 2 * PAGE));
    CHECK(shmdt(place));
    CHECK(shmctl(id, IPC_STAT, &ds));
    SHOW(ds.shm_nattch);
    strcpy(place + PAGE, "through it");
    CHECK(shmctl(id, IPC_RMID, NULL));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        CHECK(shmctl(id, IPC_STAT, &ds));
        SHOW(ds.shm_nattch);
        say("%s", place + PAGE);
        _exit(0);
    }
    reap("child", pid);
    char *again = shmat(id, NULL, SHM_RDONLY);
    say("%s", again);
    CHECK(mprotect(again, PAGE, PROT_READ | PROT_WRITE));
    CHECK(shmdt(again));
    CHECK(munmap(place + PAGE, 3 * PAGE));
    CHECK(shmctl(id, IPC_STAT, &ds));
    key_t key = 0x70000000 | getpid();
    id = (int)MUST(shmget(key, 100, IPC_CREAT | IPC_EXCL | 0600));
    CHECK(shmget(key, 100, IPC_CREAT | IPC_EXCL | 0600));
    SHOW(shmget(key, 50, 0) == id);
    CHECK(shmget(key, 200, 0));
    ds.shm_perm.uid = getuid();
    ds.shm_perm.gid = getgid();
    ds.shm_perm.mode = 0400;
    CHECK(shmctl(id, IPC_SET, &ds));
    CHECK(shmctl(id, IPC_STAT, &ds));
    say("mode %o", ds.shm_perm.mode);
    CHECK(shmctl(id, 99, &ds));
    CHECK(syscall(SYS_shmctl, id, IPC_STAT, 8));
    CHECK(shmctl(id, IPC_RMID, NULL));
    CHECK(shmget(key, 50, 0));
}

static long operate(int id, unsigned short number, short op, short flags)
{
    struct sembuf operation = {number, op, flags};
    return semop(id, &operation, 1);
}

static void semaphores(void)
{
    SECTION("semaphores");
    unsigned short values[3] = {1, 2, 3};
    int id = semget(IPC_PRIVATE, 3, IPC_CREAT | 0600);
    if (id == -1 && errno == ENOSYS) {
        skip("no System V semaphores");
        return;
    }
    CHECK(semctl(id, 0, SETALL, values));
    CHECK(semctl(id, 1, GETVAL));
    CHECK(operate(id, 1, -2, 0));
    CHECK(operate(id, 1, -1, IPC_NOWAIT));
    CHECK(operate(id, 1, 0, IPC_NOWAIT));
    CHECK(operate(id, 0, 0, IPC_NOWAIT));
    CHECK(semctl(id, 1, GETPID) == getpid());
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        CHECK(operate(id, 1, -1, 0));
        CHECK(operate(id, 2, -1, SEM_UNDO));
        CHECK(semctl(id, 2, GETVAL));
        _exit(0);
    }
    MUST(operate(id, 1, 1, 0));
    reap("child", pid);
    CHECK(semctl(id, 2, GETVAL));
    CHECK(operate(id, 7, 1, 0));
    CHECK(semctl(id, 0, SETVAL, 40000));
    CHECK(semctl(id, 9, GETVAL));
    struct timespec moment = {0, 1000000};
    struct sembuf down = {1, -1, 0};
    CHECK(semtimedop(id, &down, 1, &moment));
    CHECK(semctl(id, 0, IPC_RMID));
    CHECK(operate(id, 0, 1, 0));
    CHECK(semget(IPC_PRIVATE, -1, 0600));
}

static void messages(void)
{
    SECTION("message queues");
    struct message message = {0};
    int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    if (id == -1 && errno == ENOSYS) {
        skip("no System V message queues");
        return;
    }
    for (long type = 1; type <= 4; type++) {
        message.type = type;
        snprintf(message.text, sizeof message.text, "message %ld", type);
        CHECK(msgsnd(id, &message, strlen(message.text) + 1, 0));
    }
    CHECK(msgrcv(id, &message, sizeof message.text, 3, 0));
    say("%s", message.text);
    CHECK(msgrcv(id, &message, sizeof message.text, -2, 0));
    say("%s", message.text);
    CHECK(msgrcv(id, &message, 3, 0, 0));
    CHECK(msgrcv(id, &message, 3, 0, MSG_NOERROR));
    CHECK(msgrcv(id, &message, sizeof message.text, 9, IPC_NOWAIT));
    message.type = 0;
    CHECK(msgsnd(id, &message, 1, 0));
    pid_t pid = (pid_t)MUST(fork());
    if (pid == 0) {
        struct message answer;
        CHECK(msgrcv(id, &answer, sizeof answer.text, 77, 0));
        say("%s", answer.text);
        _exit(0);
    }
    message.type = 77;
    strcpy(message.text, "to the child");
    MUST(msgsnd(id, &message, 20, 0));
    reap("child", pid);
    CHECK(msgctl(id, IPC_RMID, NULL));
    CHECK(msgsnd(id, &message, 1, 0));
}

int main(void)
{
    shared_memory();
    attachments();
    semaphores();
    messages();
    return 0;
}
