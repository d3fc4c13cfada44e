"""What the client makes of encoded output: what the frame says it is, or an error, never more."""

import pytest
import zstandard

from jobworker.client.output_connection import decoded
from jobworker.proto import workerservice_pb2 as pb

DATA = b"one line after another\n" * 1000


def frame(length: int, encoding: int = pb.OUTPUT_ENCODING_ZSTD) -> pb.OutputFrame:
    """A frame that says so of what follows."""
    return pb.OutputFrame(dataBytes=length, encoding=encoding)


def test_a_frame_gives_its_bytes() -> None:
    assert decoded(frame(len(DATA)), zstandard.compress(DATA)) == DATA


@pytest.mark.parametrize("length", [0, len(DATA) - 1, len(DATA) + 1])
def test_another_length_than_it_says_is_refused(length: int) -> None:
    with pytest.raises(OSError, match="another number of bytes"):
        decoded(frame(length), zstandard.compress(DATA))


def test_a_bomb_is_not_decoded() -> None:
    bomb = zstandard.compress(bytes(100_000_000))
    with pytest.raises(OSError, match="was not asked for"):
        decoded(frame(100_000_000), bomb)
    with pytest.raises(OSError, match="another number of bytes"):
        decoded(frame(len(DATA)), bomb)


def test_damage_is_told() -> None:
    encoded = bytearray(zstandard.compress(DATA))
    encoded[-5] ^= 0xFF
    with pytest.raises(OSError, match="damaged data"):
        decoded(frame(len(DATA)), bytes(encoded[:-3]))


def test_an_unknown_encoding_is_told() -> None:
    with pytest.raises(OSError, match="was not asked for"):
        decoded(frame(len(DATA), 7), DATA)
