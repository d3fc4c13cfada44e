"""What the edge reads along of HTTP/2: nothing is changed, until no more calls are to begin."""

import itertools
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.grpc_api.edge.frames import ClientFrames
from jobworker.grpc_api.errors import Http2Abuse
from tests.support.http2 import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    RESET,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from tests.support.openssl_client import PREFACE as PREFACE_AND_SETTINGS

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES, IDLE_FRAMES = 1000, 20


def frames(clock: Sequence[float] = (0.0,)) -> ClientFrames:
    times = iter(clock)
    last = clock[-1]
    return ClientFrames(HEADER_BYTES, IDLE_FRAMES, lambda: next(times, last))


def pieces(data: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(places):
        yield data[begin:end]


CONTENT = st.tuples(
    st.sampled_from([DATA, HEADERS, WINDOW_UPDATE]),
    st.integers(1, 20),
    st.binary(min_size=1, max_size=40),
)
CUTS = st.lists(st.integers(0, 2000), max_size=12)


@given(st.lists(CONTENT, max_size=12), CUTS)
def test_open_it_passes_every_byte(sent: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    data = PREFACE + b"".join(frame(*one) for one in sent)
    seen = frames()
    assert b"".join(seen.take(piece) for piece in pieces(data, cuts)) == data
    assert seen.last_stream == max([0, *(one[1] for one in sent if one[0] == HEADERS)])


@given(st.lists(CONTENT, max_size=8), st.lists(CONTENT, max_size=8), CUTS, CUTS, st.integers(0, 60))
def test_closed_it_passes_whole_frames_of_known_streams(
    before: list[tuple[int, int, bytes]],
    after: list[tuple[int, int, bytes]],
    cuts: list[int],
    later_cuts: list[int],
    split: int,
) -> None:
    """Wherever the cut comes, also within a frame: what has gone in part goes on."""
    data = PREFACE + b"".join(frame(*one) for one in before)
    rest = b"".join(frame(*one) for one in after)
    # Closed in the middle of a frame, or between two.
    first, second = (data + rest)[: len(data) + split], (data + rest)[len(data) + split :]
    seen = frames()
    passed = b"".join(seen.take(piece) for piece in pieces(first, cuts))
    seen.close()
    passed += b"".join(seen.take(piece) for piece in pieces(second, later_cuts))
    lengths = [len(frame(*one)) for one in after]
    begun = sum(sum(lengths[:number]) < split for number in range(len(after)))
    known = max([0, *(one[1] for one in (*before, *after[:begun]) if one[0] == HEADERS)])
    expected = [*after[:begun], *(one for one in after[begun:] if one[1] <= known)]
    assert passed == data + b"".join(frame(*one) for one in expected)


@given(st.binary(max_size=200), CUTS)
def test_what_is_not_http2_is_grpcs_to_end(data: bytes, cuts: list[int]) -> None:
    seen = frames()
    assert b"".join(seen.take(piece) for piece in pieces(b"x" + data, cuts)) == b"x" + data


def test_headers_without_an_end_are_an_abuse() -> None:
    """20 MB of CONTINUATION had the front grow."""
    seen = frames()
    seen.take(PREFACE + frame(HEADERS, 1, bytes(HEADER_BYTES)))
    seen.take(frame(HEADERS, 3, bytes(500)))
    with pytest.raises(Http2Abuse, match=f"more than {HEADER_BYTES} bytes of headers"):
        seen.take(5 * frame(CONTINUATION, 3, bytes(200)))


@pytest.mark.parametrize("kind", [RESET, SETTINGS, PING, 2, 77])
def test_frames_that_ask_for_nothing_are_counted(kind: int) -> None:
    """20,000 rapid resets had the front grow."""
    seen = frames()
    seen.take(PREFACE + IDLE_FRAMES * frame(kind, 0, b"12345678"))
    with pytest.raises(Http2Abuse, match="ask for nothing"):
        seen.take(frame(kind, 0, b"12345678"))


def test_what_good_clients_send_is_not_counted() -> None:
    seen = frames()
    good = (
        frame(PING, 0, bytes(8), flags=1)
        + frame(SETTINGS, 0, flags=1)
        + frame(WINDOW_UPDATE, 0, bytes(4))
        + frame(HEADERS, 1, bytes(200))
        + frame(DATA, 1, b"", flags=1)
        + frame(DATA, 1, bytes(100))
    )
    seen.take(PREFACE_AND_SETTINGS + 50 * IDLE_FRAMES * good)


def test_they_are_forgiven_in_time() -> None:
    seen = frames(clock=[0.0] * (IDLE_FRAMES + 1) + [5.0])
    seen.take(PREFACE + IDLE_FRAMES * frame(PING, 0, bytes(8)))
    seen.take(IDLE_FRAMES // 2 * frame(PING, 0, bytes(8)))
    with pytest.raises(Http2Abuse):
        seen.take(frame(PING, 0, bytes(8)))
