/*
 * The vDSO: the time without a system call. vdso(7)
 *
 * Linux: arch/x86/entry/vdso/, lib/vdso/gettimeofday.c. The writer of the parameter page is
 * time/vdso_page.py; the offsets below are those of its table.
 *
 * Interface: functions of the C ABI, named and versioned as Linux's are, that answer as the system
 * calls do. Whatever is not known here is asked of the kernel, by the system call itself.
 *
 * Reading the page: SEQUENCE is odd while the kernel writes and changes whenever it has. A reading is
 * good if it was even and the same before and after. Loads are not reordered with loads on x86, so
 * nothing else is needed; LFENCE keeps RDTSC from being executed before the first of them.
 */

#define SEQUENCE		0x00
#define BASE_TSC		0x08
#define MAX_DELTA		0x10
#define MONOTONIC_BASE		0x18
#define MONOTONIC_MULT		0x20
#define RAW_BASE		0x28
#define RAW_MULT		0x30
#define REALTIME_OFFSET		0x38
#define BOOTTIME_OFFSET		0x40
#define TAI_OFFSET		0x48
#define COARSE_RES		0x50
#define ZERO			0x58	/* never written: the offset of CLOCK_MONOTONIC itself */

#define CLOCK_REALTIME		0
#define CLOCK_MONOTONIC_RAW	4
#define CLOCK_REALTIME_COARSE	5
#define CLOCK_MONOTONIC_COARSE	6
#define LAST_CLOCK		11

#define SYS_gettimeofday	96
#define SYS_time		201
#define SYS_clock_gettime	228
#define SYS_clock_getres	229
#define SYS_getcpu		309

#define NSEC_PER_SEC		1000000000

	.section .rodata, "a"
/* By clock id: what to add to CLOCK_MONOTONIC, as an offset into the page; 0 ask the kernel. */
offset_of:
	.byte	REALTIME_OFFSET		/*  0 CLOCK_REALTIME */
	.byte	ZERO			/*  1 CLOCK_MONOTONIC */
	.byte	0			/*  2 CLOCK_PROCESS_CPUTIME_ID */
	.byte	0			/*  3 CLOCK_THREAD_CPUTIME_ID */
	.byte	ZERO			/*  4 CLOCK_MONOTONIC_RAW, a line of its own */
	.byte	REALTIME_OFFSET		/*  5 CLOCK_REALTIME_COARSE */
	.byte	ZERO			/*  6 CLOCK_MONOTONIC_COARSE */
	.byte	BOOTTIME_OFFSET		/*  7 CLOCK_BOOTTIME */
	.byte	0			/*  8 CLOCK_REALTIME_ALARM */
	.byte	0			/*  9 CLOCK_BOOTTIME_ALARM */
	.byte	0			/* 10 */
	.byte	TAI_OFFSET		/* 11 CLOCK_TAI */

	.text

/*
 * read_clock: RAX = the time in nanoseconds, or a jump to \fallback.
 * In: R8 the page; R9 what to add, as an offset into it; ECX 0, or RAW_BASE - MONOTONIC_BASE for the
 * raw clock. Changes RAX, RDX, R10.
 */
	.macro	read_clock fallback
1:	movq	SEQUENCE(%r8), %r10
	testb	$1, %r10b
	jnz	2f
	lfence
	rdtsc
	shlq	$32, %rdx
	orq	%rdx, %rax
	subq	BASE_TSC(%r8), %rax
	cmpq	MAX_DELTA(%r8), %rax	/* unsigned: a TSC from before the base is out of range, too */
	jae	\fallback
	mulq	MONOTONIC_MULT(%r8, %rcx)
	shrdq	$32, %rdx, %rax
	addq	MONOTONIC_BASE(%r8, %rcx), %rax
	addq	(%r8, %r9), %rax
	cmpq	SEQUENCE(%r8), %r10
	jne	1b
	jmp	3f
2:	pause
	jmp	1b
3:
	.endm

/* Divide RAX by the number of nanoseconds in a second: RAX seconds, RDX the rest. Changes R10. */
	.macro	split_seconds
	xorl	%edx, %edx
	movl	$NSEC_PER_SEC, %r10d
	divq	%r10
	.endm

	.macro	function name
	.globl	__vdso_\name
	.type	__vdso_\name, @function
	.weak	\name
	.set	\name, __vdso_\name
	.balign	16
