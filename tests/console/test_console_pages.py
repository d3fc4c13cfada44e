"""The console's pages, without a script: what they show, and what their buttons do."""

import html
import re
from pathlib import Path

import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.support.client import calling, start
from tests.support.server import Server
from tests.support.web.browser import Browser

NEVER = "00000000-0000-7000-8000-000000000000"


def done(server: Server, user: str, *command: str) -> str:
    """Run a command to its end; its job's ID."""
    job = server.ask(user, "start", "--", *command)
    server.end(user, job)
    return job


def listed(page: str) -> list[str]:
    """The IDs of the jobs on a page, in its order."""
    return re.findall(r'<a href="/jobs/([0-9a-f-]{36})"', page)


def test_the_first_page_is_the_list(alice: Browser) -> None:
    answer = alice.get("/")
    assert (answer.status, answer.headers["location"]) == (303, "/jobs")


def test_jobs_are_listed_newest_first_and_ones_own_alone(
    server: Server, alice: Browser, bob: Browser, ann: Browser
) -> None:
    first, second = done(server, "alice", "true"), done(server, "alice", "true")
    other = done(server, "bob", "true")
    assert listed(alice.get("/jobs").text)[:2] == [second, first]
    assert other not in alice.get("/jobs").text
    assert listed(bob.get("/jobs").text) == [other]
    assert listed(ann.get("/jobs").text)[:3] == [other, second, first]


def test_filters_are_those_of_list(server: Server, alice: Browser, ann: Browser) -> None:
    ended = done(server, "alice", "true")
    runs = server.ask("alice", "start", "--", "sleep", "1000")
    try:
        assert listed(alice.get("/jobs?state=not+ended").text) == [runs]
        assert ended in listed(ann.get("/jobs?owner=alice").text)
        assert ended in listed(ann.get("/jobs?tenant=team-a").text)
        assert listed(ann.get("/jobs?owner=nobody").text) == []
        assert listed(alice.get("/jobs?state=running").text) == [runs]
        assert runs not in listed(alice.get("/jobs?state=ended").text)
        assert alice.get("/jobs?state=dancing").status == 400
    finally:
        server.ask("alice", "stop", runs)


def test_jobs_are_found_by_name_label_command_and_failure(server: Server, alice: Browser) -> None:
    words = (
        "run",
        "--name",
        "nightly-7",
        "--label",
        "team=<b>",
        "--",
        "sh",
        "-c",
        "exit 4 # needle",
    )
    assert server.run("alice", *words).returncode == 4
    (job,) = listed(alice.get("/jobs?name=nightly-*").text)
    for query in (
        "label=team",
        "label=team%3D%3Cb%3E",
        "command=needle",
        "state=failed&name=night*",
    ):
        assert listed(alice.get(f"/jobs?{query}").text) == [job], query
    for query in (
        "label=team%3Dother",
        "name=nothing",
        "command=haystack",
        "name=night*&state=running",
    ):
        assert listed(alice.get(f"/jobs?{query}").text) == [], query
    page = alice.get(f"/jobs/{job}").text
    assert "<dt>Labels</dt><dd>team=&lt;b&gt;</dd>" in page


def test_older_jobs_are_on_further_pages(server: Server, bob: Browser) -> None:
    with calling(server, "bob") as worker:
        worker.Prune(pb.PruneRequest())
        jobs = [start(worker, "true") for _ in range(52)]
    first = bob.get("/jobs").text
    assert listed(first) == jobs[:1:-1]
    older = re.search(r'<a href="(/jobs\?before=[^"]+)">Older', first)
    assert older is not None
    second = bob.get(older[1]).text
    assert listed(second) == jobs[1::-1]
    assert '<a href="/jobs?">Newest</a>' in second


def test_a_jobs_page_tells_of_it(server: Server, alice: Browser) -> None:
    script = "echo to stdout; echo to stderr >&2; exit 3"
    job = done(server, "alice", "sh", "-c", script)
    page = alice.get(f"/jobs/{job}").text
    assert "exited with 3" in page
    assert "alice (tenant team-a)" in page
    assert '<span class="stdout">to stdout\n</span>' in page
    assert '<span class="stderr">to stderr\n</span>' in page
    assert re.search(r'data-act="remove">', page)
    assert re.search(r'data-act="stop" hidden>', page)


