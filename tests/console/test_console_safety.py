"""What keeps others, other sites, and what jobs say, from doing harm through the console."""

import http.client
import re
import ssl
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jobworker.console.safety import Hosts
from tests.conftest import POLICY, USERS
from tests.console.conftest import SETTINGS
from tests.console.test_console_pages import done
from tests.front.admin.test_admin import audited
from tests.front.test_front_killed import front_of
from tests.support.pki import Authority
from tests.support.server import Server, running_server
from tests.support.waiting import until
from tests.support.web.browser import CONSOLE_PORT, Answer, Browser, browser, tls

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7*7 }}",
    "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]0;title\x07\x9b31m\x90q\x9c",
    "\u202eexe.txt",
)


class Markup(HTMLParser):
    """The elements of a page as a browser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def check_harmless(page: str) -> None:
    """Nothing of the page runs, is framed, or comes from elsewhere, but our own scripts."""
    for tag, attributes in Markup(page).elements:
        assert tag not in {"iframe", "object", "embed", "style", "img", "base", "svg"}
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert tag != "script" or str(attributes["src"]).startswith("/static/")
        for name in ("href", "src", "action", "data-live"):
            address = attributes.get(name) or "/"
            assert address.startswith(("/", "#")), address
            assert not address.startswith("//"), address


def connect(server: Server, context: ssl.SSLContext) -> Answer:
    """Ask for a page, once the handshake has come to its end."""
    with closing(
        http.client.HTTPSConnection(server.host, CONSOLE_PORT, timeout=60, context=context)
    ) as connection:
        connection.request("GET", "/jobs")
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())


# -- who comes in ------------------------------------------------------------------


def test_without_a_certificate_there_is_no_connection(server: Server) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)) as caught:
        connect(server, tls(server, None))
    assert "CERTIFICATE_REQUIRED" in str(caught.value)


def test_nobody_of_another_authority_comes_in(server: Server, tmp_path: Path) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(server, tls(server, Authority(tmp_path).client("alice", ["team-a"])))


def test_it_is_tls_1_3_with_the_one_suite(server: Server, alice: Browser) -> None:
    with closing(alice.connection()) as connection:
        connection.connect()
        assert connection.sock.version() == "TLSv1.3"
        assert connection.sock.cipher()[0] == "TLS_AES_256_GCM_SHA384"
        assert connection.sock.selected_alpn_protocol() == "http/1.1"
    older = tls(server, server.users["alice"])
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(server, older)


@pytest.mark.parametrize("protocols", [["h2"], ["jobworker-output/1"], []])
def test_what_speaks_to_another_port_is_not_answered_here(
    server: Server, protocols: list[str]
) -> None:
    context = tls(server, server.users["alice"])
    context.set_alpn_protocols(protocols)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        connect(server, context)


def test_a_certificate_that_names_nobody_is_told_so(server: Server) -> None:
    nobody = server.authority.client("not a name!", ["team-a"])
    answer = connect(server, tls(server, nobody))
    assert answer.status == 403
    assert "not a name!" in answer.text


def test_decisions_are_on_record(server: Server, alice: Browser, ann: Browser) -> None:
    job = done(server, "alice", "true")
    alice.press(f"/jobs/{job}/remove", f"/jobs/{job}")
    other = done(server, "alice", "true")
    ann.press(f"/jobs/{other}/remove", "/start")
    stops = [event for event in audited(server, "stop") if event["job"] in (job, other)]
    assert [(event["cn"], event["allowed"]) for event in stops] == [("alice", True), ("ann", False)]
    assert all(str(event["peer"]).startswith("127.") for event in stops)


# -- other sites -------------------------------------------------------------------


def test_another_site_cannot_press_a_button(server: Server, alice: Browser) -> None:
    """Each of what a browser sends from our own pages alone is asked for by itself."""
    job = server.ask("alice", "start", "--", "sleep", "1000")
    try:
        page = alice.get(f"/jobs/{job}").text
        found = re.search('name="token" value="([0-9a-f]+)"', page)
        assert found is not None
        token, cookie = found[1], alice.cookie
        own = {"origin": alice.origin}
        without = [
            ({"token": token}, {}, cookie),
            ({"token": token}, {"origin": "null"}, cookie),
            ({"token": token}, {"origin": "https://evil.example"}, cookie),
            ({"token": token}, {"origin": alice.origin.replace("https", "http")}, cookie),
            ({"token": token}, {**own, "sec_fetch_site": "cross-site"}, cookie),
            ({"token": token}, {**own, "sec_fetch_site": "same-site"}, cookie),
            ({}, own, cookie),
            ({"token": "0" * 64}, own, cookie),
            ({"token": "é"}, own, cookie),
            ({"token": token}, own, ""),
            ({"token": token}, own, "__Host-jobworker=" + "0" * 64),
            ({"token": cookie.partition("=")[2]}, own, cookie),
        ]
        for fields, headers, sent in without:
            alice.cookie = sent
            answer = alice.post(f"/jobs/{job}/stop", fields, **headers)
            assert answer.status in (403, 409), (fields, headers, sent)
        assert server.ask("alice", "list", "--running", "-q") != ""
        alice.cookie = cookie
        answer = alice.ask(
            "POST",
            f"/jobs/{job}/stop",
            {**own, "content-type": "text/plain"},
            f"token={token}".encode(),
        )
        assert answer.status == 400
        assert alice.get(f"/jobs/{job}/stop").status == 405
        assert "<dd>running</dd>" in alice.get(f"/jobs/{job}").text
        sent = {**own, "sec_fetch_site": "same-origin"}
        assert alice.post(f"/jobs/{job}/stop", {"token": token}, **sent).status == 303
    finally:
        server.ask("alice", "stop", job)


def test_a_token_is_of_one_user(server: Server, alice: Browser, bob: Browser) -> None:
    found = re.search('name="token" value="([0-9a-f]+)"', bob.get("/start").text)
    assert found is not None
    alice.cookie = bob.cookie
    fields = {"token": found[1], "command": "true", "do": "start"}
    assert alice.post("/start", fields, origin=alice.origin).status == 409


def test_the_cookie_is_sent_along_from_our_own_pages_alone(alice: Browser) -> None:
    words = alice.get("/jobs").headers["set-cookie"].split("; ")
    assert words[0].startswith("__Host-jobworker=")
    assert set(words[1:]) == {"Secure", "HttpOnly", "Path=/", "SameSite=strict"}
    assert "set-cookie" not in alice.get("/jobs").headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_get_nothing_to_embed(alice: Browser, site: str) -> None:
    for mode, destination in (
        ("no-cors", "image"),
        ("no-cors", "script"),
        ("cors", "empty"),
        ("navigate", "iframe"),
    ):
        headers = {"sec_fetch_mode": mode, "sec_fetch_dest": destination}
        for path in ("/jobs", "/live/jobs", "/static/style.css"):
            assert alice.get(path, sec_fetch_site=site, **headers).status == 403
    link = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document", "sec_fetch_site": site}
    assert alice.get("/jobs", **link).status == 200
    # A form that another site has filled in is shown empty.
    assert "rm -rf" in alice.get("/start?command=rm+-rf", sec_fetch_site="same-origin").text
    assert "rm -rf" not in alice.get("/start?command=rm+-rf", **link).text


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "", "127.0.0.1", "[::1]", "a.localhost"]
)
def test_a_name_that_is_not_the_consoles_is_refused(alice: Browser, host: str) -> None:
    """DNS rebinding: another site's name that leads to our address."""
    answer = alice.get("/jobs", host=host)
    assert answer.status == 403
    assert "console.hosts" in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "localhost:50080"])
