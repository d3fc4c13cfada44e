"""The policy in force on a page: how it decides, for who may audit the jobs asked about."""

import re
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from tests.console.conftest import SETTINGS
from tests.front.admin.test_admin import audited
from tests.support.server import Server, running_server
from tests.support.web.browser import Answer, Browser, browser

USERS = (("alice", "team-a"), ("bob", "team-b"), ("ann", "audit"), ("eve", "audit"))
POLICY = """\
roles:
  watch: cn:ann
rules:
  - allow: [start, stop, signal, read]
    to: ou:*
    jobs: "{ou}/{cn}"
  - allow: [read, audit]
    to: role:watch
    jobs: "*/*"
  - allow: audit
    to: cn:bob
    jobs: team-b/*
  - deny: start
    to: cn:bob
    jobs: "*/*"
    command: /bin/false
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("policy")
    with running_server(directory, USERS, POLICY, SETTINGS) as running:
        yield running


def explained(user: Browser, **words: str) -> Answer:
    return user.get(f"/policy?{urlencode(words)}")


def test_who_audits_every_job_reads_all_of_it(ann: Browser) -> None:
    page = ann.get("/policy").text
    for words in ("role:watch", "cn:ann", "team-b/*", "/bin/false", "policy.yaml:"):
        assert words in page, words
    assert '<a href="/policy" aria-current="page">Policy</a>' in page


def test_it_explains_what_allows_and_what_denies(ann: Browser) -> None:
    asked = {"who": "cn=bob ou=team-b", "action": "start", "job": "team-b/bob"}
    page = explained(ann, **asked, command="/bin/true").text
    assert "Yes: start allowed to cn=bob ou=team-b for team-b/bob" in page
    page = explained(ann, **asked, command="/bin/false").text
    assert "No: start refused" in page
    (decides,) = re.findall('<tr class="decides">(.*?)</tr>', page, re.DOTALL)
    assert "deny" in decides
    assert "/bin/false" in decides
    page = explained(ann, who="cn=bob", action="stop", job="team-a/alice").text
    assert "No rule matches; the nearest are" in page


def test_others_ask_about_what_they_may_audit_alone(bob: Browser) -> None:
    page = bob.get("/policy").text
    assert "role:watch" not in page
    page = explained(bob, who="cn=ann ou=audit", action="output", job="team-b/bob").text
    assert "Yes: output allowed to cn=ann" in page
    # Which rules there are beside those that are about the job is not told.
    answer = explained(bob, who="cn=alice ou=team-a", action="stop", job="team-b/bob")
    assert answer.status == 200
    assert "No: stop refused" in answer.text
    assert "nearest" not in answer.text
    answer = explained(bob, who="cn=alice ou=team-a", action="stop", job="team-a/alice")
    assert answer.status == 403
    assert "audit refused to cn=bob ou=team-b for team-a/alice" in answer.text
    assert "Yes:" not in answer.text


def test_who_may_audit_nothing_is_offered_nothing(server: Server) -> None:
    for user in ("alice", "eve"):
        one = browser(server, user)
        assert one.get("/policy").status == 403
        assert 'href="/policy"' not in one.get("/jobs").text


@pytest.mark.parametrize(
    ("who", "action", "job", "command", "words"),
    [
        ("bob", "stop", "team-b/bob", "", "is nobody; write cn=NAME"),
        ("cn=bob", "stop", "bob", "", "write TENANT/OWNER"),
        ("cn=bob", "dance", "team-b/bob", "", "is no action"),
        ("cn=bob", "start", "team-b/bob", "'", "a quote without its end"),
        ("cn=<b>", "stop", "team-b/bob", "", "the name"),
    ],
)
def test_what_means_nothing_is_told(
    ann: Browser, who: str, action: str, job: str, command: str, words: str
) -> None:
    answer = explained(ann, who=who, action=action, job=job, command=command)
    assert answer.status == 400
    assert words in answer.text
    assert "<b>" not in answer.text


def test_it_is_on_record(server: Server, ann: Browser) -> None:
    explained(ann, who="cn=alice ou=team-a", action="stop", job="team-a/record")
    browser(server, "eve").get("/policy")
    told = [(one["cn"], one["owner"]) for one in audited(server, "audit")]
    assert ("ann", "record") in told
    assert ("eve", "*") in told
