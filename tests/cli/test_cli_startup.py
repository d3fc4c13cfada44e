"""What the command loads before it does anything: a client command must start at once."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from jobworker.cli.main import cli

CLIENT_COMMANDS = (
    "start run stop signal status wait list logs cp whoami".split()  # noqa: SIM905 - easier to read
)
SLOW = {"grpc", "google.protobuf", "yaml", "casbin", "cryptography", "ssl", "msgspec"}


def modules_after(*arguments: str) -> set[str]:
    """The modules that the command has imported when it ends."""
    script = (
        "import sys, atexit; sys.argv[0] = 'jobworker'\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from jobworker.cli.main import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"HOME": "/nonexistent"},
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("command", CLIENT_COMMANDS)
def test_help_of_a_client_command_loads_no_grpc(command: str) -> None:
    loaded = modules_after(command, "--help")
    assert "click" in loaded
    assert not loaded & SLOW


def test_help_loads_every_command_but_nothing_slow() -> None:
    loaded = modules_after("--help")
    assert {
        "jobworker.cli.commands.logs",
        "jobworker.cli.host.ca",
        "jobworker.cli.host.serve",
    } <= loaded
    assert not loaded & SLOW


def commands(group: click.Group) -> Iterator[click.Command]:
    """All commands of a group, and of the groups in it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from commands(command)


def test_every_command_says_what_it_does_in_clean_text() -> None:
    for command in commands(cli):
        text = command.get_help(click.Context(command, info_name=command.name))
        assert command.help, command.name
        assert "\\" not in text, text
        assert text.replace("\n", "").isprintable(), text


def test_a_call_loads_grpc_but_nothing_of_the_server() -> None:
    loaded = modules_after(
        *("--server", "localhost:1", "--ca", "/dev/null", "--cert", "/dev/null"),
        *("--key", "/dev/null", "start", "true"),
    )
    assert "grpc" in loaded
    assert not loaded & {"yaml", "casbin", "cryptography", "msgspec", "uvloop", "sqlite3"}
    assert not [name for name in loaded if name.startswith("jobworker.authz")]
    assert not [name for name in loaded if name.startswith("jobworker.supervisor")]
