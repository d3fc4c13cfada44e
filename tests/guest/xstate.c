/* Preloaded into user-mode Linux so that it runs on processors with large register files.
 *
 * Linux 6.1's own buffer for the registers of a process (arch/x86/um) is smaller than what
 * a host with AMX holds, and the host takes all of it or nothing (ptrace(2),
 * PTRACE_SETREGSET, EFAULT): user-mode Linux then panics before its first process. Here
 * its requests are cut, or made up, to the host's size; the tail of the registers stays as
 * it was.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { GETREGSET = 0x4204, SETREGSET = 0x4205, X86_XSTATE = 0x202, PEEK_LAST = 3 };

static _Alignas(64) char whole[65536];

static long get_whole(long pid, struct iovec *all)
{
    all->iov_base = whole;
    all->iov_len = sizeof whole;
    return syscall(SYS_ptrace, GETREGSET, pid, X86_XSTATE, all);
}

long ptrace(int request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    long pid = va_arg(arguments, int);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    struct iovec *asked = data, all;
    if ((request == GETREGSET || request == SETREGSET) && (long)address == X86_XSTATE) {
        if (get_whole(pid, &all) != 0)
            return -1;
        if (asked->iov_len > all.iov_len)
            asked->iov_len = all.iov_len;
        if (request == GETREGSET) {
            memcpy(asked->iov_base, whole, asked->iov_len);
            return 0;
        }
        memcpy(whole, asked->iov_base, asked->iov_len);
        return syscall(SYS_ptrace, SETREGSET, pid, X86_XSTATE, &all);
    }
    if (request >= 1 && request <= PEEK_LAST) {
        /* The system call stores what the function returns (ptrace(2), NOTES). */
        long word = 0;
        return syscall(SYS_ptrace, request, pid, address, &word) < 0 ? -1 : word;
    }
    return syscall(SYS_ptrace, request, pid, address, data);
}
