"""Reads the settings file of the command, ~/.config/jobworker/config.yaml.

It is a YAML mapping with the keys server, ca, cert and key, all optional; the
files are relative to the folder it is in.
"""

import difflib
from pathlib import Path

import yaml

from jobworker.cli.errors import SettingsError
from jobworker.cli.settings import NAMES, Setting


def read_config(path: Path) -> dict[str, Setting]:
    """Return what the file sets, each with its line as the source.

    Raises:
        SettingsError: The file cannot be read, is not a YAML mapping, or holds a
            key or value that means nothing. Names the line.
    """
    try:
        text = path.read_text()
        document = yaml.compose(text, yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the settings file {path}: {error}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{_place(path, error)}: not YAML: {_problem(error)}") from error
    if document is None:
        return {}
    if not isinstance(document, yaml.MappingNode):
        raise SettingsError(f"{path}:1: must be `key: value` lines; the keys are {_known()}")
    settings: dict[str, Setting] = {}
    for key, value in document.value:
        name = _name(key, path)
        if name in settings:
            raise SettingsError(f"{_line(path, key)}: {name} is set twice")
        settings[name] = Setting(_text(name, value, path), _line(path, key))
    return settings


def _name(key: yaml.Node, path: Path) -> str:
    name = key.value if isinstance(key, yaml.ScalarNode) else None
    if name in NAMES:
        return str(name)
    near = difflib.get_close_matches(str(name), NAMES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the keys are {_known()}"
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


def _known() -> str:
    return ", ".join(NAMES)
