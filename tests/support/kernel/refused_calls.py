"""A program in which one system call fails, once, at a chosen place.

seccomp_unotify(2): the kernel asks us about each system call of the program and of the
processes that it makes, natively or by fork(2), and we let it be or have it fail. Nothing
of the program is replaced, so what C code does is tried as well.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import platform
import select
import socket
import struct
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

DEADLINE_SECONDS = 60.0
# Of x86_64 (syscalls(2)), with an errno that is each one's own.
CALLS = {
    "access": (21, errno.EACCES),
    "chdir": (80, errno.EACCES),
    "clone": (56, errno.EAGAIN),
    "clone3": (435, errno.EAGAIN),
    "close_range": (436, errno.ENOMEM),
    "dup2": (33, errno.EMFILE),
    "dup3": (292, errno.EMFILE),
    "execve": (59, errno.ENOMEM),
    "faccessat": (269, errno.EACCES),
    "fcntl": (72, errno.EMFILE),
    "fork": (57, errno.EAGAIN),
    "fstat": (5, errno.ENOMEM),
    "ioctl": (16, errno.EPERM),
    "mmap": (9, errno.ENOMEM),
    "newfstatat": (262, errno.ENOMEM),
    "openat": (257, errno.EMFILE),
    "pidfd_open": (434, errno.EMFILE),
    "prctl": (157, errno.EINVAL),
    "pread64": (17, errno.EIO),
    "prlimit64": (302, errno.EPERM),
    "read": (0, errno.ENOMEM),
    "setgroups": (116, errno.ENOMEM),
    "setresgid": (119, errno.EAGAIN),
    "setresuid": (117, errno.EAGAIN),
    "setsid": (112, errno.EPERM),
    "write": (1, errno.ENOBUFS),
}
_NAMES = {number: name for name, (number, _) in CALLS.items()}
# Tells us that what is tried begins, and that it is over: sched_yield(2).
_MARK = 24
_MAP_STACK = 0x20000
_SECCOMP, _LISTENER = 317, (1, 8)
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_NOTICE = struct.Struct("=QIIiIQ6Q")
_REPLY = struct.Struct("=QqiI")


class Place(NamedTuple):
    """A system call: whether a child makes it, its name, and how many of it come before."""

    in_child: bool
    name: str
    before: int


class Outcome(NamedTuple):
    """What the program returned, and every place that it came to."""

    result: Any
    places: list[Place]


def with_a_refused_call(
    program: Callable[[Callable[[], None]], Any], refused: Place | None = None, number: int = 0
) -> Outcome:
    """Run the program in a process of its own; at that place the call fails, with that errno.

    It is given a function to call where what is tried begins and where it is over, and
    returns what JSON can tell. Of its children the first counts, and when it has asked to
    execute another program only what it writes.
    """
    if platform.machine() != "x86_64":
        pytest.skip("the numbers of system calls are those of x86_64: NOT tried")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            _run(program, theirs)
        theirs.close()
        _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
        try:
            judge = _Judge(pid, refused, number)
            _answer(listener, judge)
        finally:
            # What still is asked fails from now on.
            os.close(listener)
            os.waitpid(pid, 0)
        result = ours.makefile().read()
        assert result, f"it had no end of its own: {refused}"
        return Outcome(json.loads(result), judge.places)


def _run(program: Callable[[Callable[[], None]], Any], told: socket.socket) -> None:
    try:
        with _filtered(told):
            told.sendall(json.dumps(program(os.sched_yield)).encode())
    except BaseException:  # noqa: BLE001 - it has no caller to raise to
        traceback.print_exc()
    finally:
        os._exit(1)


def _filtered(told: socket.socket) -> socket.socket:
    """Have every one of CALLS asked about from now on; sends who is asked."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    numbers = [*_NAMES, _MARK]
    # bpf(2): load the number; for each of ours jump to the end, which asks; else allow.
    steps = [(0x20, 0, 0, 0)]
    steps += [(0x15, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    steps += [(6, 0, 0, 0x7FFF0000), (6, 0, 0, 0x7FC00000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    filters = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    libc.prctl(38, 1, 0, 0, 0)
    listener = libc.syscall(_SECCOMP, *_LISTENER, filters)
    assert listener >= 0, os.strerror(ctypes.get_errno())
    # sendmsg(2), and close(2), are none of those.
    socket.send_fds(told, [b"!"], [listener])
    os.close(listener)
    return told


class _Judge:
    """Who has called what so far, and whether the next call is the one to fail."""

    def __init__(self, pid: int, refused: Place | None, number: int) -> None:
        self._pid = pid
        self._refused = refused
        self._number = number
        self._children: list[int] = []
        # The program before it is at what is tried, and who is through with that.
        self._done = {pid}
        self._seen: Counter[tuple[int, str]] = Counter()
        self.places: list[Place] = []

    def error(self, caller: int, number: int, arguments: list[int]) -> int:
        """The errno with which this call is to fail, or 0."""
        name = _NAMES.get(number, "")
        if not name:
            self._done ^= {caller}
        if caller not in (self._pid, *self._children):
            self._children.append(caller)
        if not name or not self._counts(caller, name, arguments):
            return 0
        place = Place(caller != self._pid, name, self._seen[caller, name])
        self._seen[caller, name] += 1
        self.places.append(place)
        if name == "execve" and place != self._refused:
            self._done.add(caller)
        return (self._number or CALLS[name][1]) if place == self._refused else 0

    def _counts(self, caller: int, name: str, arguments: list[int]) -> bool:
        if caller in self._done or caller in self._children[1:]:
            return name == "write" and caller in self._children[:1]
        # Memory that Python asks for is none of what is tried.
        return name != "mmap" or bool(arguments[3] & _MAP_STACK)


def _answer(listener: int, judge: _Judge) -> None:
    """Answer until all who ask have ended."""
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    while True:
        events = waiting.poll(DEADLINE_SECONDS * 1000)
        assert events, "it did not end in time"
        if not events[0][1] & select.POLLIN:
            return
        notice = bytearray(_NOTICE.size)
        # Who asks may be killed meanwhile.
        with contextlib.suppress(FileNotFoundError):
            fcntl.ioctl(listener, _RECEIVE, notice)
            asked, caller, _, number, _, _, *arguments = _NOTICE.unpack(notice)
            error = judge.error(caller, number, arguments)
            reply = _REPLY.pack(asked, 0, -error, 0 if error else _CONTINUE)
            fcntl.ioctl(listener, _SEND, bytearray(reply))
