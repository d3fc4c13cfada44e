/* Makes a process that executes a program, without copying the one that makes it.
 *
 * fork(2) of a Python process costs milliseconds: each page that either side
 * writes to is copied. Here clone3(2) makes a child that shares our memory
 * (CLONE_VM), on a stack of its own, until it executes. Unlike vfork(2) we go on
 * meanwhile, so that an execve(2) that hangs, hangs alone.
 *
 * What follows from the shared memory:
 * - The child makes system calls and nothing else: the C library's functions
 *   write errno, which is ours. It reads its plan, and writes `state` alone.
 * - All signals are blocked from before the clone until the child has its
 *   defaults: a handler of ours must not run in it.
 * - Its plan and its stack live until the kernel says that it uses our memory no
 *   more (CLONE_CHILD_CLEARTID), at its execve or its exit.
 * - A change of user makes the shared memory not dumpable (prctl(2),
 *   PR_SET_DUMPABLE), so nobody can trace the child; nor us, from then on.
 * - The kernel's OOM killer kills all that share the memory of a victim. So
 *   whoever calls this keeps limits of memory away that execve could reach.
 *
 * Our descriptors are shared, too (CLONE_FILES), until the child takes a copy of
 * the few below the end of the slots (CLOSE_RANGE_UNSHARE): the cost of a start
 * does not grow with the jobs whose descriptors we hold. We wait for that.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if !defined(__linux__) || !defined(__x86_64__)
#error "tried on x86_64 alone; elsewhere the Python way serves"
#endif

#define STACK_BYTES (64 * 1024)
/* For the program's descriptors 0, 1, ..., then the one for reports; the last is /dev/null. */
#define SLOTS 8
#define SIGNALS 64
/* How often what must be done, and may fail at one moment and not at the next, is tried. */
#define TRIES 100
/* The kernel's, not the C library's: 8 bytes. */
#define MASK_BYTES 8

/* Of `state`; the kernel writes 0 when the child uses our memory no more. */
enum { SHARING = 1, APART = 2, GONE = 0 };

/* In step with STEPS in program.py; a child here is born in its cgroup, and never joins it. */
enum step { PREPARE, JOIN_CGROUP, LIMIT, BECOME_USER, CHANGE_DIRECTORY, EXECUTE };

struct limit {
    int resource;
    struct rlimit64 values;
};

struct plan {
    volatile uint32_t state;
    /* -errno of a child that could not have descriptors of its own. */
    volatile long refused;
    struct plan *next;
    void *stack;
    /* Owns the bytes that the arrays below point to. */
    PyObject *owner;
    char **paths;
    char **check;
    char **argv;
    char **envp;
    const char *cwd;
    int first_slot;
    int files;
    unsigned umask;
    int has_user;
    uid_t uid;
    gid_t gid;
    gid_t *groups;
    size_t group_count;
    struct limit *limits;
    size_t limit_count;
    int no_new_privileges;
    int terminal;
};

struct kernel_sigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

/* Plans whose children may still share our memory, and one stack to use again. */
static struct plan *sharing;
static void *spare_stack;

