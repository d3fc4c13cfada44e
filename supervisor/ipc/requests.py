"""From messages on the pipe to checked requests: the sender faces the network."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import job
from jobworker.supervisor.errors import InvalidRequest
from jobworker.supervisor.ipc.schedule_messages import (
    AddSchedule,
    ChangeSchedule,
    Schedules,
    read_change,
    read_schedule,
    read_schedules,
)
from jobworker.supervisor.ipc.start_request import (
    check_start,
    checked_grace,
    checked_id,
    checked_job_name,
    checked_name,
    checked_signal,
    checked_size,
    checked_stop_way,
)
from jobworker.supervisor.quotas import Kind, Quota

_ID_PREFIX = re.compile(r"[0-9a-f-]{0,36}")
# What the index of endings is made of.
ENDING_LENGTH = 4
_ID_ENDING = re.compile(rf"(?:[0-9a-f-]{{{ENDING_LENGTH},36}})?")
# One more than a caller of the front's can ask for.
MAX_PAGE = 1001
# Of a pattern that names are to fit, and of a part of a command.
MOST_PATTERN = 128
MOST_STARS = 4
# Of a message; more goes in several.
MAX_INPUT_BYTES = 1024 * 1024
# The front's names for who attends.
MAX_WHO = 200
MAX_PORT = 65535


class Start(NamedTuple):
    """Start a job, within what its owner and its tenant may have; not if `drained` says why."""

    request: job.Request
    quotas: dict[Kind, Quota]
    drained: str = ""
    # What its uploads hold.
    files: tuple[bytes, ...] = ()


class MayStart(NamedTuple):
    """Ask whether that would be started now."""

    request: job.Request
    quotas: dict[Kind, Quota]
    drained: str = ""


class Stop(NamedTuple):
    """End a job's tree; what is None or left open in `way` is the job's own. `grace` in seconds."""

    id: str
    grace: float | None
    way: job.StopWay


class Signal(NamedTuple):
    """Send a signal to a job's main process, or to all of them."""

    id: str
    number: int
    to_all: bool


class Input(NamedTuple):
    """Send a job input."""

    id: str
    piece: job.InputPiece


class Resize(NamedTuple):
    """Set the size of a job's terminal."""

    id: str
    rows: int
    columns: int


class Pause(NamedTuple):
    """Have every process of a job stand still."""

    id: str


class Resume(NamedTuple):
    """Have them go on."""

    id: str


class Attend(NamedTuple):
    """Somebody attends to a job from here on; with `gone` no longer, 2 for having taken leave."""

    id: str
    who: str
    gone: int


class Connect(NamedTuple):
    """Connect to a port at which a process of a job listens."""

    id: str
    port: int


class Porter(NamedTuple):
    """Start a porter, which puts a file into a job's directory, or gets one out of it."""

    id: str
    put: bool


class Turns(NamedTuple):
    """Ask to be told of every job whose turn has come."""


class Admit(NamedTuple):
    """Say whether such a job may be started: not at all for `refusal`, not now if `drained`."""

    id: str
    refusal: str
    drained: str
    quotas: dict[Kind, Quota]


class Get(NamedTuple):
    """Ask for a job as it is."""

    id: str


class StartOf(NamedTuple):
    """Ask for all that a job was asked for with."""

    id: str


class Watch(NamedTuple):
    """Ask to be told of every change of a job."""

    id: str


class Unwatch(NamedTuple):
    """Ask no longer."""

    id: str


class Remove(NamedTuple):
    """Forget a job that has ended."""

    id: str


class Observe(NamedTuple):
    """Ask to be told of every job's new state, and of those that ended so long ago or later."""

    within_ns: int


class Filter(NamedTuple):
    """Which of those jobs: all holds that is given. Times are nanoseconds, 0 for none."""

    states: tuple[int, ...] = ()
    failed: bool = False
    reasons: tuple[int, ...] = ()
    since_ns: int = 0
    until_ns: int = 0
    # With * and ? as in glob(7).
    name: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    label_keys: tuple[str, ...] = ()
    command: str = ""


ALL = Filter()


