"""Schedules over the contract: who may add, see and change them."""

from collections.abc import Iterable

import grpc

from jobworker.authz.identity import Identity
from jobworker.authz.policy.policy import JobFacts
from jobworker.grpc_api.guard.access import Access
from jobworker.grpc_api.guard.fields import check_fields
from jobworker.grpc_api.guard.guard import Call
from jobworker.grpc_api.guard.refusal import Refusal, invalid
from jobworker.grpc_api.service.orders import StartOrders, asker_of
from jobworker.grpc_api.service.output import timestamp
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import is_utf8, legible, to_text

_MICROSECOND_NS = 1000
# Of these a run comes, which is the owner's: by nobody else's rights.
_STARTING = (pb.SCHEDULE_CHANGE_RESUME, pb.SCHEDULE_CHANGE_RUN, pb.SCHEDULE_CHANGE_RENEW)


class Schedules:
    """Serves the three methods. A run itself is judged as any job whose turn has come."""

    def __init__(self, access: Access, orders: StartOrders) -> None:
        self._access = access
        self._supervisor = access.supervisor
        self._orders = orders

    async def add(self, call: Call, request: pb.AddScheduleRequest) -> pb.ScheduleStatus:
        """Have something run from here on. Raises Refusal and SupervisorError."""
        asked = request.schedule
        # As of any start: it is looked at once it may be started.
        verdict = self._access.judge_start(call.identity, asked.start)
        call.record(verdict)
        if verdict.error is not None:
            raise verdict.error
        check_fields(asked.start)
        order = self._orders.order(call.identity, await self._supervisor.new_id(), asked.start)
        added = await self._supervisor.add_schedule(
            ipc.Schedule(
                start=order,
                name=asked.name,
                cron=asked.cron,
                time_zone=asked.timeZone,
                overlap=pb.ScheduleOverlap.Name(asked.overlap),
                catch_up=asked.catchUp,
                replace=request.replace,
            )
        )
        return _status(added)

    async def list(self, call: Call, request: pb.ListSchedulesRequest) -> pb.ListSchedulesResponse:
        """Those that the caller may see."""
        seen = await self._visible(call.identity, request.owner)
        return pb.ListSchedulesResponse(schedules=map(_status, seen))

    async def change(self, call: Call, request: pb.ChangeScheduleRequest) -> pb.ScheduleStatus:
        """Change one. Raises Refusal and SupervisorError."""
        identity = call.identity
        if not request.change:
            raise invalid("change", "what is to be done to the schedule is not said")
        owner = request.owner or identity.common_name
        visible = await self._visible(identity, owner)
        found = next((one for one in visible if one.name == request.name), None)
        if found is None:
            raise _no_such_schedule(owner, request.name)
        starting = request.change in _STARTING
        if starting and owner != identity.common_name:
            raise Refusal(
                grpc.StatusCode.PERMISSION_DENIED,
                "DENIED",
                f"refused to cn={identity.common_name}: what the schedule starts is {owner}'s, "
                "and is started by nobody else",
            )
        action = "start" if starting else "stop"
        verdict = self._access.judge_facts(identity, action, _facts(found))
        call.record(verdict)
        if verdict.error is not None:
            raise verdict.error
        wanted = ipc.ChangeSchedule(
            owner=owner,
            name=request.name,
            change=pb.ScheduleChange.Name(request.change),
            asker=asker_of(identity),
        )
        return _status(await self._supervisor.change_schedule(wanted))

    async def _visible(self, identity: Identity, owner: str) -> "Iterable[ipc.Schedule]":
        found = await self._supervisor.schedules(owner)
        mine = identity.common_name
        return [
            one
            for one in found
            if one.start.owner == mine or self._access.may_see(identity, _facts(one))
        ]


def _facts(schedule: ipc.Schedule) -> JobFacts:
    command, *arguments = map(to_text, schedule.start.request.rawArguments)
    request = schedule.start.request
    return JobFacts(schedule.start.owner, request.tenant, command, tuple(arguments))


def _status(schedule: ipc.Schedule) -> pb.ScheduleStatus:
    """A schedule as the contract tells it: texts as texts where they are."""
    start = pb.StartRequest()
    start.CopyFrom(schedule.start.request)
    words = list(map(to_text, start.rawArguments))
    start.commandName, start.Arguments[:] = legible(words[0]), map(legible, words[1:])
    if all(map(is_utf8, words)):
        start.ClearField("rawArguments")
    directory = to_text(start.rawWorkingDirectory)
    start.workingDirectory = legible(directory)
    if is_utf8(directory):
        start.ClearField("rawWorkingDirectory")
    told = pb.ScheduleStatus(
        schedule=pb.Schedule(
            name=schedule.name,
            cron=schedule.cron,
            timeZone=schedule.time_zone,
            overlap=pb.ScheduleOverlap.Name(schedule.overlap),
            catchUp=schedule.catch_up,
            start=start,
        ),
        owner=schedule.start.owner,
        tenant=start.tenant,
        paused=schedule.paused,
        lastJobID=schedule.last_job,
        skipped=schedule.skipped,
    )
    times = (
        (told.next, schedule.next_us),
        (told.last, schedule.last_us),
        (told.notAfter, schedule.start.asker.not_after_us),
    )
    for field, microseconds in times:
        if microseconds:
            field.CopyFrom(timestamp(microseconds * _MICROSECOND_NS))
    return told


def _no_such_schedule(owner: str, name: str) -> Refusal:
    words = f"{owner} has no schedule {name[:64]!r}, or it is not yours to see"
    return Refusal(grpc.StatusCode.NOT_FOUND, "NO_SUCH_SCHEDULE", words)
