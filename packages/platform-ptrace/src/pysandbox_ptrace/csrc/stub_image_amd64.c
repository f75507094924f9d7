/*
 * The stub's code page: position-independent, without a stack, without data it could write.
 *
 * Interface: the sentry copies [pt_image_begin, pt_image_end) into a memory file and appends the
 * seccomp program. The first stub enters at the start of its copy inside the sentry's region with
 * r15 = pt_stub_shared *; on failure it stops with int3, r14 = number of the step, rax = -errno.
 * Everything else is entered at PT_STUB_BASE by setting RIP.
 */
#define _GNU_SOURCE
#include "pt_stub.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STRINGIFY(x) #x
#define STR(x) STRINGIFY(x)

/* A system call of the start-up code whose failure ends it; rax is the number, the rest is set. */
#define CALL_OR_FAIL(step, nr)                  \
    "    mov $" STR(step) ", %r14d\n"           \
    "    mov $" STR(nr) ", %eax\n"              \
    "    syscall\n"                             \
    "    cmp $-4095, %rax\n"                    \
    "    jae .Lboot_failed\n"
#define CALL(nr)                                \
    "    mov $" STR(nr) ", %eax\n"              \
    "    syscall\n"

__asm__(
    ".pushsection .rodata.pt_image, \"a\", @progbits\n"
    ".balign 64\n"
    ".globl pt_image_begin, pt_image_end, pt_image_batch, pt_image_after_syscall\n"
    ".globl pt_image_batch_end, pt_image_bases, pt_image_bases_end\n"
    ".hidden pt_image_begin, pt_image_end, pt_image_batch, pt_image_after_syscall\n"
    ".hidden pt_image_batch_end, pt_image_bases, pt_image_bases_end\n"
    "pt_image_begin:\n"
    /* 1: die with the sentry, until it has attached. */
    "    xor %ebp, %ebp\n"
    "    mov $1, %edi\n"                /* PR_SET_PDEATHSIG */
    "    mov $9, %esi\n"
    CALL_OR_FAIL(1, 157)                /* prctl */
    /* Wait for the sentry to attach; if it died before the line above, the time runs out. */
    ".Lwait:\n"
    "    cmpl $0, 0(%r15)\n"
    "    jne .Lgo\n"
    "    mov %r15, %rdi\n"
    "    xor %esi, %esi\n"              /* FUTEX_WAIT */
    "    xor %edx, %edx\n"
    "    lea .Lpatience(%rip), %r10\n"
    CALL(202)                           /* futex */
    "    cmp $-110, %rax\n"             /* ETIMEDOUT */
    "    jne .Lwait\n"
    "    mov $1, %edi\n"
    CALL(231)                           /* exit_group */
    ".Lgo:\n"
    /* 2: the kernel must not write to the thread's rseq area once it is gone. */
    "    mov 8(%r15), %rdi\n"
    "    mov 4(%r15), %esi\n"
    "    test %esi, %esi\n"
    "    jz .Lno_rseq\n"
    "    mov $1, %edx\n"                /* RSEQ_FLAG_UNREGISTER */
    "    mov 16(%r15), %r10d\n"
    CALL_OR_FAIL(2, 334)                /* rseq */
    ".Lno_rseq:\n"
    /* 3: no handler of the sentry's is left; all signals but SIGURG stay blocked. */
    "    mov $64, %ebx\n"
    ".Lsignals:\n"
    "    mov %ebx, %edi\n"
    "    lea .Lzeros(%rip), %rsi\n"
    "    xor %edx, %edx\n"
    "    mov $8, %r10d\n"
    CALL(13)                            /* rt_sigaction; SIGKILL and SIGSTOP refuse */
    "    dec %ebx\n"
    "    jnz .Lsignals\n"
    "    lea .Lno_altstack(%rip), %rdi\n"
    "    xor %esi, %esi\n"
    CALL_OR_FAIL(3, 131)                /* sigaltstack */
    /* 4: settings that every stub inherits. Those that can fail harmlessly are not checked. */
    "    mov $15, %edi\n"               /* PR_SET_NAME */
    "    lea .Lname(%rip), %rsi\n"
    CALL(157)
    "    mov $0x5002, %edi\n"           /* ARCH_SHSTK_DISABLE: the sentry's shadow stack goes too */
    "    mov $1, %esi\n"
    CALL(158)                           /* arch_prctl */
    "    xor %edi, %edi\n"
    CALL(135)                           /* personality(PER_LINUX): no READ_IMPLIES_EXEC */
    "    xor %edi, %edi\n"
    "    mov $4, %esi\n"                /* RLIMIT_CORE */
    "    lea 40(%r15), %rdx\n"
    "    xor %r10d, %r10d\n"
    CALL(302)                           /* prlimit64 */
    "    mov $38, %edi\n"               /* PR_SET_NO_NEW_PRIVS */
    "    mov $1, %esi\n"
    "    xor %edx, %edx\n"
    "    xor %r10d, %r10d\n"
    "    xor %r8d, %r8d\n"
    CALL_OR_FAIL(4, 157)
    /* 5 and 6: let go of everything but these pages. */
    "    mov 32(%r15), %rbx\n"
    "    movslq 20(%r15), %r12\n"
    "    movslq 24(%r15), %r13\n"
    "    xor %esp, %esp\n"
    "    xor %edi, %edi\n"
    "    mov %rbx, %rsi\n"
    CALL_OR_FAIL(5, 11)                 /* munmap */
    "    lea " STR(PT_STUB_SIZE) "(%rbx), %rdi\n"
    "    movabs $" STR(PT_TASK_SIZE) ", %rsi\n"
    "    sub %rdi, %rsi\n"
    CALL_OR_FAIL(6, 11)
    /* 7 and 8: the same pages again, where every stub has them. */
    "    movabs $" STR(PT_STUB_BASE) ", %rdi\n"
    "    mov $" STR(PT_PAGE) ", %esi\n"
    "    mov $5, %edx\n"                /* PROT_READ | PROT_EXEC */
    "    mov $" STR(PT_MAP_FLAGS) ", %r10d\n"
    "    mov %r12, %r8\n"
    "    xor %r9d, %r9d\n"
    CALL_OR_FAIL(7, 9)                  /* mmap */
    "    movabs $" STR(PT_STUB_SHARED) ", %rdi\n"
    "    mov $" STR(PT_PAGE) "*" STR(PT_SHARED_PAGES) ", %esi\n"
    "    mov $1, %edx\n"                /* PROT_READ */
    "    mov $" STR(PT_MAP_FLAGS) ", %r10d\n"
    "    mov %r13, %r8\n"
    "    xor %r9d, %r9d\n"
    CALL_OR_FAIL(8, 9)
    "    movabs $" STR(PT_STUB_BASE) " + .Lmoved - pt_image_begin, %rax\n"
    "    jmp *%rax\n"
    /* 9: now the region in the sentry's place. */
    ".Lmoved:\n"
    "    mov %rbx, %rdi\n"
    "    mov $" STR(PT_STUB_SIZE) ", %esi\n"
    CALL_OR_FAIL(9, 11)
    /* 10: from here on only the batch loop's system calls are possible. */
    "    mov $1, %edi\n"                /* SECCOMP_SET_MODE_FILTER */
    "    xor %esi, %esi\n"
    "    movabs $" STR(PT_STUB_BASE) " + " STR(PT_FILTER_OFFSET) ", %rdx\n"
    CALL_OR_FAIL(10, 317)               /* seccomp */
    "    xor %r14d, %r14d\n"
    ".Lboot_failed:\n"
    "    int3\n"
    "    ud2\n"

    /* Runs r13 system calls from r12 on; stops behind the last, or at the first that fails. */
    ".balign 16\n"
    "pt_image_batch:\n"
    "    mov 0(%r12), %rax\n"
    "    mov 8(%r12), %rdi\n"
    "    mov 16(%r12), %rsi\n"
    "    mov 24(%r12), %rdx\n"
    "    mov 32(%r12), %r10\n"
    "    mov 40(%r12), %r8\n"
    "    mov 48(%r12), %r9\n"
    "    syscall\n"
    "pt_image_after_syscall:\n"
    "    cmp $-4095, %rax\n"
    "    jae .Lbatch_done\n"
    "    add $64, %r12\n"
    "    dec %r13\n"
    "    jnz pt_image_batch\n"
    ".Lbatch_done:\n"
    "    int3\n"
    "pt_image_batch_end:\n"
    "    ud2\n"

    /* Bases that PTRACE_SETREGS refuses though WRFSBASE takes them. */
    "pt_image_bases:\n"
    "    wrfsbase %rdi\n"
    "    wrgsbase %rsi\n"
    "    int3\n"
    "pt_image_bases_end:\n"
    "    ud2\n"

    ".balign 8\n"
    ".Lzeros:\n"
    "    .quad 0, 0, 0, 0\n"
    ".Lno_altstack:\n"
    "    .quad 0, 2, 0\n"               /* SS_DISABLE */
    ".Lpatience:\n"
    "    .quad 5, 0\n"
    ".Lname:\n"
    "    .asciz \"pysandbox-stub\"\n"
    ".org pt_image_begin + " STR(PT_FILTER_OFFSET) "\n"   /* also: it fits */
    "pt_image_end:\n"
    ".popsection\n");

