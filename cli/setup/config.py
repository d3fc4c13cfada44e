"""`jobworker config`: the settings file, with its contexts."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobworker.cli.contexts import (
    ContextName,
    chosen,
    flags_of,
    settings_file,
    settings_path,
)
from jobworker.cli.errors import CliError, SettingsError
from jobworker.cli.options import (
    OutputFormat,
    config_file_option,
    connection_options,
    output_option,
    say_json,
)
from jobworker.cli.settings import (
    CONTEXTS,
    NAMES,
    Setting,
    SettingsFile,
    address_of,
    check_context_name,
    context_of,
    layers,
)
from jobworker.cli.suggestions import SuggestingGroup

if TYPE_CHECKING:
    from jobworker.cli.setup.settings_edit import Value


@click.group(cls=SuggestingGroup)
def config() -> None:
    """Show and change which servers there are, and as whom they are called.

    \b
    jobworker config add lab --server lab.example.org --ca ca.crt --cert me.crt --key me.key
    jobworker --context lab list
    export JOBWORKER_CONTEXT=lab        # for this shell
    """


@config.command()
@output_option
@connection_options
@click.pass_context
def view(context: click.Context, output: OutputFormat) -> None:
    """Show what holds here, and where it was set."""
    file = settings_file(context)
    name = chosen(context)
    found: dict[str, Setting] = {}
    for layer in reversed(layers(flags_of(context), os.environ, file)):
        found |= layer
    if output == "json":
        settings = {
            key: {"value": found[key].text, "source": found[key].source} if key in found else None
            for key in NAMES
        }
        say_json({"context": name and name.text, "file": str(file.path), **settings})
        return
    click.echo(f"Context:  {f'{name.text} ({name.source})' if name else '(none)'}")
    click.echo(f"File:     {file.path}{'' if file.path.exists() else ' (not there)'}")
    for key in NAMES:
        told = f"{found[key].text} ({found[key].source})" if key in found else "(not set)"
        head = "CA" if key == "ca" else key.capitalize()
        click.echo(f"{head + ':':<10}{told}")


@config.command("list")
@output_option
@connection_options
@click.pass_context
def list_contexts(context: click.Context, output: OutputFormat) -> None:
    """Show the contexts of the settings file; the one in use here has a star."""
    from jobworker.cli.display.table import table_text, terminal_width

    file = settings_file(context)
    name = chosen(context)
    rows = [("", "CONTEXT", "SERVER", "CERT")]
    for one, own in file.contexts.items():
        found = {**file.for_all, **own}
        texts = {key: found[key].text if key in found else None for key in NAMES}
        in_use = name is not None and name.text == one
        if output == "json":
            say_json({"name": one, "in_use": in_use, **texts})
        rows.append(("*" if in_use else "", one, texts["server"] or "-", texts["cert"] or "-"))
    if output == "text" and file.contexts:
        click.echo(table_text(rows, terminal_width()))


@config.command("set")
@click.argument("setting", type=click.Choice(NAMES))
@click.argument("value")
@connection_options
@click.pass_context
def set_value(context: click.Context, setting: str, value: str) -> None:
    """Set the server, ca, cert or key: of the context in use, or of all without one.

    \b
    jobworker config set ca ~/pki/ca.crt
    jobworker config set --context lab server lab.example.org:50051
    """
    name = chosen(context)
    file = known_file(context)
    if name is not None:
        context_of(name, file)
    keys = (CONTEXTS, name.text, setting) if name else (setting,)
    text = texts_of(file.path, {setting: value})[setting]
    change(file.path, {keys: text})
    whose = f"the context {name.text}" if name else "all contexts"
    click.echo(f"{setting} of {whose} is {text} in {file.path}")


@config.command()
@click.argument("name")
@click.option("--server", metavar="HOST:PORT", help="The server to call.")
@click.option("--ca", metavar="FILE", help="The CA certificate that its own must be signed by.")
@click.option("--cert", metavar="FILE", help="Your certificate.")
@click.option("--key", metavar="FILE", help="Your certificate's private key.")
@config_file_option
@click.pass_context
def add(context: click.Context, /, name: str, **given: str | None) -> None:
    """Add a context; what it does not set is as for all."""
    if objection := check_context_name(name):
        raise click.UsageError(f"{name!r}: {objection}")
    file = known_file(context)
    if name in file.contexts:
        raise SettingsError(
            f"there is a context {name} in {file.path} already; "
            f"`jobworker config set --context {name}` changes it"
        )
    values = {key: text for key, text in given.items() if text}
    if not values:
        raise click.UsageError("say at least what its --server is")
    texts = texts_of(file.path, values)
    change(file.path, {(CONTEXTS, name): texts})
    click.echo(f"added the context {name} to {file.path}")


@config.command()
@click.argument("name", type=ContextName())
@config_file_option
@click.pass_context
def remove(context: click.Context, name: str) -> None:
    """Remove a context; its certificate and key stay where they are."""
    file = known_file(context)
    context_of(Setting(name, "NAME"), file)
    change(file.path, {(CONTEXTS, name): None})
    click.echo(f"removed the context {name} from {file.path}")


def known_file(context: click.Context) -> SettingsFile:
    """Return what the file says now; nothing, where it is yet to be made."""
    path = settings_path(context)
    return settings_file(context) if path.exists() else SettingsFile(path)


def texts_of(path: Path, values: dict[str, str]) -> dict[str, str]:
    """Return what to write for values: files below the settings file's folder relative to that."""
    texts = {}
    for name, value in values.items():
        if not value.strip() or not value.isprintable():
            raise click.UsageError(f"{value!r} is no {name}")
        if name == "server":
            texts[name] = address_of(Setting(value, "as given"))
        else:
            file = Path(value).expanduser().absolute()
            folder = path.parent.absolute()
            texts[name] = str(file.relative_to(folder) if file.is_relative_to(folder) else file)
    return texts


def change(path: Path, changes: "Mapping[Sequence[str], Value | None]") -> None:
    """Set values of the settings file, or remove them: all at once, if what comes of it is one.

    Raises CliError; then nothing has changed.
    """
    from jobworker.cli.config_file import parse_config
    from jobworker.cli.setup.settings_edit import CannotEdit, with_value, without

    try:
        before = path.read_text() if path.exists() else ""
        parse_config(before, path)
        after = before
        for keys, value in changes.items():
            after = without(after, keys) if value is None else with_value(after, keys, value)
        parse_config(after, path)
        _write(path.resolve(), after)
    except CannotEdit as error:
        raise CliError(
            f"{path}:{error.line}: written in a way that this command does not change; "
            "do it by hand"
        ) from error
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    """Put a file in the place of what is there, with its mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".config-")
    new = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            new.chmod(path.stat().st_mode & 0o777)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
