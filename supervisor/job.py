"""A job as facts, and the table of what may happen to it. No processes, no files."""

import re
import shlex
from dataclasses import dataclass, field, replace
from enum import IntEnum
from signal import SIGHUP, SIGKILL, SIGTERM
from typing import NamedTuple

from jobworker.supervisor.host.accounting import UNKNOWN, Usage
from jobworker.supervisor.host.isolation import Profile
from jobworker.supervisor.host.limits import NO_LIMITS, Limits
from jobworker.supervisor.host.users import Account


class State(IntEnum):
    """What a job is doing; the numbers are the contract's and the journal's."""

    STARTING = 1
    RUNNING = 2
    STOPPING = 3
    ENDED = 4
    PAUSED = 5
    PENDING = 6
    # An attempt has ended: what it left behind is being ended, before the next one waits. Nobody
    # is told of it by this name: it is as good as STOPPING.
    RESTARTING = 7

    @property
    def without_main(self) -> bool:
        """Whether there is no main process: not any more, or not yet."""
        return self in (State.PENDING, State.RESTARTING, State.ENDED)

    @property
    def going_on(self) -> bool:
        """Whether its program executes, or would but for a pause, and nobody has had it end."""
        return self in (State.RUNNING, State.PAUSED)


class Reason(IntEnum):
    """Why a job's main process ended; the numbers are the contract's and the journal's."""

    NONE = 0
    EXITED = 1
    SIGNALED = 2
    STOPPED = 3
    LOST = 4
    TIMED_OUT = 5
    OUTPUT_LIMIT = 6
    OUT_OF_MEMORY = 7
    REFUSED = 8
    QUEUE_TIMEOUT = 9
    CANNOT_START = 10
    DEPENDENCY_FAILED = 11
    UNHEALTHY = 12


class Overflow(IntEnum):
    """What happens to output beyond its limit; the numbers are the journal's."""

    ROTATE = 0
    STOP_RECORDING = 1
    STOP_JOB = 2


class StopMode(IntEnum):
    """Whom the signal that a stop begins with is for; the numbers are the contract's."""

    UNSPECIFIED = 0
    TREE = 1
    MAIN = 2


@dataclass(frozen=True)
class StopWay:
    """How a stop begins: with which signal, and for whom. 0 and UNSPECIFIED leave it open."""

    signal: int = 0
    mode: StopMode = StopMode.UNSPECIFIED

    def or_else(self, other: "StopWay") -> "StopWay":
        """With what this leaves open from the other."""
        return StopWay(self.signal or other.signal, self.mode or other.mode)


AS_EVER = StopWay()
DEFAULT_STOP = StopWay(SIGTERM, StopMode.TREE)
# Of a job on a terminal: that is what its programs get when a window is closed.
TERMINAL_STOP = StopWay(SIGHUP, StopMode.TREE)


class Happening(IntEnum):
    """Something that changes a job's state."""

    EXECUTED = 1
    STOP_ASKED = 2
    EXIT = 3
    LOSS = 4
    PAUSE_ASKED = 5
    RESUME_ASKED = 6
    TURN_CAME = 7
    GIVEN_UP = 8
    ATTEMPT_ENDED = 9
    CLEARED = 10


