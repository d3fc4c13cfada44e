"""What the parts measure: a real server of ours, and the peers, in a directory of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.caller import Login
from bench.peers.openssh import OpenSsh, running_openssh
from bench.peers.supervisord import Supervisord, running_supervisord
from tests.support.server import Server, running_server

USER = "alice"
_POLICY = """\
rules:
  - allow: "*"
    to: cn:*
    jobs: "{ou}/{cn}"
"""


@dataclass(frozen=True)
class Site:
    """All that is up. `supervisord` is None where it is not installed."""

    directory: Path
    server: Server
    ssh: OpenSsh
    supervisord: Supervisord | None

    @property
    def login(self) -> Login:
        """How to call our server."""
        return Login.of(self.server, USER)


@contextmanager
def running_site(settings: str = "") -> Iterator[Site]:
    """Run all of it until the block ends; `settings` are more lines of our server's settings."""
    # Else it would begin with the first caller, and our server, which ends
    # before it, would count it as left behind.
    resource_tracker.ensure_running()
    with TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        for part in ("ours", "ssh", "supervisord"):
            (directory / part).mkdir()
        with (
            running_openssh(directory / "ssh") as ssh,
            running_supervisord(directory / "supervisord") as supervisord,
            running_server(directory / "ours", [(USER, "bench")], _POLICY, settings) as server,
        ):
            try:
                yield Site(directory, server, ssh, supervisord)
            except Exception as error:
                error.add_note("\n".join(["The server said:", *server.log]))
                raise
