"""Options that choose among the jobs that one may see; the server finds them."""

import functools
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

import click

from jobworker.cli.errors import tell
from jobworker.cli.job_ids import JobID
from jobworker.cli.quantities import Moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.client.connection import Service
    from jobworker.proto import workerservice_pb2 as pb

Command = TypeVar("Command", bound="Callable[..., Any]")
STATES = ("pending", "starting", "running", "paused", "stopping", "ended")
GOING_ON = STATES[:-1]
REASONS = (
    *("exited", "signaled", "stopped", "lost", "timed_out", "output_limit", "out_of_memory"),
    "unhealthy",
    *("refused", "queue_timeout", "cannot_start", "dependency_failed"),
)


class Selection(TypedDict):
    """The values of `selecting_options`."""

    running: bool
    states: tuple[str, ...]
    failed: bool
    reasons: tuple[str, ...]
    since: datetime | None
    until: datetime | None
    name: str
    labels: tuple[str, ...]
    part: str
    owner: str
    tenant: str


def selecting_options(command: Command) -> Command:
    """Add them; passed on as the items of Selection."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


# What other commands choose jobs by, too.
FAILED = click.option(
    "--failed", is_flag=True, help="Only jobs that ended, but not by exit with 0."
)
NAME = click.option(
    "--name", default="", metavar="PATTERN", help="Only jobs named so; with * and ?."
)
LABEL = click.option(
    "--label",
    "-l",
    "labels",
    multiple=True,
    metavar="KEY[=VALUE]",
    help="Only jobs with this label; more than once for all of several.",
)
OWNER = click.option("--owner", default="", help="Only jobs of this user.")
TENANT = click.option("--tenant", default="", help="Only jobs of this tenant.")
_OPTIONS = (
    click.option("--running", "-r", is_flag=True, help="Only jobs that have not ended."),
    click.option(
        "--state",
        "states",
        type=click.Choice(STATES),
        multiple=True,
        help="Only jobs in this state; more than once for any of several.",
    ),
    FAILED,
    click.option(
        "--reason",
        "reasons",
        type=click.Choice(REASONS),
        multiple=True,
        metavar="REASON",
        help="Only jobs that ended for this reason, such as timed_out or out_of_memory.",
    ),
    click.option("--since", type=Moment(), metavar="TIME", help="Only jobs begun then or later."),
    click.option("--until", type=Moment(), metavar="TIME", help="Only jobs begun before then."),
    NAME,
    LABEL,
    click.option(
        "--command", "part", default="", metavar="TEXT", help="Only jobs with that in the command."
    ),
    OWNER,
    TENANT,
)


def selected(**given: Any) -> Selection:
    """What is given, and of all else nothing."""
    return cast("Selection", {**_ALL, **given})


_ALL = Selection(
    running=False,
    states=(),
    failed=False,
    reasons=(),
    since=None,
    until=None,
    name="",
    labels=(),
    part="",
    owner="",
    tenant="",
)


def list_request(select: Selection) -> "pb.ListRequest":
    """Return the request for what was chosen."""
    from jobworker.proto import workerservice_pb2 as pb

    pairs = [text.partition("=") for text in select["labels"]]
    request = pb.ListRequest(
        running=select["running"],
        states=[getattr(pb, f"JOB_STATE_{state.upper()}") for state in select["states"]],
        failed=select["failed"],
        reasons=[getattr(pb, f"END_REASON_{reason.upper()}") for reason in select["reasons"]],
        name=select["name"],
        labels={key: value for key, equals, value in pairs if equals},
        labelKeys=[key for key, equals, _ in pairs if not equals],
        command=select["part"],
        owner=select["owner"],
        tenant=select["tenant"],
    )
    for field, moment in ((request.since, select["since"]), (request.until, select["until"])):
        if moment is not None:
            field.FromDatetime(moment)
    return request


# The most that one page of the server's list holds.
PAGE = 1000


def pages(
    service: "Service", request: "pb.ListRequest", limit: int
) -> "Iterator[pb.QueryStatusResponse]":
    """Yield the listed jobs, page after page, at most `limit` unless it is 0.

    The request then has the token of the page to come, if there is one.
    """
    from jobworker.client.messages import fits

    left = limit
    while True:
        request.pageSize = min(left, PAGE) if limit else PAGE
        reply = service.list(request)
        yield from (job for job in reply.jobs if fits(job, request))
        left -= len(reply.jobs)
        request.pageToken = reply.nextPageToken
        if not reply.nextPageToken or (limit and left <= 0):
            return


class Chosen(TypedDict):
    """The values of `choosing_jobs`, beside the jobs that are named."""

    mine: bool
    chosen_labels: tuple[str, ...]
    chosen_name: str
    chosen_states: tuple[str, ...]
    chosen_owner: str


def choosing_jobs(*states: str, labelled: bool = False) -> "Callable[[Command], Command]":
    """Have a command take JOB..., or what chooses among those in these states, as `jobs`.

    With `labelled` a label or a name chooses in any state. It stands below
    `client_command`. The command has them all at once, as IDs, and is not called where
    nothing is chosen.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def choosing(service: "Service", *, jobs: tuple[str, ...], **given: Any) -> Any:
            chosen = Chosen(**{name: given.pop(name) for name in Chosen.__annotations__})  # type: ignore[typeddict-item]
            if not any(chosen.values()):
                if not jobs:
                    raise click.UsageError("say which JOB, or choose by --label, --name or --mine")
                return command(service, jobs=jobs, **given)
            if jobs:
                raise click.UsageError("name each JOB, or choose by options, but not both")
            any_state = labelled and (chosen["chosen_labels"] or chosen["chosen_name"])
            found = _found(service, chosen, () if any_state else states)
            if not found:
                tell("there is no such job")
                return None
            return command(service, jobs=found, **given)

        wrapped: Any = choosing
        for option in reversed(_CHOOSING):
            wrapped = option(wrapped)
        result: Command = wrapped
        return result

    return decorate


_CHOOSING = (
    click.argument("jobs", type=JobID(), metavar="[JOB]...", nargs=-1),
    click.option("--mine", is_flag=True, help="In place of JOBs: all of yours."),
    click.option(
        "--label",
        "-l",
        "chosen_labels",
        multiple=True,
        metavar="KEY[=VALUE]",
        help="In place of JOBs: those of yours with this label; more than once for all of several.",
    ),
    click.option(
        "--name",
        "chosen_name",
        default="",
        metavar="PATTERN",
        help="In place of JOBs: those of yours that are named so; with * and ?.",
    ),
    click.option(
        "--state",
        "chosen_states",
        type=click.Choice(STATES),
        multiple=True,
        help="In place of JOBs: those of yours in this state.",
    ),
    click.option(
        "--owner",
        "chosen_owner",
        default="",
        metavar="USER",
        help="Of those that are chosen: this user's in place of yours.",
    ),
)


def _found(service: "Service", chosen: Chosen, states: tuple[str, ...]) -> tuple[str, ...]:
    request = list_request(
        selected(
            states=chosen["chosen_states"] or states,
            name=chosen["chosen_name"],
            labels=chosen["chosen_labels"],
            owner=chosen["chosen_owner"] or service.whoami().commonName,
        )
    )
    return tuple(job.jobID for job in pages(service, request, 0))