TRANSITIONS: dict[tuple[State, Happening], State] = {
    (State.PENDING, Happening.TURN_CAME): State.STARTING,
    (State.PENDING, Happening.GIVEN_UP): State.ENDED,
    (State.STARTING, Happening.GIVEN_UP): State.ENDED,
    (State.STARTING, Happening.EXECUTED): State.RUNNING,
    (State.STARTING, Happening.EXIT): State.ENDED,
    (State.STARTING, Happening.LOSS): State.ENDED,
    (State.RUNNING, Happening.STOP_ASKED): State.STOPPING,
    (State.RUNNING, Happening.PAUSE_ASKED): State.PAUSED,
    (State.RUNNING, Happening.RESUME_ASKED): State.RUNNING,
    (State.RUNNING, Happening.EXIT): State.ENDED,
    (State.RUNNING, Happening.LOSS): State.ENDED,
    (State.PAUSED, Happening.PAUSE_ASKED): State.PAUSED,
    (State.PAUSED, Happening.RESUME_ASKED): State.RUNNING,
    (State.PAUSED, Happening.STOP_ASKED): State.STOPPING,
    (State.PAUSED, Happening.EXIT): State.ENDED,
    (State.PAUSED, Happening.LOSS): State.ENDED,
    (State.STOPPING, Happening.STOP_ASKED): State.STOPPING,
    (State.STOPPING, Happening.EXIT): State.ENDED,
    (State.STOPPING, Happening.LOSS): State.ENDED,
    (State.STARTING, Happening.ATTEMPT_ENDED): State.RESTARTING,
    (State.RUNNING, Happening.ATTEMPT_ENDED): State.RESTARTING,
    (State.PAUSED, Happening.ATTEMPT_ENDED): State.RESTARTING,
    (State.STOPPING, Happening.ATTEMPT_ENDED): State.RESTARTING,
    (State.RESTARTING, Happening.CLEARED): State.PENDING,
    (State.RESTARTING, Happening.STOP_ASKED): State.ENDED,
}


class ImpossibleTransition(Exception):
    """The table has no row for this: a bug, never the caller's doing."""


def after(state: State, happening: Happening) -> State:
    """The state that follows. Raises ImpossibleTransition where the table has none."""
    try:
        return TRANSITIONS[state, happening]
    except KeyError:
        raise ImpossibleTransition(f"{happening.name} cannot happen in {state.name}") from None


def end_reason(state: State, why_stopping: Reason, signal: int, *, oom: bool) -> Reason:
    """Why a main process ended that was reaped in `state`, by `signal` or (0) by exit.

    `oom` says that the kernel has killed processes of the job for lack of memory.
    """
    if state is State.STOPPING:
        return why_stopping
    if oom and signal == SIGKILL:
        return Reason.OUT_OF_MEMORY
    return Reason.SIGNALED if signal else Reason.EXITED


def exit_code(reason: Reason, exit_status: int, signal: int) -> int:
    """An end as a shell reports it: 128+N for signal N.

    255 for a lost job, whose exit status nobody knows (as containerd has it).
    """
    if reason is Reason.LOST:
        return 255
    return 128 + signal if signal else exit_status


class Input(IntEnum):
    """What a job finds on its stdin; the numbers are the contract's and the journal's."""

    NONE = 0
    OPEN = 1
    STORED = 2


class OnDisconnect(IntEnum):
    """What is done to a job that nobody attends to; the numbers are as the contract's."""

    KEEP = 0
    HANG_UP = 1
    STOP = 2


@dataclass(frozen=True)
class Terminal:
    """The terminal that a job runs on: its first size in characters, and its kind (TERM).

    All 0 and empty for a job that runs on none.
    """

    rows: int = 0
    columns: int = 0
    kind: str = ""


NO_TERMINAL = Terminal()


class Asker(NamedTuple):
    """By which certificate a job was asked for: its tenants, its serial, its end in microseconds.

    The serial is in lower-case hex, empty where it was no certificate.
    """

    tenants: tuple[str, ...] = ()
    serial: str = ""
    not_after_us: int = 0


NOBODY = Asker()


# There always is a queue of this name.
DEFAULT_QUEUE = "default"
QUEUE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


class AfterOutcome(IntEnum):
    """How jobs must have ended after which another comes; the numbers are the contract's."""

    UNSPECIFIED = 0
    OK = 1
    ANY = 2
    FAIL = 3
    READY = 4


