"""Options that many commands share, and what they mean."""

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

import click

from jobworker.cli.contexts import ContextName, chosen, flags_of, settings_file, settings_path
from jobworker.cli.errors import failure, speak_json, tell
from jobworker.cli.settings import NAMES, SettingsFile, resolve
from jobworker.client.endpoint import Endpoint
from jobworker.client.errors import ClientError

if TYPE_CHECKING:
    from jobworker.client.connection import Service

P = ParamSpec("P")
Command = TypeVar("Command", bound=Callable[..., Any])
OutputFormat = Literal["text", "json"]


# Of those who work with a CA on this host.
ca_directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("ca"),
    show_default=True,
    envvar="JOBWORKER_CA_DIR",
    show_envvar=True,
    help="The CA's directory.",
)


def output_option(command: Command) -> Command:
    """Add -o/--output, passed on as `output`: an OutputFormat."""
    return click.option(
        "--output",
        "-o",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        is_eager=True,
        callback=_speak,
        help="What to print: JSON is an object a line, on stdout, and on stderr for errors.",
    )(command)


def _speak(_context: click.Context, _option: click.Parameter, output: OutputFormat) -> OutputFormat:
    speak_json(yes=output == "json")
    return output


def json_is_asked_for(words: Sequence[str]) -> bool:
    """Whether a command line that cannot be read asks for JSON, as far as can be told."""
    own = list(takewhile("--".__ne__, words))
    given = {f"{one}={other}" for one, other in pairwise(own)} | set(own)
    return bool(given & {"-o=json", "--output=json", "-ojson"})


def say_json(value: Mapping[str, object]) -> None:
    """Print an object as a line of JSON."""
    click.echo(json.dumps(value))


def connection_options(command: Command) -> Command:
    """Add --context, --server, --ca, --cert, --key and --config; `endpoint` returns what they say.

    They may stand before the subcommand or after it; the later one wins.
    """
    for name in reversed(_CONNECTION):
        command = _connection_option(name)(command)
    return command


def config_file_option(command: Command) -> Command:
    """Add --config alone, as one of the connection's options."""
    return _connection_option("config")(command)


def _connection_option(name: str) -> Callable[[Command], Command]:
    metavar, text = _CONNECTION[name]
    return click.option(
        f"--{name}",
        metavar=metavar,
        type=ContextName() if name == "context" else str,
        expose_value=False,
        callback=_remember,
        help=f"{text} [env: JOBWORKER_{name.upper()}]",
    )


# Name -> its value's, and what it says.
_CONNECTION = {
    "context": ("NAME", "Which of the servers in the settings file to call, and as whom."),
    "server": ("HOST:PORT", "The server to call."),
    "ca": ("FILE", "The CA certificate that the server's must be signed by."),
    "cert": ("FILE", "Your certificate."),
    "key": ("FILE", "Your certificate's private key."),
    "config": ("FILE", "The settings file with these as its keys."),
}


def _remember(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    flags = context.find_root().ensure_object(dict)
    if value is not None:
        flags[parameter.name] = value


def endpoint(context: click.Context) -> Endpoint:
    """Return what the command line, the environment and the settings file amount to.

    Raises:
        SettingsError: See `settings.resolve` and `config_file.read_config`.
    """
    flags = flags_of(context)
    given = set(flags) | _set_in(os.environ)
    # The file need not be read when nothing is left to find.
    needed = chosen(context) is not None or not given.issuperset(NAMES)
    file = settings_file(context) if needed else SettingsFile(settings_path(context))
    return resolve(flags, os.environ, file)


def _set_in(environ: Mapping[str, str]) -> set[str]:
    return {name for name in NAMES if environ.get(f"JOBWORKER_{name.upper()}")}


def client_command(
    command: "Callable[Concatenate[Service, P], None]",
) -> Callable[P, None]:
    """Give a command the connection options, and an open connection as its first argument.

    A failed call ends the command with the sentence and exit code of `errors`.
    """

    @connection_options
    @functools.wraps(command)
    def connected(*args: P.args, **kwargs: P.kwargs) -> None:
        chosen = endpoint(click.get_current_context())
        from jobworker.cli.expiry import warn_of_expiry
        from jobworker.client.connection import connect

        warn_of_expiry(chosen.cert, os.environ)
        try:
            with connect(chosen, tell) as service:
                command(service, *args, **kwargs)
        except ClientError as error:
            raise failure(error, chosen) from error

    return connected