def test_names_of_the_certificate_are_the_consoles(alice: Browser, host: str) -> None:
    assert alice.get("/jobs", host=host).status == 200


def test_every_answer_keeps_out_frames_sniffing_and_foreign_scripts(
    server: Server, alice: Browser
) -> None:
    job = done(server, "alice", "echo", "hello")
    answers = [
        alice.get(path)
        for path in (
            *("/", "/jobs", f"/jobs/{job}", f"/jobs/{job}/output", "/queue", "/start", "/me"),
            *("/static/live.js", "/nothing", f"/live/jobs/{job}?from=0", "/jobs?before=x"),
        )
    ]
    answers.append(alice.get("/jobs", host="evil.example"))
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        for part in ("default-src 'self'", "frame-ancestors 'none'", "form-action 'self'"):
            assert part in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["cache-control"] == "no-store"


def test_names_with_wildcards() -> None:
    hosts = Hosts(lambda: ("*.example.org", "10.0.0.7", "2001:db8::7"), ("tunnel",))
    known = ["a.example.org:1", "A.Example.Org", "10.0.0.7:443", "[2001:db8:0::7]:443", "tunnel"]
    assert [host for host in known if not hosts.know(host)] == []
    strange = ["example.org", ".example.org", "a.b.example.org", "10.0.0.70", "*.example.org:1", ""]
    assert [host for host in strange if hosts.know(host)] == []


# -- what jobs say -----------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_output_and_commands_are_text(server: Server, alice: Browser, text: str) -> None:
    job = done(server, "alice", "printf", "%s\\n", text)
    with alice.events(f"/live/jobs/{job}?from=0") as events:
        told = dict(iter(events))
    for page in (alice.get(path).text for path in ("/jobs", f"/jobs/{job}")):
        check_harmless(page)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
    assert "\x1b" not in str(told["output"])
    assert "\u202e" not in str(told)


def test_what_is_typed_into_an_address_is_text(alice: Browser) -> None:
    typed = "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E"
    for path in (f"/jobs?owner={typed}", f"/start?command={typed}", f"/jobs/{typed}"):
        check_harmless(alice.get(path).text)
    for path in ("/queue", "/schedules", "/me", "/nothing"):
        check_harmless(alice.get(path).text)


