"""Texts that stand for exact bytes, whatever the locale.

A program's arguments, its variables and paths are bytes to the kernel, most
often UTF-8. Here they are texts in which every byte that is not UTF-8 is a lone
surrogate (PEP 383), so that nothing is lost and nothing becomes another's.
Protobuf's strings, JSON in UTF-8 and terminals take no such text: there goes
`to_bytes` or `legible`.
"""


def to_bytes(text: str) -> bytes:
    """The bytes that a text stands for. Raises UnicodeEncodeError for one that stands for none."""
    return text.encode("utf-8", "surrogateescape")


def to_text(data: bytes) -> str:
    """The text that stands for these bytes; `to_bytes` is the inverse."""
    return data.decode("utf-8", "surrogateescape")


def legible(text: str) -> str:
    """The text in valid Unicode: U+FFFD in place of what is not UTF-8."""
    return text if is_utf8(text) else to_bytes(text).decode("utf-8", "replace")


def is_utf8(text: str) -> bool:
    """Whether the text is valid Unicode, so that strings can hold it."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
