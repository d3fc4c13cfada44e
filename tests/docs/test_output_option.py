"""Which commands take `-o json`: README.md names those that do not."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from jobworker.cli.main import cli

README = (Path(__file__).parents[2] / "README.md").read_text()


def commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with its words."""
    if not isinstance(command, click.Group):
        yield name.strip(), command
        return
    context = click.Context(command)
    for inner in command.list_commands(context):
        found = command.get_command(context, inner)
        assert found is not None
        yield from commands(found, f"{name} {inner}")


def test_the_readme_names_those_that_do_not() -> None:
    sentence = re.search(r"Every command takes `-o json`, but\s([^.]*)\.", README)
    assert sentence is not None
    without = [
        name
        for name, command in commands(cli)
        if not any("--output" in one.opts for one in command.params)
    ]
    assert sorted(re.findall(r"`([^`]+)`", sentence[1])) == sorted(without)
