"""Who uses what now, on a page: sums of the jobs that one may see, and of no others."""

import re
from pathlib import Path

from tests.conftest import POLICY, USERS
from tests.console.conftest import SETTINGS
from tests.support.server import Server, running_server
from tests.support.web.browser import Browser, browser

AUDITS = POLICY.replace("allow: read", "allow: [read, audit]")


def rows(page: str) -> list[list[str]]:
    """The cells of the page's rows."""
    found = re.findall("<tr[^>]*>(.*?)</tr>", page, re.DOTALL)
    return [re.findall("<td[^>]*>(.*?)</td>", row) for row in found if "<td" in row]


def test_jobs_are_added_up_by_tenant_and_user(
    fresh_server: Server,
) -> None:
    server = fresh_server
    alice, bob, ann = (browser(server, user) for user in ("alice", "bob", "ann"))
    assert "None that you may see." in alice.get("/usage").text
    jobs = [server.ask("alice", "start", "--", "sleep", "1000") for _ in range(2)]
    other = server.ask("bob", "start", "--", "sleep", "1000")
    ended = server.ask("bob", "start", "--", "echo", "12345")
    server.end("bob", ended)
    mine = rows(alice.get("/usage").text)
    assert [row[:4] for row in mine[:2]] == [
        ["team-a", "all", "2", "0"],
        ["team-a", "alice", "2", "0"],
    ]
    assert not any("team-b" in row for row in mine)
    page = ann.get("/usage").text
    told = {(row[0], row[1]): row[2:] for row in rows(page) if len(row) > 3}
    assert set(told) == {
        ("team-a", "all"),
        ("team-a", "alice"),
        ("team-b", "all"),
        ("team-b", "bob"),
    }
    assert told["team-b", "bob"][:2] == ["1", "0"]
    assert ["team-b", "bob", "6 B"] in rows(page)
    # The host is shown to who may audit every job alone.
    assert "This host" not in page
    for job in jobs:
        server.ask("alice", "stop", job)
    server.ask("bob", "stop", other)
    assert "None that you may see." in bob.get("/usage").text.partition("Output that is kept")[0]


def test_who_audits_every_job_sees_the_host(tmp_path: Path) -> None:
    with running_server(tmp_path, USERS, AUDITS, SETTINGS) as server:
        page = browser(server, "ann").get("/usage").text
        for words in ("This host", "Processors", "Load", "Disk of the state"):
            assert words in page, words
        assert "This host" not in browser(server, "alice").get("/usage").text


def test_the_sums_follow_what_happens(server: Server, alice: Browser, bob: Browser) -> None:
    with alice.events("/live/usage") as events:
        assert events.until("usage") == []
        other = server.ask("bob", "start", "--", "sleep", "1000")
        job = server.ask("alice", "start", "--", "sh", "-c", "while :; do :; done")
        while not (told := events.until("usage")):
            pass
        assert {row["tenant"] for row in told} == {"team-a"}
        while not float(told[0]["cpus"] or 0) > 0.1:
            told = events.until("usage")
        server.ask("alice", "stop", job)
        while events.until("usage"):
            pass
    server.ask("bob", "stop", other)
