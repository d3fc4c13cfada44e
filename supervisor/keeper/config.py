"""What the keeper is told to run: a JSON file, read at its start and again at an upgrade."""

import json
import os
from pathlib import Path
from typing import NamedTuple

# sysexits.h EX_CONFIG: a process ends with it when no restart can help.
REFUSED = 78


class ServiceConfig(NamedTuple):
    """A process to run: `target` is "module:function", `config` the JSON it is given."""

    target: str
    config: str


class KeeperConfig(NamedTuple):
    """What the keeper is to run.

    `front` may be None; `client_fd` is the packet socket of a program that uses
    the library in the front's place, or -1. `environment` is added to that of
    the processes started.
    """

    state_dir: str
    supervisor: ServiceConfig
    front: ServiceConfig | None
    client_fd: int
    environment: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "KeeperConfig":
        """What `write` wrote. Raises OSError and ValueError."""
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), encoding="utf-8") as file:
            # A descriptor's path (/proc/self/fd/N) may share its position with the writer.
            file.seek(0)
            state_dir, supervisor, front, client_fd, environment = json.load(file)
        return cls(
            state_dir,
            ServiceConfig(*supervisor),
            ServiceConfig(*front) if front else None,
            client_fd,
            environment,
        )

    def write(self, path: Path) -> None:
        """Put it in a file, as `write_private` does."""
        write_private(path, json.dumps(self))


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, all or nothing. Raises OSError."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