def test_a_script_is_shown_with_its_lines(server: Server, alice: Browser) -> None:
    job = done(server, "alice", "sh", "-c", "true\n# \x1b[31m <i>")
    page = alice.get(f"/jobs/{job}").text
    assert "<code>sh -c &#39;true\n# \\x1b[31m &lt;i&gt;&#39;</code></pre>" in page
    assert "true\\x0a#" in alice.get("/jobs").text


def test_of_long_output_the_last_lines_are_shown(server: Server, alice: Browser) -> None:
    job = done(server, "alice", "seq", "100000")
    page = alice.get(f"/jobs/{job}").text
    shown = page.partition('<pre id="output"')[2].partition(">")[2].partition("</pre>")[0]
    lines = re.sub("<[^>]*>", "", shown).splitlines()
    assert lines == [str(number) for number in range(99801, 100001)]


def test_output_is_downloaded_as_it_is(server: Server, alice: Browser) -> None:
    job = done(server, "alice", "sh", "-c", "printf '\\033[1m\\377<b>'; echo other >&2")
    answer = alice.get(f"/jobs/{job}/output?stream=stdout")
    assert answer.body == b"\x1b[1m\xff<b>"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == f'attachment; filename="job-{job}.out"'
    assert alice.get(f"/jobs/{job}/output?stream=stderr").body == b"other\n"
    assert len(alice.get(f"/jobs/{job}/output").body) == len(b"\x1b[1m\xff<b>other\n")


def test_a_running_job_is_paused_resumed_and_stopped(server: Server, alice: Browser) -> None:
    job = server.ask("alice", "start", "--", "sleep", "1000")
    page = f"/jobs/{job}"
    for act, state in (("pause", "paused"), ("resume", "running")):
        answer = alice.press(f"{page}/{act}", page)
        assert (answer.status, answer.headers["location"]) == (303, page)
        assert f"<dt>State</dt><dd>{state}</dd>" in alice.get(page).text
    assert alice.press(f"{page}/stop", page).status == 303
    server.end("alice", job)
    assert "stopped, killed by SIGTERM" in alice.get(page).text
    answer = alice.press(f"{page}/remove", page)
    assert (answer.status, answer.headers["location"]) == (303, "/jobs")
    assert alice.get(page).status == 404


def test_nothing_is_offered_that_would_be_refused(server: Server, ann: Browser) -> None:
    job = server.ask("alice", "start", "--", "sleep", "1000")
    try:
        page = ann.get(f"/jobs/{job}").text
        assert 'id="output"' in page
        assert 'method="post"' not in page
        answer = ann.press(f"/jobs/{job}/stop", "/start")
        assert answer.status == 403
        assert "refused to cn=ann" in answer.text
    finally:
        server.ask("alice", "stop", job)


@pytest.mark.parametrize("path", ["", "/output", "/stop"])
def test_a_hidden_job_is_answered_like_one_that_never_was(
    server: Server, alice: Browser, path: str
) -> None:
    hidden = done(server, "bob", "true")
    answers = []
    for job in (hidden, NEVER):
        address = f"/jobs/{job}{path}"
        answer = alice.press(address, "/start") if path == "/stop" else alice.get(address)
        told = {name: text for name, text in answer.headers.items() if name != "set-cookie"}
        answers.append((answer.status, told, answer.text.replace(job, "ID")))
    assert answers[0][0] == 404
    assert answers[0] == answers[1]


def test_live_streams_of_a_hidden_job_are_not_there(server: Server, alice: Browser) -> None:
    hidden = done(server, "bob", "true")
    answers = [alice.get(f"/live/jobs/{job}?from=0") for job in (hidden, NEVER)]
    assert [answer.status for answer in answers] == [404, 404]


def test_a_job_is_started_from_the_form(server: Server, alice: Browser) -> None:
    command = "sh -c 'echo \"$0\" two' one"
    answer = alice.press("/start", "/start", command=command, name="from-a-form", do="start")
    assert answer.status == 303
    job = answer.headers["location"].removeprefix("/jobs/")
    server.end("alice", job)
    assert server.ask("alice", "logs", job) == "one two"
    assert "from-a-form" in alice.get("/jobs").text


