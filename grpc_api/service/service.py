"""The methods of the contract. Whoever gets here is authenticated and authorized (see guard)."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from jobworker.grpc_api.config import OutputLimits, QuotasConfig
from jobworker.grpc_api.guard.access import Access
from jobworker.grpc_api.guard.audit_trail import Session
from jobworker.grpc_api.guard.fields import check_fields
from jobworker.grpc_api.guard.guard import Call, current_call
from jobworker.grpc_api.guard.refusal import invalid
from jobworker.grpc_api.service.can_i import can_i, rights
from jobworker.grpc_api.service.events import EventLog, serve
from jobworker.grpc_api.service.files import Files
from jobworker.grpc_api.service.forward import Carried, carry
from jobworker.grpc_api.service.input import Inputs
from jobworker.grpc_api.service.messages import status_message, stop_way
from jobworker.grpc_api.service.orders import StartOrders, start_again, start_within, with_whole_ids
from jobworker.grpc_api.service.output import TEXT_BYTES, as_bytes, as_text, selection
from jobworker.grpc_api.service.prune import prune, would_prune
from jobworker.grpc_api.service.renewal import Renewal
from jobworker.grpc_api.service.schedules import Schedules
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceServicer
from jobworker.supervisor import (
    CHUNK_BYTES,
    JobSnapshot,
    State,
    SupervisorConfig,
    follow,
)

DEFAULT_PAGE = 100
MAX_PAGE = 1000

_Context = grpc.aio.ServicerContext[Any, Any]


class WorkerService(WorkerServiceServicer):
    """Turns calls into requests to the supervisor."""

    def __init__(
        self,
        access: Access,
        config: SupervisorConfig,
        limits: OutputLimits,
        quotas: QuotasConfig,
        drained: Callable[[], str],
        signer: str = "",
    ) -> None:
        """`drained` says why nothing new is started now, if that is so.

        `signer` is the socket of what renews certificates, empty for none.
        """
        self._access = access
        self._orders = StartOrders(config, limits, quotas, drained)
        self._supervisor = access.supervisor
        self._config = config
        self._inputs = Inputs(access.supervisor)
        self._files = Files(access.supervisor)
        self._schedules = Schedules(access, self._orders)
        self._renewal = Renewal(access, signer)
        self._events = EventLog(access.supervisor)

    async def Start(self, request: pb.StartRequest, context: _Context) -> pb.StartResponse:
        """Run a program; see the contract for this and all below."""
        call = current_call()
        asked = await with_whole_ids(self._access, call.identity, request)
        order = self._orders.order(call.identity, call.job_id, asked)
        job = await self._supervisor.start(order)
        for file in asked.uploads:
            name = file.name.decode("utf-8", "backslashreplace")
            call.ended(Session("put", job, f"{name} (with its start)", len(file.data), 0, 0.0))
        words = job.detail if job.state is State.PENDING else ""
        return pb.StartResponse(jobID=job.id, pid=job.pid, success=True, message=words)

    async def Again(self, request: pb.AgainRequest, context: _Context) -> pb.StartResponse:
        call, before = current_call(), _job()
        known = await self._supervisor.start_of(before.id)
        start = start_again(known, before, call.identity, request)
        job = await self._supervisor.start(await self._judged(call, start))
        words = job.detail if job.state is State.PENDING else ""
        return pb.StartResponse(jobID=job.id, pid=job.pid, success=True, message=words)

    async def _judged(self, call: Call, start: pb.StartRequest, inside: str = "") -> ipc.Start:
        """The order for what is started by way of another job, if it may be. Raises Refusal."""
        job_id = await self._supervisor.new_id()
        verdict = self._access.judge_start(call.identity, start, job_id)
        call.record(verdict)
        if verdict.error is not None:
            raise verdict.error
        check_fields(start)
        return self._orders.order(call.identity, job_id, start, inside=inside)

    async def Exec(self, request: pb.ExecRequest, context: _Context) -> pb.StartResponse:
        call, other = current_call(), _job()
        start = start_within(other, call.identity, request.start)
        job = await self._supervisor.start(await self._judged(call, start, other.id))
        return pb.StartResponse(jobID=job.id, pid=job.pid, success=True)

    async def Stop(self, request: pb.StopRequest, context: _Context) -> pb.StopResponse:
        job = _job()
        grace = request.graceSeconds if request.HasField("graceSeconds") else None
        way = stop_way(request.stopSignal, request.stopMode)
        if request.noWait:
            await self._supervisor.stop(job.id, grace, way)
            return pb.StopResponse(success=True, message="the job is being stopped")
        await self._supervisor.end(job.id, grace, way)
        message = "the job had ended already" if job.ended else ""
        return pb.StopResponse(success=True, message=message)

    async def Signal(self, request: pb.SignalRequest, context: _Context) -> pb.SignalResponse:
        await self._supervisor.signal(_job().id, request.signal, to_all=request.all)
        return pb.SignalResponse()

    async def Input(
        self, request: pb.InputRequest, requests: AsyncIterator[pb.InputRequest]
    ) -> AsyncIterator[pb.InputResponse]:
        # The guard has read the first request, to decide by it.
        async for response in self._inputs.serve(current_call(), request, requests):
            yield response

    async def Pause(self, request: pb.PauseRequest, context: _Context) -> pb.PauseResponse:
        await self._supervisor.pause(_job().id)
        return pb.PauseResponse()

    async def Resume(self, request: pb.ResumeRequest, context: _Context) -> pb.ResumeResponse:
        await self._supervisor.resume(_job().id)
        return pb.ResumeResponse()

    async def Forward(
        self, request: pb.ForwardData, requests: AsyncIterator[pb.ForwardData]
    ) -> AsyncIterator[pb.ForwardData]:
        job, port, call, carried = _job(), request.port, current_call(), Carried()
        if not port:
            yield pb.ForwardData()
            return
        connection = await self._supervisor.connect(job.id, port)
        began = time.monotonic()
        try:
            yield pb.ForwardData()
            async with aclosing(carry(connection, requests, carried)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            connection.close()
            seconds = time.monotonic() - began
            target = f"port {port}"
            call.ended(Session("forward", job, target, carried.up, carried.down, seconds))

    async def Put(
        self, request: pb.PutRequest, requests: AsyncIterator[pb.PutRequest]
    ) -> AsyncIterator[pb.PutResponse]:
        async with aclosing(self._files.put(current_call(), request, requests)) as responses:
            async for response in responses:
                yield response

    async def Get(self, request: pb.GetRequest, context: _Context) -> AsyncIterator[pb.GetResponse]:
        async with aclosing(self._files.get(current_call(), request)) as responses:
            async for response in responses:
                yield response

    async def QueryStatus(
        self, request: pb.QueryStatusRequest, context: _Context
    ) -> pb.QueryStatusResponse:
        return status_message(_job())

    async def Wait(self, request: pb.WaitRequest, context: _Context) -> pb.QueryStatusResponse:
        async with self._supervisor.watch(_job().id) as watched:
            job = await watched.until(
                lambda job: job.ended and (job.output_complete or not request.output)
            )
        return status_message(job)

    async def GetOutput(
        self, request: pb.GetOutputRequest, context: _Context
    ) -> AsyncIterator[pb.GetOutputResponse]:
        job = _job()
        wanted = selection(request, piece_bytes=CHUNK_BYTES if request.raw else TEXT_BYTES)
        directory = Path(self._config.state_dir) / "output" / job.id
        async with self._supervisor.watch(job.id) as watched:
            pieces = follow(watched, directory, wanted)
            async for message in as_bytes(pieces) if request.raw else as_text(pieces):
                yield message

    async def List(self, request: pb.ListRequest, context: _Context) -> pb.ListResponse:
        identity = current_call().identity
        size = request.pageSize or DEFAULT_PAGE
        if not 1 <= size <= MAX_PAGE:
            raise invalid("pageSize", f"a page of {size} jobs is not between 1 and {MAX_PAGE}")
        wanted = ipc.List(
            before=request.pageToken,
            # One more than is shown tells whether there is a next page.
            limit=size + 1,
            running=request.running,
            owner=request.owner,
            tenant=request.tenant,
            filter=request,
        )
        page = await self._access.jobs_of(identity, ("list",), wanted)
        shown = page[:size]
        token = shown[-1].id if len(page) > size else ""
        return pb.ListResponse(jobs=map(status_message, shown), nextPageToken=token)

    async def Remove(self, request: pb.RemoveRequest, context: _Context) -> pb.RemoveResponse:
        await self._supervisor.remove(_job().id)
        return pb.RemoveResponse()

    async def Prune(self, request: pb.PruneRequest, context: _Context) -> pb.PruneResponse:
        return await prune(self._access, current_call(), request)

    async def WouldPrune(
        self, request: pb.PruneRequest, context: _Context
    ) -> pb.WouldPruneResponse:
        return await would_prune(self._access, current_call(), request)

    async def Events(self, request: pb.EventsRequest, context: _Context) -> AsyncIterator[pb.Event]:
        async for event in serve(self._events, self._access, current_call(), request):
            yield event

    async def AddSchedule(
        self, request: pb.AddScheduleRequest, context: _Context
    ) -> pb.ScheduleStatus:
        return await self._schedules.add(current_call(), request)

    async def ListSchedules(
        self, request: pb.ListSchedulesRequest, context: _Context
    ) -> pb.ListSchedulesResponse:
        return await self._schedules.list(current_call(), request)

    async def ChangeSchedule(
        self, request: pb.ChangeScheduleRequest, context: _Context
    ) -> pb.ScheduleStatus:
        return await self._schedules.change(current_call(), request)

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: _Context) -> pb.WhoAmIResponse:
        identity = current_call().identity
        not_after = Timestamp()
        not_after.FromDatetime(identity.not_after)
        return pb.WhoAmIResponse(
            commonName=identity.common_name,
            tenants=identity.tenants,
            serial=identity.serial,
            notAfter=not_after,
        )

    async def CanI(self, request: pb.CanIRequest, context: _Context) -> pb.CanIResponse:
        return await can_i(self._access, self._orders, current_call(), request)

    async def Rights(self, request: pb.RightsRequest, context: _Context) -> pb.RightsResponse:
        return rights(self._access, self._orders, current_call().identity)

    async def RenewCertificate(
        self, request: pb.RenewCertificateRequest, context: _Context
    ) -> pb.RenewCertificateResponse:
        return await self._renewal.renew(current_call(), request)


def _job() -> JobSnapshot:
    job = current_call().job
    assert job is not None  # noqa: S101 - the guard resolves it for methods about one job
    return job
