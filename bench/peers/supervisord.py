"""A supervisord of one's own, driven over XML-RPC on a unix socket, to be measured beside.

It starts only what its configuration names, so there is a pool of equal
programs that are started in turn: one that has run may be started again as
soon as supervisord has seen its end.
"""

import getpass
import http.client
import itertools
import shutil
import socket
import threading
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers.daemon import running

PROGRAMS = 512
_CONFIG = """\
[unix_http_server]
file={directory}/rpc
[supervisord]
nodaemon=true
silent=true
user={user}
logfile=/dev/null
logfile_maxbytes=0
pidfile={directory}/pid
childlogdir={directory}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[program:true]
command=true
numprocs={programs}
process_name=%(process_num)d
autostart=false
autorestart=false
startsecs=0
"""


class Supervisord:
    """A server that is up; each thread that uses it has a connection of its own, held open."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._numbers = itertools.count()
        self._local = threading.local()

    def start(self) -> None:
        """Start the next program; raises xmlrpc.client.Fault if it has not yet been seen to end."""
        self._server().startProcess(f"true:{next(self._numbers) % PROGRAMS}", False)

    def status(self) -> None:
        """Ask for a program's state."""
        self._server().getProcessInfo("true:0")

    def _server(self) -> xmlrpc.client.ServerProxy:
        if not hasattr(self._local, "proxy"):
            transport = _UnixTransport(self._control)
            self._local.proxy = xmlrpc.client.ServerProxy("http://localhost", transport)
        proxy: xmlrpc.client.ServerProxy = self._local.proxy.supervisor
        return proxy


@contextmanager
def running_supervisord(directory: Path) -> Iterator[Supervisord | None]:
    """Run supervisord with its files in `directory`; None where it is not installed."""
    program = shutil.which("supervisord")
    if program is None:
        yield None
        return
    config = directory / "supervisord.conf"
    config.write_text(
        _CONFIG.format(directory=directory, programs=PROGRAMS, user=getpass.getuser())
    )
    # It is a Python program of the system's, or of another environment.
    command = ["env", "-u", "PYTHONPATH", program, "-c", str(config)]
    with running(command, directory / "rpc"):
        yield Supervisord(directory / "rpc")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        """Connect to the path in place of a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


class _UnixTransport(xmlrpc.client.Transport):
    """Over a unix socket, as supervisorctl does (supervisor/xmlrpc.py, SupervisorTransport)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._kept = _UnixConnection(path)

    def make_connection(self, host: object) -> http.client.HTTPConnection:  # noqa: ARG002
        """The one connection (xmlrpc.client.Transport); it connects by itself when it must."""
        return self._kept
