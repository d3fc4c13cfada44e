"""What can be tried of serving while another front serves: its code, and addresses to listen on."""

import importlib
import json
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from jobworker.grpc_api.config import ServerConfig
from jobworker.grpc_api.errors import ApiError, ConfigError
from jobworker.grpc_api.privileges import acting_as
from jobworker.supervisor import Account, ServiceConfig, StateError, running_config

# Of the settings, that listen on an address of their own.
_PARTS = ("metrics", "console")


class _Address(NamedTuple):
    family: int
    host: str
    port: int


def rehearse(config: ServerConfig, front: Account | None) -> Iterator[ConfigError]:
    """Yield why a front could not listen where the settings say, beside what runs there now."""
    held = _held(Path(config.state_dir))
    wanted = {
        "listen": config.address(),
        "metrics.listen": config.metrics.address(),
        "console.listen": config.console.address(),
    }
    for setting, address in wanted.items():
        if address is None:
            continue
        try:
            _try_to_listen(setting, *address, front, held)
        except ConfigError as error:
            yield ConfigError(str(error), setting)


def rehearse_code(services: Collection[ServiceConfig]) -> None:
    """Load what the services would run. Raises ApiError when it is not all there."""
    for target in (service.target for service in services):
        try:
            importlib.import_module(target.partition(":")[0])
        except ImportError as error:
            raise ApiError(
                f"this installation of job-worker is not complete: {error}; install it anew"
            ) from error


def _held(state_dir: Path) -> set[_Address]:
    """Where the service that runs on the directory listens, if there is one."""
    try:
        front = running_config(state_dir).front
    except StateError:
        return set()
    # Not as a ServerConfig: it may be of another version.
    told = json.loads(front.config) if front else {}
    texts = [told.get("listen"), *(told.get(part, {}).get("listen") for part in _PARTS)]
    found = set()
    for text in filter(None, texts):
        host, _, port = text.rpartition(":")
        try:
            found.add(_resolved(host.removeprefix("[").removesuffix("]"), int(port)))
        except (OSError, ValueError):
            # Then it is no address that is wanted now, either.
            continue
    return found


def _resolved(host: str, port: int) -> _Address:
    """The address that is listened on. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, address = found[0]
    return _Address(family, str(address[0]), int(address[1]))


def _try_to_listen(
    setting: str, host: str, port: int, front: Account | None, held: Collection[_Address]
) -> None:
    own = [one for one in held if one.port == port]
    try:
        wanted = _resolved(host, port)
        if wanted in held:
            return
        with acting_as(front):
            socket.create_server(
                (wanted.host, port), family=wanted.family, dualstack_ipv6=wanted.host == "::"
            ).close()
    except OSError as error:
        reason = str(error.strerror).partition(" (while ")[0]
        text = f"{setting}: cannot listen on {host}:{port}: {reason}"
        if own:
            text += (
                f"; the service itself listens on {own[0].host}:{port} until it ends: "
                "end it, and start it with these settings"
            )
        raise ConfigError(text) from error
