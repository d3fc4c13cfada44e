"""The console in a real browser, with the user's certificate in its store."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import POLICY, USERS
from tests.console.conftest import SETTINGS
from tests.support.server import Server, running_server
from tests.support.web.chromium import Page, chromium, needs_chromium

pytestmark = [needs_chromium, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
# Kept, to be looked at.
PICTURES = ROOT / "build/screenshots"
# The narrowest and the widest that the pages are made for.
SIZES = ((400, 800), (1600, 1000))
# https://github.com/dequelabs/axe-core, which `make venv` fetches.
AXE = next(iter(sorted((ROOT / "build/vendor").glob("axe-*.min.js"))), None)
PATHS = (
    *("/queue", "/schedules", "/start", "/usage", "/audit", "/me", "/nothing"),
    *("/policy", "/policy?who=cn%3Dbob&action=stop&job=team-a%2Falice"),
)
ROWS = "document.querySelector('#terminal .xterm-rows').textContent"
USED = "a[href], button, input:not([type=hidden]), select, textarea, [tabindex]"
AUDITED = f"{POLICY}  - {{allow: audit, to: 'cn:alice', jobs: '*/*'}}\n"
TEXT = "document.body.innerText"
HOSTILE = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("console"), USERS, AUDITED, SETTINGS) as running:
        yield running


@pytest.fixture
def page(tmp_path: Path, server: Server) -> Iterator[Page]:
    with chromium(tmp_path, server, "alice") as opened:
        yield opened


def fits(page: Page) -> bool:
    """Whether nothing of a page is beside the window."""
    return bool(page.value("document.documentElement.scrollWidth <= window.innerWidth"))


def test_alices_day(server: Server, page: Page, tmp_path: Path) -> None:
    go = tmp_path / "go"
    page.open("/")
    page.until(f"{TEXT}.includes('No jobs that you may see')")
    page.until(f"{TEXT}.includes('Live')")
    # What somebody starts elsewhere comes by itself.
    script = 'echo "$1"; echo to stderr >&2; while [ ! -e "$0" ]; do sleep 0.05; done; echo last'
    job = server.ask("alice", "start", "--", "sh", "-c", script, str(go), HOSTILE)
    page.until(f"document.querySelector('tbody a')?.title === '{job}'")
    page.value("document.querySelector('tbody a').focus()")
    page.press("Enter", 13)
    page.until(f"location.pathname === '/jobs/{job}'")
    page.until(f"{TEXT}.includes('Live')")
    page.until("document.querySelector('#output .stderr')?.textContent === 'to stderr\\n'")
    for scheme in ("light", "dark"):
        for width, height in SIZES:
            page.look(width, height, scheme, PICTURES / f"job-{scheme}-{width}.png")
            assert fits(page), (scheme, width)
    go.touch()
    page.until("document.querySelector('#output').textContent.endsWith('last\\n')")
    page.until("document.querySelector('[data-fact=State] dd').textContent === 'exited with 0'")
    assert page.value("document.querySelectorAll('#output *:not(span)').length") == 0
    assert HOSTILE in page.value("document.querySelector('#output').textContent")
    assert "run" not in page.value("document.title")
    assert page.complaints == []


def test_times_and_what_is_looked_for(server: Server, page: Page, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = (
        'echo "$1"; printf begun; while [ ! -e "$0" ]; do sleep 0.05; done; printf " on\\nlast\\n"'
    )
    job = server.ask("alice", "start", "--", "sh", "-c", script, str(go), HOSTILE)
    page.open(f"/jobs/{job}?times=1")
    page.until("document.querySelector('#output').textContent.endsWith('begun')")
    page.until(f"{TEXT}.includes('Live')")
    go.touch()
    page.until("document.querySelector('#output').textContent.endsWith('last\\n')")
    kinds = "[...document.querySelectorAll('#output span')].map(one => one.className).join(' ')"
    # A line that has begun goes on without another time.
    assert page.value(kinds) == "time stdout time stdout stdout time stdout"
    page.value("document.querySelector('input[name=find]').value = '<IMG'")
    page.value("document.querySelector('form[role=search] button').click()")
    page.until("document.querySelector('#found .stdout')?.textContent.startsWith('<img')")
    assert "times=1" in page.value("location.search")
    for scheme in ("light", "dark"):
        for width, height in SIZES:
            page.look(width, height, scheme, PICTURES / f"found-{scheme}-{width}.png")
            assert fits(page), (scheme, width)
    page.value("document.querySelector('form[role=search] a:last-child').click()")
    page.until("document.querySelector('#output .time') !== null")
    assert "run" not in page.value("document.title")
    assert page.complaints == []


def test_buttons_and_the_form(server: Server, page: Page) -> None:
    page.open("/start")
    page.value("document.querySelector('textarea').value = 'sleep 1000'")
    page.value("document.querySelector('button[value=ask]').click()")
    page.until("document.querySelector('.verdict')?.textContent.startsWith('Yes')")
    page.value("document.querySelector('button[value=start]').click()")
    page.until("document.querySelector('[data-fact=State] dd')?.textContent === 'running'")
    job = page.value("location.pathname").removeprefix("/jobs/")
    page.value("document.querySelector('form[action$=stop] button').click()")
    server.end("alice", job)
    page.until("document.querySelector('[data-fact=State] dd')?.textContent.includes('SIGTERM')")
    assert page.complaints == []


def test_several_jobs_are_stopped_at_once(server: Server, page: Page) -> None:
    jobs = [server.ask("alice", "start", "--", "sleep", "1000") for _ in range(3)]
    page.open("/jobs?state=not+ended")
    page.until(f"{TEXT}.includes('Live')")
    page.value(f"document.querySelector('input[value=\"{jobs[1]}\"]').focus()")
    page.press(" ", 32)
    # What is chosen stays so while the list changes, and so does where the keyboard is.
    other = server.ask("alice", "start", "--", "sleep", "1000")
    page.until(f"document.querySelector('tbody a')?.title === '{other}'")
    chosen = "[...document.querySelectorAll('tbody input:checked')].map(one => one.value)"
    assert page.value(chosen) == [jobs[1]]
    assert page.value("document.activeElement.value") == jobs[1]
    for width, height in SIZES:
        page.look(width, height, "light", PICTURES / f"several-{width}.png")
        assert fits(page)
    page.value("document.querySelector('#all input').click()")
    page.value("document.querySelector('button[value=stop]').click()")
    for job in (*jobs, other):
        server.end("alice", job)
    page.until(f"location.search === '?state=not+ended' && {TEXT}.includes('No jobs')")
    assert page.complaints == []


def test_use_over_time_is_plotted(server: Server, page: Page) -> None:
    script = "while :; do :; done"
    job = server.ask("alice", "start", "--", "sh", "-c", script)
    page.open(f"/jobs/{job}")
    page.until("document.querySelectorAll('#plots canvas').length > 0")
    caption = "document.querySelector('#plots figcaption').textContent"
    page.until(f"/^CPUs: 0\\.[1-9]|^CPUs: [1-9]/.test({caption})")
    for scheme in ("dark", "light"):
        for width, height in SIZES:
            page.look(width, height, scheme)
            page.until("document.querySelectorAll('#plots canvas').length > 0")
            page.look(width, height, scheme, PICTURES / f"plots-{scheme}-{width}.png")
            assert fits(page), (scheme, width)
    server.ask("alice", "stop", job)
    page.open(f"/jobs/{job}")
    # As it was, from the page itself.
    page.until("document.querySelectorAll('#plots canvas').length > 0")
    assert page.complaints == []


def test_a_terminal_is_typed_to(server: Server, page: Page) -> None:
    hostile = "\\033]0;run\\007\\033]52;c;aGk=\\007" + HOSTILE
    script = f"printf '%b\\n' '{hostile}'; while read -r line; do echo got $line; stty size; done"
    job = server.ask("alice", "start", "-t", "--", "sh", "-c", script)
    page.open(f"/jobs/{job}")
    page.value("document.querySelector('a[href$=terminal]').click()")
    page.until("document.querySelector('#said')?.textContent === 'Open'")
    page.until(f"{ROWS}.includes('<img src=x')")
    page.type("hello\r")
    page.until(f"{ROWS}.includes('got hello')")
    for width, height in SIZES:
        page.look(width, height, "light")
        page.until(f"document.querySelector('.xterm-screen').clientWidth > {width * 0.7}")
        page.look(width, height, "light", PICTURES / f"terminal-{width}.png")
        assert fits(page), width
    # The job's terminal is as wide as the page's.
    page.type("\r")
    page.until(f"/[0-9]+ 1[5-9][0-9]/.test({ROWS})")
    assert "run" not in page.value("document.title")
    assert page.value("document.querySelectorAll('#terminal img, #terminal script').length") == 0
    # Out of it by the keyboard.
    page.value(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', "
        "{ctrlKey: true, shiftKey: true, code: 'ArrowUp', key: 'ArrowUp', bubbles: true}))"
    )
    assert page.value("document.activeElement.closest('header') !== null")
    server.ask("alice", "stop", job)
    page.until("document.querySelector('#said').textContent === 'Closed: the job has ended'")
    assert page.complaints == []


def test_without_scripts_and_by_the_keyboard(server: Server, page: Page) -> None:
    job = server.ask("alice", "start", "--", "echo", "without a script")
    server.end("alice", job)
    page.without_scripts()
    page.open("/jobs")
    # The skip link, the pages, the filters, the buttons, and the newest job.
    for _ in range(40):
        page.press("Tab", 9)
        if page.value("document.activeElement.title") == job:
            break
    page.press("Enter", 13)
    page.until(f"location.pathname === '/jobs/{job}'")
    page.until(f"{TEXT}.includes('without a script')")


def test_the_keyboard_reaches_everything(server: Server, page: Page) -> None:
    words = ("--name", "keyboard", "--cron", "30 2 * * *", "--replace")
    server.ask("alice", "schedule", "add", *words, "--", "true")
    job = server.ask("alice", "start", "--", "sh", "-c", "echo out; sleep 1000")
    # A list that changes meanwhile has other rows.
    page.without_scripts()
    shown = f"[...document.querySelectorAll('{USED}')].filter(one => one.checkVisibility())"
    for path in ("/jobs", f"/jobs/{job}", *PATHS):
        page.open(path)
        number = page.value(f"window.used = {shown}; window.used.length")
        reached = set()
        for _ in range(number):
            page.press("Tab", 9)
            reached.add(page.value("window.used.indexOf(document.activeElement)"))
            # Who sees it sees where they are.
            style = "getComputedStyle(document.activeElement).outlineStyle"
            assert page.value(style) != "none", (
                path,
                page.value("document.activeElement.outerHTML"),
            )
        assert reached == set(range(number)), path
    server.ask("alice", "stop", job)


@pytest.mark.skipif(AXE is None, reason="no build/vendor/axe-*.min.js: run .ci/vendor tests")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(server: Server, page: Page, scheme: str) -> None:
    """What axe-core finds fault with: contrast, names of fields, order of headings and so on."""
    assert AXE is not None
    words = ("--name", "nightly", "--cron", "30 2 * * *", "--replace")
    server.ask("alice", "schedule", "add", *words, "--", "true")
    job = server.ask("alice", "start", "--", "sh", "-c", "echo out; echo err >&2; sleep 1000")
    shell = server.ask("alice", "start", "-t", "--", "sh")
    found = f"/jobs/{job}?times=1&find=out"
    for path in ("/jobs", f"/jobs/{job}", found, f"/jobs/{shell}/terminal", *PATHS):
        for width, height in SIZES:
            page.open(path)
            page.look(width, height, scheme)
            page.value(f"{AXE.read_text()}; 0")
            assert page.value("axe.run().then(found => found.violations)") == [], (path, width)
    server.ask("alice", "stop", job, shell)


@pytest.mark.parametrize("path", ["/jobs", *PATHS])
def test_pages_fit_narrow_and_wide_windows(page: Page, path: str) -> None:
    page.open(path)
    for scheme in ("light", "dark"):
        for width, height in SIZES:
            # What is asked of a page has a picture of its own.
            name = f"{re.sub('[^a-z]+', '-', path).strip('-')}-{scheme}-{width}.png"
            page.look(width, height, scheme, PICTURES / name)
            assert fits(page), name


def test_two_tenants_and_who_reads_everything(server: Server, tmp_path: Path) -> None:
    """Each page as bob and as ann have it: he sees nothing of alice's, and she does nothing."""
    hers = server.ask("alice", "start", "--", "sh", "-c", "echo of alice; exec sleep 1000")
    his = server.ask("bob", "start", "--", "sleep", "1000")
    own = {"bob": his, "ann": None}
    for user, sees_hers in (("bob", False), ("ann", True)):
        (tmp_path / user).mkdir()
        with chromium(tmp_path / user, server, user) as page:
            page.open("/jobs?state=not+ended")
            page.until(f"{TEXT}.includes('Live')")
            listed = page.value("[...document.querySelectorAll('tbody a')].map(one => one.title)")
            assert his in listed
            assert (hers in listed) == sees_hers
            page.open(f"/jobs/{hers}")
            told = page.value(TEXT)
            assert ("of alice" in told) == sees_hers
            assert ("no job" in told.lower()) != sees_hers
            # What may not be done is not offered.
            assert page.value("document.querySelector('form[action$=stop]')") is None
            page.open(f"/jobs/{his}")
            offered = page.value("document.querySelector('form[action$=stop]') !== null")
            assert offered == (own[user] == his)
            for path in PATHS:
                page.open(path)
                assert page.value("document.querySelector('h1')?.textContent"), (user, path)
                assert hers not in page.value(TEXT) or sees_hers
                assert fits(page), (user, path)
            # Of what is refused, or not there, the browser says so; of nothing else.
            refused = [
                one for one in page.complaints if "(Forbidden)" in one or "(Not Found)" in one
            ]
            assert refused == page.complaints
    server.ask("alice", "stop", "--grace", "0", hers)
    server.ask("bob", "stop", "--grace", "0", his)
