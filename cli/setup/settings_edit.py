"""Changes the text of the settings file, and leaves alone what it is not asked to change.

Comments and order stay. A change is made at the place of a YAML node, and what comes of
it must read as what was wanted: what is written in a way that this does not know is left
for its author.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import yaml

Value = str | Mapping[str, str]
_WIDE = 2**20


class CannotEdit(Exception):
    """The file is written in a way that is not for this to change; `line` is where."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line}")
        self.line = line


def with_value(text: str, keys: Sequence[str], value: Value) -> str:
    """Return the text with a value below some keys, in place of what is there.

    Raises CannotEdit. The text is YAML, a mapping or nothing.
    """
    wanted = _plain(text)
    inner = wanted
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
    inner[keys[-1]] = dict(value) if isinstance(value, Mapping) else value
    return _checked(_with_value(text, keys, value), wanted, text, keys)


def without(text: str, keys: Sequence[str]) -> str:
    """Return the text without what is below some keys, which is there. Raises CannotEdit."""
    wanted = _plain(text)
    inner = wanted
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    if not inner and len(keys) > 1:
        # An empty mapping would be left.
        return without(text, keys[:-1])
    return _checked(_without(text, keys), wanted, text, keys)


def _plain(text: str) -> dict[str, Any]:
    return deepcopy(yaml.safe_load(text)) or {}


def _checked(new: str, wanted: Mapping[str, Any], text: str, keys: Sequence[str]) -> str:
    try:
        if _plain(new) == wanted:
            return new
    except yaml.YAMLError:
        # It is not what is wanted, either.
        pass
    raise CannotEdit(_line_of(text, keys))


def _with_value(text: str, keys: Sequence[str], value: Value) -> str:
    node = yaml.compose(text, yaml.SafeLoader)
    if node is None:
        return _after(text, len(text), _block(_nested(keys, value), 0))
    for depth, key in enumerate(keys):
        if not isinstance(node, yaml.MappingNode):
            break
        found = _find(node, key)
        if found is None:
            return _inserted(text, node, _nested(keys[depth:], value))
        node = found[1]
    begin, end = node.start_mark.index, node.end_mark.index
    return f"{text[:begin]}{_flow(value)}{text[end:]}"


def _inserted(text: str, mapping: yaml.MappingNode, rest: Mapping[str, Any]) -> str:
    """The text with more in a mapping, at its end."""
    if mapping.flow_style:
        # Before the brace that closes it.
        at = mapping.end_mark.index - 1
        comma = ", " if mapping.value else ""
        return f"{text[:at]}{comma}{_flow(rest)[1:-1]}{text[at:]}"
    return _after(text, _end(mapping), _block(rest, mapping.start_mark.column))


def _after(text: str, at: int, lines: str) -> str:
    """The text with lines after the one that `at` is in."""
    end = text.find("\n", at)
    before, after = (text, "") if end < 0 else (text[: end + 1], text[end + 1 :])
    if before and not before.endswith("\n"):
        before += "\n"
    return before + lines + after


def _without(text: str, keys: Sequence[str]) -> str:
    node = name = yaml.compose(text, yaml.SafeLoader)
    for key in keys:
        found = None if node is None else _find(node, key)
        # _plain has found it there.
        assert found is not None  # noqa: S101
        name, node = found
    assert name is not None  # noqa: S101
    assert node is not None  # noqa: S101
    begin = text.rfind("\n", 0, name.start_mark.index) + 1
    end = text.find("\n", _end(node))
    return text[:begin] + ("" if end < 0 else text[end + 1 :])


def _find(mapping: yaml.Node, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    pairs: list[tuple[yaml.Node, yaml.Node]] = mapping.value
    return next((pair for pair in pairs if pair[0].value == key), None)


def _end(node: yaml.Node) -> int:
    """Where a node ends: a block does where its last value does, not where the next begins."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    return int(node.end_mark.index)


def _nested(keys: Sequence[str], value: Value) -> dict[str, Any]:
    inner: Any = dict(value) if isinstance(value, Mapping) else value
    for key in reversed(keys):
        inner = {key: inner}
    result: dict[str, Any] = inner
    return result


def _block(value: Mapping[str, Any], column: int) -> str:
    lines = yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=_WIDE)
    return "".join(f"{' ' * column}{line}\n" for line in lines.splitlines())


def _flow(value: Value | Mapping[str, Any]) -> str:
    """The value as it may stand in a line, whatever is around it."""
    plain = dict(value) if isinstance(value, Mapping) else value
    listed = yaml.safe_dump(
        [plain], sort_keys=False, allow_unicode=True, width=_WIDE, default_flow_style=True
    )
    return listed.strip()[1:-1]


def _line_of(text: str, keys: Sequence[str]) -> int:
    """The line that the first of the keys stands in, or the first line."""
    node = yaml.compose(text, yaml.SafeLoader)
    found = None if node is None else _find(node, keys[0])
    return found[0].start_mark.line + 1 if found else 1
