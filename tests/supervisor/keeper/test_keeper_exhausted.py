"""A keeper that the system refuses something: one start is refused, and nothing is left of it."""

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from jobworker.supervisor.keeper import births as room
from jobworker.supervisor.keeper.births import Births
from tests.supervisor.keeper.test_births import LASTING, TRUE, as_bytes, open_files, order
from tests.support.client import calling, output, start, wait
from tests.support.library import eventually
from tests.support.server import Server

# More than a start takes of the keeper.
MOST = 24
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "input": {"input": pb.INPUT_MODE_OPEN},
    "terminal": {"terminal": pb.Terminal(rows=24, columns=80)},
}


@contextmanager
def descriptors_of(keeper: psutil.Process, left: int) -> Iterator[None]:
    """The keeper may open so many more."""
    before = keeper.rlimit(psutil.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path(f"/proc/{keeper.pid}/fd").iterdir())
    keeper.rlimit(psutil.RLIMIT_NOFILE, (highest + 1 + left, before[1]))
    try:
        yield
    finally:
        keeper.rlimit(psutil.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_keeper_out_of_descriptors_refuses_a_start_and_goes_on(
    fresh_server: Server, kind: str
) -> None:
    keeper = psutil.Process(fresh_server.process.pid)
    codes = set()
    with calling(fresh_server, "alice") as alice:
        held = start(alice, "sleep", "1000")
        before = keeper.num_fds()
        for left in range(MOST):
            with descriptors_of(keeper, left):
                codes.add(_started_or_refused(alice, kind))
        assert codes == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        # It keeps nothing of what was refused, and serves as before.
        assert wait(alice, start(alice, "sh", "-c", "exit 3")).exitCode == 3
        eventually("one job runs", lambda: _running(alice) == [held])
        eventually("the rest is let go", lambda: keeper.num_fds() == before)
        alice.Stop(pb.StopRequest(jobID=held))


def _started_or_refused(alice: WorkerServiceStub, kind: str) -> grpc.StatusCode:
    try:
        job = start(alice, "echo", "out", **KINDS[kind])
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    assert wait(alice, job).exitCode == 0
    assert output(alice, job).strip() == b"out"
    return grpc.StatusCode.OK


def _running(alice: WorkerServiceStub) -> list[str]:
    return [job.jobID for job in alice.List(pb.ListRequest(running=True)).jobs]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC])
@pytest.mark.parametrize("call", ["start_ticks", "_program", "spawn"])
def test_each_call_of_a_birth_may_fail(
    call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    births = Births()
    before = open_files()

    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    children = psutil.Process().children()
    with monkeypatch.context() as failing:
        owner: Any = births._spawner if call == "spawn" else room
        failing.setattr(owner, call, refused)
        with pytest.raises(OSError, match=os.strerror(number)):
            # One that does not end by itself before it is killed.
            births.make("job", "", order(as_bytes(LASTING)))
    left = [child for child in psutil.Process().children() if child not in children]
    for child in left:
        # Killed, and to be reaped, as the keeper does with every child.
        assert os.waitpid(child.pid, 0)[1] == signal.SIGKILL
    assert (open_files(), len(births)) == (before, 0)
    born = births.make("job", "", order(as_bytes(TRUE)))
    assert os.waitstatus_to_exitcode(os.waitpid(born.pid, 0)[1]) == 0
    births.drop("job")
    assert open_files() == before
