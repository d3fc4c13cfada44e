/* The first program of a sandbox: runs the job's, and tells how that ended as wait(2) has it.
 *
 * Bubblewrap tells an exit with 143 and an end by SIGTERM as the same code. Called as
 *
 *     inside TOLD OWN [NAME=VALUE]... -- PROGRAM [ARGUMENT]...
 *
 * it writes two ints, 1 and the wait status, to the start of the descriptor TOLD. OWN is the
 * descriptor it was executed by; the program gets neither. The variables are the program's
 * alone: those that would have a tenant's library loaded here. See inside.py. With
 *
 *     --enter PIDFD NAMESPACES TERMINAL DIRECTORY
 *
 * behind OWN it is outside, and has the program executed in those namespaces (clone(2)'s flags)
 * of that process, without any capability, and in that directory there; where TERMINAL is 1, its
 * stdin becomes the terminal that controls it. See inside.py.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* As a shell has it for a program that is there, or is not. */
enum { CANNOT_EXECUTE = 126, NO_SUCH_PROGRAM = 127 };

static int cannot(const char *what, const char *name)
{
	int number = errno;

	dprintf(STDERR_FILENO, "cannot %s %s: %s\n", what, name, strerror(number));
	return number == ENOENT ? NO_SUCH_PROGRAM : CANNOT_EXECUTE;
}

/* Give up every capability, and all ways to have one again. */
static int be_ordinary(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };

	for (int number = 0; prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0; number++)
		if (prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0)
			return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return -1;
	return (int)syscall(SYS_capset, &header, none);
}

/* 0, or the code to end with. */
static int enter(char **how)
{
	int pidfd = atoi(how[0]);

	if (setns(pidfd, (int)strtoul(how[1], NULL, 10)) != 0)
		return cannot("enter the job's", "isolation");
	close(pidfd);
	if (be_ordinary() != 0)
		return cannot("give up", "privileges");
	return chdir(how[3]) == 0 ? 0 : cannot("change to directory", how[3]);
}

int main(int argc, char **argv)
{
	sigset_t all, before;
	int end[2] = { 1, 0 };

	if (argc < 5)
		return CANNOT_EXECUTE;
	int told = atoi(argv[1]);
	char **program = argv + 3, **entrance = NULL;
	if (argc > 9 && strcmp(*program, "--enter") == 0) {
		entrance = program + 1;
		program += 5;
	}
	while (*program != NULL && strcmp(*program, "--") != 0)
		putenv(*program++);
	if (*program == NULL || *++program == NULL)
		return CANNOT_EXECUTE;

	/* What is meant for the program, or for all processes of the job, must not end this one. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	fcntl(told, F_SETFD, FD_CLOEXEC);
	fcntl(atoi(argv[2]), F_SETFD, FD_CLOEXEC);
	if (entrance != NULL) {
		int code = enter(entrance);
		if (code != 0)
			return code;
	}

	pid_t pid = fork();
	if (pid < 0)
		return cannot("make a process for", program[0]);
	if (pid == 0) {
		/* This process, which leads the session now, is nobody in there. */
		if (entrance != NULL && setsid() >= 0 && atoi(entrance[2]) == 1)
			ioctl(STDIN_FILENO, TIOCSCTTY, 0);
		sigprocmask(SIG_SETMASK, &before, NULL);
		execvp(program[0], program);
		_exit(cannot("execute", program[0]));
	}
	/* The output is complete when the job's own processes have closed it. */
	close(STDIN_FILENO);
	close(STDOUT_FILENO);
	close(STDERR_FILENO);
	while (waitpid(pid, &end[1], 0) < 0 && errno == EINTR)
		;
	if (pwrite(told, end, sizeof end, 0) != sizeof end)
		return CANNOT_EXECUTE;
	return WIFEXITED(end[1]) ? WEXITSTATUS(end[1]) : 128 + WTERMSIG(end[1]);
}
