"""What is wrong in a file of settings, and where: line, column, and what may have been meant.

msgspec decides what is right; where it objects, the settings are looked through
for the smallest part that it would object to by itself.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args, get_origin

import msgspec
import yaml

from jobworker.authz.yaml_text import near
from jobworker.supervisor import is_size, size_of

# msgspec's names of types, in words.
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "object": "a mapping (`name: ...` lines)",
    "array": "a list",
    "null": "nothing",
}
_EXPECTED = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")


class Fault(NamedTuple):
    """The part that is wrong, what is wrong with it, and what may have been meant."""

    node: yaml.Node
    problem: str
    hint: str = ""


def doubled(node: yaml.Node) -> Iterator[Fault]:
    """Yield the settings that are there twice, of which YAML would take the last without a word."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                yield Fault(key, f"{key.value} is there twice")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else key)
            yield from doubled(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from doubled(item)


def faults_of(node: yaml.Node, value: object, kind: Any, name: str = "") -> Iterator[Fault]:
    """Yield what is wrong with settings that should be of the type `kind`, in their order."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problem = str(error)
    else:
        return
    told = False
    for part in _parts(node, value, kind, name):
        for fault in (part,) if isinstance(part, Fault) else faults_of(*part):
            yield fault
            told = True
    if (missing := _missing(value, kind)) and isinstance(node, yaml.MappingNode):
        where = f"{name} needs" if name else "the file needs"
        yield Fault(node, f"{where} {' and '.join(missing)}", f"add `{missing[0]}: ...`")
    elif not told:
        if is_size(kind) and (isinstance(value, bool) or not isinstance(value, int)):
            problem = "must be a size in bytes, such as 67108864, 64K or 1G"
        yield Fault(node, f"{name}: {_plain(problem)}" if name else _plain(problem))


def with_sizes(value: object, kind: Any) -> Any:
    """The settings with each size that is a text as its number of bytes."""
    kind = _plain_kind(kind)
    if is_size(kind):
        size = size_of(value) if isinstance(value, str) else None
        return value if size is None else size
    if not isinstance(value, dict):
        return value
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        kinds = {one.name: one.type for one in msgspec.structs.fields(kind)}
    else:
        kinds = dict.fromkeys(value, (get_args(kind) or (Any,))[-1])
    return {name: with_sizes(inner, kinds.get(name, Any)) for name, inner in value.items()}


# A node, its value, the type that it should have, and its name.
_Part = tuple[yaml.Node, object, Any, str]


def _parts(node: yaml.Node, value: object, kind: Any, name: str) -> Iterator[_Part | Fault]:
    """Yield the settings within one."""
    kind = _plain_kind(kind)
    if isinstance(node, yaml.MappingNode) and isinstance(value, dict):
        if len(node.value) != len(value):
            # A merge (`<<`): which value is whose cannot be told.
            return
        struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        fields = {one.name: one.type for one in msgspec.structs.fields(kind)} if struct else {}
        for (key, inner), content in zip(node.value, value.values(), strict=True):
            label = f"{name}.{key.value}" if name else str(key.value)
            if not struct:
                yield inner, content, (get_args(kind) or (Any, Any))[-1], label
            elif key.value in fields:
                yield inner, content, fields[key.value], label
            else:
                whose = f"{name} has" if name else "there is"
                yield Fault(key, f"{whose} no setting {key.value!r}", near(key.value, fields))
    elif isinstance(node, yaml.SequenceNode) and isinstance(value, list):
        item = (get_args(kind) or (Any,))[0]
        for place, (inner, content) in enumerate(zip(node.value, value, strict=True)):
            yield inner, content, item, f"{name}[{place}]"


def _plain_kind(kind: Any) -> Any:
    """The type without `| None`."""
    kinds = [one for one in get_args(kind) if one is not type(None)]
    return kinds[0] if get_origin(kind) not in {dict, list, tuple} and len(kinds) == 1 else kind


def _missing(value: object, kind: Any) -> list[str]:
    kind = _plain_kind(kind)
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return []
    given = value if isinstance(value, dict) else {}
    return [
        one.name for one in msgspec.structs.fields(kind) if one.required and one.name not in given
    ]


def _plain(problem: str) -> str:
    """What msgspec says, for people who do not know its types, nor where it was."""
    problem = re.sub(r" - at `[^`]*`$", "", problem)
    match = _EXPECTED.fullmatch(problem)
    if match is None:
        return problem.replace("`", "")
    wanted = " or ".join(_WORDS.get(one, one) for one in match[1].split(" | ") if one != "null")
    return f"must be {wanted}, not {_WORDS.get(match[2], match[2])}"
