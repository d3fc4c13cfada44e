"""What the server on this host replies to its administrator, over the unix socket."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jobworker.cli.errors import CliError, ExitCode

if TYPE_CHECKING:
    from jobworker.proto import admin_pb2


@contextmanager
def replies_of(config: Path, request: "admin_pb2.Request") -> "Iterator[Iterator[admin_pb2.Reply]]":
    """Ask the server with these settings. What goes wrong within ends the command."""
    from jobworker.grpc_api.admin.caller import ask
    from jobworker.grpc_api.errors import AdminRefused, AdminUnreachable, ApiError, ConfigError
    from jobworker.grpc_api.settings_file import load_server_config

    try:
        yield ask(load_server_config(config).runtime_directory(), request)
    except ConfigError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    except AdminRefused as error:
        raise CliError(str(error), ExitCode.REFUSED) from error
    except AdminUnreachable as error:
        raise CliError(str(error), ExitCode.UNREACHABLE) from error
    except ApiError as error:
        raise CliError(str(error)) from error
