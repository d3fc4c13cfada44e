/* Preloaded into user-mode Linux so that it runs on processors with large register files.
 *
 * Linux 6.1's own buffer for the registers of a process (arch/x86/um) is smaller than what
 * a host with AMX holds, and the host takes all of it or nothing (ptrace(2),
 * PTRACE_SETREGSET, EFAULT): user-mode Linux then panics before its first process. Here
 * its requests are cut, or made up, to the host's size; the tail of the registers stays as
 * it was. It also sets the registers of a process each time that one goes on, which is
 * spared here when they are as they were: a tenth to a third of the guest's time.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PEEK_LAST = 3, POKE_LAST = 6, GETREGS = 12, SETREGS = 13 };
enum { GETREGSET = 0x4204, SETREGSET = 0x4205, X86_XSTATE = 0x202 };

/* The registers of the process `holder`, which has not run since; of none if that is 0. */
static _Alignas(64) char whole[65536];
static size_t size;
static long holder;

static int hold(long pid)
{
    struct iovec all = {whole, sizeof whole};
    holder = 0;
    if (syscall(SYS_ptrace, GETREGSET, pid, X86_XSTATE, &all) != 0)
        return -1;
    size = all.iov_len;
    holder = pid;
    return 0;
}

static long get(long pid, struct iovec *asked)
{
    if (hold(pid) != 0)
        return -1;
    if (asked->iov_len > size)
        asked->iov_len = size;
    memcpy(asked->iov_base, whole, asked->iov_len);
    return 0;
}

static long set(long pid, struct iovec *asked)
{
    if (holder != pid && hold(pid) != 0)
        return -1;
    if (asked->iov_len > size)
        asked->iov_len = size;
    if (memcmp(whole, asked->iov_base, asked->iov_len) == 0)
        return 0;
    memcpy(whole, asked->iov_base, asked->iov_len);
    struct iovec all = {whole, size};
    return syscall(SYS_ptrace, SETREGSET, pid, X86_XSTATE, &all);
}

long ptrace(int request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    long pid = va_arg(arguments, int);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    if ((long)address == X86_XSTATE && request == GETREGSET)
        return get(pid, data);
    if ((long)address == X86_XSTATE && request == SETREGSET)
        return set(pid, data);
    if (request >= 1 && request <= PEEK_LAST) {
        /* The system call stores what the function returns (ptrace(2), NOTES). */
        long word = 0;
        return syscall(SYS_ptrace, request, pid, address, &word) < 0 ? -1 : word;
    }
    /* Any other may let a process run, or concern a new one with a known ID. */
    if (request > POKE_LAST && request != GETREGS && request != SETREGS)
        holder = 0;
    return syscall(SYS_ptrace, request, pid, address, data);
}
