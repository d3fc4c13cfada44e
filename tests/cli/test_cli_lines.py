"""Output cut into labelled lines."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jobworker.cli.display.lines import LONGEST_LINE_BYTES, LineCutter
from jobworker.client.pieces import Chunk

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def cut(cutter: LineCutter, *chunks: Chunk) -> list[bytes]:
    lines = [line for chunk in chunks for line in cutter.lines(chunk)]
    return [*lines, *cutter.rest()]


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


def test_a_line_that_does_not_end_is_cut() -> None:
    cutter = LineCutter("", timestamps=False)
    piece = b"x" * 300_000
    lines = [line for number in range(10) for line in cutter.lines(Chunk(number, piece))]
    assert [len(line) for line in lines] == [LONGEST_LINE_BYTES + 1] * 2
    assert sum(len(line) - 1 for line in (*lines, *cutter.rest())) == 3_000_000


def test_what_is_held_back_is_not_the_buffer_it_came_in() -> None:
    cutter = LineCutter("", timestamps=False)
    buffer = bytearray(b"begun")
    assert list(cutter.lines(Chunk(0, memoryview(buffer)))) == []
    buffer[:] = b" on.\n"
    assert list(cutter.lines(Chunk(5, memoryview(buffer)))) == [b"begun on.\n"]


@given(st.lists(st.binary()))
def test_no_byte_is_lost_or_doubled(pieces: list[bytes]) -> None:
    lines = cut(LineCutter("", timestamps=False), *(Chunk(0, piece) for piece in pieces))
    whole = b"".join(pieces)
    assert b"".join(lines) == (whole if whole.endswith(b"\n") or not whole else whole + b"\n")
