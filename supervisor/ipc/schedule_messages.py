"""Schedules as they go over the pipe, checked as they come: the sender faces the network."""

from typing import NamedTuple

from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor.errors import InvalidRequest
from jobworker.supervisor.ipc.messages import asker_message, start_message
from jobworker.supervisor.ipc.start_request import COMMAND, asker_of, check_start, checked_name
from jobworker.supervisor.job import Asker, is_job_name
from jobworker.supervisor.schedule import Change, Overlap, Schedule, due_times

# The program with its arguments, and the environment: all schedules go into one answer.
MOST_SPEC_BYTES = 16 * 1024


class AddSchedule(NamedTuple):
    """Have something run again and again; `replace` says that one of that name gives way."""

    schedule: Schedule
    replace: bool


class Schedules(NamedTuple):
    """Ask for the schedules of an owner, or (empty) of all."""

    owner: str


class ChangeSchedule(NamedTuple):
    """Change one; the `asker` is for RENEW."""

    owner: str
    name: str
    change: Change
    asker: Asker


def read_schedule(asked: ipc.Schedule) -> AddSchedule:
    """A schedule to be added. Raises InvalidRequest naming the field."""
    _check_start_alone(asked.start.request)
    request = check_start(asked.start)
    overlap = _overlap(asked.overlap)
    if request.name and overlap is not Overlap.SKIP:
        problem = "runs that have a name cannot overlap: one job that has not ended has it"
        raise InvalidRequest(problem, "schedule.overlap")
    schedule = Schedule(
        name=_name(asked.name),
        cron=asked.cron,
        time_zone=asked.time_zone,
        overlap=overlap,
        catch_up=asked.catch_up,
        request=request,
    )
    try:
        next(due_times(schedule.cron, schedule.time_zone, 0))
    except ValueError as error:
        field = "timeZone" if "time zone" in str(error) else "cron"
        raise InvalidRequest(str(error), f"schedule.{field}") from None
    return AddSchedule(schedule, asked.replace)


def read_change(asked: ipc.ChangeSchedule) -> ChangeSchedule:
    """A change. Raises InvalidRequest naming the field."""
    try:
        change = Change(asked.change)
    except ValueError:
        problem = f"{asked.change} is nothing that is done to a schedule"
        raise InvalidRequest(problem, "change") from None
    owner = checked_name(asked.owner, "owner")
    return ChangeSchedule(owner, asked.name, change, asker_of(asked.asker))


def read_schedules(asked: ipc.Schedules) -> Schedules:
    """Whose are asked for. Raises InvalidRequest."""
    return Schedules(checked_name(asked.owner, "owner") if asked.owner else "")


def schedule_message(schedule: Schedule) -> ipc.Schedule:
    """A schedule as it is told: without the environment, which may hold secrets."""
    request = schedule.request
    told = start_message(request)
    told.ClearField("rawEnvironment")
    start = ipc.Start(owner=request.owner, request=told, asker=asker_message(request.asker))
    return ipc.Schedule(
        start=start,
        name=schedule.name,
        cron=schedule.cron,
        time_zone=schedule.time_zone,
        overlap=pb.ScheduleOverlap.Name(schedule.overlap),
        catch_up=schedule.catch_up,
        paused=schedule.paused,
        next_us=schedule.next_us,
        last_us=schedule.last_us,
        last_job=schedule.last_job,
        skipped=schedule.skipped,
    )


def _check_start_alone(asked: pb.StartRequest) -> None:
    if asked.requestID:
        problem = "runs are jobs of their own: they have no request ID"
        raise InvalidRequest(problem, "schedule.start.requestID")
    if asked.uploads:
        problem = "a schedule keeps no files: have its command find them"
        raise InvalidRequest(problem, "schedule.start.uploads")
    if asked.after:
        raise InvalidRequest("runs come at their times, after no job", "schedule.start.after")
    if asked.input or asked.HasField("terminal"):
        field = "schedule.start.input" if asked.input else "schedule.start.terminal"
        raise InvalidRequest("nobody is there to type when a schedule runs", field)
    variables = [text for one in asked.rawEnvironment for text in (one.name, one.value)]
    texts = {
        COMMAND: asked.rawArguments[:1],
        "rawArguments": asked.rawArguments[1:],
        "rawEnvironment": variables,
    }
    sizes = {field: sum(len(text) + 1 for text in ones) for field, ones in texts.items()}
    if (size := sum(sizes.values())) > MOST_SPEC_BYTES:
        raise InvalidRequest(
            f"arguments and environment take {size} bytes, and a schedule keeps "
            f"{MOST_SPEC_BYTES} at most: pass the rest in a file",
            max(sizes, key=lambda field: sizes[field]),
        )


def _overlap(asked: int) -> Overlap:
    try:
        return Overlap(asked or Overlap.SKIP)
    except ValueError:
        problem = f"{asked} is nothing that happens to runs that overlap"
        raise InvalidRequest(problem, "schedule.overlap") from None


def _name(text: str) -> str:
    if not is_job_name(text):
        raise InvalidRequest(
            f"{text[:64]!r} is no name for a schedule: that is a letter, then up to 63 of "
            "A-Z a-z 0-9 . _ -, and not all of it hex digits and -",
            "schedule.name",
        )
    return text
