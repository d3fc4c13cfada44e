"""The `jobworker` command: its subcommands, each imported only when it is called.

A client command must start in a fraction of a second, so nothing here imports
gRPC, casbin or cryptography.
"""

import importlib
import sys
from typing import Never

import click

from jobworker.cli import faults, missing, streams
from jobworker.cli.errors import CliError, ExitCode, codes_text, speak_json, speaks_json, tell
from jobworker.cli.options import connection_options, json_is_asked_for
from jobworker.cli.suggestions import SuggestingGroup

# Subcommand -> the module below jobworker.cli and the command in it.
_COMMANDS = {
    "start": ("commands.start", "start"),
    "run": ("commands.run", "run"),
    "exec": ("commands.exec", "exec_in_job"),
    "again": ("commands.start", "again"),
    "attach": ("commands.attach", "attach"),
    "send": ("commands.send", "send"),
    "stop": ("commands.stop", "stop"),
    "signal": ("commands.stop", "signal_job"),
    "pause": ("commands.stop", "pause"),
    "resume": ("commands.stop", "resume"),
    "status": ("commands.status", "status"),
    "wait": ("commands.wait", "wait"),
    "list": ("commands.status", "list_jobs"),
    "events": ("events.events", "events"),
    "stats": ("commands.stats", "stats"),
    "top": ("top.top", "top"),
    "logs": ("commands.logs", "logs"),
    "forward": ("commands.forward", "forward"),
    "cp": ("files.cp", "cp"),
    "rm": ("commands.remove", "remove"),
    "prune": ("commands.remove", "prune"),
    "schedule": ("schedules.schedule", "schedule"),
    "apply": ("services.apply", "apply"),
    "export": ("services.export", "export"),
    "config": ("setup.config", "config"),
    "enroll": ("setup.enroll", "enroll"),
    "cert": ("setup.cert", "cert"),
    "whoami": ("commands.whoami", "whoami"),
    "can-i": ("commands.can_i", "can_i"),
    "init": ("host.init", "init"),
    "serve": ("host.serve", "serve"),
    "ca": ("host.ca", "ca"),
    "policy": ("host.policy", "policy"),
    "audit": ("host.audit", "audit"),
    "admin": ("host.admin", "admin"),
    "completion": ("commands.completion", "completion"),
    "version": ("commands.version", "version"),
}


class LazyGroup(SuggestingGroup):
    """A group whose commands live in modules that are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        """Return the names in the order of the table, which goes from use to upkeep."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return the command of that name, None if there is none."""
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name]
        home = importlib.import_module(f"jobworker.cli.{module}")
        command: click.Command = vars(home)[attribute]
        return command


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=codes_text()
)
@connection_options
@click.version_option(
    package_name="job-worker", prog_name="jobworker", message="%(prog)s %(version)s"
)
def cli() -> None:
    """Run and control processes on a shared host.

    The client commands find the server and your certificate by these options
    (which may also follow the subcommand), by the environment, and in
    ~/.config/jobworker/config.yaml, in that order. Several servers are contexts
    there, see `jobworker config`.
    """


def main() -> Never:
    """Run the command line, and end the process with its exit code."""
    streams.take_over()
    faults.tell_those_of_threads()
    sys.exit(_run())


def _run() -> int:
    """Run the command line; no traceback of it reaches a user."""
    try:
        # Outside standalone mode a command's result, or its exit code, comes back.
        code = cli.main(prog_name="jobworker", standalone_mode=False)
    except CliError as error:
        tell(str(error), error.exit_code)
        return error.exit_code
    except click.ClickException as error:
        # Of a command line that cannot be read no option has been looked at yet.
        if speaks_json() or json_is_asked_for(sys.argv[1:]):
            speak_json(yes=True)
            tell(error.format_message(), error.exit_code)
        else:
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - this is the last handler
        return _tell_other(error)
    return code or 0


def _tell_other(error: Exception) -> int:
    """Tell of an error that no command has foreseen; return the exit code."""
    why = missing.without(error) if isinstance(error, ModuleNotFoundError) else None
    if why is None:
        faults.tell_fault(error)
        return ExitCode.FAULT
    tell(str(why), why.exit_code)
    return why.exit_code
