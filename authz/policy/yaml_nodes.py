"""Reads YAML as nodes, which know where they stand, and complains of those of another shape.

A plain `null`, `yes` or `1` is a text here: nothing but texts is expected.
"""

from collections.abc import Sequence

import yaml

from jobworker.authz.policy.rules import Place, PolicyError
from jobworker.authz.policy.statements import Text, near

# libyaml is ten times faster, and not in every build of PyYAML.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# `jobs: {ou}/{cn}` begins a mapping, and `allow: *` an alias, until it is quoted.
_QUOTE = 'quote what begins with {, [ or *, such as "{ou}/{cn}"'

Entries = dict[str, tuple[Text, yaml.Node]]


def parse(text: str, file: str) -> yaml.Node | None:
    """Return the document's root; None if it is empty.

    Raises:
        PolicyError: It is not one YAML document.
    """
    try:
        return yaml.compose(text, _LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else None
        line = text.splitlines()[mark.line] if mark and mark.line < text.count("\n") else ""
        hint = _QUOTE if any(char in line for char in "{[*") else ""
        raise PolicyError(f"not YAML: {error.problem}", place, hint, file=file) from error
    except (yaml.YAMLError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise PolicyError(f"not YAML: {problem}", file=file) from error


class NodeReader:
    """Takes nodes of one file apart; each method raises PolicyError for one of another shape.

    `label` is what the node is called in messages.
    """

    def __init__(self, file: str) -> None:
        self._file = file

    def place(self, node: yaml.Node) -> Place:
        """Return where the node begins."""
        return Place(self._file, node.start_mark.line + 1, node.start_mark.column + 1)

    def text(self, node: yaml.Node, label: str) -> Text:
        """Return the one text that the node is."""
        if not isinstance(node, yaml.ScalarNode):
            raise PolicyError(f"{label} must be a text", self.place(node), _QUOTE)
        return Text(node.value, self.place(node))

    def texts(self, node: yaml.Node, label: str) -> list[Text]:
        """Return the texts of a list, or the one text."""
        if isinstance(node, yaml.SequenceNode):
            return [self.text(item, label) for item in node.value]
        return [self.text(node, label)]

    def some_texts(self, node: yaml.Node, label: str) -> list[Text]:
        """Return the texts of a list that is not empty, or the one text."""
        texts = self.texts(node, label)
        if not texts:
            raise PolicyError(f"{label} is empty", self.place(node), "name one at least")
        return texts

    def items(self, node: yaml.Node, label: str) -> list[yaml.Node]:
        """Return the nodes of a list."""
        if not isinstance(node, yaml.SequenceNode):
            raise PolicyError(f"{label} must be a list", self.place(node), "begin each with `- `")
        items: list[yaml.Node] = node.value
        return items

    def mapping(self, node: yaml.Node, label: str, keys: Sequence[str] = ()) -> Entries:
        """Return the entries by key; with `keys`, those are the ones there may be."""
        if not isinstance(node, yaml.MappingNode):
            hint = f"its keys are {', '.join(keys)}" if keys else "write `name: ...` lines"
            raise PolicyError(f"{label} must be a mapping", self.place(node), hint)
        entries: Entries = {}
        for key_node, value in node.value:
            key = self.text(key_node, "a key")
            if keys and key.text not in keys:
                raise PolicyError(
                    f"{label} has no key {key.text!r}", key.place, near(key.text, keys)
                )
            if key.text in entries:
                raise PolicyError(f"{key.text} is there twice", key.place)
            entries[key.text] = (key, value)
        return entries