class List(NamedTuple):
    """A page of jobs, newest first; empty filters and 0 hold for all."""

    prefix: str
    before: str
    limit: int
    running: bool
    owner: str
    tenant: str
    ended_by_ns: int
    # Owner and tenant of each; none for all.
    whose: tuple[tuple[str, str], ...] = ()
    ended_ago_ns: int = 0
    ending: str = ""
    # With one, the job that has not ended comes first.
    name: str = ""
    filter: Filter = ALL


class Owners(NamedTuple):
    """Ask who has jobs, and for which tenants."""


AboutInput = Input | Resize | Attend
AboutOne = Stop | Signal | Pause | Resume | Get | Watch | Unwatch | Remove
AboutSchedules = AddSchedule | ChangeSchedule | Schedules
AboutMany = List | Observe | Owners | StartOf
Call = (
    Start
    | MayStart
    | Turns
    | Admit
    | Connect
    | Porter
    | AboutInput
    | AboutOne
    | AboutMany
    | AboutSchedules
)


def parse(frame: bytes) -> tuple[int, Call]:
    """The sequence number and the call of a frame. Raises InvalidRequest, seq 0 if it has none."""
    request = ipc.Request()
    try:
        request.ParseFromString(frame)
    except DecodeError:
        raise InvalidRequest("the frame is not a request") from None
    return request.seq, _call(request)


def sequence_number(frame: bytes) -> int:
    """The sequence number of a frame, however wrong the rest is; 0 when it has none."""
    request = ipc.Request()
    try:
        request.ParseFromString(frame)
    except DecodeError:
        return 0
    return request.seq


def _call(request: ipc.Request) -> Call:
    kind = request.WhichOneof("call")
    if kind not in _READERS:
        raise InvalidRequest("the request asks for nothing this supervisor knows")
    return _READERS[kind](getattr(request, kind))


def _start(asked: ipc.Start) -> Start:
    files = tuple(one.data for one in asked.request.uploads)
    return Start(check_start(asked), _quotas(asked), asked.drained, files)


def _may_start(asked: ipc.Start) -> MayStart:
    return MayStart(*_start(asked)[:3])


def _stop(asked: ipc.Stop) -> Stop:
    grace = asked.grace_seconds if asked.HasField("grace_seconds") else None
    return Stop(
        checked_id(asked.id),
        None if grace is None else checked_grace(grace),
        checked_stop_way(asked.way.signal, asked.way.mode),
    )


def _signal_of(asked: ipc.Signal) -> Signal:
    return Signal(checked_id(asked.id), checked_signal(asked.signal, "signal"), asked.all)


def _resize(asked: ipc.Resize) -> Resize:
    return Resize(checked_id(asked.id), *checked_size(asked.rows, asked.columns))


def _input(asked: ipc.Input) -> Input:
    if len(asked.data) > MAX_INPUT_BYTES:
        problem = f"{len(asked.data)} bytes of input at once are more than {MAX_INPUT_BYTES}"
        raise InvalidRequest(problem, "data")
    offset = asked.offset if asked.HasField("offset") else None
    return Input(checked_id(asked.id), job.InputPiece(offset, asked.data, asked.end))


def _attend(asked: ipc.Attend) -> Attend:
    if len(asked.who) > MAX_WHO or asked.gone not in (0, 1, 2):
        raise InvalidRequest("this is not how somebody attends", "who")
    return Attend(checked_id(asked.id), asked.who, asked.gone)


def _connect(asked: ipc.Connect) -> Connect:
    return Connect(checked_id(asked.id), _port(asked.port))


def _observe(asked: ipc.Observe) -> Observe:
    if asked.within_ns < 0:
        raise InvalidRequest("no job has ended yet that will end", "within_ns")
    return Observe(asked.within_ns)


