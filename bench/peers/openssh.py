"""An OpenSSH server of one's own on this machine, to be measured beside."""

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers.daemon import NotInstalled, free_port, running

# Connections, and sessions on one connection, that the server lets through.
MANY = 1000
_SSHD = "/usr/sbin/sshd"
_PROGRAMS = (_SSHD, "ssh", "ssh-keygen")
# Debian makes it when the service starts; sshd run by root does not start without.
_PRIVILEGE_SEPARATION = Path("/run/sshd")

# SHLVL keeps bash from reading ~/.bashrc, as Debian's does for a command over ssh
# (bash(1), INVOCATION): whatever is in there is not ssh's cost.
_SERVER = """\
ListenAddress 127.0.0.1:{port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
Ciphers aes256-gcm@openssh.com
MaxSessions {many}
MaxStartups {many}
SetEnv SHLVL=1
LogLevel FATAL
"""
_CLIENT = """\
Host cold held
  HostName 127.0.0.1
  Port {port}
  User {user}
  HostKeyAlias bench
  UserKnownHostsFile {directory}/known_hosts
  IdentityFile {directory}/user
  IdentitiesOnly yes
  BatchMode yes
  RequestTTY no
  Ciphers aes256-gcm@openssh.com
  LogLevel ERROR
Host held
  ControlPath {directory}/control
"""


@dataclass(frozen=True)
class OpenSsh:
    """A server that is up, its PID, and a connection to it that is held open."""

    config: Path
    server: int

    def cold(self, *command: str) -> list[str]:
        """The command line that runs a command over a connection of its own."""
        return ["ssh", "-F", str(self.config), "cold", *command]

    def held(self, *command: str) -> list[str]:
        """The command line that runs a command over the connection that is held open."""
        return ["ssh", "-F", str(self.config), "held", *command]


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Run a command line to its end; raises CalledProcessError unless that is 0."""
    subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )


@contextmanager
def running_openssh(directory: Path) -> Iterator[OpenSsh]:
    """Run sshd with keys of its own in `directory`, and hold a connection to it.

    Raises NotInstalled.
    """
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise NotInstalled(
            "install OpenSSH's server and client: "
            f"without {', '.join(missing)} there is nothing to measure beside"
        )
    port = free_port()
    for name in ("host", "user"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)])
    host_key = (directory / "host.pub").read_text()
    (directory / "known_hosts").write_text(f"bench {host_key}")
    settings = {"directory": directory, "port": port, "many": MANY, "user": getpass.getuser()}
    (directory / "sshd_config").write_text(_SERVER.format(**settings))
    config = directory / "ssh_config"
    config.write_text(_CLIENT.format(**settings))
    if os.geteuid() == 0:
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    # By its absolute path: it executes itself for each connection (sshd(8)).
    sshd = [_SSHD, "-D", "-e", "-f", str(directory / "sshd_config")]
    with running(sshd, port) as server:
        ssh = OpenSsh(config, server.pid)
        master = ["ssh", "-F", str(config), "-M", "-N", "held"]
        with running(master, directory / "control"):
            yield ssh
