"""`jobworker top`: what jobs use, sorted and added up as keys say."""

import os
import select
from typing import TYPE_CHECKING

import click

from jobworker.cli.errors import CliError, ExitCode
from jobworker.cli.keyboard import each_key, is_terminal
from jobworker.cli.options import client_command
from jobworker.cli.quantities import Seconds
from jobworker.cli.selection import OWNER, TENANT
from jobworker.cli.streams import STDIN, STDOUT
from jobworker.cli.top.sums import BY, SORTS, Look, in_order, rows
from jobworker.client.errors import ClientError

if TYPE_CHECKING:
    from jobworker.cli.top.feed import Feed
    from jobworker.client.connection import Service

_LEAST_SECONDS = 0.2
# How soon another size of the terminal is seen.
_GLANCE_SECONDS = 0.5
_KEYS_BY = dict(zip("123", BY, strict=True))
_KEYS_SORT = dict(zip("cmdpt", SORTS, strict=True))
_QUIT = {"q", "Q", "\x03", "\x04", ""}


@click.command()
@click.option("--by", type=click.Choice(BY), default="job", show_default=True)
@click.option("--sort", type=click.Choice(SORTS), default="cpu", show_default=True)
@click.option("--reverse", is_flag=True, help="What uses least first.")
@click.option(
    "--interval",
    type=Seconds(),
    default=2.0,
    metavar="TIME",
    show_default="2s",
    help="How often to look again; at least 200ms.",
)
@OWNER
@TENANT
@client_command
def top(
    service: "Service",
    *,
    by: str,
    sort: str,
    reverse: bool,
    interval: float,
    owner: str,
    tenant: str,
) -> None:
    """Show what the jobs that you may see use now, as it changes, until q.

    \b
    1 2 3      by job, by user, by tenant
    c m d p t  sort by CPU, memory, disk, processes, time
    r          in reverse

    CPU and disk are of the time since the look before. It takes `pip install
    'job-worker[top]'`.
    """
    if not (is_terminal(STDIN) and is_terminal(STDOUT)):
        raise CliError("top needs a terminal: take `stats`, or `stats -w`", ExitCode.USAGE)
    from jobworker.cli.top.feed import Feed
    from jobworker.proto import workerservice_pb2 as pb

    asked = pb.ListRequest(running=True, owner=owner, tenant=tenant)
    feed = Feed(service, asked, max(interval, _LEAST_SECONDS))
    view = View(by, sort, reverse=reverse)
    try:
        with each_key():
            _attend(feed, view)
    except KeyboardInterrupt:
        # As with q.
        return


class View:
    """What is shown, and how: what keys and looks change."""

    def __init__(self, by: str, sort: str, *, reverse: bool) -> None:
        self.by = by
        self.sort = sort
        self.reverse = reverse
        self.now: Look | None = None
        self.before: Look | None = None
        self.said = "asking the server"

    def key(self, key: str) -> bool:
        """A key was pressed; whether to go on."""
        self.by = _KEYS_BY.get(key, self.by)
        self.sort = _KEYS_SORT.get(key, self.sort)
        self.reverse ^= key == "r"
        return key not in _QUIT

    def found(self, look: Look | ClientError) -> None:
        """There is a new look, or none. Raises ClientError where there has been none at all."""
        if isinstance(look, Look):
            self.before, self.now = self.now, look
            self.said = ""
        elif self.now is None:
            raise look
        else:
            self.said = f"as it was before: {look}"


def _attend(feed: "Feed", view: View) -> None:
    from rich.console import Console
    from rich.live import Live

    from jobworker.cli.top.screen import screen

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live, feed.running():
        while True:
            found = rows(view.now, view.before, view.by) if view.now else []
            ordered = in_order(found, view.sort, backwards=view.reverse)
            shown = screen(
                ordered,
                by=view.by,
                sort=view.sort,
                width=console.width,
                height=console.height,
                said=view.said,
                whole=view.now is None or view.now.whole,
            )
            live.update(shown, refresh=True)
            ready, _, _ = select.select([STDIN, feed.woken], [], [], _GLANCE_SECONDS)
            if feed.woken in ready:
                for look in feed.take():
                    view.found(look)
            if STDIN in ready and not all(map(view.key, _typed())):
                return


def _typed() -> list[str]:
    """The keys that wait; an empty one when the terminal has gone."""
    try:
        return list(os.read(STDIN, 64).decode("ascii", "ignore")) or [""]
    except OSError:
        return [""]