/* A system call that leaves errno alone: -errno when it fails. */
static inline long
call6(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result = number;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#define CALL(number, a, b, c, d) \
    call6((number), (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

/* clone3(2) onto a new stack, where the child runs `child(plan)`, which never returns. */
static long
clone_onto(struct clone_args *arguments, void (*child)(struct plan *), struct plan *plan)
{
    register void (*function)(struct plan *) __asm__("r12") = child;
    register struct plan *argument __asm__("r13") = plan;
    long result = SYS_clone3;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %%r13, %%rdi\n\t"
                     "and $-16, %%rsp\n\t"
                     "call *%%r12\n\t"
                     "ud2\n"
                     "1:"
                     : "+a"(result)
                     : "D"(arguments), "S"(sizeof *arguments), "r"(function), "r"(argument)
                     : "rcx", "r11", "memory", "cc");
    return result;
}

/* -- what the child does ------------------------------------------------------ */

/* Where there are several errors, execvp(3)'s choice: the first that says more than "not here". */
static long
execute(const struct plan *plan)
{
    long telling = 0, last = -ENOENT;
    for (char **path = plan->paths; *path != NULL; path++) {
        last = CALL(SYS_execve, *path, plan->argv, plan->envp, 0);
        if (last != -ENOENT && last != -ENOTDIR && telling == 0)
            telling = last;
    }
    return telling != 0 ? telling : last;
}

/* Whether the program that a sandbox is to execute is there for this user. */
static long
check(const struct plan *plan)
{
    long telling = 0, last = 0;
    for (char **path = plan->check; path != NULL && *path != NULL; path++) {
        struct stat status;
        last = CALL(SYS_newfstatat, AT_FDCWD, *path, &status, 0);
        if (last == 0 && !S_ISREG(status.st_mode))
            last = -EACCES;
        if (last == 0)
            last = CALL(SYS_faccessat, AT_FDCWD, *path, X_OK, 0);
        if (last == 0)
            return 0;
        if (last != -ENOENT && last != -ENOTDIR && telling == 0)
            telling = last;
    }
    return telling != 0 ? telling : last;
}

static long
become_user(const struct plan *plan)
{
    long result = 0;
    if (plan->has_user) {
        result = CALL(SYS_setgroups, plan->group_count, plan->groups, 0, 0);
        if (result == 0)
            result = CALL(SYS_setresgid, plan->gid, plan->gid, plan->gid, 0);
        if (result == 0)
            result = CALL(SYS_setresuid, plan->uid, plan->uid, plan->uid, 0);
    }
    if (result == 0 && plan->no_new_privileges)
        /* PR_SET_NO_NEW_PRIVS */
        result = call6(SYS_prctl, 38, 1, 0, 0, 0, 0);
    if (result == 0)
        CALL(SYS_umask, plan->umask, 0, 0, 0);
    return result;
}

static long
set_limits(const struct plan *plan)
{
    for (size_t i = 0; i < plan->limit_count; i++) {
        const struct limit *limit = &plan->limits[i];
        struct rlimit64 now, wanted = limit->values;
        long result = CALL(SYS_prlimit64, 0, limit->resource, NULL, &now);
        if (result != 0)
            return result;
        /* Only root may raise a hard limit; what is lower already is limit enough. */
        if (wanted.rlim_max > now.rlim_max)
            wanted.rlim_max = now.rlim_max;
        if (wanted.rlim_cur > wanted.rlim_max)
            wanted.rlim_cur = wanted.rlim_max;
        result = CALL(SYS_prlimit64, 0, limit->resource, &wanted, NULL);
        if (result != 0)
            return result;
    }
    return 0;
}

static void
leave(void)
{
    for (;;)
        CALL(SYS_exit_group, 127, 0, 0, 0);
}

/* From here on closing is its own affair; what is above the slots is never copied. */
static void
part_from_parent(struct plan *plan)
{
    plan->refused = CALL(SYS_close_range, plan->first_slot + SLOTS, ~0U, CLOSE_RANGE_UNSHARE, 0);
    /* Our slots are its own still, and emptied once we are woken: we tell for it. */
    if (plan->refused != 0)
        leave();
    plan->state = APART;
    CALL(SYS_futex, &plan->state, FUTEX_WAKE, 1, 0);
}

/* Nothing of ours but the slots, which become 0, 1, ...; sessions and signals of its own. */
static long
leave_parent(const struct plan *plan)
{
    long result = 0;
    for (int number = 0; number < plan->files; number++) {
        result = CALL(SYS_dup2, plan->first_slot + number, number, 0, 0);
        if (result < 0)
            return result;
    }
    if (plan->files < plan->first_slot)
        result = CALL(SYS_close_range, plan->files, plan->first_slot - 1, 0, 0);
    if (result >= 0)
        result = CALL(SYS_setsid, 0, 0, 0, 0);
    if (result >= 0 && plan->terminal)
        result = CALL(SYS_ioctl, 0, TIOCSCTTY, 0, 0);
    if (result < 0)
        return result;
    struct kernel_sigaction defaults = {0};
    for (int number = 1; number <= SIGNALS; number++)
        CALL(SYS_rt_sigaction, number, &defaults, NULL, MASK_BYTES);
    return 0;
}

/* Ends in the program, or tells (errno, step) and ends. */
static void
child(struct plan *plan)
{
    enum step step = PREPARE;
    part_from_parent(plan);
    long result = leave_parent(plan);
    if (result == 0) {
        step = LIMIT;
        result = set_limits(plan);
    }
    if (result == 0) {
        step = BECOME_USER;
        result = become_user(plan);
    }
    if (result == 0) {
        step = CHANGE_DIRECTORY;
        result = CALL(SYS_chdir, plan->cwd, 0, 0, 0);
    }
    if (result == 0) {
        step = EXECUTE;
        result = check(plan);
    }
    if (result == 0) {
        uint64_t none = 0;
        CALL(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, MASK_BYTES);
        result = execute(plan);
    }
    int32_t report[2] = {(int32_t)-result, (int32_t)step};
    /* Without a word it would have executed. */
    for (int tries = 0; tries < TRIES; tries++)
        if (CALL(SYS_write, plan->first_slot + plan->files, report, sizeof report, 0) > 0)
            break;
    leave();
}

/* -- what we do ----------------------------------------------------------------- */

static void
free_plan(struct plan *plan)
{
    if (plan->stack != NULL) {
        if (spare_stack == NULL)
            spare_stack = plan->stack;
        else
            munmap(plan->stack, STACK_BYTES);
    }
    PyMem_Free(plan->paths);
    PyMem_Free(plan->check);
    PyMem_Free(plan->argv);
    PyMem_Free(plan->envp);
    PyMem_Free(plan->groups);
    PyMem_Free(plan->limits);
    Py_XDECREF(plan->owner);
    PyMem_Free(plan);
}

/* Let go of the plans that no child reads any more. */
static void
sweep(void)
{
    struct plan **link = &sharing;
    while (*link != NULL) {
        struct plan *plan = *link;
        if (plan->state == GONE) {
            *link = plan->next;
            free_plan(plan);
        } else {
            link = &plan->next;
        }
    }
}

/* An array of pointers into a tuple of bytes objects, and NULL; NULL with an exception set. */
static char **
pointers(PyObject *strings)
{
    if (!PyTuple_Check(strings)) {
        PyErr_SetString(PyExc_TypeError, "a tuple of bytes is needed");
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(strings);
    char **array = PyMem_Calloc((size_t)count + 1, sizeof *array);
    if (array == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        /* Raises ValueError for a NUL byte within. */
        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(strings, i), &array[i], NULL) < 0) {
            PyMem_Free(array);
            return NULL;
        }
    }
    return array;
}

static int
read_user(struct plan *plan, PyObject *user)
{
    if (user == Py_None)
        return 0;
    PyObject *groups;
    unsigned uid, gid;
    if (!PyArg_ParseTuple(user, "IIO!", &uid, &gid, &PyTuple_Type, &groups))
        return -1;
    plan->has_user = 1;
    plan->uid = uid;
    plan->gid = gid;
    plan->group_count = (size_t)PyTuple_GET_SIZE(groups);
    plan->groups = PyMem_Calloc(plan->group_count + 1, sizeof *plan->groups);
    if (plan->groups == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < plan->group_count; i++) {
        unsigned long group = PyLong_AsUnsignedLong(PyTuple_GET_ITEM(groups, i));
        if (PyErr_Occurred())
            return -1;
        plan->groups[i] = (gid_t)group;
    }
    return 0;
}

static int
read_limits(struct plan *plan, PyObject *limits)
{
    plan->limit_count = (size_t)PyTuple_GET_SIZE(limits);
    plan->limits = PyMem_Calloc(plan->limit_count + 1, sizeof *plan->limits);
    if (plan->limits == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < plan->limit_count; i++) {
        unsigned long long soft, hard;
        struct limit *limit = &plan->limits[i];
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(limits, i), "iKK", &limit->resource, &soft, &hard))
            return -1;
        limit->values.rlim_cur = soft;
        limit->values.rlim_max = hard;
    }
    return 0;
}

