"""A job's output on its page: when each line came, and the lines in which a text stands."""

import html
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from jobworker.console.pages.find import MOST_BYTES, Lines, sought
from jobworker.console.pages.output import Piece
from jobworker.proto import workerservice_pb2 as pb
from tests.console.test_console_live import WAITS
from tests.console.test_console_pages import done
from tests.console.test_console_safety import HOSTILE, check_harmless
from tests.front.test_reload_policy import NO_OUTPUT_FOR_ALICE, rename_over
from tests.support.server import Server
from tests.support.waiting import until
from tests.support.web.browser import Browser, browser

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
OUT, ERR = pb.OUTPUT_STREAM_STDOUT, pb.OUTPUT_STREAM_STDERR


def shown(page: str, name: str = "output") -> list[tuple[str, str]]:
    """The pieces of output on a page, each with its class."""
    body = page.partition(f'<pre id="{name}"')[2].partition(">")[2].partition("</pre>")[0]
    pieces = re.findall(r'<span class="(\w+)">([^<]*)</span>', body)
    return [(kind, html.unescape(text)) for kind, text in pieces]


def found(user: Browser, job: str, text: str) -> list[str]:
    """The lines that a search shows."""
    page = user.get(f"/jobs/{job}?find={quote_plus(text)}").text
    check_harmless(page)
    return [line.removesuffix("\n") for _, line in shown(page, "found")]


# -- times -------------------------------------------------------------------------


def test_each_line_has_its_time(server: Server, alice: Browser) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=20)
    job = done(server, "alice", "sh", "-c", "printf 'a <b>\\nb'; echo c >&2; sleep 0.1; echo d")
    after = datetime.now(UTC)
    plain = alice.get(f"/jobs/{job}").text
    assert f'<a href="/jobs/{job}?times=1">With times</a>' in plain
    assert "time" not in [kind for kind, _ in shown(plain)]
    page = alice.get(f"/jobs/{job}?times=1").text
    check_harmless(page)
    assert f'<a href="/jobs/{job}">Without times</a>' in page
    pieces = shown(page)
    times = [text for kind, text in pieces if kind == "time"]
    assert all(re.fullmatch(f"{STAMP} ", time) for time in times)
    came = [datetime.fromisoformat(time.strip()) for time in times]
    assert all(before <= time <= after for time in came)
    # "bd" is one line of stdout, which came when it began.
    assert [text for kind, text in pieces if kind == "stdout"] == ["a <b>\n", "b", "d\n"]
    assert len(times) == 3
    kinds = [kind for kind, _ in pieces]
    assert kinds.count("stderr") == 1
    assert kinds[kinds.index("stderr") - 1] == "time"


def test_times_come_live(server: Server, alice: Browser, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = server.ask("alice", "start", "--", "sh", "-c", WAITS, str(go))
    page = alice.get(f"/jobs/{job}?times=1").text
    live = re.search('data-live="([^"]+)"', page)
    assert live is not None
    assert html.unescape(live[1]).endswith("&times=1")
    go.touch()
    with alice.events(f"/live/jobs/{job}?from=0&times=1") as events:
        pieces = [piece for kind, data in events if kind == "output" for piece in data]
    assert [piece[:2] for piece in pieces] == [["stdout", "first\n"], ["stderr", "second\n"]]
    times = [datetime.fromisoformat(piece[2]) for piece in pieces]
    assert times == sorted(times)
    assert all(re.fullmatch(STAMP, piece[2]) for piece in pieces)


# -- search ------------------------------------------------------------------------


def test_lines_with_a_text_are_found(server: Server, alice: Browser) -> None:
    job = done(server, "alice", "sh", "-c", "echo Needle 1; echo hay; echo x NEEDLE 2 >&2; seq 9")
    page = alice.get(f"/jobs/{job}?find=needle").text
    assert sorted(shown(page, "found")) == [("stderr", "x NEEDLE 2\n"), ("stdout", "Needle 1\n")]
    assert "Found in 2 lines" in page
    assert 'name="find" value="needle"' in page
    assert 'id="output"' not in page
    assert "There is more" not in page
    none = alice.get(f"/jobs/{job}?find=absent").text
    assert "Found in 0 lines" in none
    assert 'id="found"' not in none
    # Nothing is looked for.
    assert 'id="output"' in alice.get(f"/jobs/{job}?find=+").text


def test_what_is_found_has_its_time_if_asked(server: Server, alice: Browser) -> None:
    job = done(server, "alice", "sh", "-c", "echo one; echo two")
    page = alice.get(f"/jobs/{job}?find=tw&times=1").text
    (kind, time), line = shown(page, "found")
    assert kind == "time"
    assert re.fullmatch(f"{STAMP} ", time)
    assert line == ("stdout", "two\n")
    assert f'<a href="/jobs/{job}?find=tw">Without times</a>' in page
    assert f'<a href="/jobs/{job}?times=1">The end of the output</a>' in page


def test_the_last_lines_of_many_are_shown(server: Server, alice: Browser) -> None:
    job = done(server, "alice", "seq", "-f", "line %.0f", "1000")
    page = alice.get(f"/jobs/{job}?find=LINE").text
    assert "Found in 1000 lines, of which the last 200 are shown" in page
    lines = [text for _, text in shown(page, "found")]
    assert lines == [f"line {number}\n" for number in range(801, 1001)]


def test_of_more_than_is_looked_at_that_is_said(server: Server, alice: Browser) -> None:
    script = f"echo early needle; head -c {MOST_BYTES} /dev/zero; echo; echo late needle"
    job = done(server, "alice", "sh", "-c", script)
    page = alice.get(f"/jobs/{job}?find=needle").text
    assert shown(page, "found") == [("stdout", "late needle\n")]
    begin = len("early needle\n" + "\n" + "late needle\n")
    assert f"There is more: only the last 64 MiB, from byte {begin} on" in page
    server.ask("alice", "rm", job)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_looked_for_and_found_is_text(server: Server, alice: Browser, text: str) -> None:
    job = done(server, "alice", "printf", "%s\\n", f"x{text}y", "other")
    # As it was written, control sequences and all, and as the page shows it.
    assert found(alice, job, f"x{text}y") == [f"x{sought(text)}y"]
    assert found(alice, job, f"x{sought(text)}y") == [f"x{sought(text)}y"]
    page = alice.get(f"/jobs/{job}?times=1&find={quote_plus(text)}").text
    check_harmless(page)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)