# -- huge and many -----------------------------------------------------------------


def test_a_gigabyte_opens_at_once_at_its_end(server: Server, alice: Browser) -> None:
    """Counted in bytes that the front reads: a clock would tell of the machine."""
    script = "head -c 1G /dev/zero; echo; echo the end"
    job = server.ask("alice", "start", "--", "sh", "-c", script)
    server.end("alice", job)
    alice.get("/jobs")
    before = bytes_read(server)
    page = alice.get(f"/jobs/{job}").text
    with alice.events(f"/live/jobs/{job}?from=0") as events:
        kinds = [kind for kind, _ in events]
    assert bytes_read(server) - before < 2 * 1024 * 1024
    assert "the end" in page
    assert len(page) < 256 * 1024
    assert kinds == ["status", "output", "end"]
    server.ask("alice", "rm", job)


def bytes_read(server: Server) -> int:
    """By the front, in all (proc(5), /proc/PID/io)."""
    return int(front_of(server).io_counters().read_chars)


def test_a_form_without_end_is_not_read(alice: Browser) -> None:
    answer = alice.post("/start", {"command": "x" * 300_000}, origin=alice.origin)
    assert answer.status == 400
    assert "at most" in answer.text


def test_a_download_waits_for_its_reader(server: Server, alice: Browser) -> None:
    """What is not read yet stays in the files, and in the kernel's buffers."""
    job = server.ask("alice", "start", "--", "head", "-c", "300M", "/dev/zero")
    server.end("alice", job)
    front = front_of(server)
    before = front.memory_info().rss
    with closing(alice.connection()) as connection:
        connection.request("GET", f"/jobs/{job}/output", headers={"cookie": alice.cookie})
        answer = connection.getresponse()
        assert len(answer.read(1024 * 1024)) == 1024 * 1024
        # Others are served meanwhile, and by then it would all have been read.
        for _ in range(20):
            assert alice.get("/jobs").status == 200
        assert front.memory_info().rss - before < 64 * 1024 * 1024
        left = 299 * 1024 * 1024
        while piece := answer.read(1024 * 1024):
            left -= len(piece)
        assert left == 0
    server.ask("alice", "rm", job)


def test_who_reads_nothing_of_a_download_is_cut(tmp_path: Path) -> None:
    settings = SETTINGS + "connections: {stall_seconds: 1}\n"
    with running_server(tmp_path, USERS, POLICY, settings) as server:
        alice = browser(server, "alice")
        job = server.ask("alice", "start", "--", "head", "-c", "300M", "/dev/zero")
        server.end("alice", job)
        with closing(alice.connection()) as connection:
            connection.request("GET", f"/jobs/{job}/output")
            answer = connection.getresponse()
            until(lambda: any("took nothing for 1 s" in line for line in server.log))
            # It is told apart from a whole one.
            with pytest.raises((http.client.IncompleteRead, ConnectionError, ssl.SSLError)):
                answer.read()


def test_a_client_with_too_many_connections_is_told_so(tmp_path: Path) -> None:
    settings = SETTINGS + "connections: {per_name: 2}\n"
    with running_server(tmp_path, USERS, POLICY, settings) as server:
        alice = browser(server, "alice")
        with alice.events("/live/jobs"), alice.events("/live/jobs"):
            answer = alice.get("/jobs")
            assert answer.status == 429
            assert "alice has 2 connections" in answer.text


def test_live_pages_are_bounded_for_each_user(server: Server, alice: Browser, bob: Browser) -> None:
    opened = []
    try:
        refused = 0
        for _ in range(40):
            connection = alice.connection()
            connection.request("GET", "/live/jobs")
            answer = connection.getresponse()
            opened.append((connection, answer))
            refused += answer.status == 429
        assert refused == 40 - 32
        assert alice.get("/jobs").status == 200
        with bob.events("/live/jobs") as events:
            events.until("jobs")
    finally:
        for connection, answer in opened:
            answer.close()
            connection.close()
    # Those that are closed count no more.
    until(lambda: streams(alice) == 200)


def streams(user: Browser) -> int:
    """The status with which one more stream is answered."""
    with closing(user.connection()) as connection:
        connection.request("GET", "/live/jobs")
        return connection.getresponse().status


def test_a_certificate_revoked_while_a_page_is_open_ends_its_stream(fresh_server: Server) -> None:
    alice, bob = browser(fresh_server, "alice"), browser(fresh_server, "bob")
    with alice.events("/live/jobs") as events, bob.events("/live/jobs") as others:
        events.until("jobs")
        others.until("jobs")
        authority = fresh_server.authority
        authority.revoke(fresh_server.users["alice"])
        authority.write_crl(authority.certificate.with_suffix(".crl"))
        with pytest.raises(
            (ConnectionError, http.client.IncompleteRead, ssl.SSLError, AssertionError)
        ):
            events.until("never")
        fresh_server.ask("bob", "start", "--", "true")
        assert others.until("jobs")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        alice.get("/jobs")
