"""Output cut into labelled lines."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.cli.display import sink
from jobworker.cli.display.lines import LONGEST_LINE_BYTES, LineCutter, Part
from jobworker.cli.display.sink import LineOutput, LineSink
from jobworker.client.pieces import Chunk

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def cut(cutter: LineCutter, *chunks: Chunk) -> list[bytes]:
    """What one would see: a prefix stands where a line begins."""
    seen: list[bytes] = []
    begun: set[str | None] = set()
    for part in (*(part for chunk in chunks for part in cutter.parts(chunk)), *cutter.rest()):
        if part.stream in begun:
            seen[-1] += part.text
        else:
            seen.append(part.prefix + part.text)
        begun = set() if part.ends else {part.stream}
    return seen


def test_a_line_in_pieces_has_one_label_and_the_time_of_its_first_byte() -> None:
    lines = cut(
        LineCutter("job | ", timestamps=True),
        Chunk(0, b"a", "stdout", NOON),
        Chunk(1, b"b\nc\n", "stdout", NOON + timedelta(seconds=1)),
    )
    assert lines == [
        b"job | 2026-03-01T12:00:00.000000Z ab\n",
        b"job | 2026-03-01T12:00:01.000000Z c\n",
    ]


def test_the_two_streams_do_not_mix_in_a_line() -> None:
    lines = cut(
        LineCutter("", timestamps=False),
        Chunk(0, b"out", "stdout", NOON),
        Chunk(3, b"err\n", "stderr", NOON),
        Chunk(7, b"put\n", "stdout", NOON),
    )
    assert lines == [b"err\n", b"output\n"]


def test_a_line_without_an_end_comes_at_the_end() -> None:
    assert cut(LineCutter("x ", timestamps=False), Chunk(0, b"a\n\nb")) == [
        b"x a\n",
        b"x \n",
        b"x b\n",
    ]


def test_a_line_that_does_not_end_is_not_held_back() -> None:
    """It was cut into lines, each with a label, of 1 MiB."""
    cutter = LineCutter("x ", timestamps=False)
    piece = b"x" * 300_000
    parts = [part for number in range(10) for part in cutter.parts(Chunk(number, piece))]
    assert sum(len(part.text) for part in parts) == 3_000_000
    assert max(len(part.text) for part in parts) <= LONGEST_LINE_BYTES + len(piece)
    assert not any(part.ends for part in parts)
    assert list(cutter.rest()) == [Part(None, b"x ", b"\n", ends=True)]


def test_what_is_held_back_is_not_the_buffer_it_came_in() -> None:
    cutter = LineCutter("", timestamps=False)
    buffer = bytearray(b"begun")
    assert list(cutter.parts(Chunk(0, memoryview(buffer)))) == []
    buffer[:] = b" on.\n"
    (part,) = cutter.parts(Chunk(5, memoryview(buffer)))
    assert part.text == b"begun on.\n"


@given(st.lists(st.binary()))
def test_no_byte_is_lost_or_doubled(pieces: list[bytes]) -> None:
    lines = cut(LineCutter("", timestamps=False), *(Chunk(0, piece) for piece in pieces))
    whole = b"".join(pieces)
    assert b"".join(lines) == (whole if whole.endswith(b"\n") or not whole else whole + b"\n")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What goes to stdout."""
    seen: list[bytes] = []
    monkeypatch.setattr(sink, "write_out", lambda data, _: seen.append(bytes(data)))
    return seen


LONG = Chunk(0, b"l" * (LONGEST_LINE_BYTES + 1))


def sinks(count: int) -> list[LineSink]:
    output = LineOutput(threading.Condition(), merge=True)
    labels = [f"{number}|" for number in range(count)]
    return [LineSink(label, LineCutter(label, timestamps=False), output) for label in labels]


def test_a_short_line_waits_for_the_end_of_a_long_one(
    written: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "LONG_LINE_SECONDS", 60.0)
    long, short = sinks(2)
    long.write(LONG)
    other = threading.Thread(target=short.write, args=(Chunk(0, b"s\n"),))
    other.start()
    long.write(Chunk(LONG.end, b"end\n"))
    other.join(60)
    assert b"".join(written) == b"0|" + LONG.data + b"end\n1|s\n"


def test_a_line_that_does_not_end_in_time_is_broken(
    written: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "LONG_LINE_SECONDS", 0.01)
    long, short = sinks(2)
    long.write(LONG)
    short.write(Chunk(0, b"s\n"))
    long.write(Chunk(LONG.end, b"end\n"))
    assert b"".join(written) == b"0|" + LONG.data + b"\n1|s\n0|end\n"
