"""A start as it comes over the pipe, checked field by field: the sender faces the network."""

import math
import re
from hashlib import sha256
from time import time

from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import job
from jobworker.supervisor.errors import InvalidRequest
from jobworker.supervisor.exact_text import to_text
from jobworker.supervisor.host.isolation import Profile
from jobworker.supervisor.host.limits import FIELDS, MAX_TIMEOUT_SECONDS, Limits
from jobworker.supervisor.host.tree import TOKEN_VARIABLE
from jobworker.supervisor.ipc.messages import OVERFLOWS, limits_of

# UUIDv7 (RFC 9562) in its canonical form.
_JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
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
# Below, segments would be too small to be worth their names.
MIN_OUTPUT_BYTES = 4096
MAX_OUTPUT_BYTES = 2**62
# struct winsize has 16 bits for each (ioctl_tty(2)).
MAX_CHARACTERS = 65535
_TERMINAL_KIND = re.compile(r"[A-Za-z0-9._+-]{0,64}")
MAX_PRIORITY = 1000
# How often, and when, a job is started again; seconds.
MOST_RESTARTS = 1000
USUAL_RESTARTS = 10
USUAL_DELAY = 1.0
USUAL_LONGEST_DELAY = 300.0
USUAL_HEALTHY = 60.0
MAX_DELAY_SECONDS = 86400.0
# When a job may begin at the latest.
MAX_BEGIN_SECONDS = 366 * 86400.0
# When a job's health is looked at; seconds.
LEAST_INTERVAL, USUAL_INTERVAL, MOST_INTERVAL = 0.1, 5.0, 3600.0
USUAL_START = 60.0
USUAL_RETRIES, MOST_RETRIES = 3, 100
MAX_PORT = 65535
# Files that come with a start.
MOST_UPLOADS = 16
MAX_UPLOAD_BYTES = 4 * 1024 * 1024
MAX_NAME_BYTES = 255
MAX_MODE = 0o7777
# So many jobs another may come after.
MOST_AFTER = 1000
# The program's name, the first of its arguments: it is a field of its own to most callers.
COMMAND = "rawArguments.0"


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
        id=checked_id(order.id),
        owner=checked_name(order.owner, "owner"),
        tenant=checked_name(asked.tenant, "tenant") if asked.tenant else "",
        argv=tuple(map(to_text, asked.rawArguments)),
        environment={to_text(one.name): to_text(one.value) for one in asked.rawEnvironment},
        cwd=to_text(cwd),
        grace=checked_grace(asked.graceSeconds),
        request_id=asked.requestID,
        output_limit=_output_limit(asked.outputLimit),
        limits=_limits(asked),
        profile=_profile(asked.isolation),
        network=not asked.noNetwork,
        stop=checked_stop_way(asked.stopSignal, asked.stopMode).or_else(_usual_stop(asked)),
        login=asked.loginEnvironment,
        input=_input_mode(asked.input),
        terminal=_terminal(asked),
        on_disconnect=_on_disconnect(asked.onDisconnect),
        inside=checked_id(order.inside) if order.inside else "",
        waiting=_waiting(asked),
        asker=asker_of(order.asker),
        name=checked_job_name(asked.name),
        labels=_labels(asked),
        restart=_restart(asked, inside=bool(order.inside)),
        health=_health(asked),
        uploads=_uploads(asked, inside=bool(order.inside)),
    )


def checked_size(rows: int, columns: int) -> tuple[int, int]:
    """A terminal's size in characters. Raises InvalidRequest."""
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
    return job.Terminal(*checked_size(asked.terminal.rows, asked.terminal.columns), kind)


def _on_disconnect(asked: int) -> job.OnDisconnect:
    try:
        return job.OnDisconnect(asked)
    except ValueError:
        problem = f"{asked} is not what a job can do on a disconnection"
        raise InvalidRequest(problem, "onDisconnect") from None


def _input_mode(asked: int) -> job.Input:
    try:
        return job.Input(asked)
    except ValueError:
        raise InvalidRequest(f"{asked} is not a kind of input", "input") from None


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
    after, outcome = _after(asked)
    at_us, delay = _begin(asked)
    queue = asked.queue or (job.DEFAULT_QUEUE if after or at_us or delay else "")
    for value, field in (asked.priority, "priority"), (timeout, "queueTimeoutSeconds"):
        if value and not queue:
            raise InvalidRequest("a job that waits in no queue has none", field)
    return job.Waiting(queue, asked.priority, timeout, after, outcome, at_us, delay)


