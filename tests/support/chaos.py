"""A workload with known outcomes, and somebody who kills the service's processes meanwhile."""

import contextlib
import hashlib
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import psutil

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.server import Server
from tests.support.waiting import until

# Writes SIZE bytes made from its NUMBER to stdout, in pieces with pauses, a line
# to stderr, notes that it ran, and exits with NUMBER % 256.
SCRIPT = """
echo ran >> "$2/$1"
i=0
while [ $i -lt $3 ]; do
    head -c 3000 /dev/zero | tr '\\0' "$(printf "\\\\$(printf %o $((65 + ($1 + i) % 26)))")"
    i=$((i + 1))
    [ $((i % 7)) -ne 0 ] || sleep 0.02
done
echo "end of $1" >&2
exit $(($1 % 256))
"""
PIECE = 3000
# A call that was cut short is made again for so long.
PATIENCE_SECONDS = 120.0
T = TypeVar("T")


@dataclass(frozen=True)
class Expected:
    """What a job of the workload must turn out to be."""

    number: int
    pieces: int

    @property
    def stdout(self) -> bytes:
        """All that it writes to standard output."""
        letters = (65 + (self.number + i) % 26 for i in range(self.pieces))
        return b"".join(bytes([letter]) * PIECE for letter in letters)

    @property
    def stderr(self) -> bytes:
        """All that it writes to standard error."""
        return f"end of {self.number}\n".encode()


class Killer(threading.Thread):
    """Signals a random process of the service, over and over, until told to end."""

    def __init__(self, server: Server, kills: int, pause: tuple[float, float]) -> None:
        super().__init__()
        self._server = server
        self._wanted = kills
        self._pause = pause
        self._random = random.Random(kills)
        self._over = threading.Event()
        self.kills: dict[str, int] = {}

    def run(self) -> None:
        while sum(self.kills.values()) < self._wanted:
            if self._over.wait(self._random.uniform(*self._pause)):
                return
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                victim = self._random.choice(services(self._server))
                name = victim.cmdline()[0]
                self.strike(victim)
                self.kills[name] = self.kills.get(name, 0) + 1

    def strike(self, victim: psutil.Process) -> None:
        """SIGKILL it."""
        victim.send_signal(signal.SIGKILL)

    def end(self) -> None:
        """Stop, and wait until it has stopped."""
        self._over.set()
        self.join()


class Freezer(Killer):
    """SIGSTOPs in place of killing, and lets go on after a while."""

    def strike(self, victim: psutil.Process) -> None:
        """SIGSTOP it, and SIGCONT it a moment later."""
        victim.send_signal(signal.SIGSTOP)
        self._over.wait(self._random.uniform(0.05, 0.5))
        victim.send_signal(signal.SIGCONT)


def services(server: Server) -> list[psutil.Process]:
    """The keeper's supervisor and front, whichever are there."""
    found = []
    for process in psutil.Process(server.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline()[:1] in (["jobworker: supervisor"], ["jobworker: front"]):
                found.append(process)
    return found


def kill(server: Server, name: str) -> None:
    """SIGKILL the supervisor or the front, as soon as there is one."""

    def killed() -> bool:
        found = [process for process in services(server) if _is(process, f"jobworker: {name}")]
        for process in found:
            process.kill()
        return bool(found)

    until(killed)


def _is(process: psutil.Process, title: str) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()[:1] == [title]
    return False


def persist(call: Callable[[], T]) -> T:
    """Make a call until it is answered: a broken connection is no answer."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise


def run_one(worker: WorkerServiceStub, expected: Expected, ran: Path) -> None:
    """Start one job of the workload, follow it to its end, and check all that is known of it."""
    number = expected.number
    request = pb.StartRequest(
        commandName="sh",
        Arguments=["-c", SCRIPT, "sh", str(number), str(ran), str(expected.pieces)],
        requestID=f"chaos-{number}",
    )
    job_id = persist(lambda: worker.Start(request, wait_for_ready=True, timeout=60)).jobID
    output = b"".join(pieces(worker, job_id))
    wait = pb.WaitRequest(jobID=job_id, output=True)
    ended = persist(lambda: worker.Wait(wait, wait_for_ready=True))
    assert ended.exitCode == number % 256, ended
    assert ended.endReason == pb.END_REASON_EXITED, ended
    assert len(output) == ended.outputBytes == len(expected.stdout + expected.stderr)
    stdout = output.replace(expected.stderr, b"")
    assert hashlib.sha256(stdout).digest() == hashlib.sha256(expected.stdout).digest()
    assert (ran / str(number)).read_text() == "ran\n", "the job ran more than once"


def pieces(worker: WorkerServiceStub, job_id: str) -> Iterator[bytes]:
    """The job's output to its end, going on from the same offset whenever it is cut short."""
    offset = 0
    while True:
        request = pb.GetOutputRequest(jobID=job_id, raw=True, offset=offset)
        try:
            for message in worker.GetOutput(request, wait_for_ready=True):
                assert message.offset == offset
                offset += len(message.data)
                yield message.data
            return
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
