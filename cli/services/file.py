"""A file of services: which jobs are to run, each with the options of `jobworker start`.

    set: web
    services:
      db:
        command: ./postgres -D data
        health-port: 5432
      api:
        command: [./api, --listen, "8080"]
        env: {DB: localhost}
        after: [db]

The keys of a service are the long options, without the hyphens before them; what may be
given more than once is a list, variables and labels are a mapping.
"""

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, cast

import click
import yaml

from jobworker.cli.commands.new_job import AS_TYPED, JobOptions, job_options, start_request
from jobworker.cli.errors import CliError

if TYPE_CHECKING:
    from jobworker.proto import workerservice_pb2 as pb

# By which the jobs of a set are found again, and told from what the file says now.
SET_LABEL = "jobworker/set"
DIGEST_LABEL = "jobworker/service"
# What holds for a service unless the file says otherwise.
_USUAL = {"restart": "always"}
# What is no matter of a service: it has its name already, and nobody to type.
_NOT_HERE = {"name", "request-id", "interactive", "tty", "on-disconnect", "after", "on"}
_AFTER = ("after", "on")
_DIGEST_CHARACTERS = 16


@dataclass(frozen=True)
class Service:
    """A service as the file has it: its job's request, without what it comes after."""

    name: str
    request: "pb.StartRequest"
    after: tuple[str, ...]
    outcome: str

    @property
    def digest(self) -> str:
        """What tells it from another of its name; that is a label of its job."""
        return self.request.labels[DIGEST_LABEL]


@dataclass(frozen=True)
class ServicesFile:
    """The set's name, and its services in an order in which each can be started."""

    name: str
    services: tuple[Service, ...]


class _Mistake(Exception):
    """What is wrong in the file, and where."""

    def __init__(self, node: yaml.Node, words: str) -> None:
        super().__init__(f"{node.start_mark.line + 1}: {words}")


def read_services(text: str, source: str) -> ServicesFile:
    """Return what the file says. Raises CliError, which names the line."""
    try:
        document = yaml.compose(text, yaml.SafeLoader)
        if document is None:
            raise CliError(f"{source} has no services")
        return _services_file(document)
    except _Mistake as error:
        raise CliError(f"{source}:{error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}" if mark is not None else source
        raise CliError(f"{place}: not YAML: {getattr(error, 'problem', error)}") from None


def _services_file(document: yaml.Node) -> ServicesFile:
    parts = {str(key.value): (key, value) for key, value in _items(document, "the file")}
    for name, (key, _) in parts.items():
        if name not in ("set", "services"):
            raise _Mistake(key, f"{name!r} is no key of the file: they are set and services")
    set_name = "default"
    if "set" in parts:
        set_name = str(_value(parts["set"][1]))
    if "services" not in parts:
        raise _Mistake(document, "there are no services")
    nodes = {
        str(key.value): (key, value) for key, value in _items(parts["services"][1], "services")
    }
    found = {
        name: _service(name, set_name, key, value, set(nodes))
        for name, (key, value) in nodes.items()
    }
    before = {name: [other for other in one.after if other in found] for name, one in found.items()}
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        circle = " after ".join(reversed(error.args[1]))
        raise _Mistake(
            nodes[error.args[1][0]][0], f"these come after each other: {circle}"
        ) from None
    return ServicesFile(set_name, tuple(found[name] for name in order))


def _items(node: yaml.Node, what: str) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """The keys and values of a mapping, each key once."""
    if not isinstance(node, yaml.MappingNode):
        raise _Mistake(node, f"{what} must be a mapping of names")
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Mistake(key, f"a key of {what} must be a word")
        if key.value in seen:
            raise _Mistake(key, f"{key.value!r} is there twice")
        seen.add(key.value)
        yield key, value


def _value(node: yaml.Node) -> Any:
    """A scalar as it stands there, lists and mappings of those."""
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _value(value) for key, value in _items(node, "it")}
    if isinstance(node, yaml.SequenceNode):
        return [_value(one) for one in node.value]
    if node.tag == "tag:yaml.org,2002:bool":
        return node.value.lower() in ("true", "yes", "on")
    return str(node.value)


def _service(name: str, set_name: str, key: yaml.Node, node: yaml.Node, names: set[str]) -> Service:
    given = {str(at.value): (at, _value(value)) for at, value in _items(node, f"service {name}")}
    if "command" not in given:
        raise _Mistake(key, f"service {name} has no command")
    command = given.pop("command")[1]
    words = shlex.split(command) if isinstance(command, str) else list(map(str, command))
    after, outcome = (given.pop(one, (None, None))[1] for one in _AFTER)
    options = list(_usual(given))
    for option, (at, value) in given.items():
        options += _words(name, option, at, value)
    options += ["--name", name, "--label", f"{SET_LABEL}={set_name}"]
    try:
        context = _start.make_context("start", [*options, "--", *words])
        request = start_request(cast("JobOptions", context.params))
    except click.UsageError as error:
        raise _Mistake(key, f"service {name}: {error.format_message()}") from None
    request.ClearField("requestID")
    others = [after] if isinstance(after, str) else list(after or ())
    outcome = outcome or ("ready" if set(others) <= names else "ok")
    if outcome not in ("ok", "any", "fail", "ready"):
        raise _Mistake(key, f"service {name}: {outcome!r} is none of ok, any, fail and ready")
    _note_digest(request, others, outcome)
    return Service(name, request, tuple(others), outcome)


def _usual(given: Mapping[str, object]) -> Iterator[str]:
    for option, value in _USUAL.items():
        if option not in given:
            yield f"--{option}={value}"


def _words(name: str, option: str, at: yaml.Node, value: Any) -> Iterator[str]:
    """The words that say this on a command line."""
    known = _OPTIONS.get(option)
    if known is None:
        words = f"service {name}: {option!r} is no option of `jobworker start`"
        if option in _NOT_HERE:
            words = f"service {name}: {option!r} is nothing that a file can say of a service"
        raise _Mistake(at, words)
    if known.is_flag:
        if not isinstance(value, bool):
            raise _Mistake(at, f"service {name}: {option} must be true or false")
        if value:
            yield f"--{option}"
        return
    values = value if isinstance(value, list) else [value]
    if isinstance(value, dict):
        values = [f"{key}={one}" for key, one in value.items()]
    if isinstance(value, bool) or (len(values) != 1 and not known.multiple):
        raise _Mistake(at, f"service {name}: {option} must have one value")
    for one in values:
        yield f"--{option}={one}"


def _note_digest(request: "pb.StartRequest", after: list[str], outcome: str) -> None:
    told = request.SerializeToString(deterministic=True)
    told += "\0".join([outcome, *after]).encode()
    request.labels[DIGEST_LABEL] = hashlib.sha256(told).hexdigest()[:_DIGEST_CHARACTERS]


@click.command(context_settings=AS_TYPED)
@job_options
def _start(**_: object) -> None:
    """What a service may be told; never called."""


_OPTIONS = {
    option.opts[0].removeprefix("--"): option
    for option in _start.params
    if isinstance(option, click.Option) and option.opts[0].removeprefix("--") not in _NOT_HERE
}