@dataclass(frozen=True)
class Waiting:
    """Where a job waits for its turn: the queue's name, empty for nowhere, and how.

    Of an owner's in a queue the higher `priority` comes first; `timeout` is in
    seconds, 0 for none. It comes `after` the jobs of these IDs, if all have that outcome,
    and not before `at_us`, microseconds since 1970 by the wall clock, nor `delay` seconds after
    it was asked for; 0 for at once.
    """

    queue: str = ""
    priority: int = 0
    timeout: float = 0.0
    after: tuple[str, ...] = ()
    outcome: AfterOutcome = AfterOutcome.UNSPECIFIED
    at_us: int = 0
    delay: float = 0.0


AT_ONCE = Waiting()


# An ID, or a part of one, is hex digits and hyphens alone: it is never taken for a name.
_JOB_NAME = re.compile(r"(?=.*[^0-9A-Fa-f-])[A-Za-z][A-Za-z0-9._-]{0,63}")


def is_job_name(text: str) -> bool:
    """Whether a job may have this for its name."""
    return _JOB_NAME.fullmatch(text) is not None


_LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
MOST_LABELS = 16
MOST_LABEL_CHARACTERS = 255


def is_label(key: str, value: str) -> bool:
    """Whether a job may have this label."""
    fits = len(value) <= MOST_LABEL_CHARACTERS and (not value or value.isprintable())
    return _LABEL_KEY.fullmatch(key) is not None and fits


class RestartWhen(IntEnum):
    """After which ends a job is started again; the numbers are the contract's."""

    NEVER = 0
    ON_FAILURE = 1
    ALWAYS = 2


@dataclass(frozen=True)
class Upload:
    """A file that is put into a job's directory before its program runs; `name` as in exact_text.

    `mode` is as chmod(2) has it. The bytes are no part of the record.
    """

    name: str
    mode: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Restart:
    """Whether a job is started again after its end, and when.

    After `delay` seconds, then twice as many, up to `longest`; from the start again
    after an attempt of `healthy` seconds. After `most` in a row without one of those it
    ends for good, and so after an exit with one of `final`. With `persist` it is also
    started again after its service or its host went down.
    """

    when: RestartWhen = RestartWhen.NEVER
    most: int = 0
    delay: float = 0.0
    longest: float = 0.0
    healthy: float = 0.0
    final: tuple[int, ...] = ()
    persist: bool = False


ONCE = Restart()


@dataclass(frozen=True)
class HealthCheck:
    """That somebody answers at a TCP port of a job; none where the port is 0.

    Every `interval` seconds; within `start` seconds for the first time, and then not
    `retries` times in a row not.
    """

    port: int = 0
    interval: float = 0.0
    start: float = 0.0
    retries: int = 0


UNCHECKED = HealthCheck()


@dataclass(frozen=True)
class Attempt:
    """A time that a job was started, and how that ended; the first has the number 1.

    `lived` is in seconds. Its output is from the byte `output_begin` to before `output_end`.
    `delay` is for how many seconds the next was put off, `failures` how many ended in a
    row before it was healthy, this one included.
    """

    number: int
    began_ns: int
    ended_ns: int
    lived: float
    reason: Reason
    exit_status: int
    signal: int
    output_begin: int
    output_end: int
    detail: str
    delay: float
    failures: int


class Entry(NamedTuple):
    """A job that waits: what decides when its turn is."""

    id: str
    owner: str
    tenant: str
    queue: str
    priority: int = 0
    name: str = ""

    @property
    def line(self) -> tuple[str, str, str]:
        """With which others it has an order of its own."""
        return self.tenant, self.owner, self.queue

    @property
    def rank(self) -> tuple[int, str]:
        """Its place in that order; IDs ascend with the time."""
        return -self.priority, self.id


class InputPiece(NamedTuple):
    """A piece of a job's input; it begins at `offset`, None for behind all that there is.

    With `end` there is no more behind it.
    """

    offset: int | None
    data: bytes = b""
    end: bool = False


class Received(NamedTuple):
    """How many bytes of input a job has been sent in all, and whether it takes no more."""

    total: int
    over: bool


@dataclass(frozen=True)
class OutputLimit:
    """How much of a job's output is kept: bytes, and bytes per second; 0 for no limit."""

    bytes: int = 0
    overflow: Overflow = Overflow.ROTATE
    rate: int = 0