__vdso_\name:
	.cfi_startproc
	.endm

	.macro	end name
	.cfi_endproc
	.size	__vdso_\name, . - __vdso_\name
	.endm

/* int clock_gettime(clockid_t EDI, struct timespec *RSI) */
	function clock_gettime
	cmpl	$LAST_CLOCK, %edi
	ja	.Lgettime_syscall
	movl	%edi, %eax
	leaq	offset_of(%rip), %r8
	movzbl	(%r8, %rax), %r9d
	testl	%r9d, %r9d
	jz	.Lgettime_syscall
	xorl	%ecx, %ecx
	movl	$RAW_BASE - MONOTONIC_BASE, %edx
	cmpl	$CLOCK_MONOTONIC_RAW, %edi
	cmovel	%edx, %ecx
	leaq	vvar(%rip), %r8
	read_clock .Lgettime_syscall
	split_seconds
	movq	%rax, (%rsi)
	movq	%rdx, 8(%rsi)
	xorl	%eax, %eax
	ret
.Lgettime_syscall:
	movl	$SYS_clock_gettime, %eax
	syscall
	ret
	end clock_gettime

/* int gettimeofday(struct timeval *RDI, struct timezone *RSI): either may be NULL; the zone is UTC */
	function gettimeofday
	testq	%rdi, %rdi
	jz	.Ltimezone
	leaq	vvar(%rip), %r8
	movl	$REALTIME_OFFSET, %r9d
	xorl	%ecx, %ecx
	read_clock .Ltimeofday_syscall
	split_seconds
	movq	%rax, (%rdi)
	movl	%edx, %eax		/* nanoseconds fit; / 1000 = * (2**38 / 1000 + 1) >> 38 */
	imulq	$274877907, %rax, %rax
	shrq	$38, %rax
	movq	%rax, 8(%rdi)
.Ltimezone:
	testq	%rsi, %rsi
	jz	.Ltimeofday_done
	movq	$0, (%rsi)
.Ltimeofday_done:
	xorl	%eax, %eax
	ret
.Ltimeofday_syscall:
	movl	$SYS_gettimeofday, %eax
	syscall
	ret
	end gettimeofday

/* time_t time(time_t *RDI): may be NULL */
	function time
	leaq	vvar(%rip), %r8
	movl	$REALTIME_OFFSET, %r9d
	xorl	%ecx, %ecx
	read_clock .Ltime_syscall
	split_seconds
	testq	%rdi, %rdi
	jz	.Ltime_done
	movq	%rax, (%rdi)
.Ltime_done:
	ret
.Ltime_syscall:
	movl	$SYS_time, %eax
	syscall
	ret
	end time

/* int clock_getres(clockid_t EDI, struct timespec *RSI): RSI may be NULL */
	function clock_getres
	cmpl	$LAST_CLOCK, %edi
	ja	.Lgetres_syscall
	movl	%edi, %eax
	leaq	offset_of(%rip), %r8
	cmpb	$0, (%r8, %rax)
	je	.Lgetres_syscall
	testq	%rsi, %rsi
	jz	.Lgetres_done
	leal	-CLOCK_REALTIME_COARSE(%rdi), %edx
	movl	$1, %eax
	cmpl	$CLOCK_MONOTONIC_COARSE - CLOCK_REALTIME_COARSE, %edx
	ja	.Lgetres_store
	leaq	vvar(%rip), %r8
	movq	COARSE_RES(%r8), %rax
.Lgetres_store:
	movq	$0, (%rsi)
	movq	%rax, 8(%rsi)
.Lgetres_done:
	xorl	%eax, %eax
	ret
.Lgetres_syscall:
	movl	$SYS_clock_getres, %eax
	syscall
	ret
	end clock_getres

/* int getcpu(unsigned *RDI, unsigned *RSI, void *RDX): which CPU it is, only the kernel may say */
	function getcpu
	movl	$SYS_getcpu, %eax
	syscall
	ret
	end getcpu

	.section .note.GNU-stack, "", @progbits