/* Clone; the PID, or -errno. The descriptor of the new process goes to `pidfd`. */
static long
clone_child(struct plan *plan, int cgroup, int *pidfd)
{
    struct clone_args arguments = {
        .flags = CLONE_VM | CLONE_FILES | CLONE_PIDFD | CLONE_CHILD_CLEARTID,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .child_tid = (uint64_t)(uintptr_t)&plan->state,
        .exit_signal = SIGCHLD,
        .stack = (uint64_t)(uintptr_t)plan->stack,
        .stack_size = STACK_BYTES,
    };
    if (cgroup >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)cgroup;
    }
    uint64_t all = ~0ULL, before;
    CALL(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, MASK_BYTES);
    plan->state = SHARING;
    long pid = clone_onto(&arguments, child, plan);
    CALL(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, MASK_BYTES);
    if (pid < 0) {
        plan->state = GONE;
        return pid;
    }
    /* A child that is killed at once ends this wait as well. */
    while (plan->state == SHARING)
        CALL(SYS_futex, &plan->state, FUTEX_WAIT, SHARING, NULL);
    if (plan->refused != 0) {
        CALL(SYS_close, *pidfd, 0, 0, 0);
        CALL(SYS_wait4, pid, NULL, 0, NULL);
        return plan->refused;
    }
    return pid;
}

