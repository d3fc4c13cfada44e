"""Input sent to a job over the API: exact, held back by a slow job, by those who may."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.support.client import calling, output, refused, start, wait
from tests.support.server import Server, running_server
from tests.support.waiting import until

POLICY = """
rules:
  - allow: "*"
    to: ou:team-a
    jobs: "*/{cn}"
  - allow: [start, stop, signal, read]
    to: cn:reader
    jobs: "*/*"
"""
TAKE_OVER = pb.INPUT_SHARING_TAKE_OVER
USERS = [("alice", "team-a"), ("bob", "team-a"), ("reader", "team-b")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("input"), USERS, POLICY) as up:
        yield up


@pytest.fixture
def alice(server: Server) -> Iterator[WorkerServiceStub]:
    with calling(server, "alice") as worker:
        yield worker


class Sender:
    """A call to Input that messages are put into one by one."""

    def __init__(self, worker: WorkerServiceStub, job: str, **fields: Any) -> None:
        self._messages: SimpleQueue[pb.InputRequest | None] = SimpleQueue()
        self.call = worker.Input(iter(self._messages.get, None))
        self.received = self.send(jobID=job, **fields).received

    def put(self, **fields: Any) -> None:
        self._messages.put(pb.InputRequest(**fields))

    def send(self, **fields: Any) -> pb.InputResponse:
        self.put(**fields)
        answer: pb.InputResponse = next(self.call)
        return answer

    def close(self) -> None:
        self._messages.put(None)


@contextmanager
def sending(worker: WorkerServiceStub, job: str, **fields: Any) -> Iterator[Sender]:
    sender = Sender(worker, job, **fields)
    try:
        yield sender
    finally:
        sender.close()
        sender.call.cancel()


def test_input_arrives_and_so_does_its_end(alice: WorkerServiceStub) -> None:
    """A job's stdin was /dev/null, without a word."""
    job = start(alice, "cat", input=pb.INPUT_MODE_OPEN)
    with sending(alice, job) as sender:
        assert sender.send(data=b"one ") == pb.InputResponse(received=4)
        assert sender.send(data=b"two") == pb.InputResponse(received=7)
        assert sender.send(end=True) == pb.InputResponse(received=7, over=True)
        assert list(sender.call) == []
    assert wait(alice, job).exitCode == 0
    assert output(alice, job) == b"one two"


def test_what_has_arrived_is_not_taken_again(alice: WorkerServiceStub) -> None:
    job = start(alice, "cat", input=pb.INPUT_MODE_OPEN)
    with sending(alice, job) as sender:
        sender.send(data=b"abc", offset=0)
        assert sender.send(data=b"abc", offset=0).received == 3
        assert sender.send(data=b"bcde", offset=1).received == 5
    with sending(alice, job) as sender:
        assert sender.received == 5
        sender.send(data=b"defg", offset=3, end=True)
    wait(alice, job)
    assert output(alice, job) == b"abcdefg"


def test_a_gap_is_refused(alice: WorkerServiceStub) -> None:
    job = start(alice, "cat", input=pb.INPUT_MODE_OPEN)
    with sending(alice, job) as sender, refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        sender.send(data=b"abc", offset=1)
    assert "gap" in words[0]
    alice.Stop(pb.StopRequest(jobID=job))
    assert output(alice, job) == b""


def test_a_job_that_does_not_read_holds_its_sender_back(
    server: Server, alice: WorkerServiceStub
) -> None:
    """What is under way is bounded: the pipe's 1 MiB, and a message or two."""
    go = server.directory / "go"
    script = f"until [ -e {go} ]; do sleep 0.05; done; sha256sum"
    job = start(alice, "sh", "-c", script, input=pb.INPUT_MODE_OPEN)
    data = [os.urandom(2**20) for _ in range(8)]
    with sending(alice, job) as sender:
        for piece in data:
            sender.put(data=piece)
        sender.put(end=True)
        reached = next(sender.call).received
        with pytest.raises(grpc.FutureTimeoutError):
            # The last of them is not answered.
            sender.call.result(timeout=1)
        with calling(server, "alice") as other, sending(other, job, sharing=TAKE_OVER) as ask:
            assert reached <= ask.received <= 3 * 2**20
            go.touch()
            rest = b"".join(data)[ask.received :]
            for begin in range(0, len(rest), 2**20):
                ask.send(data=rest[begin : begin + 2**20])
            ask.send(end=True)
    wait(alice, job)
    assert output(alice, job).split()[0].decode() == sha256(b"".join(data)).hexdigest()


