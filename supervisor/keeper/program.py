"""What a process is to execute, and how a failure on the way is told; the same both ways."""

import struct
from typing import NamedTuple

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
    be too little to execute, as the kernel would end all that share it.
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
