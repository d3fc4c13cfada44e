"""What a process is to execute, and how a failure on the way is told; the same both ways."""

import json
import os
import struct
from typing import Any, NamedTuple

# What is told on a report socket: errno, and the number of the step.
REPORT = struct.Struct("=ii")
# In step with `enum step` in spawn.c; {cwd} and {program} are the job's.
STEPS = (
    "prepare",
    "join its cgroup",
    "set its limits",
    "give up the service's privileges",
    "change to directory {cwd}",
    "execute {program}",
)


class Program(NamedTuple):
    """What to execute, and as what.

    `paths` are tried in turn, and where `check` is not empty one of it must be a
    program that may be executed. `user` is (user ID, group ID, all group IDs),
    None to stay who we are; `limits` are (resource, soft limit, hard limit) of
    setrlimit(2), of which what only root may raise stays as it is. `apart`
    demands a process that never shares this one's memory: for one whose own may
    be too little to execute, as the kernel would end all that share it. With
    `terminal` its descriptor 0 is the terminal that controls its session.
    """

    paths: tuple[bytes, ...]
    argv: tuple[bytes, ...]
    environment: tuple[bytes, ...] = ()
    cwd: bytes = b"/"
    umask: int = 0o022
    check: tuple[bytes, ...] = ()
    user: tuple[int, int, tuple[int, ...]] | None = None
    limits: tuple[tuple[int, int, int], ...] = ()
    no_new_privileges: bool = False
    apart: bool = False
    terminal: bool = False

    def to_memfd(self) -> int:
        """Write it to a new file in memory (memfd_create(2)); returns its descriptor."""
        return in_memory("jobworker-program", json.dumps(self, default=_text).encode())

    @classmethod
    def read(cls, descriptor: int) -> "Program":
        """Read what to_memfd wrote; the descriptor stays open. Raises ValueError for anything else.

        Fields that a later supervisor has added are left out.
        """
        data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        found = cls(*json.loads(data)[: len(cls._fields)])
        return found._replace(
            paths=_all_bytes(found.paths),
            argv=_all_bytes(found.argv),
            environment=_all_bytes(found.environment),
            cwd=_bytes(found.cwd),
            check=_all_bytes(found.check),
            user=(*found.user[:2], tuple(found.user[2])) if found.user else None,
            limits=tuple((number, soft, hard) for number, soft, hard in found.limits),
        )


def in_memory(name: str, data: bytes) -> int:
    """A file in memory (memfd_create(2)), closed on exec, at its begin. Raises OSError."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _text(value: bytes) -> str:
    # Every byte is a character of its own: whatever the bytes, they are text so.
    return value.decode("latin-1")


def _bytes(text: Any) -> bytes:
    if "\0" in text:
        raise ValueError("execve(2) takes no NUL")
    return str(text).encode("latin-1")


def _all_bytes(texts: Any) -> tuple[bytes, ...]:
    return tuple(map(_bytes, texts))
