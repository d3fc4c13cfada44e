"""The process that becomes a job: forked ahead of time, it waits, prepares itself and executes.

A launcher is forked by the keeper before anyone asks for a job, so that a start
costs one message and one execve(2). Until it has its orders it belongs to
nobody; when its supervisor dies before giving any, it ends. It takes orders
once, which makes a repeated order harmless: a job can never be executed twice.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NamedTuple

from jobworker.supervisor.keeper import packets
from jobworker.supervisor.keeper.signals import IGNORED_BY_PYTHON

# Set in the environment of every job; also how a job's processes are found
# again where there are no cgroups.
TOKEN_VARIABLE = "JOBWORKER_JOB_ID"  # noqa: S105 - a name, not a secret
PR_SET_NO_NEW_PRIVS = 38
# Looked up once, in the keeper, for all that are forked from it.
_prctl = ctypes.CDLL(None, use_errno=True).prctl

# The soft limit of open files that this process was started with. The keeper
# imports this before it raises its own for the many descriptors that it holds;
# programs that use select(2), or close all that may be open, count on the lower.
_OPEN_FILES, _ = resource.getrlimit(resource.RLIMIT_NOFILE)

# Variables that the dynamic loader acts on (ld.so(8)): the program's alone.
_LOADERS = ("LD_", "GLIBC_TUNABLES", "MALLOC_")
# Characters of the program's name in an error.
_SHOWN = 300
# The exit status of a launcher that could not execute its job's program.
FAILED = 127


class Spec(NamedTuple):
    """What to execute and how: `argv[0]` is looked up on the PATH of `env`.

    `credentials` are (user ID, group ID, all group IDs), None to stay who we
    are; `resource_limits` pairs of a resource and its limit (setrlimit(2)).
    `sandbox` is bubblewrap and its options, or empty. What is not UTF-8 in the
    texts are lone surrogates.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: str
    umask: int
    credentials: tuple[int, int, list[int]] | None = None
    resource_limits: Sequence[tuple[int, int]] = ()
    no_new_privileges: bool = False
    sandbox: Sequence[str] = ()

    def to_memfd(self) -> int:
        """Write it to a new anonymous file (memfd_create(2)) and return its descriptor."""
        descriptor = os.memfd_create("jobworker-spec", os.MFD_CLOEXEC)
        data = json.dumps(self).encode()
        while data:
            data = data[os.write(descriptor, data) :]
        return descriptor

    @classmethod
    def from_memfd(cls, descriptor: int) -> "Spec":
        """Read what to_memfd wrote, whatever the descriptor's position, and close it."""
        with os.fdopen(descriptor, "rb") as file:
            file.seek(0)
            return cls(*json.load(file))


def run(control: socket.socket, stdout: int, stderr: int, cgroup: str) -> None:
    """Turn this process, just forked, into a job; never returns.

    `control` is the supervisor's, `stdout` and `stderr` the write ends of the
    job's pipes; `cgroup` is the directory of a cgroup to join, or empty. First
    it says ("ready", pid, start time in clock ticks) with a pidfd of itself.
    Then it takes ("launch",) with the spec (JSON in a memfd), and what there is
    for `_execute`. When the program is executing, `control` closes; when it
    cannot be, it first says ("failed", errno, step); a step that begins with
    "execute " is that of the program itself.
    """
    status = FAILED
    step = "prepare"
    try:
        _leave_keeper(control, stdout, stderr)
        step = "join its cgroup"
        if cgroup:
            with open(f"{cgroup}/cgroup.procs", "w") as procs:
                procs.write("0")
        step = "prepare"
        _rehearse()
        # Woken by its orders, it must not preempt the supervisor, which has a
        # disk to wait for anyway (sched(7)).
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        pidfd = os.pidfd_open(os.getpid())
        packets.send(control, ("ready", os.getpid(), start_ticks(os.getpid())), (pidfd,))
        os.close(pidfd)
        orders = packets.receive(control)
        if orders is None:
            status = 0
            return
        _, (spec_fd, *inside) = orders
        spec = Spec.from_memfd(spec_fd)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        step = "give up the service's privileges"
        _confine(spec)
        step = f"change to directory {spec.cwd[:_SHOWN]}"
        os.chdir(_bytes(spec.cwd))
        step = f"execute {spec.argv[0][:_SHOWN]}"
        _execute(spec, inside)
    except OSError as error:
        packets.send(control, ("failed", error.errno or 0, step))
    except BaseException as error:  # noqa: BLE001 - this process has no caller to raise to
        print(f"launcher: cannot {step}: {error!r}", file=sys.__stderr__, flush=True)
    finally:
        os._exit(status)