def _begin(asked: pb.StartRequest) -> tuple[int, float]:
    """When it may begin: in microseconds since 1970, and in seconds from now."""
    delay = _seconds("a time to wait", asked.startInSeconds, MAX_BEGIN_SECONDS, "startInSeconds")
    if not asked.HasField("startAt"):
        return 0, delay
    if delay:
        raise InvalidRequest("a time and a delay both say when it begins", "startInSeconds")
    at_us = asked.startAt.ToMicroseconds()
    if not 0 < at_us < time() * 1e6 + MAX_BEGIN_SECONDS * 1e6:
        raise InvalidRequest("it must begin within a year from now", "startAt")
    return at_us, 0.0


def _after(asked: pb.StartRequest) -> tuple[tuple[str, ...], job.AfterOutcome]:
    if len(asked.after) > MOST_AFTER:
        problem = f"{len(asked.after)} jobs to come after are more than {MOST_AFTER}"
        raise InvalidRequest(problem, "after")
    if any(not _JOB_ID.fullmatch(text) for text in asked.after):
        raise InvalidRequest("what a job comes after is told by IDs", "after")
    try:
        outcome = job.AfterOutcome(asked.afterOutcome)
    except ValueError:
        raise InvalidRequest(f"{asked.afterOutcome} is no outcome", "afterOutcome") from None
    if outcome and not asked.after:
        raise InvalidRequest("a job that comes after none needs no outcome", "afterOutcome")
    return tuple(dict.fromkeys(asked.after)), outcome


def _restart(asked: pb.StartRequest, *, inside: bool) -> job.Restart:
    if not asked.HasField("restart") or asked.restart == pb.RestartPolicy():
        return job.ONCE
    given = asked.restart
    if inside:
        raise InvalidRequest("what runs within a job is not started again", "restart")
    if asked.input or asked.HasField("terminal"):
        problem = "a job that takes input, or runs on a terminal, is not started again"
        raise InvalidRequest(problem, "restart")
    try:
        when = job.RestartWhen(given.when)
    except ValueError:
        raise InvalidRequest(f"{given.when} is no restart policy", "restart.when") from None
    most = given.maxRestarts or USUAL_RESTARTS
    if not 1 <= most <= MOST_RESTARTS:
        problem = f"{most} restarts in a row are not between 1 and {MOST_RESTARTS}"
        raise InvalidRequest(problem, "restart.maxRestarts")
    delay, longest, healthy = (
        _seconds(what, value, MAX_DELAY_SECONDS, f"restart.{field}") or usual
        for what, value, usual, field in (
            ("a delay", given.delaySeconds, USUAL_DELAY, "delaySeconds"),
            ("a delay", given.maxDelaySeconds, USUAL_LONGEST_DELAY, "maxDelaySeconds"),
            ("a healthy time", given.healthySeconds, USUAL_HEALTHY, "healthySeconds"),
        )
    )
    if longest < delay:
        # Of these, one alone was asked for, or they contradict each other.
        if given.maxDelaySeconds and given.delaySeconds:
            problem = f"the longest delay of {longest:g} s is less than the first, {delay:g} s"
            raise InvalidRequest(problem, "restart.maxDelaySeconds")
        delay, longest = (delay, delay) if given.delaySeconds else (longest, longest)
    for code in given.finalExitCodes:
        if not 0 <= code <= 255:
            problem = f"{code} is no exit code, which is from 0 to 255"
            raise InvalidRequest(problem, "restart.finalExitCodes")
    final = tuple(sorted(set(given.finalExitCodes)))
    return job.Restart(when, most, delay, longest, healthy, final, given.persist)


def _health(asked: pb.StartRequest) -> job.HealthCheck:
    if not asked.HasField("health"):
        return job.UNCHECKED
    given = asked.health
    if not 1 <= given.port <= MAX_PORT:
        problem = f"{given.port} is no TCP port, which is from 1 to {MAX_PORT}"
        raise InvalidRequest(problem, "health.port")
    interval = given.intervalSeconds or USUAL_INTERVAL
    if not LEAST_INTERVAL <= interval <= MOST_INTERVAL:
        problem = f"{interval:g} s is not between {LEAST_INTERVAL:g} and {MOST_INTERVAL:g}"
        raise InvalidRequest(problem, "health.intervalSeconds")
    start = _seconds("a start", given.startSeconds, MAX_DELAY_SECONDS, "health.startSeconds")
    retries = given.retries or USUAL_RETRIES
    if not 1 <= retries <= MOST_RETRIES:
        problem = f"{retries} retries are not between 1 and {MOST_RETRIES}"
        raise InvalidRequest(problem, "health.retries")
    return job.HealthCheck(given.port, interval, start or USUAL_START, retries)


