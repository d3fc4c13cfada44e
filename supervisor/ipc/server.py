"""The supervisor's end of the pipes: who is connected, what they watch, what they are told."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable
from functools import partial

from jobworker.proto import ipc_pb2 as ipc
from jobworker.supervisor.errors import InvalidRequest, SupervisorError, fitting
from jobworker.supervisor.ipc import requests
from jobworker.supervisor.ipc.messages import (
    asker_message,
    error_reply,
    job_message,
    start_message,
    words_of,
)
from jobworker.supervisor.ipc.schedule_messages import schedule_message
from jobworker.supervisor.ipc.start_request import MAX_SPEC_BYTES
from jobworker.supervisor.ipc.wire import FrameProtocol
from jobworker.supervisor.job import Job, Received, State
from jobworker.supervisor.schedule import Schedule

log = logging.getLogger(__name__)

# A job that has ended may change for as long as its output does, which observers
# are not told of. Of more such jobs at once, some may be told of again.
_ENDED = 4096


class Client:
    """One connected client."""

    def __init__(
        self,
        handle: Callable[["Client", int, requests.Call], None],
        gone: Callable[["Client"], None],
    ) -> None:
        self._handle = handle
        self._gone = gone
        self.protocol = FrameProtocol(self._received, self._lost, self._resumed)
        self.watched: set[str] = set()
        self._untold: dict[str, Callable[[], ipc.Job]] = {}
        self.lost = False
        # The state last told of each job that has not ended, to one who observes
        # them all; None for who does not.
        self._observed: dict[str, State] | None = None
        # Those last told to have ended, the oldest first.
        self._ended: dict[str, None] = {}

    def observe(self) -> None:
        """Have every job's new states told from here on."""
        self._observed = {}

    def is_news(self, job_id: str, state: State) -> bool:
        """Whether an observer is to be told that the job has this state; asked once for each."""
        if self._observed is None or self._observed.get(job_id) is state:
            return False
        if state is not State.ENDED:
            self._observed[job_id] = state
            return True
        # One that ended at once was never told of as running.
        self._observed.pop(job_id, None)
        news = job_id not in self._ended
        self._ended[job_id] = None
        if len(self._ended) > _ENDED:
            del self._ended[next(iter(self._ended))]
        return news

    def reply(self, seq: int, *jobs: ipc.Job) -> None:
        """Answer a request with jobs."""
        event = ipc.Event()
        event.reply.seq = seq
        event.reply.jobs.extend(jobs)
        self._send(event)

    def reply_owners(self, seq: int, owners: Iterable[tuple[str, str]]) -> None:
        """Answer with owners and tenants."""
        told = [ipc.Owner(owner=owner, tenant=tenant) for owner, tenant in owners]
        self._send(ipc.Event(reply=ipc.Reply(seq=seq, owners=told)))

    def reply_schedules(self, seq: int, schedules: Iterable[Schedule]) -> None:
        """Answer with schedules."""
        told = map(schedule_message, schedules)
        self._send(ipc.Event(reply=ipc.Reply(seq=seq, schedules=told)))

    def reply_start(self, seq: int, job: Job) -> None:
        """Answer with all that a job was asked for with."""
        request = job.request
        start = ipc.Start(
            owner=request.owner, request=start_message(request), inside=request.inside
        )
        self._send(ipc.Event(reply=ipc.Reply(seq=seq, start=start)))

    def answer_input(self, seq: int, received: Received | SupervisorError) -> None:
        """Answer input with how far it is, or that it cannot be kept."""
        if isinstance(received, SupervisorError):
            self.refuse(seq, received)
            return
        reply = ipc.Reply(seq=seq, received=received.total, over=received.over)
        self._send(ipc.Event(reply=reply))

    def say_whether(self, seq: int, refusal: SupervisorError | None) -> None:
        """Answer whether something would be done: None if it would, or why not."""
        reply = ipc.Reply(seq=seq)
        if refusal is not None:
            reply.refusal = words_of(refusal)
            reply.field = getattr(refusal, "field", "")
        self._send(ipc.Event(reply=reply))

    def offer(self, seq: int, directory: str, token: str) -> None:
        """Answer with what is to be come for."""
        offer = ipc.Offer(directory=os.fsencode(directory), token=token)
        self._send(ipc.Event(reply=ipc.Reply(seq=seq, offer=offer)))

    def refuse(self, seq: int, error: SupervisorError) -> None:
        """Answer a request with an error."""
        self._send(ipc.Event(reply=error_reply(seq, error)))

    def attempt(self, seq: int, step: Callable[[], None]) -> None:
        """Do what a request takes; what it raises becomes the answer."""
        try:
            step()
        except SupervisorError as error:
            self.refuse(seq, error)
        except Exception as error:
            log.exception("request %d failed", seq)
            self.refuse(seq, fitting(error))

    def tell(self, job_id: str, current: Callable[[], ipc.Job]) -> None:
        """Tell of a job as it is now, or as it is once the client reads again."""
        if self.protocol.paused:
            self._untold[job_id] = current
        else:
            self._send(ipc.Event(changed=ipc.Changed(job=current())))

    def ask(self, job: Job) -> None:
        """Ask whether a job may be started whose turn has come."""
        # All of its command line, as it is judged by that.
        message = job_message(job, gone=False, most=MAX_SPEC_BYTES * 2)
        turn = ipc.Turn(job=message, asker=asker_message(job.request.asker))
        self._send(ipc.Event(turn=turn))

    def tell_removed(self, job_id: str) -> None:
        """Tell that there is no such job any more."""
        self.watched.discard(job_id)
        self._untold.pop(job_id, None)
        self._send(ipc.Event(removed=job_id))

    def _send(self, event: ipc.Event) -> None:
        self.protocol.send(event.SerializeToString())

    def _received(self, frame: bytes) -> None:
        try:
            seq, call = requests.parse(frame)
        except InvalidRequest as error:
            self.refuse(requests.sequence_number(frame), error)
            return
        self.attempt(seq, partial(self._handle, self, seq, call))

    def _resumed(self) -> None:
        untold, self._untold = self._untold, {}
        for job_id, current in untold.items():
            self.tell(job_id, current)

    def _lost(self) -> None:
        self.lost = True
        self.watched.clear()
        self._untold.clear()
        self._gone(self)


