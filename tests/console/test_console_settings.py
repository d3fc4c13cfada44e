"""The console's settings: off unless they say where; what is wrong is told with its place."""

import re
import socket
from pathlib import Path
from urllib.request import urlopen

from tests.conftest import POLICY, USERS
from tests.front.settings.test_serve_check import BAD_SETTINGS, places, serve, settings
from tests.front.test_front_killed import front_of
from tests.support.server import running_server
from tests.support.waiting import until
from tests.support.web.browser import CONSOLE, CONSOLE_PORT, browser
from tests.test_rooms import loaded_by


def test_without_the_setting_nothing_listens(tmp_path: Path) -> None:
    with running_server(tmp_path, USERS, POLICY) as server, socket.socket() as connection:
        assert connection.connect_ex((server.host, CONSOLE_PORT)) != 0
        assert not any("the console is at" in line for line in server.log)


def test_other_names_are_known_by_the_settings(tmp_path: Path) -> None:
    more = 'console: {listen: "{host}:50080", hosts: [jobs.tunnel.example, "2001:db8::1"]}\n'
    with running_server(tmp_path, USERS, POLICY, more) as server:
        alice = browser(server, "alice")
        for host in ("jobs.tunnel.example:8443", "[2001:DB8:0::1]:50080", "localhost"):
            assert alice.get("/jobs", host=host).status == 200, host
        assert alice.get("/jobs", host="tunnel.example").status == 403


def test_it_is_there_after_an_upgrade(tmp_path: Path) -> None:
    with running_server(tmp_path, USERS, POLICY, CONSOLE) as server:
        alice, front = browser(server, "alice"), front_of(server)
        assert alice.get("/jobs").status == 200
        done = serve(tmp_path, "--upgrade")
        assert done.returncode == 0, done.stderr
        assert alice.get("/jobs").status == 200
        assert front_of(server).pid != front.pid
        # And gone where the settings want it no more.
        file = tmp_path / "server.yaml"
        file.write_text(re.sub("(?m)^console:.*\n", "", file.read_text()))
        assert serve(tmp_path, "--upgrade").returncode == 0
        with socket.socket() as connection:
            until(lambda: connection.connect_ex((server.host, CONSOLE_PORT)) != 0)


def test_its_connections_are_counted(tmp_path: Path) -> None:
    settings = CONSOLE + 'metrics: {listen: "{host}:9464"}\n'
    with running_server(tmp_path, USERS, POLICY, settings) as server:

        def told() -> str:
            with urlopen(f"http://{server.host}:9464/metrics") as answer:
                return str(answer.read().decode())

        with browser(server, "alice").events("/live/jobs") as events:
            events.until("jobs")
            assert "\njobworker_connections 1.0\n" in told()
        until(lambda: "\njobworker_connections 0.0\n" in told())
        # A stream is a call that ends with its reader.
        until(lambda: 'jobworker_calls_total{code="CANCELLED",method="List"} 1.0' in told())


def test_nothing_of_it_is_imported_without_the_setting() -> None:
    loaded = loaded_by("jobworker.grpc_api.front")
    assert not loaded & {"starlette", "uvicorn", "h11", "jinja2", "click"}


def test_what_is_no_address_is_told_with_its_place(tmp_path: Path) -> None:
    settings(tmp_path, "console:\n  listen: nowhere\n")
    done = serve(tmp_path, "--check")
    assert done.returncode == BAD_SETTINGS
    told = places(tmp_path, done.stderr)
    assert told == {"listen: nowhere": "console.listen: 'nowhere' is not HOST:PORT"}


def test_an_address_that_others_have_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings(tmp_path, f"console:\n  listen: 127.0.0.1:{port}\n")
        done = serve(tmp_path, "--check")
    assert done.returncode == BAD_SETTINGS
    (words,) = places(tmp_path, done.stderr).values()
    assert words.startswith(f"console.listen: cannot listen on 127.0.0.1:{port}")


def test_a_setting_that_is_misspelt_is_told(tmp_path: Path) -> None:
    settings(tmp_path, "console:\n  listn: 127.0.0.1:50080\n")
    done = serve(tmp_path, "--check")
    assert done.returncode == BAD_SETTINGS
    assert "console has no setting 'listn'; did you mean listen" in done.stderr