#define AT(member, offset) \
    _Static_assert(offsetof(pt_stub_shared, member) == (offset), "the assembly's offset of " #member)
AT(go, 0);
AT(rseq_size, 4);
AT(rseq_addr, 8);
AT(rseq_signature, 16);
AT(code_fd, 20);
AT(batch_fd, 24);
AT(region, 32);
AT(core_limit, 40);
AT(ops, 64);
_Static_assert(sizeof(pt_op) == 64, "the batch loop's stride");
_Static_assert(PT_STUB_SIZE == PT_PAGE * (1 + PT_SHARED_PAGES), "the stub's size");
_Static_assert(sizeof(pt_stub_shared) == PT_PAGE * PT_SHARED_PAGES, "the batch pages");

/* Offsets in struct seccomp_data of the halves of a 64-bit word. */
#define IP_LOW (offsetof(struct seccomp_data, instruction_pointer))
#define IP_HIGH (IP_LOW + 4)
#define ARG_LOW(n) (offsetof(struct seccomp_data, args) + 8 * (n))
#define ARG_HIGH(n) (ARG_LOW(n) + 4)

#define LOAD(at) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (at))
#define IF_EQ(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (yes), (no))
#define VERDICT(value) BPF_STMT(BPF_RET | BPF_K, (value))

/*
 * The wall behind PTRACE_SYSEMU: only the batch loop's instruction, only the calls that the
 * platform makes, with the flags it uses. A vsyscall (the legacy page that no process can unmap) is
 * turned into SIGSYS, which stops.c reports as a fault; everything else ends the stub.
 */
int stub_image_write(int fd)
{
    uint64_t ip = stub_address(pt_image_after_syscall);
    const struct sock_filter filter[] = {
        LOAD(offsetof(struct seccomp_data, arch)),
        IF_EQ(AUDIT_ARCH_X86_64, 0, 21),
        LOAD(IP_HIGH),
        IF_EQ((uint32_t)(ip >> 32), 0, 15),
        LOAD(IP_LOW),
        IF_EQ((uint32_t)ip, 0, 17),
        LOAD(offsetof(struct seccomp_data, nr)),
        IF_EQ(SYS_munmap, 16, 0),
        IF_EQ(SYS_mprotect, 15, 0),
        IF_EQ(SYS_exit, 14, 0),
        IF_EQ(SYS_mmap, 0, 2),
        LOAD(ARG_LOW(3)),
        IF_EQ(PT_MAP_FLAGS, 11, 10),
        IF_EQ(SYS_clone, 0, 9),
        LOAD(ARG_HIGH(0)),
        IF_EQ(0, 0, 7),
        LOAD(ARG_LOW(0)),
        IF_EQ(PT_CLONE_THREAD, 6, 0),
        IF_EQ(PT_CLONE_PROCESS, 5, 4),
        /* Not the stub's code: the vsyscall page? */
        IF_EQ(0xffffffff, 0, 3),
        LOAD(IP_LOW),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xfffff000),
        IF_EQ(0xff600000, 2, 0),
        VERDICT(SECCOMP_RET_KILL_PROCESS),
        VERDICT(SECCOMP_RET_ALLOW),
        VERDICT(SECCOMP_RET_TRAP),
    };
    struct {
        uint16_t len;
        uint16_t pad[3];
        uint64_t address;
        struct sock_filter filter[sizeof filter / sizeof filter[0]];
    } program = {
        .len = sizeof filter / sizeof filter[0],
        .address = PT_STUB_BASE + PT_FILTER_OFFSET + offsetof(__typeof__(program), filter),
    };
    memcpy(program.filter, filter, sizeof filter);
    _Static_assert(PT_FILTER_OFFSET + sizeof program <= PT_PAGE, "the seccomp program fits");

    size_t size = (size_t)(pt_image_end - pt_image_begin);
    if (ftruncate(fd, PT_PAGE) < 0)
        return -errno;
    ssize_t n = pwrite(fd, pt_image_begin, size, 0);
    if (n < 0)
        return -errno;
    if ((size_t)n != size)
        return -EIO;
    n = pwrite(fd, &program, sizeof program, PT_FILTER_OFFSET);
    if (n < 0)
        return -errno;
    return (size_t)n == sizeof program ? 0 : -EIO;
}
