# gcc building and running programs: threads, several files, a library, errors.
set -e
cat > threads.c <<'END'
#include <pthread.h>
#include <stdio.h>
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long total;
static void *add(void *argument)
{
    for (long i = 0; i < 1000; i++) {
        pthread_mutex_lock(&mutex);
        total += (long)argument;
        pthread_mutex_unlock(&mutex);
    }
    return argument;
}
int main(void)
{
    pthread_t threads[4];
    for (long i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, add, (void *)i);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    printf("total %ld\n", total);
    return 0;
}
END
gcc -Wall -O2 -pthread -o threads threads.c
./threads
printf 'int twice(int x) { return 2 * x; }\n' > twice.c
printf '#include <stdio.h>\nint twice(int);\nint main(void) { printf("%%d\\n", twice(21)); return 3; }\n' > main.c
gcc -c twice.c main.c && gcc -o joined twice.o main.o && (./joined || echo "status $?")
gcc -shared -fPIC -o libtwice.so twice.c && gcc -o dynamic main.c -L. -ltwice -Wl,-rpath,"$PWD" && (./dynamic || echo "status $?")
ar rcs libstatic.a twice.o && gcc -static -o static main.c libstatic.a && (./static || echo "status $?")
echo 'int main(void) { return undeclared; }' > wrong.c; gcc wrong.c 2> /dev/null || echo "gcc $?"
echo 'main: .globl main' > a.s; gcc -E -dM - < /dev/null | grep -c __x86_64__; gcc -S -o - twice.c | grep -c twice: ; nm twice.o | awk '{ print $2, $3 }'; strip -o stripped threads; ./stripped; objdump -d twice.o | grep -c ret; size twice.o | wc -l
