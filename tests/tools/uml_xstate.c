/* Lets Debian 12's User-mode Linux (kernel 6.1) run on processors with AMX; preloaded into linux.uml.
 *
 * It keeps 2,696 bytes of floating point state for each task (HOST_FP_SIZE in arch/x86/um/user-offsets.c): all up to
 * AVX-512 and protection keys. The host takes PTRACE_SETREGSET of NT_X86_XSTATE only in its full size
 * (xstateregs_set in arch/x86/kernel/fpu/regset.c), which AMX makes larger, and the guest dies at its first process.
 * Here the rest is filled up with state that is not in use. */
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define XSTATE_BV 512              /* where the XSAVE header says which components are in use */
#define KEPT_COMPONENTS 0x3ffULL   /* x87 to PKRU: those that lie within what the guest keeps */

static char whole[64 * 1024] __attribute__((aligned(64))); /* the guest kernel has one thread */

static long set_xstate(long pid, const struct iovec *kept)
{
	struct iovec full = { whole, sizeof(whole) };
	uint64_t used;

	if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &full) < 0)
		return -1;
	if (full.iov_len <= kept->iov_len) {
		errno = EFAULT;
		return -1;
	}
	memset(whole, 0, full.iov_len);
	memcpy(whole, kept->iov_base, kept->iov_len);
	memcpy(&used, whole + XSTATE_BV, sizeof(used));
	used &= KEPT_COMPONENTS;
	memcpy(whole + XSTATE_BV, &used, sizeof(used));
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &full);
}

/* glibc's ptrace (its PEEK requests return the word), but for the one request above. */
long ptrace(enum __ptrace_request request, ...)
{
	va_list rest;
	va_start(rest, request);
	long pid = va_arg(rest, int);
	long address = va_arg(rest, long);
	long data = va_arg(rest, long);
	va_end(rest);

	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		long word;
		long status = syscall(SYS_ptrace, request, pid, address, &word);
		if (status < 0)
			return status;
		errno = 0;
		return word;
	}
	long status = syscall(SYS_ptrace, request, pid, address, data);
	if (status < 0 && errno == EFAULT && request == PTRACE_SETREGSET && address == NT_X86_XSTATE)
		return set_xstate(pid, (const struct iovec *)data);
	return status;
}