class Clients:
    """All that are connected. `gone` is called with each that no longer is."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handle: Callable[[Client, int, requests.Call], None],
        gone: Callable[[Client], None],
    ) -> None:
        self._loop = loop
        self._handle = handle
        self._gone = gone
        self._clients: set[Client] = set()
        self._connecting: set[asyncio.Task[object]] = set()

    def connect(self, descriptor: int) -> None:
        """Take over the supervisor's end of a pipe."""
        client = Client(self._handle, self._gone)
        self._clients = {known for known in self._clients if not known.lost} | {client}
        end = socket.socket(fileno=descriptor)
        end.setblocking(False)
        task = self._loop.create_task(
            self._loop.connect_accepted_socket(lambda: client.protocol, end)
        )
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def watching(self, job_id: str) -> bool:
        """Whether anybody watches the job."""
        return any(job_id in client.watched for client in self._clients)

    def tell(self, job_id: str, state: State, current: Callable[[], ipc.Job]) -> None:
        """Tell everybody who watches the job, or has not been told that it has this state."""
        for client in self._clients:
            if client.is_news(job_id, state) or job_id in client.watched:
                client.tell(job_id, current)

    def tell_watchers(self, job_id: str, current: Callable[[], ipc.Job]) -> None:
        """Tell those alone who watch the job."""
        for client in self._clients:
            if job_id in client.watched:
                client.tell(job_id, current)

    def tell_removed(self, job_id: str) -> None:
        """Tell everybody who watches the job that there is no such job any more."""
        for client in self._clients:
            if job_id in client.watched:
                client.tell_removed(job_id)

    def close(self) -> None:
        """Disconnect all, after what has been sent."""
        for client in self._clients:
            client.protocol.close()
