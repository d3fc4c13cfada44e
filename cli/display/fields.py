"""A message of the server's, field by field, as JSON has it."""

import re
from typing import Any

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message

_NEXT_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def told(message: Message) -> dict[str, Any]:
    """Return the fields by their names in snake case, so that new ones are shown, too.

    What a message can leave open and does is None; an enum's value is its word in
    small letters.
    """
    return {_snake(field.name): _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        return list(value)
    if field.has_presence and not message.HasField(field.name):
        return None
    if field.message_type is not None:
        return told(value)
    return word(field.enum_type, value) if field.enum_type is not None else value


def word(kind: EnumDescriptor, number: int) -> str:
    """Return an enum's value without its enum's name; as a number if it is a newer server's."""
    known = kind.values_by_number.get(number)
    return (
        known.name.removeprefix(f"{_snake(kind.name).upper()}_").lower() if known else str(number)
    )


def _snake(name: str) -> str:
    return _NEXT_WORD.sub("_", name).lower()