def _list(asked: ipc.List) -> List:
    if not 1 <= asked.limit <= MAX_PAGE:
        problem = f"a page of {asked.limit} jobs is not between 1 and {MAX_PAGE}"
        raise InvalidRequest(problem, "limit")
    for field in ("prefix", "before"):
        if not _ID_PREFIX.fullmatch(getattr(asked, field)):
            raise InvalidRequest("a job ID has only 0-9, a-f and -", field)
    if not _ID_ENDING.fullmatch(asked.ending):
        problem = f"the ending of a job ID is {ENDING_LENGTH} or more of 0-9, a-f and -"
        raise InvalidRequest(problem, "ending")
    for field in ("owner", "tenant"):
        if getattr(asked, field):
            checked_name(getattr(asked, field), field)
    return List(
        asked.prefix,
        asked.before,
        asked.limit,
        asked.running,
        asked.owner,
        asked.tenant,
        asked.ended_by_ns,
        tuple(
            (
                checked_name(one.owner, "owner"),
                checked_name(one.tenant, "tenant") if one.tenant else "",
            )
            for one in asked.whose
        ),
        asked.ended_ago_ns,
        asked.ending,
        checked_job_name(asked.name),
        _filter(asked.filter),
    )


def _filter(asked: pb.ListRequest) -> Filter:
    if len(asked.name) > MOST_PATTERN or asked.name.count("*") > MOST_STARS:
        problem = f"a pattern has {MOST_PATTERN} characters and {MOST_STARS} * at most"
        raise InvalidRequest(problem, "name")
    if len(asked.command) > MOST_PATTERN:
        raise InvalidRequest(
            f"a part of a command has {MOST_PATTERN} characters at most", "command"
        )
    for field in ("labels", "labelKeys"):
        if len(getattr(asked, field)) > job.MOST_LABELS:
            raise InvalidRequest(f"more than {job.MOST_LABELS} labels are asked for", field)
    for field, kind in (("states", pb.JobState), ("reasons", pb.EndReason)):
        if unknown := set(getattr(asked, field)) - set(kind.values()):
            known = ", ".join(kind.keys())
            raise InvalidRequest(f"{unknown.pop()} is none of {known}", field)
    return Filter(
        tuple(asked.states),
        asked.failed,
        tuple(asked.reasons),
        _nanoseconds(asked.since) if asked.HasField("since") else 0,
        _nanoseconds(asked.until) if asked.HasField("until") else 0,
        asked.name,
        tuple(asked.labels.items()),
        tuple(asked.labelKeys),
        asked.command,
    )


def _nanoseconds(time: Timestamp) -> int:
    """A time as the journal has them; no job is older than 1970, or younger than that goes."""
    return min(max(1, time.ToNanoseconds()), 2**63 - 1)


def _admit(asked: ipc.Admit) -> Admit:
    return Admit(checked_id(asked.id), asked.refusal, asked.drained, _quotas(asked))


def _port(number: int) -> int:
    if not 1 <= number <= MAX_PORT:
        raise InvalidRequest(f"{number} is no TCP port: they are 1 to {MAX_PORT}", "port")
    return number


def _quotas(asked: ipc.Start | ipc.Admit) -> dict[Kind, Quota]:
    given = ((Kind.USER, asked.user_quota), (Kind.TENANT, asked.tenant_quota))
    return {
        kind: Quota(quota.running, quota.startsPerMinute, quota.outputBytes)
        for kind, quota in given
    }


# Field of ipc.Request -> what reads it.
_READERS: dict[str | None, Callable[[Any], Call]] = {
    "start": _start,
    "may_start": _may_start,
    "stop": _stop,
    "signal": _signal_of,
    "input": _input,
    "resize": _resize,
    "attend": _attend,
    "connect": _connect,
    "porter": lambda asked: Porter(checked_id(asked.id), asked.put),
    "turns": lambda _: Turns(),
    "admit": _admit,
    "schedule": read_schedule,
    "schedules": read_schedules,
    "change_schedule": read_change,
    "start_of": lambda asked: StartOf(checked_id(asked.id)),
    "list": _list,
    "observe": _observe,
    "owners": lambda _: Owners(),
    "get": lambda asked: Get(checked_id(asked.id)),
    "watch": lambda asked: Watch(checked_id(asked.id)),
    "unwatch": lambda asked: Unwatch(checked_id(asked.id)),
    "remove": lambda asked: Remove(checked_id(asked.id)),
    "pause": lambda asked: Pause(checked_id(asked.id)),
    "resume": lambda asked: Resume(checked_id(asked.id)),
}