def test_a_job_is_started_again_from_another(server: Server, alice: Browser) -> None:
    job = done(server, "alice", "sh", "-c", "echo 'a & \"b\"' <&1")
    link = re.search('<a href="([^"]+)">Fill in', alice.get(f"/jobs/{job}").text)
    assert link is not None
    form = html.unescape(alice.get(html.unescape(link[1])).text)
    assert "\nsh -c 'echo '\"'\"'a & \"b\"'\"'\"' <&1'</textarea>" in form
    long = done(server, "alice", "true", "x" * 5000)
    assert "Fill in" not in alice.get(f"/jobs/{long}").text


def test_one_button_starts_a_job_again(server: Server, alice: Browser, ann: Browser) -> None:
    job = done(server, "alice", "sh", "-c", "echo once more")
    key = re.search('name="key" value="([0-9a-f]+)"', alice.get(f"/jobs/{job}").text)
    assert key is not None
    again = f"/jobs/{job}/again"
    first, second = (alice.press(again, f"/jobs/{job}", key=key[1]) for _ in range(2))
    assert first.status == 303
    assert first.headers["location"] == second.headers["location"] != f"/jobs/{job}"
    other = first.headers["location"].removeprefix("/jobs/")
    server.end("alice", other)
    assert server.ask("alice", "logs", other) == "once more"
    assert 'data-act="again"' not in ann.get(f"/jobs/{job}").text
    assert ann.press(again, "/start").status == 403


def test_a_form_that_is_sent_twice_starts_one_job(server: Server, alice: Browser) -> None:
    fields = {"command": "true", "do": "start", "key": "pressed-twice"}
    first, second = (alice.press("/start", "/start", **fields) for _ in range(2))
    assert first.headers["location"] == second.headers["location"]


def test_the_form_says_what_can_i_says(alice: Browser, bob: Browser) -> None:
    yes = alice.press("/start", "/start", command="true", do="ask").text
    assert re.search(r'role="alert">Yes: ', yes)
    no = bob.press("/start", "/start", command="/bin/false", do="ask")
    assert re.search(r'role="alert">No: .*refused to cn=bob', no.text)
    assert "/bin/false" in no.text
    refused = bob.press("/start", "/start", command="/bin/false", do="start")
    assert refused.status == 403
    assert "refused to cn=bob" in refused.text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"command": ""}, "say what is to be started"),
        ({"command": "echo 'x"}, "quote without its end"),
        ({"command": "true", "timeout": "soon"}, "no length of time"),
        ({"command": "true", "name": "1"}, "name"),
        ({"command": "true", "tenant": "team-b"}, "does not name the tenant"),
    ],
)
def test_what_is_filled_in_wrong_is_said_and_kept(
    alice: Browser, fields: dict[str, str], words: str
) -> None:
    answer = alice.press("/start", "/start", **fields, do="start", directory="/kept")
    assert answer.status in (400, 403)
    assert words in answer.text.replace("&#39;", "'")
    assert 'value="/kept"' in answer.text


def test_rights_are_told(server: Server, alice: Browser) -> None:
    page = alice.get("/me").text
    assert "team-a/alice" in page
    assert "policy.yaml" in page


def test_what_is_not_there(server: Server, alice: Browser) -> None:
    # Who has no job is asked about none.
    done(server, "alice", "true")
    for path in ("/nothing", "/static/nothing", "/static/../app.py", "/static/%2e%2e/app.py"):
        assert alice.get(path).status == 404
    assert alice.ask("DELETE", "/jobs", {"origin": alice.origin}).status == 405
    assert alice.get("/jobs?before=nothing").status == 400


def test_a_job_that_is_started_again_has_its_attempts(
    server: Server, alice: Browser, tmp_path: Path
) -> None:
    count = f'echo $$ >>"{tmp_path}/tries"; [ "$(wc -l <"{tmp_path}/tries")" -gt 2 ] || exit 7'
    words = ("--restart", "on-failure", "--restart-delay", "10ms")
    job = server.ask("alice", "start", *words, "--", "sh", "-c", count)
    server.end("alice", job)
    page = alice.get(f"/jobs/{job}").text
    assert "<dt>Attempt</dt><dd>3</dd>" in page
    table = page.partition("<h2>Attempts before</h2>")[2].partition("</table>")[0]
    assert re.findall(r"<tr><td>(\d)</td>", table) == ["2", "1"]
    assert table.count("exited with 7") == 2
    once = done(server, "alice", "true")
    assert "Attempts before" not in alice.get(f"/jobs/{once}").text
