"""Pages as things happen: lists, states and output by server-sent events."""

import contextlib
import http.client
import signal
import ssl
from pathlib import Path

from tests.conftest import POLICY, USERS
from tests.console.conftest import SETTINGS
from tests.front.test_front_killed import front_of
from tests.front.test_reload_policy import NO_OUTPUT_FOR_ALICE, rename_over
from tests.support.server import Server, running_server
from tests.support.waiting import until
from tests.support.web.browser import Browser, Events, browser

# Writes a line, and what comes next when the file is there.
WAITS = 'echo first; while [ ! -e "$0" ]; do sleep 0.05; done; echo second >&2'


def read_until(events: Events, text: str) -> list[tuple[str, str]]:
    """The pieces of output up to the one that holds a text."""
    pieces: list[tuple[str, str]] = []
    while not any(text in piece for _, piece in pieces):
        pieces += [(stream, piece) for stream, piece in events.until("output")]
    return pieces


def test_a_list_follows_what_happens(server: Server, alice: Browser, bob: Browser) -> None:
    with alice.events("/live/jobs?state=not+ended") as mine, bob.events("/live/jobs") as others:
        assert mine.until("jobs") == []
        assert others.until("jobs") == []
        job = server.ask("alice", "start", "--", "sleep", "1000")
        (row,) = mine.until("jobs")
        assert (row["id"], row["owner"], row["state"]) == (job, "alice", "running")
        server.ask("alice", "stop", job)
        while (rows := mine.until("jobs")) != []:
            assert rows[0]["id"] == job
        other = server.ask("bob", "start", "--", "true")
        # Of alice's nothing has come to bob.
        assert [row["id"] for row in others.until("jobs")] == [other]


def test_a_job_is_followed_to_its_end(server: Server, alice: Browser, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = server.ask("alice", "start", "--", "sh", "-c", WAITS, str(go))
    told = []
    with alice.events(f"/live/jobs/{job}?from=0") as events:
        for kind, data in events:
            told.append((kind, data))
            if kind == "output" and data == [["stdout", "first\n"]]:
                go.touch()
    assert told[-1] == ("end", {})
    assert ("output", [["stderr", "second\n"]]) in told
    states = [data for kind, data in told if kind == "status"]
    assert states[0]["facts"]["State"] in ("starting", "running")
    assert states[-1]["facts"]["State"] == "exited with 0"
    assert states[-1]["mood"] == "good"


def test_who_connects_anew_goes_on_where_they_were(
    server: Server, alice: Browser, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    job = server.ask("alice", "start", "--", "sh", "-c", WAITS, str(go))
    with alice.events(f"/live/jobs/{job}?from=0") as events:
        read_until(events, "first")
        number = events.number
    assert number == "6"
    go.touch()
    server.end("alice", job)
    with alice.events(f"/live/jobs/{job}?from=0", last_event_id=number) as events:
        pieces = [tuple(piece) for kind, data in events if kind == "output" for piece in data]
    assert pieces == [("stderr", "second\n")]


def test_who_is_far_behind_is_shown_the_end(server: Server, alice: Browser) -> None:
    job = server.ask("alice", "start", "--", "seq", "1000000")
    server.end("alice", job)
    with alice.events(f"/live/jobs/{job}?from=0") as events:
        pieces = [tuple(piece) for kind, data in events if kind == "output" for piece in data]
    assert pieces[0] == ("gap", "")
    assert pieces[-1][1].endswith("999999\n1000000\n")
    assert sum(len(text) for _, text in pieces) <= 128 * 1024


def test_who_may_not_read_output_follows_the_state_alone(fresh_server: Server) -> None:
    rename_over(fresh_server.directory / "policy.yaml", NO_OUTPUT_FOR_ALICE)
    alice = browser(fresh_server, "alice")
    job = fresh_server.ask("alice", "start", "--", "printf", "se%s", "cret")
    until(lambda: alice.get(f"/jobs/{job}/output").status == 403)
    page = alice.get(f"/jobs/{job}").text
    assert "secret" not in page
    assert 'id="output"' not in page
    assert alice.get(f"/live/jobs/{job}?from=0").status == 403
    with alice.events(f"/live/jobs/{job}?from=") as events:
        told = list(events)
    assert [kind for kind, _ in told if kind != "status"] == ["end"]
    assert "secret" not in str([data for kind, data in told if kind == "output"])


def test_a_right_that_is_taken_away_ends_the_stream(fresh_server: Server) -> None:
    alice = browser(fresh_server, "alice")
    job = fresh_server.ask("alice", "start", "--", "sh", "-c", "echo first; sleep 1000")
    with alice.events(f"/live/jobs/{job}?from=0") as events:
        read_until(events, "first")
        rename_over(fresh_server.directory / "policy.yaml", NO_OUTPUT_FOR_ALICE)
        over = events.until("over")
        assert "output refused to cn=alice" in over["words"]
        assert over["again"] is False
        assert list(events) == []
    rename_over(fresh_server.directory / "policy.yaml", POLICY)


def test_a_list_loses_what_one_may_list_no_more(fresh_server: Server) -> None:
    ann = browser(fresh_server, "ann")
    fresh_server.ask("alice", "start", "--", "sleep", "1000")
    with ann.events("/live/jobs") as events:
        assert len(events.until("jobs")) == 1
        hides = POLICY + '  - {deny: "*", to: "cn:ann", jobs: "team-a/*"}\n'
        rename_over(fresh_server.directory / "policy.yaml", hides)
        assert events.until("jobs") == []


def test_a_front_that_is_killed_comes_back(fresh_server: Server) -> None:
    alice = browser(fresh_server, "alice")
    job = fresh_server.ask("alice", "start", "--", "sleep", "1000")
    page = alice.get(f"/jobs/{job}").text
    assert "/stop" in page
    front_of(fresh_server).send_signal(signal.SIGKILL)
    # The keeper has the socket: who comes meanwhile waits.
    assert until_answered(alice, f"/jobs/{job}") == 200
    # Its form is from before.
    answer = alice.post(f"/jobs/{job}/stop", {"token": "0" * 64}, origin=alice.origin)
    assert answer.status == 409
    assert "open it again" in answer.text
    assert alice.press(f"/jobs/{job}/stop", f"/jobs/{job}").status == 303


def until_answered(user: Browser, path: str) -> int:
    """The status, once there is an answer; those that the old front took are cut."""
    answers = []

    def answered() -> bool:
        with contextlib.suppress(ConnectionError, ssl.SSLError, http.client.HTTPException):
            answers.append(user.get(path).status)
        return bool(answers)

    until(answered)
    return answers[-1]


def test_streams_end_with_the_service(tmp_path: Path) -> None:
    with contextlib.ExitStack() as after:
        with running_server(tmp_path, USERS, POLICY, SETTINGS) as server:
            events = after.enter_context(browser(server, "alice").events("/live/jobs"))
            events.until("jobs")
        # It did not wait for its readers, and told them that this is the end.
        assert [kind for kind, _ in events if kind != "jobs"] == []
