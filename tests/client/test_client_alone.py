"""A client alone: without the server's packages, and on systems that are not Linux."""

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from jobworker.cli.missing import SERVER_MODULES
from tests.client import alone
from tests.support.server import DEADLINE_SECONDS, Server

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(
    *words: str, server: Server | None = None, stdin: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """Run the command, as alice where there is a server, with such an installation."""
    environment = server.environment("alice") if server else {"HOME": "/nonexistent"}
    return subprocess.run(
        [sys.executable, alone.__file__, *words],
        env={**environment, "PATH": os.environ["PATH"]},
        input=stdin,
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def ask(server: Server, *words: str, stdin: bytes = b"") -> str:
    """Run it; it must succeed. Returns what it printed."""
    done = run(*words, server=server, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def names_of(requirements: list[str]) -> set[str]:
    """The names of distributions, of requirements such as `click>=8`."""
    return {requirement.partition(">")[0].replace("-", "_") for requirement in requirements}


def test_all_client_modules_and_commands_are_imported() -> None:
    done = run()
    assert done.returncode == 0, done.stderr.decode()
    imported = done.stdout.decode().split()
    assert {
        "jobworker.client.follow",
        "jobworker.client.output_connection",
        "jobworker.cli.commands.run",
        "jobworker.cli.commands.attach",
        "jobworker.cli.host.serve",
    } <= set(imported)


def test_jobs_are_run_and_looked_at(server: Server) -> None:
    assert ask(server, "run", "--", "echo", "hello") == "hello"
    assert ask(server, "run", "-i", "--", "wc", "-c", stdin=b"12345") == "5"
    job = ask(server, "start", "--stop-signal", "USR1", "--", "sleep", "1000")
    assert job[-8:] in ask(server, "list")
    assert json.loads(ask(server, "status", "-o", "json", job))["stop_signal"] == 10
    ask(server, "signal", "USR1", job)
    assert run("wait", job, server=server).returncode == 128 + 10
    assert "SIGUSR1" in ask(server, "status", job)
    assert ask(server, "whoami").startswith("User:         alice")


def test_a_flood_comes_by_the_way_without_grpc(server: Server) -> None:
    """It is where the constants of a socket are used."""
    count = 32 * 1024 * 1024
    done = run("run", "--", "head", "-c", str(count), "/dev/zero", server=server)
    assert len(done.stdout) == count, done.stderr.decode()
    assert not done.stderr


@pytest.mark.parametrize("words", [("serve",), ("ca", "init"), ("policy", "check", "/dev/null")])
def test_a_command_of_the_host_says_what_to_install(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, alone.__file__, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("jobworker: this command ")
    assert done.stderr.count("\n") == 1
    assert "pip install 'job-worker[server]'" in done.stderr or "for Linux" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_is_there_for_all_commands() -> None:
    done = run("--help")
    assert done.returncode == 0
    for words in (("serve",), ("ca", "issue"), ("run",), ("policy", "test")):
        assert run(*words, "--help").returncode == 0, words


def test_what_is_said_to_be_missing_is_what_the_extra_brings() -> None:
    extras = PROJECT["optional-dependencies"]
    assert "job-worker[console]" in extras["server"]
    brought = names_of(extras["server"] + extras["console"]) - {"job_worker[console]"}
    distributions = packages_distributions()
    said = {distributions[name][0].replace("-", "_").lower() for name in SERVER_MODULES}
    assert said == brought
    assert not brought & names_of(PROJECT["dependencies"])


def test_the_extra_for_development_has_the_server() -> None:
    assert "job-worker[server]" in PROJECT["optional-dependencies"]["dev"]
