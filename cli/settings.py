"""Which server to call, and as whom: from flags, the environment, and a file, in that order.

The file may have several servers, each a context with a name.
"""

import difflib
import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jobworker.cli.errors import SettingsError
from jobworker.client.endpoint import DEFAULT_PORT, Endpoint

NAMES = ("server", "ca", "cert", "key")
CONTEXTS = "contexts"
_CONTEXT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting's text and where it came from, for errors to name."""

    text: str
    source: str


Settings = Mapping[str, Setting]


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What the file at `path` sets, for all and in each context; nothing where it is not there."""

    path: Path
    for_all: Settings = field(default_factory=dict)
    contexts: Mapping[str, Settings] = field(default_factory=dict)


def config_path(environ: Mapping[str, str]) -> Path:
    """Return the settings file of this user (XDG base directory specification)."""
    if given := environ.get("JOBWORKER_CONFIG"):
        return Path(given)
    # The specification tells to ignore a relative XDG_CONFIG_HOME.
    home = Path(environ.get("XDG_CONFIG_HOME", ""))
    base = home if home.is_absolute() else Path("~/.config").expanduser()
    return base / "jobworker" / "config.yaml"


def chosen_context(flags: Mapping[str, str], environ: Mapping[str, str]) -> Setting | None:
    """Return the name of the context that this shell, or this command, is about; None for none.

    There is no current one in the file: another terminal could change that.
    """
    given = (("--context", flags.get("context")), (_VARIABLE, environ.get(_VARIABLE)))
    source, name = next(((by, name) for by, name in given if name is not None), ("", ""))
    return Setting(name, source) if name else None


def resolve(flags: Mapping[str, str], environ: Mapping[str, str], file: SettingsFile) -> Endpoint:
    """Return what the settings say; see `layers`.

    Raises:
        SettingsError: A setting is nowhere, or malformed; or there is no such context.
    """
    found = ChainMap(*layers(flags, environ, file))
    for name in NAMES:
        if name not in found:
            raise _missing(name, chosen_context(flags, environ), file)
    return Endpoint(
        server=address_of(found["server"]),
        ca=_file(found["ca"]),
        cert=_file(found["cert"]),
        key=_file(found["key"]),
    )


def layers(
    flags: Mapping[str, str], environ: Mapping[str, str], file: SettingsFile
) -> list[dict[str, Setting]]:
    """Return what sets something, the first to win first.

    Those are options, a context that is named by one, the environment, a context that is
    named there, and the lines of the file that are for all. Raises SettingsError for a
    context that is not there.
    """
    by_flag = {name: Setting(flags[name], f"--{name}") for name in NAMES if name in flags}
    variables = {name: f"JOBWORKER_{name.upper()}" for name in NAMES}
    by_environment = {
        name: Setting(environ[variable], variable)
        for name, variable in variables.items()
        if environ.get(variable)
    }
    chosen = chosen_context(flags, environ)
    in_context = {} if chosen is None else dict(context_of(chosen, file))
    first, last = (in_context, {}) if "context" in flags else ({}, in_context)
    return [by_flag, first, by_environment, last, dict(file.for_all)]


def check_context_name(name: str) -> str | None:
    """Return what is wrong with a name for a context, None if nothing is."""
    if _CONTEXT_NAME.fullmatch(name):
        return None
    return (
        "a context's name has letters, digits, `.`, `_` and `-`, and begins with one of the first"
    )


def context_of(chosen: Setting, file: SettingsFile) -> Settings:
    """Return what a context sets. Raises SettingsError if there is none of that name."""
    if chosen.text in file.contexts:
        return file.contexts[chosen.text]
    near = difflib.get_close_matches(chosen.text, file.contexts, n=1)
    known = f"those are {', '.join(file.contexts)}" if file.contexts else "it has none"
    hint = f"did you mean {near[0]}?" if near else known
    raise SettingsError(
        f"there is no context {chosen.text!r} ({chosen.source}) in {file.path}; {hint}"
    )


def _missing(name: str, chosen: Setting | None, file: SettingsFile) -> SettingsError:
    places = [f"give --{name}", f"set JOBWORKER_{name.upper()}"]
    if file.contexts and chosen is None:
        places.append(f"choose a context (--context {'|'.join(file.contexts)})")
    of_context = f" of the context {chosen.text}" if chosen else ""
    return SettingsError(
        f"no {_MEANING[name]}{of_context} is set: {', '.join(places)}, "
        f"or write `{name}: ...` in {file.path}"
    )


_VARIABLE = "JOBWORKER_CONTEXT"
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


def address_of(setting: Setting) -> str:
    """Return HOST:PORT, the default port filled in; an IPv6 host is in brackets.

    Raises SettingsError for what is no server.
    """
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
