"""Reads YAML as nodes, which know where they stand, and complains of those of another shape.

A plain `null`, `yes` or `1` is a text here: nothing but texts is expected.
"""

from collections.abc import Sequence

import yaml

from jobworker.authz.policy.rules import PolicyError
from jobworker.authz.policy.statements import Text
from jobworker.authz.yaml_text import QUOTE, NotYaml, Place, compose, near, place_of

Entries = dict[str, tuple[Text, yaml.Node]]


def parse(text: str, file: str) -> yaml.Node | None:
    """Return the document's root; None if it is empty.

    Raises:
        PolicyError: It is not one YAML document.
    """
    try:
        return compose(text, file)
    except NotYaml as error:
        raise PolicyError(
            f"not YAML: {error.problem}", error.place, error.hint, file=file
        ) from error


class NodeReader:
    """Takes nodes of one file apart; each method raises PolicyError for one of another shape.

    `label` is what the node is called in messages.
    """

    def __init__(self, file: str) -> None:
        self._file = file

    def place(self, node: yaml.Node) -> Place:
        """Return where the node begins."""
        return place_of(node, self._file)

    def text(self, node: yaml.Node, label: str) -> Text:
        """Return the one text that the node is."""
        if not isinstance(node, yaml.ScalarNode):
            raise PolicyError(f"{label} must be a text", self.place(node), QUOTE)
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
