"""Reading the file of the server's settings, and telling where in it something is wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from jobworker.authz.yaml_text import NotYaml, Place, compose, place_of
from jobworker.grpc_api.config import ServerConfig, TlsConfig
from jobworker.grpc_api.errors import ConfigError
from jobworker.grpc_api.settings_fault import Fault, doubled, faults_of, with_sizes
from jobworker.supervisor import SupervisorConfig


def load_server_config(path: Path) -> ServerConfig:
    """Read a file, make its paths absolute, check it.

    Raises ConfigError, with the file's name, and where in it each fault is, a line for each.
    """
    text, root = _read(path)
    return _absolute(_checked(root, text, path), path.absolute().parent)


def place_of_setting(path: Path, setting: tuple[str, ...]) -> Place:
    """Where a file has a setting; where what it is in stands, if it is left out.

    Raises ConfigError when the file can no longer be read.
    """
    key, value = _find(_read(path)[1], setting)
    return place_of(key if isinstance(value, yaml.MappingNode) else value, str(path))


def _read(path: Path) -> tuple[str, yaml.Node]:
    try:
        text = path.read_text()
        root = compose(text, str(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from error
    except NotYaml as error:
        where = error.place or Place(str(path), 1, 1)
        raise ConfigError(_line(where, f"not YAML: {error.problem}", error.hint)) from error
    if root is None:
        raise ConfigError(f"{path} is empty: see deploy/server.yaml for what goes into it")
    return text, root


def _checked(root: yaml.Node, text: str, path: Path) -> ServerConfig:
    parsed = with_sizes(msgspec.yaml.decode(text), ServerConfig)
    if isinstance(parsed, dict) and "jobs" in parsed:
        # ServerConfig passes it on as it is.
        parsed["jobs"] = with_sizes(parsed["jobs"], _JobsConfig)
    faults = list(doubled(root)) or list(_faults(root, parsed))
    if not faults:
        config = msgspec.convert(parsed, ServerConfig)
        faults = list(_bad_addresses(root, config))
    if faults:
        lines = [_line(place_of(one.node, str(path)), one.problem, one.hint) for one in faults]
        raise ConfigError("\n".join(dict.fromkeys(lines)))
    return config


def _faults(root: yaml.Node, parsed: Any) -> Iterator[Fault]:
    yield from faults_of(root, parsed, ServerConfig)
    if isinstance(parsed, dict) and isinstance(jobs := parsed.get("jobs", {}), dict):
        yield from faults_of(_find(root, ("jobs",))[1], jobs, _JobsConfig, "jobs")
        if "state_dir" in jobs:
            key, _ = _find(root, ("jobs", "state_dir"))
            yield Fault(key, "jobs: state_dir is no setting of jobs: it stands on its own")


def _bad_addresses(root: yaml.Node, config: ServerConfig) -> Iterator[Fault]:
    for address in (config.address, config.metrics.address, config.console.address):
        try:
            address()
        except ConfigError as error:
            yield Fault(_find(root, tuple(error.setting.split(".")))[1], str(error))


class _JobsConfig(SupervisorConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `jobs` may hold: the service's own directory is named once, outside of it."""

    state_dir: str = "/"


def _find(root: yaml.Node, setting: tuple[str, ...]) -> tuple[yaml.Node, yaml.Node]:
    """A setting's name and value, those of what it is in if it is left out."""
    key = node = root
    for name in setting:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        inner = {one.value: (one, value) for one, value in pairs}
        if name not in inner:
            break
        key, node = inner[name]
    return key, node


def _line(place: Place, problem: str, hint: str = "") -> str:
    line = f"{place.file}:{place.line}:{place.column}: {problem}"
    return f"{line}; {hint}" if hint else line


def _absolute(config: ServerConfig, base: Path) -> ServerConfig:
    tls = config.tls
    return msgspec.structs.replace(
        config,
        state_dir=str(base / config.state_dir),
        policy=str(base / config.policy),
        audit=msgspec.structs.replace(
            config.audit,
            directory=str(base / config.audit.directory) if config.audit.directory else "",
        ),
        tls=TlsConfig(
            certificate=str(base / tls.certificate),
            key=str(base / tls.key),
            ca=str(base / tls.ca),
            crl=str(base / crl) if (crl := tls.revocations()) else None,
            renewal=str(base / tls.renewal) if tls.renewal else "",
        ),
    )
