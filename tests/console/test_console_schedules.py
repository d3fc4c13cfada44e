"""What is started again and again, on its page."""

import re

from tests.support.server import Server
from tests.support.web.browser import Browser


def test_schedules_are_shown_and_changed(
    server: Server, alice: Browser, bob: Browser, ann: Browser
) -> None:
    words = ("--name", "nightly", "--cron", "30 2 * * *", "--tz", "UTC")
    server.ask("alice", "schedule", "add", *words, "--", "echo", "<b>ran</b>")
    page = alice.get("/schedules").text
    assert "<code>30 2 * * *</code>" in page
    assert "&lt;b&gt;ran&lt;/b&gt;" in page
    assert "nightly" not in bob.get("/schedules").text
    # Who may only look is offered nothing.
    assert "nightly" in ann.get("/schedules").text
    assert "<button" not in ann.get("/schedules").text
    fields = {"name": "nightly", "owner": "alice"}
    refused = ann.press("/schedules/pause", "/start", **fields)
    assert refused.status == 403
    hidden = bob.press("/schedules/pause", "/start", **fields)
    assert hidden.status == 404
    answer = alice.press("/schedules/run", "/schedules", **fields)
    assert (answer.status, answer.headers["location"]) == (303, "/schedules")
    job = re.search('<a href="/jobs/([0-9a-f-]{36})"', alice.get("/schedules").text)
    assert job is not None
    server.end("alice", job[1])
    assert server.ask("alice", "logs", job[1]) == "<b>ran</b>"
    alice.press("/schedules/pause", "/schedules", **fields)
    assert '<td data-name="Next">paused</td>' in alice.get("/schedules").text
    assert 'action="/schedules/resume"' in alice.get("/schedules").text
    alice.press("/schedules/resume", "/schedules", **fields)
    assert alice.press("/schedules/dance", "/schedules", **fields).status == 400
    alice.press("/schedules/remove", "/schedules", **fields)
    assert "nightly" not in alice.get("/schedules").text
