"""What jobs say, as plain text: nothing that a terminal or a reader would take for a command.

Output and names are hostile. HTML is the templates' business, which escape all of it;
here control sequences of terminals (ECMA-48) go, and characters that turn the order of
what is shown around (Unicode TR 36, "bidirectional spoofing") are made visible.
"""

import codecs
import re

# A sequence that is not whole after so many characters is none.
_MOST_SEQUENCE = 4096
_UTF8 = codecs.getincrementaldecoder("utf-8")

# CSI; strings (OSC, DCS, SOS, PM, APC) up to their end; the others, of two or three characters.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]+[0-~]"
    r"|\x1b[0-OQ-WYZ\\`-~]"
)
# The same, without its end.
_BEGINNING = re.compile(
    r"(?:(?:\x1b\[|\x9b)[0-?]*[ -/]*"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*\x1b?"
    r"|\x1b[ -/]*)\Z"
)
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
_SPACES = {"\n", "\t"}
# Of output what is left of controls goes; a carriage return begins a line, as a newline does.
_OF_OUTPUT = str.maketrans(
    {char: "" for char in _CONTROLS if char not in _SPACES}
    | {char: f"\\u{ord(char):04x}" for char in _BIDI}
)
# Of a name, all are shown for what they are.
_OF_NAMES = str.maketrans(
    {char: f"\\x{ord(char):02x}" for char in _CONTROLS}
    | {char: f"\\u{ord(char):04x}" for char in (*_BIDI, "\u2028", "\u2029")}
)


def visible(text: str) -> str:
    r"""A name or a command, with what is no visible character as its code.

    >>> visible("a\x1b]52;c;aGk=\x07b")
    'a\\x1b]52;c;aGk=\\x07b'
    """
    return text.translate(_OF_NAMES)


class PlainText:
    r"""One stream of output, as it comes, in pieces that may end anywhere.

    >>> plain = PlainText()
    >>> plain.take(b"\x1b[31mred\x1b[") + plain.take(b"0m\r\n")
    'red\n'
    """

    def __init__(self) -> None:
        self._decoder = _UTF8(errors="replace")
        # What may be the beginning of a sequence.
        self._held = ""

    def take(self, data: bytes, *, last: bool = False) -> str:
        """The text of the next bytes; `last` if no others come."""
        text = self._held + self._decoder.decode(data, final=last)
        cut = len(text) if last else _whole(text)
        text, self._held = text[:cut], text[cut:]
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        return _SEQUENCE.sub("", text).translate(_OF_OUTPUT)


def _whole(text: str) -> int:
    """Up to where there is no beginning of something that may come to its end yet."""
    if beginning := _BEGINNING.search(text, max(0, len(text) - _MOST_SEQUENCE)):
        return beginning.start()
    return len(text) - text.endswith("\r")
