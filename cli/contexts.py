"""Contexts: names for several servers in the settings file, of which a shell chooses one."""

import os
from collections.abc import Mapping
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from jobworker.cli.errors import CliError
from jobworker.cli.settings import Setting, SettingsFile, chosen_context, config_path


def flags_of(context: click.Context) -> Mapping[str, str]:
    """Return the connection options of the command line, by their names."""
    flags: dict[str, str] = context.find_root().ensure_object(dict)
    return flags


def chosen(context: click.Context) -> Setting | None:
    """Return the name of the context that is in use, None where there is none."""
    return chosen_context(flags_of(context), os.environ)


def settings_path(context: click.Context) -> Path:
    """Return where the settings file is, or would be."""
    given = flags_of(context).get("config")
    return Path(given) if given else config_path(os.environ)


def settings_file(context: click.Context) -> SettingsFile:
    """Return what the settings file says; nothing, if it is not there and nobody named it.

    Raises SettingsError.
    """
    path = settings_path(context)
    named = flags_of(context).get("config") or os.environ.get("JOBWORKER_CONFIG")
    if not named and not path.exists():
        return SettingsFile(path)
    # The YAML reader is slow to import.
    from jobworker.cli.config_file import read_config

    return read_config(path)


class ContextName(click.ParamType[str]):
    """The name of a context; shells complete it."""

    name = "context"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - given by click
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the contexts whose names begin so; none of a file that cannot be read."""
        try:
            contexts = settings_file(ctx).contexts
        except CliError:
            return []
        return [
            CompletionItem(name, help=found["server"].text if "server" in found else "")
            for name, found in contexts.items()
            if name.startswith(incomplete)
        ]
