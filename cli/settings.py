"""Which server to call, and as whom: from flags, the environment, and a file, in that order."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobworker.cli.errors import SettingsError
from jobworker.client.endpoint import DEFAULT_PORT, Endpoint

NAMES = ("server", "ca", "cert", "key")


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting's text and where it came from, for errors to name."""

    text: str
    source: str


def config_path(environ: Mapping[str, str]) -> Path:
    """Return the settings file of this user (XDG base directory specification)."""
    if given := environ.get("JOBWORKER_CONFIG"):
        return Path(given)
    # The specification tells to ignore a relative XDG_CONFIG_HOME.
    home = Path(environ.get("XDG_CONFIG_HOME", ""))
    base = home if home.is_absolute() else Path("~/.config").expanduser()
    return base / "jobworker" / "config.yaml"


def resolve(
    flags: Mapping[str, str], environ: Mapping[str, str], file: Mapping[str, Setting], path: Path
) -> Endpoint:
    """Return what the settings say; for each a flag wins over the environment, that over the file.

    `path` is where the file is, or would be.

    Raises:
        SettingsError: A setting is nowhere, or malformed.
    """
    found = {name: _first(name, flags, environ, file, path) for name in NAMES}
    return Endpoint(
        server=_address(found["server"]),
        ca=_file(found["ca"]),
        cert=_file(found["cert"]),
        key=_file(found["key"]),
    )


def _first(
    name: str,
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    file: Mapping[str, Setting],
    path: Path,
) -> Setting:
    variable = f"JOBWORKER_{name.upper()}"
    if name in flags:
        return Setting(flags[name], f"--{name}")
    if environ.get(variable):
        return Setting(environ[variable], variable)
    if name in file:
        return file[name]
    raise SettingsError(
        f"no {_MEANING[name]} is set: give --{name}, set {variable}, "
        f"or write `{name}: ...` in {path}"
    )


_MEANING = {
    "server": "server",
    "ca": "CA certificate",
    "cert": "client certificate",
    "key": "client key",
}


# A name or IPv4 address, or an IPv6 address in brackets; nothing that gRPC would
# take for a target of another kind, such as unix:PATH.
_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_BARE_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


def _address(setting: Setting) -> str:
    """Return HOST:PORT, the default port filled in; an IPv6 host is in brackets."""
    text = setting.text
    match = _ADDRESS.fullmatch(f"[{text}]" if _BARE_IPV6.fullmatch(text) else text)
    port = int(match[2] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise SettingsError(
            f"the server {text!r} ({setting.source}) is not HOST:PORT, such as example.org:50051"
        )
    return f"{match[1]}:{port}"


def _file(setting: Setting) -> Path:
    return Path(setting.text).expanduser()
