"""Jobs that wait for their turn, on pages: where one's turn is not yet there is no output."""

import os
from pathlib import Path

from tests.conftest import POLICY, USERS
from tests.console.conftest import SETTINGS
from tests.support.server import running_server
from tests.support.web.browser import browser

AS_ROOT = "users: {jobs_run_as_root: true}, " if os.geteuid() == 0 else ""
QUEUES = f"jobs: {{{AS_ROOT}queues: {{narrow: {{parallel: 1}}}}}}\n"


def test_who_waits_for_what(tmp_path: Path) -> None:
    with running_server(tmp_path, USERS, POLICY, SETTINGS + QUEUES) as server:
        alice, bob = browser(server, "alice"), browser(server, "bob")
        start = ("start", "--queue", "narrow")
        first = server.ask("alice", *start, "--", "sleep", "1000")
        waits = server.ask("alice", *start, "--priority", "7", "--", "echo", "my turn")
        page = alice.get("/queue").text
        assert waits in page
        assert first not in page
        assert '<td data-name="Queue">narrow</td><td data-name="Priority">7</td>' in page
        assert waits not in bob.get("/queue").text
        page = alice.get(f"/jobs/{waits}").text
        assert "<dd>pending</dd>" in page
        assert "narrow" in page
        with alice.events(f"/live/jobs/{waits}?from=0") as events:
            assert events.until("status")["facts"]["State"] == "pending"
            alice.press(f"/jobs/{first}/stop", f"/jobs/{first}")
            assert events.until("output") == [["stdout", "my turn\n"]]
        # One that is stopped before its turn.
        again = server.ask("alice", *start, "--", "sleep", "1000")
        other = server.ask("alice", *start, "--", "true")
        assert alice.press(f"/jobs/{other}/stop", f"/jobs/{other}").status == 303
        assert "stopped before its turn" in alice.get(f"/jobs/{other}").text
        server.ask("alice", "stop", again)
