"""A job's input, from the calls that send it: one at a time, or several that share it."""

import asyncio
import itertools
import os
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from jobworker.grpc_api.guard.audit_trail import Session
from jobworker.grpc_api.guard.guard import Call
from jobworker.grpc_api.guard.refusal import Refusal, invalid
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import Attending, InputPiece, NoInput, Received, SupervisorClient

# Asks how far it is.
_QUESTION = InputPiece(None)
_SENDER = re.compile(r"[A-Za-z0-9._-]{0,64}")


@dataclass(eq=False)
class _Sender:
    """Who sends input in a call; `limit` ends what that waits for, `ousted_by` says for whom.

    So many bytes of what they `sent` the job has taken, since they were `admitted`.
    """

    who: str
    name: str
    shared: bool
    limit: asyncio.Timeout
    ousted_by: str = ""
    admitted: bool = False
    sent: int = 0

    def oust(self, other: str) -> None:
        self.ousted_by = other
        self.limit.reschedule(asyncio.get_running_loop().time())


@dataclass(eq=False)
class _Job:
    """The calls that send a job input now. Each message goes in as a whole.

    `known` is how far that is, as nobody else sends it any; None where that must be asked.
    """

    senders: list[_Sender] = field(default_factory=list)
    known: Received | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Inputs:
    """Serves Input."""

    def __init__(self, supervisor: SupervisorClient) -> None:
        self._supervisor = supervisor
        self._jobs: defaultdict[str, _Job] = defaultdict(_Job)
        self._numbers = itertools.count(1)

    async def serve(
        self, call: Call, first: pb.InputRequest, rest: AsyncIterator[pb.InputRequest]
    ) -> AsyncIterator[pb.InputResponse]:
        """Pass on what the call sends, and answer how far that is. Raises Refusal."""
        _check(first)
        if call.job is None or not call.job.request.onDisconnect:
            # Before anybody is ousted for it: that it takes input.
            await self._supervisor.give(call.job_id, _QUESTION)
            async for response in self._serve(call, first, rest):
                yield response
            return
        who = f"{os.getpid()}-{next(self._numbers)}"
        async with self._supervisor.attending(call.job_id, who) as attending:
            async for response in self._serve(call, first, _noticing(rest, attending)):
                yield response

    async def _serve(
        self, call: Call, first: pb.InputRequest, rest: AsyncIterator[pb.InputRequest]
    ) -> AsyncIterator[pb.InputResponse]:
        try:
            await self._supervisor.give(call.job_id, _QUESTION)
        except NoInput:
            # Who only attends, so that it does not go on without them.
            yield pb.InputResponse()
            async for request in rest:
                if request.data or request.end or request.HasField("terminal"):
                    raise
                yield pb.InputResponse()
            return
        began, sender = time.monotonic(), None
        try:
            async with asyncio.timeout(None) as limit:
                sender = _Sender(
                    f"{call.identity.common_name} from {call.caller.address}",
                    first.sender,
                    first.sharing == pb.INPUT_SHARING_SHARED,
                    limit,
                )
                with self._admitted(call.job_id, sender, first.sharing) as job:
                    async for given in self._given(call.job_id, job, sender, first, rest):
                        yield pb.InputResponse(received=given.total, over=given.over)
                        if given.over:
                            return
        except TimeoutError:
            if sender is None or not sender.ousted_by:
                raise
            raise Refusal(
                grpc.StatusCode.FAILED_PRECONDITION,
                "INPUT_TAKEN_OVER",
                f"{sender.ousted_by} sends the job's input now",
            ) from None
        finally:
            if sender is not None and sender.admitted and call.job is not None:
                seconds = time.monotonic() - began
                call.ended(Session("attach", call.job, "input", sender.sent, 0, seconds))

    @contextmanager
    def _admitted(self, job_id: str, sender: _Sender, sharing: int) -> Iterator[_Job]:
        """Let the sender send within the block, in place of whom it may take the place of."""
        job = self._jobs[job_id]
        try:
            for other in list(job.senders):
                if sharing == pb.INPUT_SHARING_TAKE_OVER or _comes_back(sender, other):
                    other.oust(sender.who)
                    job.senders.remove(other)
                elif not (sender.shared and other.shared):
                    raise Refusal(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        "INPUT_IN_USE",
                        f"{other.who} sends the job's input: take over, share it "
                        "(both must ask to), or only watch",
                    )
            job.senders.append(sender)
            sender.admitted = True
            yield job
        finally:
            if sender in job.senders:
                job.senders.remove(sender)
            if not job.senders and self._jobs.get(job_id) is job:
                del self._jobs[job_id]

    async def _given(
        self,
        job_id: str,
        job: _Job,
        sender: _Sender,
        first: pb.InputRequest,
        rest: AsyncIterator[pb.InputRequest],
    ) -> AsyncIterator[Received]:
        given = await self._give(job_id, job, first)
        sender.sent += len(first.data)
        yield given
        async for request in rest:
            _check(request)
            given = await self._give(job_id, job, request)
            sender.sent += len(request.data)
            yield given

    async def _give(self, job_id: str, job: _Job, request: pb.InputRequest) -> Received:
        """Pass a message on; returns when all of it has been taken, or no more is."""
        if request.HasField("terminal"):
            size = request.terminal
            await self._supervisor.resize(job_id, size.rows, size.columns)
        async with job.turn:
            # Whatever ends the call while it waits: what it sent may be taken all the same.
            known, job.known = job.known, None
            if known is None:
                known = await self._supervisor.give(job_id, _QUESTION)
            offset = request.offset if request.HasField("offset") else known.total
            piece = InputPiece(offset, request.data, request.end)
            taken = not (piece.data or piece.end)
            while not (known.over or taken):
                known = await self._supervisor.give(job_id, piece)
                taken = known.total >= offset + len(piece.data)
            job.known = known
            return known


async def _noticing(
    requests: AsyncIterator[pb.InputRequest], attending: Attending
) -> AsyncIterator[pb.InputRequest]:
    async for request in requests:
        attending.leaves = attending.leaves or request.leave
        yield request


def _comes_back(sender: _Sender, other: _Sender) -> bool:
    """Whether it is the same one, whose call of before has not ended yet."""
    return bool(sender.name) and sender.name == other.name


def _check(request: pb.InputRequest) -> None:
    if not _SENDER.fullmatch(request.sender):
        raise invalid("sender", "a sender's name is 1 to 64 characters of A-Z a-z 0-9 . _ -")
