"""Groups of commands that say what a misspelt one may have meant."""

import difflib
from collections.abc import Collection

import click

# What other programs call it -> what it is called here.
_ELSEWHERE = {
    "ls": "list",
    "restart": "again",
    "rerun": "again",
    "repeat": "again",
    "cron": "schedule",
    "crontab": "schedule",
    "timer": "schedule",
    "ps": "list",
    "jobs": "list",
    "htop": "top",
    "submit": "start",
    "exec": "run",
    "kill": "stop",
    "cancel": "stop",
    "suspend": "pause",
    "freeze": "pause",
    "unpause": "resume",
    "continue": "resume",
    "thaw": "resume",
    "port-forward": "forward",
    "tunnel": "forward",
    "copy": "cp",
    "scp": "cp",
    "upload": "cp",
    "download": "cp",
    "put": "cp",
    "get": "cp",
    "log": "logs",
    "tail": "logs",
    "output": "logs",
    "info": "status",
    "show": "status",
    "inspect": "status",
    "remove": "rm",
    "delete": "rm",
    "del": "rm",
    "purge": "prune",
    "who": "whoami",
    "can": "can-i",
    "new": "issue",
    "create": "init",
    "validate": "check",
    "lint": "check",
}


def suggestion(typed: str, names: Collection[str]) -> str | None:
    """Return which of the names was most likely meant, None if none is near.

    >>> suggestion("statsu", ["start", "stats", "status"])
    'status'
    """
    elsewhere = _ELSEWHERE.get(typed)
    if elsewhere in names:
        return elsewhere
    near = difflib.get_close_matches(typed, names, n=3)
    # Two letters the wrong way round are a likelier slip than one too many.
    return min(near, key=lambda name: sorted(name) != sorted(typed), default=None)


class SuggestingGroup(click.Group):
    """A group in which a command that is not there is a usage error that suggests another."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command to run."""
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            near = suggestion(args[0], names)
            hint = f"did you mean {near!r}?" if near else f"they are {', '.join(names)}"
            ctx.fail(f"no such command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)
