"""`jobworker audit`: reads and verifies the audit log of a server."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobworker.cli.errors import CliError, ExitCode, printable, tell
from jobworker.cli.options import OutputFormat, output_option
from jobworker.cli.quantities import Moment
from jobworker.cli.suggestions import SuggestingGroup

if TYPE_CHECKING:
    from jobworker.authz.audit.files import AuditBroken, Line
    from jobworker.authz.audit.record import Record

_LOG = click.Path(exists=True, file_okay=False, path_type=Path)
FOLLOW_SECONDS = 0.2


@click.group(cls=SuggestingGroup)
def audit() -> None:
    """Read, search and verify the audit log: who asked for what, and what became of it."""


@audit.command()
@click.argument("log", type=_LOG)
@click.option("--head", metavar="HASH", help="The log must hold a line with this hash.")
@output_option
def verify(log: Path, head: str | None, output: OutputFormat) -> None:
    """Check that nothing in the LOG directory was changed, removed or put in.

    Every line holds the hash of the line before. The last line's hash is
    printed: kept elsewhere and given as --head later, it also tells whether the
    log was cut off or made anew. Exits with 1 if something is wrong.
    """
    import msgspec

    from jobworker.authz.audit.files import AuditBroken
    from jobworker.authz.audit.files import verify as verified

    with _telling():
        try:
            found = verified(log, head)
        except AuditBroken as error:
            raise CliError(str(error), ExitCode.FAILED) from error
    if output == "json":
        click.echo(msgspec.json.encode(found._asdict()))
    elif not found.last:
        click.echo("The log is empty.")
    else:
        removed = "" if found.first == 1 else " (those before were removed)"
        click.echo(f"Records {found.first} to {found.last}{removed} are as they were written.")
        click.echo(f"head {found.head}")


@audit.command()
@click.argument("log", type=_LOG)
@click.option("-n", "count", type=click.IntRange(0), default=10, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on with new records, until interrupted.")
@output_option
def tail(log: Path, count: int, follow: bool, output: OutputFormat) -> None:
    """Print the last records in the LOG directory, with local times."""
    with _telling():
        for line in _last(log, count, follow=follow):
            _say(line, output)


@audit.command()
@click.argument("log", type=_LOG)
@click.option(
    "--since", type=Moment(), metavar="TIME", help="Only of then or later: 1d, or a time."
)
@click.option("--until", type=Moment(), metavar="TIME", help="Only of before then.")
@click.option("--user", default="", metavar="CN", help="Only what this user asked for.")
@click.option("--owner", default="", metavar="CN", help="Only what is about this user's jobs.")
@click.option(
    "--tenant",
    default="",
    help="Only what is about this tenant's jobs or, about no job, asked by one of its users.",
)
@click.option(
    "--job",
    default="",
    metavar="ID",
    help="Only of this job; a part is what IDs begin or end with.",
)
@click.option(
    "--action",
    "actions",
    multiple=True,
    help="Only this, such as start or 'admin stop'; more than once for any of several.",
)
@click.option("--allowed/--refused", default=None, help="Only requests that were.")
@click.option(
    "--text", default="", help="Only with that in the command, the rule or the address; a = A."
)
@click.option(
    "--limit", "-n", type=click.IntRange(0), default=0, help="The last so many; 0 for all."
)
@output_option
def search(
    *,
    log: Path,
    since: datetime | None,
    until: datetime | None,
    user: str,
    owner: str,
    tenant: str,
    job: str,
    actions: tuple[str, ...],
    allowed: bool | None,
    text: str,
    limit: int,
    output: OutputFormat,
) -> None:
    """Print the records in the LOG directory that all of this is true of, the newest last.

    \b
    jobworker audit search /var/log/jobworker/audit --since 1d --user bob --refused
    jobworker audit search /var/log/jobworker/audit --job 8f3a --action output -o json

    A line that is no record is told of and left out, and the command ends with 1; what
    else was changed `audit verify` finds.
    """
    from jobworker.authz.audit.search import Wanted
    from jobworker.authz.audit.search import search as searched

    wanted = Wanted(since, until, user, owner, tenant, job, actions, allowed, text)
    broken: list[AuditBroken] = []
    with _telling():
        for line in searched(log, wanted, limit, lambda error: _tell_first(error, broken)):
            _say(line, output)
    if broken:
        raise CliError("not all of the log could be read, see above", ExitCode.FAILED)


def _tell_first(error: "AuditBroken", told: "list[AuditBroken]") -> None:
    """Tell of the first damaged line; a file of them is no more news."""
    if not told:
        tell(f"warning: {error}")
        told.append(error)


def _say(line: "Line", output: OutputFormat) -> None:
    click.echo(line.text if output == "json" else printable(_words(line.record)))


def _last(log: Path, count: int, *, follow: bool) -> "Iterator[Line]":
    from jobworker.authz.audit.files import Follower, last_lines

    if not follow:
        yield from last_lines(log, count)
        return
    follower = Follower(log)
    # What came in between is in both; the numbers tell.
    seen = 0
    for line in last_lines(log, count):
        seen = line.record.number
        yield line
    while True:
        yield from (line for line in follower.new_lines() if line.record.number > seen)
        time.sleep(FOLLOW_SECONDS)


@contextmanager
def _telling() -> Iterator[None]:
    from jobworker.authz.audit.record import AuditError

    try:
        yield
    except AuditError as error:
        raise CliError(str(error), ExitCode.USAGE) from error


def _words(record: "Record") -> str:
    from jobworker.authz.audit.record import Carried, Changed, Decided

    event = record.event
    when = f"{record.time.astimezone():%Y-%m-%d %H:%M:%S.%f}"[:-3]
    if isinstance(event, Decided):
        verdict = "allowed" if event.allowed else "REFUSED"
        who = " ".join([f"cn={event.cn}", *(f"ou={tenant}" for tenant in event.tenants)])
        job = " ".join(filter(None, [event.job, f"{event.tenant}/{event.owner}"]))
        words = [verdict, event.action, "to", who, f"({event.peer})", "for", job, event.command]
        rule = event.rule or "no rule"
        return f"{when} {' '.join(filter(None, words))}: {rule}"
    if isinstance(event, Changed):
        detail = f": {event.detail}" if event.detail else ""
        return f"{when} job {event.job} {event.tenant}/{event.owner} is {event.state}{detail}"
    if isinstance(event, Carried):
        return (
            f"{when} ended {event.action} by cn={event.cn} ({event.peer}) for {event.job} "
            f"{event.tenant}/{event.owner} {event.target}: {event.up} bytes to it, "
            f"{event.down} from it in {event.seconds:g} s"
        )
    return f"{when} the log goes on after a crash; {event.dropped_bytes} bytes were unfinished"
