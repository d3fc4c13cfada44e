"""From messages on the pipe to checked requests: the sender faces the network."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import job
from jobworker.supervisor.errors import InvalidRequest
from jobworker.supervisor.exact_text import to_text
from jobworker.supervisor.host.isolation import Profile
from jobworker.supervisor.host.limits import FIELDS, MAX_TIMEOUT_SECONDS, Limits
from jobworker.supervisor.host.tree import TOKEN_VARIABLE
from jobworker.supervisor.ipc.messages import OVERFLOWS, limits_of
from jobworker.supervisor.quotas import Kind, Quota

# UUIDv7 (RFC 9562) in its canonical form.
_JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_ID_PREFIX = re.compile(r"[0-9a-f-]{0,36}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Arguments and variables together: three quarters of _STK_LIM, which no stack
# limit raises (execve(2), "Limits on size of arguments and environment"). Below,
# the kernel decides (E2BIG), as it depends on the stack limit.
MAX_SPEC_BYTES = 6 * 1024 * 1024
# Bytes of a pointer in argv and in the environment, which count.
_POINTER = 8
MAX_PATH_BYTES = 4095
MAX_GRACE_SECONDS = 86400.0
# One more than a caller of the front's can ask for.
MAX_PAGE = 1001
# Below, segments would be too small to be worth their names.
MIN_OUTPUT_BYTES = 4096
MAX_OUTPUT_BYTES = 2**62
# Of a message; more goes in several.
MAX_INPUT_BYTES = 1024 * 1024
# The front's names for who attends.
MAX_WHO = 200
# struct winsize has 16 bits for each (ioctl_tty(2)).
MAX_CHARACTERS = 65535
_TERMINAL_KIND = re.compile(r"[A-Za-z0-9._+-]{0,64}")
MAX_PORT = 65535
MAX_PRIORITY = 1000
# The program's name, the first of its arguments: it is a field of its own to most callers.
COMMAND = "rawArguments.0"


class Start(NamedTuple):
    """Start a job, within what its owner and its tenant may have; not if `drained` says why."""

    request: job.Request
    quotas: dict[Kind, Quota]
    drained: str = ""


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


class Owners(NamedTuple):
    """Ask who has jobs, and for which tenants."""


AboutInput = Input | Resize | Attend
AboutOne = Stop | Signal | Pause | Resume | Get | Watch | Unwatch | Remove
Call = Start | MayStart | Turns | Admit | Connect | AboutInput | AboutOne | List | Observe | Owners


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
    return Start(check_start(asked), _quotas(asked), asked.drained)


def _may_start(asked: ipc.Start) -> MayStart:
    return MayStart(*_start(asked))


def _stop(asked: ipc.Stop) -> Stop:
    grace = asked.grace_seconds if asked.HasField("grace_seconds") else None
    return Stop(
        _job_id(asked.id),
        None if grace is None else _grace(grace),
        _stop_way(asked.way.signal, asked.way.mode),
    )


def _signal_of(asked: ipc.Signal) -> Signal:
    return Signal(_job_id(asked.id), _signal(asked.signal, "signal"), asked.all)


def _resize(asked: ipc.Resize) -> Resize:
    return Resize(_job_id(asked.id), *_size(asked.rows, asked.columns))


def _input(asked: ipc.Input) -> Input:
    if len(asked.data) > MAX_INPUT_BYTES:
        problem = f"{len(asked.data)} bytes of input at once are more than {MAX_INPUT_BYTES}"
        raise InvalidRequest(problem, "data")
    offset = asked.offset if asked.HasField("offset") else None
    return Input(_job_id(asked.id), job.InputPiece(offset, asked.data, asked.end))


def _size(rows: int, columns: int) -> tuple[int, int]:
    for value, field in (rows, "terminal.rows"), (columns, "terminal.columns"):
        if not 1 <= value <= MAX_CHARACTERS:
            problem = f"{value} is not between 1 and {MAX_CHARACTERS} characters"
            raise InvalidRequest(problem, field)
    return rows, columns


def _terminal(asked: pb.StartRequest) -> job.Terminal:
    if not asked.HasField("terminal"):
        return job.NO_TERMINAL
    kind = asked.terminal.kind
    if not _TERMINAL_KIND.fullmatch(kind):
        problem = "a kind of terminal is up to 64 characters of A-Z a-z 0-9 . _ + -"
        raise InvalidRequest(problem, "terminal.kind")
    return job.Terminal(*_size(asked.terminal.rows, asked.terminal.columns), kind)


def _on_disconnect(asked: int) -> job.OnDisconnect:
    try:
        return job.OnDisconnect(asked)
    except ValueError:
        problem = f"{asked} is not what a job can do on a disconnection"
        raise InvalidRequest(problem, "onDisconnect") from None


def _attend(asked: ipc.Attend) -> Attend:
    if len(asked.who) > MAX_WHO or asked.gone not in (0, 1, 2):
        raise InvalidRequest("this is not how somebody attends", "who")
    return Attend(_job_id(asked.id), asked.who, asked.gone)


def _input_mode(asked: int) -> job.Input:
    try:
        return job.Input(asked)
    except ValueError:
        raise InvalidRequest(f"{asked} is not a kind of input", "input") from None


def _connect(asked: ipc.Connect) -> Connect:
    return Connect(_job_id(asked.id), _port(asked.port))


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
    for field in ("owner", "tenant"):
        if getattr(asked, field):
            _name(getattr(asked, field), field)
    return List(
        asked.prefix,
        asked.before,
        asked.limit,
        asked.running,
        asked.owner,
        asked.tenant,
        asked.ended_by_ns,
        tuple(
            (_name(one.owner, "owner"), _name(one.tenant, "tenant") if one.tenant else "")
            for one in asked.whose
        ),
        asked.ended_ago_ns,
    )


def check_start(order: ipc.Start) -> job.Request:
    """A start, checked field by field. Raises InvalidRequest naming the field."""
    asked = order.request
    if asked.commandName or asked.Arguments or asked.environment or asked.workingDirectory:
        raise InvalidRequest("an order has its texts in the fields for exact bytes")
    _check_command(asked)
    _check_environment(asked)
    cwd = asked.rawWorkingDirectory
    if len(cwd) > MAX_PATH_BYTES:
        problem = f"the working directory is longer than {MAX_PATH_BYTES} bytes"
        raise InvalidRequest(problem, "rawWorkingDirectory")
    if asked.requestID and not _REQUEST_ID.fullmatch(asked.requestID):
        problem = "a request ID is 1 to 64 characters of A-Z a-z 0-9 . _ -"
        raise InvalidRequest(problem, "requestID")
    return job.Request(
        id=_job_id(order.id),
        owner=_name(order.owner, "owner"),
        tenant=_name(asked.tenant, "tenant") if asked.tenant else "",
        argv=tuple(map(to_text, asked.rawArguments)),
        environment={to_text(one.name): to_text(one.value) for one in asked.rawEnvironment},
        cwd=to_text(cwd),
        grace=_grace(asked.graceSeconds),
        request_id=asked.requestID,
        output_limit=_output_limit(asked.outputLimit),
        limits=_limits(asked),
        profile=_profile(asked.isolation),
        network=not asked.noNetwork,
        stop=_stop_way(asked.stopSignal, asked.stopMode).or_else(_usual_stop(asked)),
        login=asked.loginEnvironment,
        input=_input_mode(asked.input),
        terminal=_terminal(asked),
        on_disconnect=_on_disconnect(asked.onDisconnect),
        inside=_job_id(order.inside) if order.inside else "",
        waiting=_waiting(asked),
        asker=_asker(order.asker),
    )


def _waiting(asked: pb.StartRequest) -> job.Waiting:
    if asked.queue and not job.QUEUE_NAME.fullmatch(asked.queue):
        problem = "a queue's name is up to 64 characters of A-Z a-z 0-9 . _ -, a letter first"
        raise InvalidRequest(problem, "queue")
    if not -MAX_PRIORITY <= asked.priority <= MAX_PRIORITY:
        problem = (
            f"a priority of {asked.priority} is not between -{MAX_PRIORITY} and {MAX_PRIORITY}"
        )
        raise InvalidRequest(problem, "priority")
    timeout = _seconds(
        "a time to wait", asked.queueTimeoutSeconds, MAX_TIMEOUT_SECONDS, "queueTimeoutSeconds"
    )
    for value, field in (asked.priority, "priority"), (timeout, "queueTimeoutSeconds"):
        if value and not asked.queue:
            raise InvalidRequest("a job that waits in no queue has none", field)
    return job.Waiting(asked.queue, asked.priority, timeout)


def _asker(asked: ipc.Asker) -> job.Asker:
    return job.Asker(tuple(asked.tenants), asked.serial, asked.not_after_us)


def _admit(asked: ipc.Admit) -> Admit:
    return Admit(_job_id(asked.id), asked.refusal, asked.drained, _quotas(asked))


def _port(number: int) -> int:
    if not 1 <= number <= MAX_PORT:
        raise InvalidRequest(f"{number} is no TCP port: they are 1 to {MAX_PORT}", "port")
    return number


def _signal(number: int, field: str) -> int:
    if not 1 <= number <= 64:
        raise InvalidRequest(f"signal {number} is not between 1 and 64", field)
    return number


def _stop_way(signal: int, mode: int) -> job.StopWay:
    try:
        chosen = job.StopMode(mode)
    except ValueError:
        raise InvalidRequest(f"{mode} is not a way to stop a job", "stopMode") from None
    return job.StopWay(_signal(signal, "stopSignal") if signal else 0, chosen)


def _usual_stop(asked: pb.StartRequest) -> job.StopWay:
    # A shell that somebody types to ignores SIGTERM.
    return job.TERMINAL_STOP if asked.HasField("terminal") else job.DEFAULT_STOP


def _limits(asked: pb.StartRequest) -> Limits:
    timeout = _seconds("a timeout", asked.timeoutSeconds, MAX_TIMEOUT_SECONDS, FIELDS["timeout"])
    try:
        return limits_of(asked.limits, timeout)
    except ValueError as error:
        # Its first word is the limit's name.
        field = FIELDS[str(error).partition(" ")[0]]
        raise InvalidRequest(f"limit of {error}", field) from None


def _profile(asked: int) -> Profile:
    try:
        return Profile(asked)
    except ValueError:
        raise InvalidRequest(f"{asked} is not an isolation profile", "isolation") from None


def _quotas(asked: ipc.Start | ipc.Admit) -> dict[Kind, Quota]:
    given = ((Kind.USER, asked.user_quota), (Kind.TENANT, asked.tenant_quota))
    return {
        kind: Quota(quota.running, quota.startsPerMinute, quota.outputBytes)
        for kind, quota in given
    }


_OVERFLOWS = {number: overflow for overflow, number in OVERFLOWS.items()}


def _output_limit(asked: pb.OutputLimit) -> job.OutputLimit:
    if asked.overflow and asked.overflow not in _OVERFLOWS:
        problem = f"{asked.overflow} is not what can happen to output"
        raise InvalidRequest(problem, "outputLimit.overflow")
    for field, what, unit in (
        ("bytes", "an output limit", "bytes"),
        ("rate", "a rate of output", "bytes a second"),
    ):
        value = getattr(asked, field)
        if value and not MIN_OUTPUT_BYTES <= value <= MAX_OUTPUT_BYTES:
            raise InvalidRequest(
                f"{what} of {value} {unit} is not between {MIN_OUTPUT_BYTES} and "
                f"{MAX_OUTPUT_BYTES}, nor 0 for none",
                f"outputLimit.{field}",
            )
    overflow = _OVERFLOWS.get(asked.overflow, job.Overflow.ROTATE)
    return job.OutputLimit(asked.bytes, overflow, asked.rate)


def _check_command(asked: pb.StartRequest) -> None:
    argv, variables = asked.rawArguments, asked.rawEnvironment
    if not argv or not argv[0]:
        raise InvalidRequest("no command was given", COMMAND)
    texts = {
        COMMAND: argv[:1],
        "rawArguments": argv[1:],
        "rawEnvironment": [text for one in variables for text in (one.name, one.value)],
        "rawWorkingDirectory": [asked.rawWorkingDirectory],
    }
    for field, ones in texts.items():
        if any(b"\0" in text for text in ones):
            problem = "a NUL byte cannot be part of an argument, a variable or a path"
            raise InvalidRequest(problem, field)
    sizes = {field: sum(len(text) + 1 for text in ones) for field, ones in texts.items()}
    pointers = _POINTER * (len(argv) + len(variables))
    if (size := sum(sizes.values()) + pointers) > MAX_SPEC_BYTES:
        raise InvalidRequest(
            f"arguments and environment take {size} bytes: "
            f"execve(2) takes {MAX_SPEC_BYTES} at most, pass the rest in a file",
            max(sizes, key=lambda field: sizes[field]),
        )


def _check_environment(asked: pb.StartRequest) -> None:
    for variable in asked.rawEnvironment:
        name = to_text(variable.name)
        if not name or "=" in name:
            problem = f"{name[:64]!r} is not a name for an environment variable"
            raise InvalidRequest(problem, "rawEnvironment")
        if name == TOKEN_VARIABLE:
            raise InvalidRequest(f"{name} is set by the supervisor", "rawEnvironment")


def _job_id(text: str) -> str:
    if not _JOB_ID.fullmatch(text):
        raise InvalidRequest(f"{text[:64]!r} is not a job ID", "id")
    return text


def _name(text: str, field: str) -> str:
    if not _NAME.fullmatch(text) or ".." in text:
        raise InvalidRequest(f"the {field} {text[:64]!r} is not a name", field)
    return text


def _grace(seconds: float) -> float:
    return _seconds("a grace period", seconds, MAX_GRACE_SECONDS, "graceSeconds")


def _seconds(what: str, seconds: float, most: float, field: str) -> float:
    if not math.isfinite(seconds) or not 0 <= seconds <= most:
        raise InvalidRequest(f"{what} of {seconds} s is not between 0 and {most:g}", field)
    return seconds


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
    "turns": lambda _: Turns(),
    "admit": _admit,
    "list": _list,
    "observe": _observe,
    "owners": lambda _: Owners(),
    "get": lambda asked: Get(_job_id(asked.id)),
    "watch": lambda asked: Watch(_job_id(asked.id)),
    "unwatch": lambda asked: Unwatch(_job_id(asked.id)),
    "remove": lambda asked: Remove(_job_id(asked.id)),
    "pause": lambda asked: Pause(_job_id(asked.id)),
    "resume": lambda asked: Resume(_job_id(asked.id)),
}
