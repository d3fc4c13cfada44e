"""What is done to several jobs at once, chosen in the list."""

import re
from urllib.parse import urlencode

from tests.support.server import Server
from tests.support.web.browser import Answer, Browser


def sleeping(server: Server, user: str, number: int) -> list[str]:
    return [server.ask(user, "start", "--", "sleep", "1000") for _ in range(number)]


def press(user: Browser, do: str, jobs: list[str], **fields: str) -> Answer:
    """Choose jobs in the list, and press a button."""
    token = re.search('name="token" value="([0-9a-f]+)"', user.get("/jobs").text)
    assert token is not None
    pairs = [("token", token[1]), ("do", do), *fields.items(), *(("job", job) for job in jobs)]
    headers = {"content-type": "application/x-www-form-urlencoded", "origin": user.origin}
    return user.ask("POST", "/jobs", headers, urlencode(pairs).encode())


def state(user: Browser, job: str) -> str:
    found = re.search("<dt>State</dt><dd>(.*?)</dd>", user.get(f"/jobs/{job}").text)
    assert found is not None
    return found[1]


def test_several_are_paused_resumed_stopped_and_removed(server: Server, alice: Browser) -> None:
    jobs = sleeping(server, "alice", 3)
    for do, words in (("pause", "paused"), ("resume", "running")):
        answer = press(alice, do, jobs[:2], query="state=not+ended&name=%3Cb%3E")
        assert answer.status == 303
        assert answer.headers["location"] == "/jobs?state=not+ended&name=%3Cb%3E"
        assert [state(alice, job) for job in jobs] == [words, words, "running"]
    assert press(alice, "stop", jobs).status == 303
    for job in jobs:
        server.end("alice", job)
    assert press(alice, "remove", jobs).status == 303
    assert alice.get(f"/jobs/{jobs[0]}").status == 404


def test_a_signal_goes_to_several(server: Server, alice: Browser) -> None:
    jobs = sleeping(server, "alice", 2)
    assert press(alice, "signal", jobs, signal="INT").status == 303
    for job in jobs:
        server.end("alice", job)
        assert state(alice, job) == "killed by SIGINT"


def test_each_is_decided_by_itself(
    server: Server, alice: Browser, bob: Browser, ann: Browser
) -> None:
    mine, others = sleeping(server, "bob", 1), sleeping(server, "alice", 1)
    answer = press(bob, "stop", [*mine, *others])
    assert answer.status == 409
    assert "Of 2 jobs it was not done to 1." in answer.text
    assert f"there is no job &#39;{others[0]}&#39;, or it is not yours to see" in answer.text
    server.end("bob", mine[0])
    assert state(alice, others[0]) == "running"
    # Who may only look has nothing to choose, and is told so by job where they press all the same.
    page = ann.get("/jobs").text
    assert others[0] in page
    assert 'name="job"' not in page
    answer = press(ann, "stop", others)
    assert answer.status == 409
    assert "stop refused to cn=ann" in answer.text
    assert press(alice, "stop", others).status == 303


def test_another_site_cannot_press(server: Server, alice: Browser) -> None:
    jobs = sleeping(server, "alice", 1)
    fields = {"do": "stop", "job": jobs[0]}
    alice.get("/jobs")
    assert alice.post("/jobs", fields, origin="https://elsewhere.example").status == 403
    assert alice.post("/jobs", fields, origin=alice.origin).status == 409
    assert alice.post("/jobs", {**fields, "token": "0" * 64}, origin=alice.origin).status == 409
    assert state(alice, jobs[0]) == "running"
    assert press(alice, "stop", jobs).status == 303


def test_what_means_nothing_is_told(server: Server, alice: Browser) -> None:
    (job,) = sleeping(server, "alice", 1)
    for do, jobs, words in (
        ("stop", [], "choose the jobs first"),
        ("dance", [job], "no such button"),
        ("again", [job], "no such button"),
        ("signal", [job], "no such signal"),
        ("stop", [job] * 60, "this is no form"),
    ):
        answer = press(alice, do, jobs, signal="STOP")
        assert answer.status == 400, do
        assert words in answer.text
    # Back is the list, whatever the browser says.
    query = "//elsewhere.example/?x=\r\nset-cookie: y"
    location = press(alice, "stop", [job], query=query).headers["location"]
    assert location.startswith("/jobs?")
    assert "\r" not in location
