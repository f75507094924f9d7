/* A program for a sandbox with an empty root: statically linked, makes a call and ends. */
#include <unistd.h>

int main(void)
{
    return getppid() < 0;
}