def _uploads(asked: pb.StartRequest, *, inside: bool) -> tuple[job.Upload, ...]:
    if asked.uploads and inside:
        raise InvalidRequest("files are put into the job that it runs in by Put", "uploads")
    if len(asked.uploads) > MOST_UPLOADS:
        problem = f"{len(asked.uploads)} files with a start are more than {MOST_UPLOADS}"
        raise InvalidRequest(problem, "uploads")
    if (size := sum(len(one.data) for one in asked.uploads)) > MAX_UPLOAD_BYTES:
        raise InvalidRequest(
            f"files of {size} bytes with a start are more than {MAX_UPLOAD_BYTES}: "
            "put them into a job's directory (`jobworker cp`) and start another there",
            "uploads",
        )
    uploads = tuple(map(_upload, asked.uploads))
    if len({one.name for one in uploads}) < len(uploads):
        raise InvalidRequest("two files with a start have the same name", "uploads")
    return uploads


def _upload(given: pb.Upload) -> job.Upload:
    name, digest = given.name, sha256(given.data).hexdigest()
    if not 1 <= len(name) <= MAX_NAME_BYTES or b"/" in name or b"\0" in name:
        problem = f"a file's name is 1 to {MAX_NAME_BYTES} bytes without a slash and NUL"
        raise InvalidRequest(problem, "uploads")
    if name in (b".", b".."):
        raise InvalidRequest(f"{name.decode()} is a directory's name", "uploads")
    if given.mode > MAX_MODE:
        raise InvalidRequest(f"{given.mode:#o} is no mode of a file", "uploads")
    # What was told of a job is no file.
    if given.size not in (0, len(given.data)) or given.sha256 not in ("", digest):
        raise InvalidRequest("what is said of a file does not hold of its data", "uploads")
    return job.Upload(to_text(name), given.mode, len(given.data), digest)


def _labels(asked: pb.StartRequest) -> dict[str, str]:
    if len(asked.labels) > job.MOST_LABELS:
        problem = f"{len(asked.labels)} labels are more than {job.MOST_LABELS}"
        raise InvalidRequest(problem, "labels")
    for key, value in asked.labels.items():
        if not job.is_label(key, value):
            raise InvalidRequest(
                f"{key[:64]!r} with {value[:64]!r} is no label: a key is 1 to 63 of A-Z a-z 0-9 "
                ". _ / -, a letter or digit first, a value 255 characters that can be printed",
                "labels",
            )
    return dict(asked.labels)


def asker_of(asked: ipc.Asker) -> job.Asker:
    return job.Asker(tuple(asked.tenants), asked.serial, asked.not_after_us)


def checked_signal(number: int, field: str) -> int:
    """A signal's number. Raises InvalidRequest naming the field."""
    if not 1 <= number <= 64:
        raise InvalidRequest(f"signal {number} is not between 1 and 64", field)
    return number


def checked_stop_way(signal: int, mode: int) -> job.StopWay:
    """How a stop is to begin. Raises InvalidRequest."""
    try:
        chosen = job.StopMode(mode)
    except ValueError:
        raise InvalidRequest(f"{mode} is not a way to stop a job", "stopMode") from None
    return job.StopWay(checked_signal(signal, "stopSignal") if signal else 0, chosen)


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


def checked_id(text: str) -> str:
    """A job's ID. Raises InvalidRequest."""
    if not _JOB_ID.fullmatch(text):
        raise InvalidRequest(f"{text[:64]!r} is not a job ID", "id")
    return text


def checked_name(text: str, field: str) -> str:
    """A user's or a tenant's name. Raises InvalidRequest naming the field."""
    if not _NAME.fullmatch(text) or ".." in text:
        raise InvalidRequest(f"the {field} {text[:64]!r} is not a name", field)
    return text


def checked_job_name(text: str) -> str:
    """What people call a job, or empty. Raises InvalidRequest."""
    if text and not job.is_job_name(text):
        raise InvalidRequest(
            f"{text[:64]!r} is no name for a job: that is a letter, then up to 63 of "
            "A-Z a-z 0-9 . _ -, and not all of it hex digits and -, as IDs are",
            "name",
        )
    return text


def checked_grace(seconds: float) -> float:
    """A grace period in seconds. Raises InvalidRequest."""
    return _seconds("a grace period", seconds, MAX_GRACE_SECONDS, "graceSeconds")


def _seconds(what: str, seconds: float, most: float, field: str) -> float:
    if not math.isfinite(seconds) or not 0 <= seconds <= most:
        raise InvalidRequest(f"{what} of {seconds} s is not between 0 and {most:g}", field)
    return seconds
