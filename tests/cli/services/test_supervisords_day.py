"""A day of somebody who comes from supervisord: five services, from a file."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import POLICY
from tests.support.server import (
    Server,
    configure,
    leaving_no_process,
    own_address,
    serving,
)
from tests.support.waiting import until

# Takes connections at the port of a file, which it makes, as long as another file is there.
DB = """
import os, socket, sys, time
where, gate = sys.argv[1:3]
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(open(where).read())))
while not os.path.exists(gate):
    time.sleep(0.02)
server.listen()
print("db listens", flush=True)
while True:
    server.accept()[0].close()
"""
FILE = """\
set: shop
services:
  api:
    command: [sh, -c, "echo api begins >> {0}/events; exec sleep 1000"]
    after: [database]
    persist: true
  database:
    command: [{1}, -SEc, {2}, "{0}/port", "{0}/gate"]
    health-port: {3}
    health-interval: 100ms
    persist: true
  worker:
    command: [sh, -c, "echo worker >> {0}/crashes; exit 3"]
    restart-delay: 20ms
    restart-max: 3
  cron:
    command: [sh, -c, "echo $GREETING; exec sleep 1000"]
    env: {{GREETING: {4}}}
    persist: true
  migrate:
    command: "true"
    restart: on-failure
"""


@pytest.fixture
def port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Day:
    """A server that may go down and come up, and the file."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self._port = port
        self._host = own_address()
        self._authority = configure(directory, self._host, POLICY, "")
        self._users = {"alice": self._authority.client("alice", ["team-a"])}
        self.file = directory / "services.yaml"
        (directory / "port").write_text(str(port))
        self.write()
        self.server: Server

    def write(self, greeting: str = "hello", *, without: str = "") -> None:
        text = FILE.format(self.directory, sys.executable, json.dumps(DB), self._port, greeting)
        head, *services = text.split("\n  ")
        parts: list[str] = []
        for line in services:
            if line.startswith("  ") and parts:
                parts[-1] += "\n  " + line
            else:
                parts.append(line)
        kept = [part for part in parts if not (without and part.startswith(f"{without}:"))]
        self.file.write_text("\n  ".join([head, *kept]) + "\n")

    def up(self) -> "Iterator[None]":
        with serving(self.directory / "server.yaml") as (process, log):
            self.server = Server(
                self.directory, self._host, self._authority, self._users, process, log
            )
            yield

    def apply(self, *words: str) -> dict[str, str]:
        """What it did to each service."""
        told = self.server.ask("alice", "apply", "-f", str(self.file), *words, "-o", "json")
        return {one["service"]: one["action"] for one in map(json.loads, told.splitlines())}

    def status(self, job: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.server.ask("alice", "status", "-o", "json", job))
        return found

    def state(self, job: str) -> object:
        return self.status(job)["state"]

    def ids(self) -> dict[str, object]:
        return {name: self.status(name)["id"] for name in ("api", "database", "cron")}

    def lines(self, name: str) -> int:
        path = self.directory / name
        return len(path.read_text().splitlines()) if path.exists() else 0


def test_the_day(tmp_path: Path, port: int) -> None:
    day = Day(tmp_path, port)
    with leaving_no_process():
        for _ in day.up():
            _the_morning(day)
            before = day.ids()
        # The host goes down, and comes up again.
        for _ in day.up():
            _after_the_reboot(day, before)


def _the_morning(day: Day) -> None:
    first = day.apply("--dry-run")
    assert set(first.values()) == {"started"}
    assert day.server.ask("alice", "list", "--running", "-o", "json") == ""
    assert day.apply() == first
    # What comes after the database waits until that is ready.
    until(lambda: day.state("database") == "running")
    assert (day.state("api"), day.lines("events")) == ("pending", 0)
    (day.directory / "gate").touch()
    until(lambda: day.lines("events") == 1)
    # What crashes is started again, later each time, and given up.
    until(lambda: day.state("worker") == "ended")
    worker = day.status("worker")
    assert (worker["exit_code"], worker["attempt"], day.lines("crashes")) == (3, 4, 4)
    assert "not started again: that were 4 in a row" in str(worker["detail"])
    # Read again, the file changes nothing where nothing is different: what gave up, or is
    # done, is started once more.
    again = {"api": "unchanged", "database": "unchanged", "cron": "unchanged"}
    assert day.apply() == {**again, "worker": "started", "migrate": "started"}
    # One service is changed, and one goes.
    ids = day.ids()
    day.write("good morning", without="worker")
    until(lambda: day.state("worker") == day.state("migrate") == "ended")
    told = day.server.ask("alice", "apply", "-f", str(day.file), "--dry-run")
    assert "cron: would be replaced (env)" in told
    assert day.apply("--wait")["cron"] == "replaced"
    until(lambda: "good morning" in day.server.ask("alice", "logs", "cron"))
    now = day.ids()
    assert (now["api"], now["database"]) == (ids["api"], ids["database"])
    assert now["cron"] != ids["cron"]
    # A database that dies is started again; its clients are left alone.
    pid = day.status("database")["pid"]
    day.server.ask("alice", "signal", "KILL", "database")
    until(lambda: day.status("database")["ready"] and day.status("database")["pid"] != pid)
    assert (day.status("database")["attempt"], day.lines("events")) == (2, 1)


def _after_the_reboot(day: Day, before: dict[str, object]) -> None:
    until(lambda: {day.state(name) for name in before} == {"running"})
    assert day.ids() == before
    assert day.lines("events") == 2
    assert "unchanged" in day.apply().values()
    (day.directory / "services.yaml").write_text("set: shop\nservices: {}\n")
    left = day.apply()
    assert set(left.values()) == {"left"}
    assert set(day.apply("--prune").values()) == {"removed"}
    assert day.server.ask("alice", "list", "--running", "-o", "json") == ""