def test_colours_do_not_hide_a_text(server: Server, alice: Browser) -> None:
    job = done(server, "alice", "printf", "a nee\\033[1mdle\\033[0m\\n")
    assert found(alice, job, "needle") == ["a needle"]
    assert found(alice, job, "\x1b[31mneedle") == ["a needle"]


def test_another_site_has_nothing_looked_for(server: Server, alice: Browser) -> None:
    """How long it takes would tell it whether a text is there."""
    job = done(server, "alice", "echo", "needle")
    link = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    page = alice.get(f"/jobs/{job}?find=needle", sec_fetch_site="cross-site", **link).text
    assert 'id="found"' not in page
    assert 'id="output"' in page


def test_who_may_not_read_output_cannot_search_it(fresh_server: Server) -> None:
    alice, ann = browser(fresh_server, "alice"), browser(fresh_server, "ann")
    job = done(fresh_server, "alice", "printf", "nee%s", "dle")
    rename_over(fresh_server.directory / "policy.yaml", NO_OUTPUT_FOR_ALICE)
    until(lambda: alice.get(f"/jobs/{job}/output").status == 403)
    page = alice.get(f"/jobs/{job}?find=needle&times=1").text
    assert "Found in" not in page
    assert 'name="find"' not in page
    assert found(ann, job, "needle") == ["needle"]


def lines_of(text: str, pieces: Iterable[tuple[pb.OutputStream, bytes]]) -> list[Piece]:
    """The lines with a text, each with the number of its piece for the time."""
    lines = Lines(text)
    for number, (stream, data) in enumerate(pieces):
        lines.take(stream, data, str(number))
    lines.end()
    assert len(lines.found) == lines.number
    return list(lines.found)


def test_lines_may_come_in_pieces() -> None:
    pieces = [(OUT, b"a\nnee"), (ERR, b"x\nERR nee"), (OUT, b"dle\nb"), (ERR, b"dle")]
    assert lines_of("needle", [*pieces, (OUT, b" needle")]) == [
        ("stdout", "needle\n", "0"),
        ("stdout", "b needle\n", "2"),
        ("stderr", "ERR needle\n", "1"),
    ]


def test_what_is_not_kept_is_no_part_of_a_line() -> None:
    lines = Lines("needle")
    lines.take(OUT, b"nee", "")
    lines.end()
    lines.take(OUT, b"dle\na needle\n", "")
    assert list(lines.found) == [("stdout", "a needle\n", "")]


@pytest.mark.parametrize("before", [0, 5, 8190, 100_000])
@pytest.mark.parametrize("size", [1000, 4093])
def test_a_line_without_end_is_not_held(before: int, size: int) -> None:
    data = b"x" * before + b"Needle" + b"y" * 100_000
    pieces = [(OUT, data[at : at + size]) for at in range(0, len(data), size)]
    ((_, line, _),) = lines_of("needle", pieces)
    assert "Needle" in line
    assert len(line) < 2010
