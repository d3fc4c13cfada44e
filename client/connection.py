"""A connection to the server: mutual TLS over gRPC, one typed method for each call.

Modules that import this one import gRPC, which takes a while.
"""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from jobworker.client.channel import Channel
from jobworker.client.endpoint import Endpoint
from jobworker.client.outcome import calling, whole_id
from jobworker.client.output_connection import OutputConnection
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub

# For calls that the server answers without waiting for a process to end.
PROMPT_SECONDS = 30.0
# Takes a sentence that the user should see while things go on.
Notice = Callable[[str], None]


# Takes what ends a stream from another thread.
Opened = Callable[[Callable[[], object]], None]


def _silently(_: str) -> None:
    """Where nobody asked to be told."""


@contextmanager
def _open(call: Any) -> Iterator[None]:
    """Take what a call yields within the block, and end it with that; errors are as `calling`'s."""
    try:
        with calling():
            yield
    finally:
        call.cancel()


def _left_open(_: Callable[[], object]) -> None:
    """Where no other thread is to end it."""


class Service:
    """The server's calls, as proto/workerservice.proto has them.

    Each raises CallFailed when it fails; `diagnosis.explained` then finds out why.
    """

    def __init__(self, channel: Channel, endpoint: Endpoint, notice: Notice) -> None:
        """`notice` is told what the user should know of the connection."""
        self._channel = channel
        self._stub = WorkerServiceStub(channel.current)
        self.endpoint = endpoint
        self.notice = notice

    def renew(self) -> bool:
        """Make the next calls with the certificate files as they are now; whether they changed."""
        renewed = self._channel.renew()
        if renewed:
            self._stub = WorkerServiceStub(self._channel.current)
        return renewed

    def start(self, request: pb.StartRequest) -> pb.StartResponse:
        """Start a job."""
        with calling():
            reply: pb.StartResponse = self._stub.Start(request, timeout=PROMPT_SECONDS)
        return reply

    def again(self, request: pb.AgainRequest) -> pb.StartResponse:
        """Start once more what a job was."""
        with calling():
            reply: pb.StartResponse = self._stub.Again(request, timeout=PROMPT_SECONDS)
        return reply

    def exec(self, request: pb.ExecRequest) -> pb.StartResponse:
        """Start a job within another."""
        with calling():
            reply: pb.StartResponse = self._stub.Exec(request, timeout=PROMPT_SECONDS)
        return reply

    def stop(self, request: pb.StopRequest) -> pb.StopResponse:
        """End a job; without `noWait`, return when it has ended.

        The request then names it by its ID.
        """
        seconds = PROMPT_SECONDS if request.noWait else None
        reply: pb.StopResponse
        with calling():
            reply, call = self._stub.Stop.with_call(request, timeout=seconds)
        request.jobID = whole_id(call.initial_metadata(), request.jobID)
        return reply

    def signal(self, request: pb.SignalRequest) -> None:
        """Send a signal to a job's main process, or to all of its processes."""
        with calling():
            self._stub.Signal(request, timeout=PROMPT_SECONDS)

    def pause(self, job: str) -> None:
        """Have a job stand still."""
        with calling():
            self._stub.Pause(pb.PauseRequest(jobID=job), timeout=PROMPT_SECONDS)

    def resume(self, job: str) -> None:
        """Have a paused job go on."""
        with calling():
            self._stub.Resume(pb.ResumeRequest(jobID=job), timeout=PROMPT_SECONDS)

    def status(self, job: str) -> pb.QueryStatusResponse:
        """Return what there is to know of a job, given by its ID, a part of that, or its name."""
        request = pb.QueryStatusRequest(jobID=job)
        with calling():
            reply: pb.QueryStatusResponse = self._stub.QueryStatus(request, timeout=PROMPT_SECONDS)
        return reply

    def wait(self, request: pb.WaitRequest, seconds: float | None = None) -> pb.QueryStatusResponse:
        """Return a job's status when it has ended, however long that takes, or within `seconds`.

        The request names it by its ID once the server has said it, also if the call fails then.
        """
        reply: pb.QueryStatusResponse
        with calling():
            try:
                reply, call = self._stub.Wait.with_call(request, timeout=seconds)
            except grpc.RpcError as error:
                if isinstance(error, grpc.Call):
                    request.jobID = whole_id(error.initial_metadata(), request.jobID)
                raise
        request.jobID = whole_id(call.initial_metadata(), request.jobID)
        return reply

    def begin(self, method: str, request: Message, seconds: float | None) -> "grpc.Future[Message]":
        """Begin a call of that name, whose result is its response, or raises grpc.RpcError."""
        future: grpc.Future[Message] = getattr(self._stub, method).future(request, timeout=seconds)
        return future

    def input(self, requests: Iterator[pb.InputRequest]) -> Generator[pb.InputResponse, None, None]:
        """Send a job input; yields the server's answers. Closing ends the call."""
        call = self._stub.Input(requests)
        with _open(call):
            yield from call

    def put(
        self, first: pb.PutRequest, requests: Iterator[pb.PutRequest]
    ) -> Generator[pb.PutResponse, None, None]:
        """Put a file into a job's directory; yields the server's answers. Closing ends the call.

        The first of the requests names the job by its ID once the server has said it.
        """
        call = self._stub.Put(requests)
        with _open(call):
            first.jobID = whole_id(call.initial_metadata(), first.jobID)
            yield from call

    def get(self, request: pb.GetRequest) -> Generator[pb.GetResponse, None, None]:
        """Get a file out of a job's directory, as `output` gets that. Closing ends the call."""
        call = self._stub.Get(request)
        with _open(call):
            request.jobID = whole_id(call.initial_metadata(), request.jobID)
            yield from call

    def output(
        self, request: pb.GetOutputRequest, opened: Opened = _left_open
    ) -> Generator[pb.GetOutputResponse, None, None]:
        """Yield a job's output as the server sends it; closing ends the call.

        `opened` is told what ends it from another thread. The request names the job by its
        ID once the server has said it.
        """
        call = self._stub.GetOutput(request)
        opened(call.cancel)
        with _open(call):
            request.jobID = whole_id(call.initial_metadata(), request.jobID)
            yield from call

    def events(self, request: pb.EventsRequest) -> Generator[pb.Event, None, None]:
        """Yield what happens to jobs as the server tells it; closing ends the call."""
        call = self._stub.Events(request)
        with _open(call):
            yield from call

    def output_connection(self) -> OutputConnection:
        """Connect anew, for the output of one job without gRPC. Raises NotServed."""
        return OutputConnection(self.endpoint)

    def list(self, request: pb.ListRequest, patience: float = PROMPT_SECONDS) -> pb.ListResponse:
        """Return a page of the jobs that one may see, within `patience` seconds."""
        with calling():
            reply: pb.ListResponse = self._stub.List(request, timeout=patience)
        return reply

    def remove(self, job: str) -> None:
        """Forget a job that has ended."""
        with calling():
            self._stub.Remove(pb.RemoveRequest(jobID=job), timeout=PROMPT_SECONDS)

    def prune(self, request: pb.PruneRequest) -> pb.PruneResponse:
        """Forget the jobs that have ended, however many."""
        with calling():
            reply: pb.PruneResponse = self._stub.Prune(request)
        return reply

    def would_prune(self, request: pb.PruneRequest) -> pb.WouldPruneResponse:
        """Return what `prune` would forget."""
        with calling():
            reply: pb.WouldPruneResponse = self._stub.WouldPrune(request, timeout=PROMPT_SECONDS)
        return reply

    def add_schedule(self, request: pb.AddScheduleRequest) -> pb.ScheduleStatus:
        """Have something run again and again."""
        with calling():
            reply: pb.ScheduleStatus = self._stub.AddSchedule(request, timeout=PROMPT_SECONDS)
        return reply

    def schedules(
        self, owner: str = "", patience: float = PROMPT_SECONDS
    ) -> Sequence[pb.ScheduleStatus]:
        """Return the schedules of an owner, or all that one may see, within `patience` seconds."""
        request = pb.ListSchedulesRequest(owner=owner)
        with calling():
            reply: pb.ListSchedulesResponse = self._stub.ListSchedules(request, timeout=patience)
        return reply.schedules

    def change_schedule(self, request: pb.ChangeScheduleRequest) -> pb.ScheduleStatus:
        """Change a schedule, and return it as it is then."""
        with calling():
            reply: pb.ScheduleStatus = self._stub.ChangeSchedule(request, timeout=PROMPT_SECONDS)
        return reply

    def whoami(self) -> pb.WhoAmIResponse:
        """Return who the server takes one for."""
        with calling():
            reply: pb.WhoAmIResponse = self._stub.WhoAmI(pb.WhoAmIRequest(), timeout=PROMPT_SECONDS)
        return reply

    def can_i(self, request: pb.CanIRequest) -> pb.CanIResponse:
        """Return whether one has the right to do something, and why."""
        with calling():
            reply: pb.CanIResponse = self._stub.CanI(request, timeout=PROMPT_SECONDS)
        return reply

    def rights(self) -> pb.RightsResponse:
        """Return what the server's policy and settings say about one."""
        with calling():
            reply: pb.RightsResponse = self._stub.Rights(pb.RightsRequest(), timeout=PROMPT_SECONDS)
        return reply

    def renew_certificate(self, request: pb.RenewCertificateRequest) -> pb.RenewCertificateResponse:
        """Have one's certificate renewed."""
        reply: pb.RenewCertificateResponse
        with calling():
            reply = self._stub.RenewCertificate(request, timeout=PROMPT_SECONDS)
        return reply


@contextmanager
def connect(endpoint: Endpoint, notice: Notice = _silently) -> Iterator[Service]:
    """Give a Service; nothing is sent before its first call.

    `notice` is told what the user should know: a lost connection, a key that is open to others.

    Raises:
        BadFile: A certificate or key file cannot be read or is none.
    """
    with closing(Channel(endpoint)) as channel:
        _warn_of_open_key(endpoint.key, notice)
        yield Service(channel, endpoint, notice)


def _warn_of_open_key(path: Path, notice: Notice) -> None:
    if os.name == "nt":
        # There the mode says nothing of who may read it.
        return
    mode = path.stat().st_mode
    if mode & 0o044:
        notice(
            f"warning: others can read the key {path} (mode {mode & 0o777:04o}); "
            f"run `chmod 600 {path}`"
        )