def _confine(spec: Spec) -> None:
    """Become the job's user, for good, within its limits; umask and privileges as they are to be.

    From here to execve(2) the kernel keeps others of that user away from this
    process: a change of user makes it not dumpable (prctl(2), PR_SET_DUMPABLE).
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, most))
    for number, limit in spec.resource_limits:
        _, hard = resource.getrlimit(number)
        # Only root may raise a hard limit; what is lower already is limit enough.
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)  # noqa: PLW2901
        resource.setrlimit(number, (limit, limit))
    if spec.credentials is not None:
        uid, gid, groups = spec.credentials
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    if spec.no_new_privileges and _prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    os.umask(spec.umask)


def _execute(spec: Spec, inside: Sequence[int] = ()) -> None:
    """Replace this process by the job's program, or by the sandbox that runs it.

    `inside` are the descriptors of a program that tells how the job's ended
    (host/inside.c), and of the file that it tells it in, or none.
    """
    argv = list(map(_bytes, spec.argv))
    if not spec.sandbox:
        os.execvpe(argv[0], argv, {_bytes(name): _bytes(text) for name, text in spec.env.items()})
    # Bubblewrap is executed whatever it is to execute, so that is looked at here.
    _check_program(argv[0], _bytes(spec.env.get("PATH", os.defpath)))
    if inside:
        teller, told = inside
        for descriptor in inside:
            os.set_inheritable(descriptor, True)
        own = [_bytes(f"{name}={spec.env[name]}") for name in spec.env if name.startswith(_LOADERS)]
        argv = [b"/proc/self/fd/%d" % teller, b"%d" % told, b"%d" % teller, *own, b"--", *argv]
    options = [*spec.sandbox[1:], "--clearenv"]
    for name, value in spec.env.items():
        if not (inside and name.startswith(_LOADERS)):
            options += ["--setenv", name, value]
    # Not its own environment: LD_PRELOAD would run the tenant's code outside.
    # Not its arguments: they have less room, and all may read them.
    descriptor = os.memfd_create("jobworker-sandbox", 0)
    data = _bytes("\0".join((*options, "")))
    while data:
        data = data[os.write(descriptor, data) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    command = [spec.sandbox[0].encode(), b"--args", b"%d" % descriptor, b"--", *argv]
    token = {name: value for name, value in spec.env.items() if name == TOKEN_VARIABLE}
    os.execve(command[0], command, token)


def _bytes(text: str) -> bytes:
    """The bytes that a text of the spec stands for, whatever the locale (PEP 383)."""
    return text.encode("utf-8", "surrogateescape")


def _check_program(name: bytes, path: bytes) -> None:
    """Raise the OSError with which execvp(3) would fail, as far as that can be told."""
    candidates = [name] if b"/" in name else [part + b"/" + name for part in path.split(b":")]
    found = [candidate for candidate in candidates if os.path.isfile(candidate)]  # noqa: PTH113
    if not any(os.access(candidate, os.X_OK) for candidate in found):
        number = errno.EACCES if found else errno.ENOENT
        raise OSError(number, os.strerror(number), name)


def _leave_keeper(control: socket.socket, stdout: int, stderr: int) -> None:
    """Drop what fork(2) copied from the keeper: descriptors, handlers, its session."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for number in IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    # Now rather than just before execve: entering a new session also enters a
    # new scheduling group, which would delay the execve by half a millisecond.
    os.setsid()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    keep = control.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)


def _rehearse() -> None:
    """Do what the orders will ask for once in vain: a forked process pays at first touch.

    The pages it shares with the keeper are copied now, not while somebody waits.
    """
    ours, theirs = packets.pair()
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    orders = Spec(
        ["/nonexistent/"],
        {},
        "/",
        os.umask(0),
        (-1, -1, os.getgroups()) if os.geteuid() == 0 else None,
        [(resource.RLIMIT_CORE, hard)] if hard != resource.RLIM_INFINITY else [],
    ).to_memfd()
    packets.send(theirs, ("launch",), (orders,))
    os.close(orders)
    received = packets.receive(ours)
    assert received is not None  # noqa: S101 - it was sent just above
    _, (orders,) = received
    spec = Spec.from_memfd(orders)
    _confine(spec)
    with contextlib.suppress(OSError):
        os.chdir(spec.cwd)
        _execute(spec)
    ours.close()
    theirs.close()


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot (proc(5), stat field 22)."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        # The second field, the name, may itself hold spaces and parentheses.
        return int(stat.read().rpartition(b")")[2].split()[19])
