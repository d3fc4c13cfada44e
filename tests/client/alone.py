"""Runs the command as where a client alone is installed, on a system that is not Linux.

    python alone.py WORDS...

What the extra `server` brings cannot be imported by anybody, what Linux alone has cannot
be by jobworker, and the constants that others lack are not there. Without words every
client command is imported, and what was imported is printed.
"""

import builtins
import importlib
import importlib.util
import pkgutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# Imported before this is another system: they have their own ways to be on one.
import click.shell_completion  # noqa: F401
import grpc  # noqa: F401

LINUX_ONLY = {"fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "posix"}
LINUX_CONSTANTS = {
    signal: ("SIGHUP", "SIGWINCH", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGKILL", "pthread_sigmask"),
    socket: ("TCP_KEEPIDLE", "TCP_USER_TIMEOUT", "SO_PEERCRED", "AF_UNIX"),
}
_import, _find_spec = builtins.__import__, importlib.util.find_spec


def main() -> None:
    """Become such an installation, and run the command."""
    absent = {"watchfiles", "psutil"}

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in absent else _find_spec(name, package)

    def guarded(
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - as Python calls it
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        root = name.partition(".")[0]
        importer = str((globals or {}).get("__name__", ""))
        if root in absent or (root in LINUX_ONLY and importer.startswith("jobworker")):
            raise ModuleNotFoundError(f"No module named {root!r}", name=root)
        return _import(name, globals, locals, fromlist or (), level)

    for module, names in LINUX_CONSTANTS.items():
        for name in names:
            delattr(module, name)
    importlib.util.find_spec = find_spec
    builtins.__import__ = guarded
    sys.platform = "darwin"
    from jobworker.cli import missing

    absent |= set(missing.SERVER_MODULES)
    if len(sys.argv) == 1:
        import_all()
    from jobworker.cli.main import main as command

    command()


def import_all() -> None:
    """Import the client and every client command; print the names; end."""
    import jobworker.client
    from jobworker.cli import main as command

    for found in pkgutil.iter_modules(jobworker.client.__path__):
        importlib.import_module(f"jobworker.client.{found.name}")
    for module, attribute in command._COMMANDS.values():
        getattr(importlib.import_module(f"jobworker.cli.{module}"), attribute)
    print(*sorted(name for name in sys.modules if name.startswith("jobworker.")))
    sys.exit()


if __name__ == "__main__":
    main()
