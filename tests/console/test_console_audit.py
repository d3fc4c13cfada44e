"""The audit log on a page: what is found in it, and for whom."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from jobworker.authz.audit.files import files_of
from jobworker.console.pages.audit import MOST_SHOWN
from tests.console.conftest import SETTINGS
from tests.front.admin.test_admin import audited
from tests.support.server import Server, running_server
from tests.support.waiting import until
from tests.support.web.browser import CONSOLE, Answer, Browser, browser

USERS = (("alice", "team-a"), ("bob", "team-b"), ("ann", "audit"))
POLICY = """\
rules:
  - allow: "*"
    to: cn:*
    jobs: "{ou}/{cn}"
  - allow: [read, audit]
    to: cn:ann
    jobs: "*/*"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("audit"), USERS, POLICY, SETTINGS) as running:
        yield running


def found(looker: Browser, **words: str) -> Answer:
    return looker.get(f"/audit?{urlencode(words)}")


def rows(answer: Answer) -> list[str]:
    """The rows of the table."""
    assert answer.status == 200, answer.text
    return re.findall("<tr>(.*?)</tr>", answer.text.partition("<tbody>")[2], re.DOTALL)


def test_it_is_searched_by_who_what_and_whose(server: Server, ann: Browser) -> None:
    hostile = "<script>document.title='run'</script>"
    job = server.ask("alice", "start", "--", "sh", "-c", f"true # {hostile}")
    server.end("alice", job)
    assert server.run("bob", "stop", job).returncode != 0
    until(lambda: len(rows(found(ann, job=job))) >= 3)
    page = found(ann, job=job, action="start")
    (row,) = rows(page)
    assert "start allowed" in row
    assert "alice (team-a)" in row
    assert f'href="/jobs/{job}"' in row
    assert "&lt;script&gt;" in row
    assert "<script>document" not in page.text
    assert rows(found(ann, job=job, user="ann", action="start")) == []
    (refused,) = rows(found(ann, user="bob", decision="refused", action="stop"))
    assert "stop refused" in refused
    assert [row for row in rows(found(ann, owner="alice", text="TRUE #")) if job in row]
    assert rows(found(ann, tenant="team-x")) == []
    assert "There is nothing of that." in found(ann, until="2020-01-01").text


def test_the_newest_are_shown(server: Server, ann: Browser) -> None:
    for _ in range(MOST_SHOWN + 1):
        ann.get("/jobs?state=running")
    answer = found(ann, user="ann", action="list")
    assert len(rows(answer)) == MOST_SHOWN
    assert "There are more than these 200" in answer.text
    times = re.findall("<td>([0-9-]+ [0-9:]+) UTC</td>", answer.text)
    assert len(times) == MOST_SHOWN
    assert times == sorted(times, reverse=True)


def test_it_is_for_who_may_audit_every_job(server: Server, alice: Browser, ann: Browser) -> None:
    assert 'href="/audit"' in ann.get("/me").text
    # Who may audit their own jobs alone.
    assert 'href="/audit"' not in alice.get("/me").text
    answer = found(alice, owner="bob")
    assert answer.status == 403
    assert "does not let you audit every one" in answer.text
    assert "<table>" not in answer.text
    found(ann)
    told = [(one["cn"], one["allowed"]) for one in audited(server, "audit")]
    assert ("alice", False) in told
    assert ("ann", True) in told


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("since", "yesterday", "nor a time"),
        ("until", "1e99d", "nor a time"),
        ("since", "99999-01-01", "nor a time"),
        ("decision", "maybe", "a decision is allowed or refused"),
    ],
)
def test_what_means_nothing_is_told(ann: Browser, name: str, text: str, words: str) -> None:
    answer = found(ann, **{name: text})
    assert answer.status == 400
    assert words in answer.text


def test_a_log_that_was_damaged_is_told_of(tmp_path: Path) -> None:
    with running_server(tmp_path, USERS, POLICY, SETTINGS) as server:
        ann = browser(server, "ann")
        ann.get("/jobs")
        with files_of(tmp_path / "audit")[-1].open("ab") as log:
            log.write(b"no record\n")
        assert "Of the lines 1 are no records" in found(ann).text


def test_a_server_without_a_log_says_so(tmp_path: Path) -> None:
    with running_server(tmp_path, USERS, POLICY, CONSOLE) as server:
        answer = browser(server, "ann").get("/audit")
        assert answer.status == 400
        assert "this server keeps no audit log" in answer.text
