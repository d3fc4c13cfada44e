"""A job's terminal over a WebSocket: who may open it, what goes either way, and what ends it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.conftest import POLICY
from tests.front.admin.test_admin import audited
from tests.support.server import Server
from tests.support.waiting import until
from tests.support.web.browser import Browser, browser
from tests.support.web.socket import Refused, Socket, web_socket

NEVER = "00000000-0000-7000-8000-000000000000"
NO_ATTACH = POLICY + "  - {deny: attach, to: cn:alice, jobs: '*/*'}\n"


def on_terminal(server: Server, user: str, script: str) -> str:
    """A job with a terminal."""
    return server.ask(user, "start", "-t", "--", "sh", "-c", script)


def address(job: str) -> str:
    return f"/live/jobs/{job}/terminal"


def token(user: Browser) -> str:
    found = re.search('name="token" value="([0-9a-f]+)"', user.get("/start").text)
    assert found is not None
    return found[1]


@contextmanager
def opened(
    user: Browser, job: str, sharing: str = "alone", rows: int = 24, columns: int = 80
) -> Iterator[Socket]:
    """Its terminal, as the page opens it."""
    known = token(user)
    with web_socket(user, address(job)) as socket:
        socket.say(token=known, rows=rows, columns=columns, sharing=sharing)
        yield socket


def test_what_is_typed_comes_in_and_what_is_shown_comes_out(server: Server, alice: Browser) -> None:
    script = "echo before; while read -r line; do echo got $line; [ $line = end ] && exit 3; done"
    job = on_terminal(server, "alice", script)
    with opened(alice, job, rows=30, columns=100) as socket:
        socket.until_shown(b"before\r\n")
        assert socket.until_told("live")
        socket.type(b"hello\r")
        socket.until_shown(b"got hello\r\n")
        socket.type(b"end\r")
        over = socket.until_told("over")
        assert (over["words"], over["again"]) == ("the job has ended", False)
        socket.until_closed()
    # The session, with its bytes, is on record.
    until(lambda: [e for e in audited(server, "attach") if e["job"] == job and "up" in e] != [])


def test_its_size_is_the_pages(server: Server, alice: Browser) -> None:
    script = "while read -r line; do stty size; done"
    job = on_terminal(server, "alice", script)
    with opened(alice, job, rows=33, columns=101) as socket:
        socket.until_told("live")
        socket.type(b"\r")
        socket.until_shown(b"33 101")
        socket.say(rows=20, columns=50)
        socket.type(b"\r")
        socket.until_shown(b"20 50")
    server.ask("alice", "stop", job)


def test_leaving_leaves_the_job(server: Server, alice: Browser) -> None:
    job = on_terminal(server, "alice", "while read -r line; do echo got $line; done")
    for word in (b"one", b"two"):
        with opened(alice, job) as socket:
            socket.until_told("live")
            socket.type(word + b"\r")
            socket.until_shown(b"got " + word)
    # What was shown before is shown again.
    assert b"got one" in socket.shown
    server.ask("alice", "stop", job)


def test_one_types_at_a_time_unless_all_share(server: Server, alice: Browser) -> None:
    job = on_terminal(server, "alice", "while read -r line; do echo got $line; done")
    with opened(alice, job) as first:
        first.until_told("live")
        with opened(alice, job) as second:
            over = second.until_told("over")
            assert over["used"]
            assert "sends the job's input" in over["words"]
        with opened(alice, job, "over") as third:
            third.until_told("live")
            assert first.until_told("over")["used"]
            third.type(b"third\r")
            third.until_shown(b"got third")
    with opened(alice, job, "shared") as one, opened(alice, job, "shared") as other:
        one.until_told("live")
        other.until_told("live")
        one.type(b"x\r")
        other.until_shown(b"got x")
        other.type(b"y\r")
        one.until_shown(b"got y")
    server.ask("alice", "stop", job)


def test_another_site_cannot_open_it(server: Server, alice: Browser) -> None:
    """WebSockets know no same-origin policy: browsers open them for whichever site asks."""
    job = on_terminal(server, "alice", "read line; echo got $line; sleep 1000")
    alice.get("/jobs")
    for headers in (
        {"origin": "https://elsewhere.example"},
        {"origin": ""},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ):
        with pytest.raises(Refused) as refused, web_socket(alice, address(job), **headers):
            pass
        assert refused.value.status == 403, headers
    # Nor does a page without its token, or without the cookie that goes with it.
    known = token(alice)
    for cookie, said in ((alice.cookie, "0" * 64), ("", known)):
        with web_socket(alice, address(job), cookie=cookie) as socket:
            socket.say(token=said, rows=24, columns=80, sharing="alone")
            socket.type(b"mischief\r")
            assert "nothing was done" in socket.until_told("over")["words"]
            socket.until_closed()
    assert b"mischief" not in alice.get(f"/jobs/{job}/output").body
    server.ask("alice", "stop", job)


def test_it_is_for_who_may_attach_alone(server: Server, alice: Browser, ann: Browser) -> None:
    job = on_terminal(server, "alice", "sleep 1000")
    assert f'href="/jobs/{job}/terminal"' in alice.get(f"/jobs/{job}").text
    assert f'href="/jobs/{job}/terminal"' not in ann.get(f"/jobs/{job}").text
    with opened(ann, job) as socket:
        over = socket.until_told("over")
        assert over["words"].startswith("attach refused to cn=ann")
        assert not over["again"]
    bob = browser(server, "bob")
    for user, which in ((bob, job), (alice, NEVER)):
        with opened(user, which) as socket:
            assert "or it is not yours to see" in socket.until_told("over")["words"]
    assert bob.get(f"/jobs/{job}/terminal").status == 404
    plain = server.ask("alice", "start", "--", "sleep", "1000")
    assert alice.get(f"/jobs/{plain}/terminal").status == 400
    server.ask("alice", "stop", job, plain)


def test_a_right_that_is_taken_away_closes_it(fresh_server: Server) -> None:
    server = fresh_server
    alice = browser(server, "alice")
    job = on_terminal(server, "alice", "while read -r line; do echo got $line; done")
    with opened(alice, job) as socket:
        socket.until_told("live")
        (server.directory / "policy.yaml").write_text(NO_ATTACH)
        over = socket.until_told("over")
        assert "attach refused to cn=alice" in over["words"]
        socket.until_closed()
    assert f'href="/jobs/{job}/terminal"' not in alice.get(f"/jobs/{job}").text


def test_a_certificate_that_is_revoked_closes_it(fresh_server: Server) -> None:
    server = fresh_server
    alice = browser(server, "alice")
    job = on_terminal(server, "alice", "sleep 1000")
    with opened(alice, job) as socket:
        socket.until_told("live")
        server.authority.revoke(server.users["alice"])
        server.authority.write_crl(server.authority.certificate.with_suffix(".crl"))
        with suppress(OSError):
            socket.until_closed()


def test_a_page_that_draws_nothing_is_not_sent_everything(server: Server, alice: Browser) -> None:
    job = on_terminal(server, "alice", "read line; head -c 5000000 /dev/zero; echo; read line")
    with opened(alice, job) as socket:
        socket.until_told("live")
        socket.type(b"\r")
        # What comes while nothing is said to be drawn.
        while len(socket.shown) <= 256 * 1024:
            socket.read_once()
        server.ask("alice", "status", job)
        assert len(socket.shown) <= 1024 * 1024
        socket.say(shown=len(socket.shown))
        while len(socket.shown) < 5_000_000:
            socket.read_once()
            socket.say(shown=len(socket.shown))
    server.ask("alice", "stop", job)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "1", '{"token": 1}', '{"token": "x", "sharing": "mine"}', "[" * 60000],
)
def test_what_is_no_beginning_is_told(server: Server, alice: Browser, text: str) -> None:
    job = on_terminal(server, "alice", "sleep 1000")
    alice.get("/jobs")
    with web_socket(alice, address(job)) as socket:
        socket.text(text)
        assert "page's own" in socket.until_told("over")["words"]
    server.ask("alice", "stop", job)


def test_sizes_and_messages_have_bounds(server: Server, alice: Browser) -> None:
    job = on_terminal(server, "alice", "sleep 1000")
    for rows, columns in ((0, 80), (24, 1001), (-1, 80), (24, True and 10**9)):
        with opened(alice, job, rows=rows, columns=columns) as socket:
            assert "1 to 1000 rows" in socket.until_told("over")["words"]
    with opened(alice, job) as socket:
        socket.until_told("live")
        socket.type(b"x" * 70_000)
        socket.until_closed()
    server.ask("alice", "stop", job)
