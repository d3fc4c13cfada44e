"""What was asked for, as the journal has it: JSON."""

import json
from typing import TypeVar

import msgspec

T = TypeVar("T")


def stored(asked: object) -> str:
    """A dataclass as JSON."""
    try:
        return msgspec.json.encode(asked).decode()
    except UnicodeEncodeError:
        # Lone surrogates (see exact_text) are escapes, which msgspec does not write.
        return json.dumps(msgspec.to_builtins(asked))


def restored(text: str, kind: type[T]) -> T:
    """What `stored` has made that of. Raises msgspec.ValidationError."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(text), kind)
