"""`jobworker top` on a real terminal, and `stats -w`."""

import json

from tests.support.server import Server
from tests.support.session.terminal import Terminal, on_terminal

BUSY = ("sh", "-c", "while :; do :; done")
FAST = ("--interval", "0.2s")
CTRL_C = "\x03"


def order(terminal: Terminal, *words: str) -> list[str]:
    """The words that lines of the screen begin with, of those, from top to bottom."""
    return [word for line in terminal.lines() for word in words if line.startswith(word)]


def test_jobs_are_sorted_by_what_they_use_now(server: Server) -> None:
    busy = server.ask("alice", "start", "--", *BUSY)
    idle = server.ask("alice", "start", "--", "sleep", "1000")
    with on_terminal(server, "alice", "top", *FAST) as top:
        top.until(f"^{busy[-8:]} +alice +running +[1-9][0-9.]* .* sh -c")
        top.until("CPU %↓")
        top.until(f"^{idle[-8:]}")
        assert order(top, busy[-8:], idle[-8:]) == [busy[-8:], idle[-8:]]
        top.until("^2 jobs, 0 pending")
        top.type("t")
        top.until("TIME↓")
        top.type("rr3")
        top.until("^TENANT")
        top.until("^team-a +2 +0")
        top.type("2")
        top.until("^USER")
        top.until("^alice +2 +0")
        # Another size is another screen.
        top.resize(30, 140)
        top.type("1")
        top.until("READ/s")
        top.type("q")
        assert top.end() == 0
    # What was there before is there again.
    assert b"\x1b[?1049l" in top.seen
    server.ask("alice", "stop", busy, idle)


def test_only_what_one_may_see_is_shown_and_names_are_text(server: Server) -> None:
    hostile = "[red]\x1b]0;title\x07[/]"
    other = server.ask("bob", "start", "--", "sleep", "1000")
    mine = server.ask("alice", "start", "--", "sh", "-c", f"sleep 1000 # {hostile}")
    with on_terminal(server, "alice", "top", *FAST) as top:
        top.resize(24, 200)
        top.until(r"# \[red\]")
        assert top.line(f"^{mine[-8:]}")
        assert top.line(f"^{other[-8:]}") is None
        top.type(CTRL_C)
        assert top.end() == 0
    assert b"\x1b]0;" not in top.seen
    with on_terminal(server, "ann", "top", "--by", "tenant") as top:
        top.until("^team-b +1")
        top.until("^team-a +1")
        top.type("q")
        assert top.end() == 0
    server.ask("alice", "stop", mine)
    server.ask("bob", "stop", other)


def test_jobs_come_and_go(server: Server) -> None:
    job = server.ask("alice", "start", "--", "sleep", "1000")
    with on_terminal(server, "alice", "top", *FAST) as top:
        top.until(f"^{job[-8:]}")
        server.ask("alice", "stop", job)
        top.until("^0 jobs")
        again = server.ask("alice", "start", "--", "sleep", "1000")
        top.until(f"^{again[-8:]}")
        top.type("q")
        assert top.end() == 0
    server.ask("alice", "stop", again)


def test_it_needs_a_terminal_and_a_server(server: Server) -> None:
    done = server.run("alice", "top")
    assert done.returncode == 2
    assert "top needs a terminal: take `stats`, or `stats -w`" in done.stderr.decode()
    with on_terminal(server, "alice", "top", "--server", f"{server.host}:1") as top:
        assert top.end() not in {0, 1}
    assert b"nothing listens there" in top.seen


def test_stats_again_and_again_until_the_jobs_have_ended(server: Server) -> None:
    job = server.ask("alice", "start", "--", "sleep", "1000")
    words = ("stats", "-w", *FAST, "-o", "json", job)
    with server.popen("alice", *words) as process:
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert {one["state"] for one in seen} == {"running"}
        server.ask("alice", "stop", job)
        *_, last = [json.loads(line) for line in process.stdout]
        assert last["state"] == "ended"
        assert process.wait() == 0


def test_stats_of_what_runs_on_a_terminal(server: Server) -> None:
    job = server.ask("alice", "start", "--", "sleep", "1000")
    with on_terminal(server, "alice", "stats", "-w", *FAST) as stats:
        stats.until(f"^{job[-8:]} +alice")
        server.ask("alice", "stop", job)
        stats.until_gone(f"^{job[-8:]}")
        stats.until("^JOB +OWNER")
        stats.type(CTRL_C)
        assert stats.end() == 130
