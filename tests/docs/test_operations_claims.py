"""Sentences of docs/operations.md, tried."""

import os
import re
import signal
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

from jobworker.supervisor.config import BASE_ENVIRONMENT
from tests.support.server import PORT, Server
from tests.support.waiting import until

TEXT = (Path(__file__).parents[2] / "docs/operations.md").read_text()


def lines_of(server: Server, part: str) -> int:
    """How many lines of the log have this in them."""
    return sum(part in line for line in list(server.log))


def answers(host: str, port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((host, port)) == 0


def test_sighup_reads_no_settings_and_an_upgrade_does(server: Server) -> None:
    """The page said that SIGHUP has the configuration read again."""
    file = server.directory / "server.yaml"
    host, port = server.host, PORT + 1
    file.write_text(f"{file.read_text()}metrics: {{listen: '{host}:{port}'}}\n")
    before = lines_of(server, "serving on")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: lines_of(server, "serving on") > before)
    assert not answers(host, port)
    server.ask("alice", "serve", "--upgrade", "--config", str(file))
    assert answers(host, port)


def copy(server: Server, target: Path) -> int:
    """Copy the journal as `.backup` does; how many jobs the copy has."""
    journal = server.directory / "state/journal.sqlite"
    with (
        closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=0)) as source,
        closing(sqlite3.connect(target)) as found,
    ):
        # It tries again for ever.
        source.execute("select 1 from job limit 1").fetchone()
        source.backup(found)
        (count,) = found.execute("select count(*) from job").fetchone()
        return int(count)


def locked(server: Server, target: Path) -> bool:
    """Whether the journal cannot be copied."""
    try:
        copy(server, target)
    except sqlite3.OperationalError as error:
        return "database is locked" in str(error)
    return False


def test_the_journal_is_copied_while_the_service_sleeps(server: Server, tmp_path: Path) -> None:
    job = server.ask("alice", "start", "--", "sleep", "1000").strip()
    assert locked(server, tmp_path / "refused")
    server.process.send_signal(signal.SIGUSR1)
    # The supervisor takes a moment to end.
    until(lambda: not locked(server, tmp_path / "tried"))
    assert copy(server, tmp_path / "copy") >= 1
    config = str(server.directory / "server.yaml")
    server.ask("alice", "serve", "--upgrade", "--config", config)
    assert "running" in server.ask("alice", "status", job)
    server.ask("alice", "stop", job)


def named_in_the_table() -> set[str]:
    """What the page says is in `state_dir`."""
    section = TEXT.partition("| in `state_dir` | what |\n")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in section.splitlines()]
    return {name.split("/")[0] for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_the_table_of_the_state_directory_names_what_is_there(server: Server) -> None:
    job = server.ask("alice", "start", "-i", "--", "cat").strip()
    server.ask("alice", "serve", "--upgrade", "--config", str(server.directory / "server.yaml"))
    # SQLite's own two belong to the file that they are named after.
    state = server.directory / "state"
    found = {re.sub(r"-(wal|shm)$", "", name) for name in os.listdir(state)}
    assert "upgrade.json" in found
    assert found <= named_in_the_table()
    server.ask("alice", "stop", job)


def test_the_variables_of_a_job_are_those_that_are_named(server: Server) -> None:
    """The page left out the job's ID."""
    section = TEXT.partition("## Where jobs run")[2].partition("and what `--env` adds")[0]
    named = set(re.findall(r"\b[A-Z_]{4,}\b", section)) | set(BASE_ENVIRONMENT)
    lines = server.ask("alice", "run", "-t", "--", "env").splitlines()
    assert {line.partition("=")[0] for line in lines} == named
