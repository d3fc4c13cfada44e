"""Sizes as people write them: 4096, 64K, 10M, 1G or 1T."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args

import msgspec

_SIZE = re.compile(r"([0-9]{1,19})([KMGT]?)(?:i?B)?", re.IGNORECASE)
_BYTES: Mapping[str, int] = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MARK = msgspec.Meta(extra={"size": True})

# The type of a setting that is a number of bytes, or of bytes per second.
Size = Annotated[int, _MARK]


def is_size(kind: Any) -> bool:
    """Whether a type is Size."""
    return _MARK in get_args(kind)


def size_of(text: str) -> int | None:
    """The bytes of a size, its units powers of 1024; None if it is none.

    >>> size_of("64K"), size_of("1GiB"), size_of("1.5G")
    (65536, 1073741824, None)
    """
    match = _SIZE.fullmatch(text)
    return int(match[1]) * _BYTES[match[2].upper()] if match else None
