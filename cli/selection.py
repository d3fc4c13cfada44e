"""Options that choose among the jobs that one may see; the server finds them."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

from jobworker.cli.quantities import Moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobworker.proto import workerservice_pb2 as pb

Command = TypeVar("Command", bound="Callable[..., Any]")
STATES = ("pending", "starting", "running", "paused", "stopping", "ended")
REASONS = (
    *("exited", "signaled", "stopped", "lost", "timed_out", "output_limit", "out_of_memory"),
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


_OPTIONS = (
    click.option("--running", "-r", is_flag=True, help="Only jobs that have not ended."),
    click.option(
        "--state",
        "states",
        type=click.Choice(STATES),
        multiple=True,
        help="Only jobs in this state; more than once for any of several.",
    ),
    click.option("--failed", is_flag=True, help="Only jobs that ended, but not by exit with 0."),
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
    click.option("--name", default="", metavar="PATTERN", help="Only jobs named so; with * and ?."),
    click.option(
        "--label",
        "-l",
        "labels",
        multiple=True,
        metavar="KEY[=VALUE]",
        help="Only jobs with this label; more than once for all of several.",
    ),
    click.option(
        "--command", "part", default="", metavar="TEXT", help="Only jobs with that in the command."
    ),
    click.option("--owner", default="", help="Only jobs of this user."),
    click.option("--tenant", default="", help="Only jobs of this tenant."),
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