@dataclass(frozen=True)
class Request:
    """What somebody asked to run.

    `id` is a UUIDv7 in canonical form; `grace` is in seconds. What is left open
    (no `cwd`, some limit, an unspecified profile) has been decided once the job
    is on record; `account` None stands for the service's own user. `asked` is
    the start_keys.fingerprint of what was asked for under the `request_id`. With
    `login` the user's login shell executes it. `inside` is the job in whose place it
    runs, or empty. `waiting` says where it waits for its turn, and `asker` whose rights
    are asked for again then. `name` is what people call it, or empty, and by its `labels`
    they find it among others. `restart` says what happens when it ends,
    `health` how it is told that it is ready. The `uploads` are put into `cwd` first.
    """

    id: str
    owner: str
    tenant: str
    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    cwd: str = ""
    grace: float = 10.0
    request_id: str = ""
    output_limit: OutputLimit = OutputLimit()
    limits: Limits = NO_LIMITS
    account: Account | None = None
    profile: Profile = Profile.UNSPECIFIED
    network: bool = True
    stop: StopWay = DEFAULT_STOP
    asked: str = ""
    login: bool = False
    input: Input = Input.NONE
    terminal: Terminal = NO_TERMINAL
    on_disconnect: OnDisconnect = OnDisconnect.KEEP
    inside: str = ""
    waiting: Waiting = AT_ONCE
    asker: Asker = NOBODY
    name: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    restart: Restart = ONCE
    health: HealthCheck = UNCHECKED
    uploads: tuple[Upload, ...] = ()

    @property
    def takes_input(self) -> bool:
        """Whether something can be sent to it, or typed."""
        return self.input is not Input.NONE or self.terminal.rows > 0

    @property
    def command_line(self) -> str:
        """The command as a POSIX shell would take it."""
        return shlex.join(self.argv)


@dataclass
class Job:
    """One job as it is now; the journal's row. Only the supervisor changes it.

    `reason` is NONE while it goes on, and why it is being stopped while STOPPING.
    `pid` is the main process's, for people to see; how its engine finds the job
    again is in `engine_record`, which nobody else reads. `exit_status` and
    `signal` are valid once ENDED and not LOST. Times are nanoseconds since 1970; the output from
    the byte `output_begin` to before `output_end` is on record; it is drained
    when that holds of all that was in the pipes as the main process ended, which
    is not journalled: a supervisor that takes up the pipes looks again.
    `attempts` are those that have ended and were not the last; of many the latest.
    """

    request: Request
    created_ns: int
    state: State = State.STARTING
    reason: Reason = Reason.NONE
    pid: int = 0
    engine_record: str = ""
    exit_status: int = 0
    signal: int = 0
    ended_ns: int = 0
    output_begin: int = 0
    output_end: int = 0
    output_complete: bool = False
    output_drained: bool = False
    detail: str = ""
    usage: Usage = UNKNOWN
    attempts: tuple[Attempt, ...] = ()

    @property
    def attempt(self) -> int:
        """The number of the attempt that this is, or that is to come; the first is 1."""
        if not self.attempts:
            return 1
        # Of one that ended while it waited, the last is the last.
        given_up = self.state is State.ENDED and not self.pid
        return self.attempts[-1].number + (not given_up)

    @property
    def id(self) -> str:
        """The job's UUIDv7."""
        return self.request.id

    def wait_again(self) -> None:
        """Make it one that waits for its next attempt: of the one before all is in `attempts`."""
        self.state = after(self.state, Happening.CLEARED)
        *earlier, last = self.attempts
        self.attempts = (*earlier, replace(last, output_end=self.output_end))
        self.reason, self.detail = Reason.NONE, ""
        self.exit_status = self.signal = self.ended_ns = self.pid = 0
        self.engine_record = ""
        self.output_complete = self.output_drained = False
        self.usage = UNKNOWN
