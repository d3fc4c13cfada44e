"""A job as the users of the library and the gRPC front see it."""

from dataclasses import dataclass

from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor.exact_text import to_text
from jobworker.supervisor.host.accounting import Usage
from jobworker.supervisor.host.isolation import Isolation, Profile
from jobworker.supervisor.host.limits import Limits
from jobworker.supervisor.ipc.messages import limits_of, usage_of
from jobworker.supervisor.job import Reason, State, StopMode, StopWay, exit_code


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A job at one moment.

    Times are nanoseconds since 1970 (UTC), 0 for not yet; the output from
    the byte `output_begin` to before `output_end` is kept. `exit_status` and
    `signal` are waitpid(2)'s, for a job that has ended.
    `output_drained` says that what was written until the main process ended is
    kept; that the output is complete, that nobody can write any more. `argv` and `cwd` are as
    exact_text has them; where `argv_cut`, the end of `argv` is left out, in a
    list more of it than elsewhere.
    `gone` says that nothing of its tree is left; False also means that nobody
    has looked. `usage` is as of the last look, which asking for the job takes.
    `user` is the Unix user it runs as, `user_shared` that this is the service's own.
    `request` is what holds of all that was asked for, in the contract's words: limits,
    isolation and stop, too, but without what else is told here. `unrecorded` says that
    the job has changed since, and that this could not be put on record, as on a full disk.
    `inside` is the job in whose place it runs, or empty. `attempts` are those before
    the one with the number `attempt`, in the contract's words; a list tells the number alone.
    `ready` says that it runs, and that its health check has passed if it has one.
    """

    id: str
    owner: str
    tenant: str
    argv: tuple[str, ...]
    argv_cut: bool
    cwd: str
    state: State
    reason: Reason
    pid: int
    exit_status: int
    signal: int
    created_ns: int
    ended_ns: int
    lived_ns: int
    output_begin: int
    output_end: int
    output_complete: bool
    output_drained: bool
    detail: str
    gone: bool
    usage: Usage
    user: str
    user_shared: bool
    request: pb.StartRequest
    unrecorded: bool
    inside: str
    attempts: tuple[pb.Attempt, ...] = ()
    attempt: int = 1
    ready: bool = False

    @property
    def ended(self) -> bool:
        """Whether the main process has ended."""
        return self.state is State.ENDED

    @property
    def limits(self) -> Limits:
        """What it may use."""
        return limits_of(self.request.limits, self.request.timeoutSeconds)

    @property
    def isolation(self) -> Isolation:
        """What it sees of the host."""
        return Isolation(Profile(self.request.isolation), not self.request.noNetwork)

    @property
    def stop(self) -> StopWay:
        """How a stop of it begins."""
        return StopWay(self.request.stopSignal, StopMode(self.request.stopMode))

    @property
    def exit_code(self) -> int:
        """As job.exit_code has it. 0 while the job runs."""
        return exit_code(self.reason, self.exit_status, self.signal)

    @classmethod
    def from_message(cls, job: ipc.Job) -> "JobSnapshot":
        """From the supervisor's message."""
        # A copy: what is in a message keeps all of it, which may have a long command line.
        asked = pb.StartRequest()
        asked.CopyFrom(job.request)
        return cls(
            id=job.id,
            owner=job.owner,
            tenant=job.tenant,
            argv=tuple(map(to_text, job.argv)),
            argv_cut=job.argv_cut,
            cwd=to_text(job.cwd),
            state=State(job.state),
            reason=Reason(job.reason),
            pid=job.pid,
            exit_status=job.exit_status,
            signal=job.signal,
            created_ns=job.created_ns,
            ended_ns=job.ended_ns,
            lived_ns=job.lived_ns,
            output_begin=job.output_begin,
            output_end=job.output_end,
            output_complete=job.output_complete,
            output_drained=job.output_drained or job.output_complete,
            detail=job.detail,
            gone=job.gone,
            usage=usage_of(job.usage),
            user=job.user,
            user_shared=job.user_shared,
            request=asked,
            unrecorded=job.unrecorded,
            inside=job.inside,
            attempts=tuple(_copy(attempt) for attempt in job.attempts),
            attempt=job.attempt or 1,
            ready=job.ready,
        )


def _copy(attempt: pb.Attempt) -> pb.Attempt:
    # What is in a message keeps all of it.
    copy = pb.Attempt()
    copy.CopyFrom(attempt)
    return copy
