"""Reads the settings file of the command, ~/.config/jobworker/config.yaml.

It is a YAML mapping with the keys server, ca, cert and key, all optional, and with
`contexts`, names for servers, each with the same keys: what a context does not set is as
for all. The files are relative to the folder it is in.
"""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from jobworker.cli.errors import SettingsError
from jobworker.cli.settings import (
    CONTEXTS,
    NAMES,
    Setting,
    Settings,
    SettingsFile,
    check_context_name,
)


def read_config(path: Path) -> SettingsFile:
    """Return what the file sets, each with its line as the source.

    Raises:
        SettingsError: The file cannot be read, is not a YAML mapping, or holds a
            key or value that means nothing. Names the line.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the settings file {path}: {error}") from error
    return parse_config(text, path)


def parse_config(text: str, path: Path) -> SettingsFile:
    """Return what the text of the file at `path` sets; see `read_config`."""
    try:
        document = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise SettingsError(f"{_place(path, error)}: not YAML: {_problem(error)}") from error
    if document is None:
        return SettingsFile(path)
    for_all: dict[str, Setting] = {}
    contexts: dict[str, Settings] = {}
    for name, key, value in _items(document, path, (*NAMES, CONTEXTS), for_all, "the file"):
        if name == CONTEXTS:
            if contexts:
                raise SettingsError(f"{_line(path, key)}: {name} is set twice")
            contexts = _contexts(value, path)
        else:
            for_all[name] = Setting(_text(name, value, path), _line(path, key))
    return SettingsFile(path, for_all, contexts)


def _contexts(node: yaml.Node, path: Path) -> dict[str, Settings]:
    contexts: dict[str, Settings] = {}
    if not isinstance(node, yaml.MappingNode):
        raise SettingsError(f"{_line(path, node)}: {CONTEXTS} must be names, each with keys")
    for key, value in node.value:
        name = str(key.value)
        if (objection := check_context_name(name)) is not None:
            raise SettingsError(f"{_line(path, key)}: {name!r}: {objection}")
        if name in contexts:
            raise SettingsError(f"{_line(path, key)}: the context {name} is there twice")
        found: dict[str, Setting] = {}
        for one, at, text in _items(value, path, NAMES, found, f"the context {name}"):
            found[one] = Setting(_text(one, text, path), _line(path, at))
        contexts[name] = found
    return contexts


def _items(
    node: yaml.Node, path: Path, known: Sequence[str], found: Settings, what: str
) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Yield name, key and value of a mapping; `found` has those that were there before."""
    if not isinstance(node, yaml.MappingNode):
        raise SettingsError(
            f"{_line(path, node)}: {what} must be `key: value` lines; "
            f"the keys are {', '.join(known)}"
        )
    for key, value in node.value:
        name = _name(key, path, known)
        if name in found:
            raise SettingsError(f"{_line(path, key)}: {name} is set twice")
        yield name, key, value


def _name(key: yaml.Node, path: Path, known: Sequence[str]) -> str:
    name = key.value if isinstance(key, yaml.ScalarNode) else None
    if name in known:
        return str(name)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}"
    raise SettingsError(f"{_line(path, key)}: unknown key {name!r}; {hint}")


def _text(name: str, value: yaml.Node, path: Path) -> str:
    if not isinstance(value, yaml.ScalarNode) or not value.value:
        raise SettingsError(f"{_line(path, value)}: {name} must be one text")
    if name == "server":
        return str(value.value)
    return str(path.parent / Path(value.value).expanduser())


def _line(path: Path, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _place(path: Path, error: yaml.YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return f"{path}:{mark.line + 1}" if mark else str(path)


def _problem(error: yaml.YAMLError) -> str:
    problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else None
    return problem or " ".join(str(error).split())
