"""The passphrase of a file: from another file, or typed twice where nobody sees it."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from jobworker.cli.errors import CliError, ExitCode

Command = TypeVar("Command", bound=Callable[..., Any])


def passphrase_option(command: Command) -> Command:
    """Add --passphrase-file, passed on as `passphrase_file`."""
    return click.option(
        "--passphrase-file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="The passphrase of the PKCS #12 file, in place of asking for it.",
    )(command)


def p12_option(command: Command) -> Command:
    """Add --p12, and what it takes; passed on as `words`, the passphrase, empty for no file."""

    @click.option("--p12", is_flag=True, help="Write NAME.p12, too, for a browser.")
    @passphrase_option
    @functools.wraps(command)
    def asking(*args: Any, p12: bool, passphrase_file: Path | None, **kwargs: Any) -> Any:
        words = passphrase(passphrase_file) if p12 else ""
        return command(*args, words=words, **kwargs)

    return cast(Command, asking)


def passphrase(file: Path | None) -> str:
    """Return the first line of a file; without a file, what is typed. Raises CliError."""
    if file is not None:
        try:
            return file.read_text().partition("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(f"cannot read {file}: {error}", ExitCode.USAGE) from error
    if not sys.stdin.isatty():
        raise click.UsageError("say --passphrase-file, as nobody can be asked here")
    typed: str = click.prompt(
        "Passphrase of the file", hide_input=True, confirmation_prompt=True, err=True
    )
    return typed
