"""What a client's installation does not bring, and what the host's commands say without it."""

from importlib.util import find_spec

from jobworker.cli.errors import CliError

# What the extra `server` in pyproject.toml brings, as it is imported.
SERVER_MODULES = (
    "casbin",
    "cronsim",
    "cryptography",
    "grpc_health",
    "grpc_reflection",
    "h11",
    "jinja2",
    "msgspec",
    "prometheus_client",
    "setproctitle",
    "starlette",
    "tzdata",
    "uuid_utils",
    "uvicorn",
    "uvloop",
    "wsproto",
    "zstandard",
)
# What the extra `top` brings.
TOP_MODULES = ("rich",)
# Of the standard library, where the system has them.
_SYSTEM_MODULES = {"fcntl", "grp", "pwd", "resource", "termios", "tty"}


def check_server_is_installed() -> None:
    """Raise CliError, with what to do, where not all is there that a server needs."""
    if missing := [name for name in SERVER_MODULES if find_spec(name) is None]:
        raise _not_installed(", ".join(missing))


def without(error: ModuleNotFoundError) -> CliError | None:
    """Return what to say of a command that needs what is not here; None for a fault."""
    name = (error.name or "").partition(".")[0]
    if name in SERVER_MODULES:
        return _not_installed(name)
    if name in TOP_MODULES:
        advice = "run `pip install 'job-worker[top]'`, or take `jobworker stats -w`"
        return CliError(f"{name} is not installed: {advice}")
    if name in _SYSTEM_MODULES:
        return CliError(f"this command is for Linux: this system has no {name}")
    return None


def _not_installed(what: str) -> CliError:
    return CliError(
        f"this command needs the server's part, which is not all installed here ({what} is "
        "missing): run `pip install 'job-worker[server]'`"
    )