def test_who_may_only_read_types_nothing(server: Server, alice: WorkerServiceStub) -> None:
    job = start(alice, "cat", input=pb.INPUT_MODE_OPEN)
    with calling(server, "reader") as reader, refused(grpc.StatusCode.PERMISSION_DENIED):
        Sender(reader, job)
    with calling(server, "bob") as bob, refused(grpc.StatusCode.NOT_FOUND):
        Sender(bob, job)
    alice.Stop(pb.StopRequest(jobID=job))


def test_who_may_not_attach_starts_nothing_that_waits_for_input(server: Server) -> None:
    with calling(server, "reader") as reader:
        with refused(grpc.StatusCode.PERMISSION_DENIED) as words:
            start(reader, "cat", input=pb.INPUT_MODE_OPEN)
        assert "attach" in words[0]
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            start(reader, "cat", terminal=pb.Terminal(rows=1, columns=1))


def test_a_job_without_input_takes_none(alice: WorkerServiceStub) -> None:
    job = start(alice, "sleep", "100")
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        Sender(alice, job)
    assert "started without an input" in words[0]
    alice.Stop(pb.StopRequest(jobID=job))
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        Sender(alice, job)
    assert "has ended" in words[0]


def test_one_sends_at_a_time_unless_asked(server: Server, alice: WorkerServiceStub) -> None:
    job = start(alice, "cat", input=pb.INPUT_MODE_OPEN)
    with sending(alice, job, sender="one") as first:
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
            Sender(alice, job)
        assert "alice" in words[0]
        # The same one again, whose connection broke: nobody knows yet.
        with sending(alice, job, sender="one") as again:
            with refused(grpc.StatusCode.FAILED_PRECONDITION):
                first.send(data=b"lost")
            with sending(alice, job, sharing=TAKE_OVER) as second:
                second.send(data=b"second ")
                with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
                    again.send(data=b"lost")
                assert "now" in words[0]
    shared = {"sharing": pb.INPUT_SHARING_SHARED}
    with sending(alice, job, **shared) as one, sending(alice, job, **shared) as two:
        one.send(data=b"a")
        two.send(data=b"b")
        one.send(data=b"c", end=True)
    wait(alice, job)
    assert output(alice, job) == b"second abc"


def test_a_stdin_that_the_job_closes_takes_no_more(alice: WorkerServiceStub) -> None:
    job = start(alice, "sh", "-c", "exec <&-; echo closed; sleep 100", input=pb.INPUT_MODE_OPEN)
    until(lambda: output(alice, job, noFollow=True) == b"closed\n")
    with sending(alice, job) as sender:
        sender.put(data=b"x")
        assert [answer.over for answer in sender.call][-1]
    alice.Stop(pb.StopRequest(jobID=job))


def test_a_terminal_has_its_size_and_kind_before_the_program_runs(
    alice: WorkerServiceStub,
) -> None:
    script = "stty size; echo $TERM; read x; echo got $x; stty size"
    terminal = pb.Terminal(rows=30, columns=101, kind="xterm-256color")
    job = start(alice, "sh", "-c", script, terminal=terminal)
    until(lambda: b"xterm" in output(alice, job, noFollow=True))
    with sending(alice, job) as sender:
        sender.send(terminal=pb.Terminal(rows=31, columns=99))
        sender.send(data=b"hello\n")
    assert wait(alice, job).exitCode == 0
    shown = b"30 101\r\nxterm-256color\r\nhello\r\ngot hello\r\n31 99\r\n"
    assert output(alice, job) == shown


def test_the_end_of_a_terminals_input_is_a_character(alice: WorkerServiceStub) -> None:
    job = start(alice, "cat", terminal=pb.Terminal(rows=24, columns=80))
    with sending(alice, job) as sender:
        sender.send(data=b"hello\n")
        sender.send(end=True)
        assert wait(alice, job).exitCode == 0
    assert output(alice, job) == b"hello\r\nhello\r\n"


def test_the_last_words_on_a_terminal_are_all_there(alice: WorkerServiceStub) -> None:
    """Elsewhere the end of a program cuts what its terminal has not shown (systemd#7531)."""
    script = "seq 1 20000; echo last"
    terminal = pb.Terminal(rows=24, columns=80)
    jobs = [start(alice, "sh", "-c", script, terminal=terminal) for _ in range(5)]
    wanted = "".join(f"{number}\r\n" for number in range(1, 20001)) + "last\r\n"
    for job in jobs:
        wait(alice, job)
        assert output(alice, job, untilExit=True) == wanted.encode()
