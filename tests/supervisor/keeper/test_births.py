"""Orders for jobs' processes: each is followed once, and one that makes no sense harms nobody."""

import errno
import os
from pathlib import Path

import pytest

from jobworker.supervisor.keeper import packets
from jobworker.supervisor.keeper.births import Births
from jobworker.supervisor.keeper.program import Program, in_memory

TRUE = Program((b"/bin/true",), (b"true",))
LASTING = Program((b"/bin/sleep",), (b"sleep", b"1000"))


def order(program: bytes) -> tuple[int, ...]:
    """The descriptors of an order with this for a program."""
    stdout, stdout_write = os.pipe2(os.O_CLOEXEC)
    stderr, stderr_write = os.pipe2(os.O_CLOEXEC)
    ours, theirs = (end.detach() for end in packets.pair())
    memfd = in_memory("program", program)
    return memfd, stdout, stderr, ours, stdout_write, stderr_write, theirs


def as_bytes(program: Program) -> bytes:
    descriptor = program.to_memfd()
    try:
        return os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "program",
    [
        b"no JSON",
        b"{}",
        b"[1, 2]",
        as_bytes(TRUE._replace(argv=(b"tr\0ue",))),
        as_bytes(TRUE._replace(cwd=b"/\0")),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(program: bytes) -> None:
    """It ended the keeper, and every job with it."""
    births = Births()
    before = open_files()
    with pytest.raises(OSError, match="Errno 22") as refused:
        births.make("job", "", order(program))
    assert refused.value.errno == errno.EINVAL
    assert open_files() == before
    assert len(births) == 0


def test_an_order_is_followed_once() -> None:
    births = Births()
    before = open_files()
    born = births.make("job", "", order(as_bytes(TRUE)))
    assert births.make("job", "", order(as_bytes(TRUE))) == born
    os.waitpid(born.pid, 0)
    births.drop("job")
    assert open_files() == before