/* Put copies of the descriptors where the child finds them; -errno, or 0. */
static long
fill_slots(const struct plan *plan, PyObject *descriptors)
{
    for (int i = 0; i <= plan->files; i++) {
        long descriptor = PyLong_AsLong(PyTuple_GET_ITEM(descriptors, i));
        if (PyErr_Occurred())
            return -EINVAL;
        long result = CALL(SYS_dup3, descriptor, plan->first_slot + i, O_CLOEXEC, 0);
        if (result < 0)
            return result;
    }
    return 0;
}

/* A copy left in a slot would keep a pipe open. */
static void
empty_slots(const struct plan *plan)
{
    int null = plan->first_slot + SLOTS - 1;
    for (int i = 0; i <= plan->files; i++)
        for (int tries = 0; tries < TRIES; tries++)
            if (CALL(SYS_dup3, null, plan->first_slot + i, O_CLOEXEC, 0) >= 0)
                break;
}

static void *
new_stack(void)
{
    void *stack = spare_stack;
    spare_stack = NULL;
    if (stack == NULL) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK;
        stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (stack == MAP_FAILED) {
            PyErr_SetFromErrno(PyExc_OSError);
            return NULL;
        }
    }
    return stack;
}

PyDoc_STRVAR(spawn_doc,
"spawn(descriptors, first_slot, paths, check, argv, envp, cwd, cgroup, user,\n"
"      limits, no_new_privileges, umask, terminal) -> (pid, pidfd)\n\n"
"Make a process that executes the first of `paths` that it can; spawn.py says what is what.\n"
"Raises OSError when there can be no process.");

static PyObject *
spawn(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *descriptors, *paths, *checked, *argv, *envp, *user, *limits;
    const char *cwd;
    int cgroup, pidfd = -1;
    sweep();
    struct plan *plan = PyMem_Calloc(1, sizeof *plan);
    if (plan == NULL)
        return PyErr_NoMemory();
    if (!PyArg_ParseTuple(args, "O!iOOOOyiOO!pIp", &PyTuple_Type, &descriptors, &plan->first_slot,
                          &paths, &checked, &argv, &envp, &cwd, &cgroup, &user,
                          &PyTuple_Type, &limits, &plan->no_new_privileges, &plan->umask,
                          &plan->terminal))
        goto failed;
    plan->files = (int)PyTuple_GET_SIZE(descriptors) - 1;
    if (plan->files < 3 || plan->files > SLOTS - 2 || plan->first_slot < plan->files) {
        PyErr_SetString(PyExc_ValueError, "there are not so many slots");
        goto failed;
    }
    /* The caller's tuple of arguments holds everything that is pointed to. */
    Py_INCREF(args);
    plan->owner = args;
    plan->cwd = cwd;
    if ((plan->paths = pointers(paths)) == NULL || (plan->check = pointers(checked)) == NULL
        || (plan->argv = pointers(argv)) == NULL || (plan->envp = pointers(envp)) == NULL
        || read_user(plan, user) < 0 || read_limits(plan, limits) < 0
        || (plan->stack = new_stack()) == NULL)
        goto failed;
    long pid = fill_slots(plan, descriptors);
    if (pid == 0)
        pid = clone_child(plan, cgroup, &pidfd);
    empty_slots(plan);
    if (PyErr_Occurred())
        goto failed;
    if (pid < 0) {
        errno = (int)-pid;
        PyErr_SetFromErrno(PyExc_OSError);
        goto failed;
    }
    plan->next = sharing;
    sharing = plan;
    PyObject *made = Py_BuildValue("(li)", pid, pidfd);
    if (made == NULL) {
        /* Nobody could end it who is not told of it. */
        CALL(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        CALL(SYS_close, pidfd, 0, 0, 0);
    }
    return made;

failed:
    free_plan(plan);
    return NULL;
}

PyDoc_STRVAR(sharing_doc,
"sharing() -> int\n\nHow many children may still use this process's memory.");

static PyObject *
count_sharing(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    long count = 0;
    sweep();
    for (struct plan *plan = sharing; plan != NULL; plan = plan->next)
        count++;
    return PyLong_FromLong(count);
}

static PyMethodDef methods[] = {
    {"spawn", spawn, METH_VARARGS, spawn_doc},
    {"sharing", count_sharing, METH_NOARGS, sharing_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_spawn",
    .m_doc = "Makes processes without copying the one that makes them; see spawn.py.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__spawn(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddIntConstant(module, "SLOTS", SLOTS) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
