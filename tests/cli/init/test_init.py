"""`jobworker init`: a first server that serves, from nothing; and what it leaves alone."""

import json
import os
import re
import subprocess
from datetime import timedelta
from pathlib import Path

import pexpect
import pytest
import yaml

from jobworker.authz.ca.authority import CertificateAuthority
from jobworker.cli.host.first_server import FirstServer
from tests.cli.test_cli_json import CHECKS
from tests.support.server import DEADLINE_SECONDS, JOBWORKER, own_address, serving

FAILED, USAGE = 1, 2


def init(home: Path, *words: str | Path, code: int = 0) -> str:
    """What the command prints, on stderr if it fails; it is asked in an empty directory."""
    done = subprocess.run(
        [JOBWORKER, "init", "--as-me", "--no-units", *words],
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done.stderr if code else done.stdout


def files(directory: Path) -> dict[str, bytes]:
    """All that is in a directory."""
    found = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def test_what_it_makes_serves_a_first_user(tmp_path: Path) -> None:
    host = own_address()
    said = init(
        tmp_path,
        *("--dir", "a server", "--host", host, "--listen", f"{host}:50051", "--yes"),
        *("--user", "alice", "--tenant", "team-a"),
    )
    base = tmp_path / "a server"
    with serving(base / "server.yaml"):
        command = re.search(r"^ +(jobworker --server .*) whoami$", said, re.MULTILINE)
        assert command is not None
        for words, expected in (("whoami", "alice"), ("run --cwd / -- echo a job", "a job")):
            done = subprocess.run(
                ["sh", "-c", f"{command[1]} {words}"],
                cwd=tmp_path,
                env={"PATH": f"{JOBWORKER.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                timeout=DEADLINE_SECONDS,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert expected in done.stdout
    assert any((base / "audit").iterdir())
    assert (base / "ca/ca.key").stat().st_mode & 0o777 == 0o600
    assert (base / "tls").stat().st_mode & 0o777 == 0o700


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    init(tmp_path, "--dir", "it", "--yes")
    before = files(tmp_path)
    assert "server.yaml is there already, and stays" in init(
        tmp_path, "--dir", "it", "--yes", code=FAILED
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "policy.yaml").symlink_to("nowhere")
    assert "policy.yaml is there already" in init(tmp_path, "--dir", "other", "--yes", code=FAILED)
    assert files(tmp_path) == before


def test_what_cannot_be_finished_is_taken_back(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "audit").write_text("in the way of a directory")
    (tmp_path / "it" / "units").write_text("the same")
    done = subprocess.run(
        [JOBWORKER, "init", "--as-me", "--dir", "it", "--units", "it/units", "--yes"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == USAGE
    words = ("--dir", "it", "--units", "it/audit/units", "--yes")
    done = subprocess.run(
        [JOBWORKER, "init", "--as-me", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == FAILED
    assert "it cannot be made, and nothing was" in done.stderr
    assert sorted(files(tmp_path)) == ["it/audit", "it/units"]
    assert sorted(path.name for path in (tmp_path / "it").iterdir()) == ["audit", "units"]


def test_a_dry_run_says_what_would_be_done(tmp_path: Path) -> None:
    (told,) = map(json.loads, init(tmp_path, "--dry-run", "-o", "json", "--dir", "it").splitlines())
    CHECKS["init"](told)
    assert (told["dry_run"], told["settings"]) == (True, str(tmp_path / "it/server.yaml"))
    assert "CA " in init(tmp_path, "--dry-run", "--dir", "it")
    assert list(tmp_path.iterdir()) == []


def test_a_ca_that_is_there_is_used(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path / "ca")
    authority.create("ours", "p256", timedelta(days=30))
    told = json.loads(init(tmp_path, "--dir", "it", "--ca", "ca", "--yes", "-o", "json"))
    CHECKS["init"](told)
    assert (told["dry_run"], told["user"], told["ca"]) == (False, None, str(tmp_path / "ca"))
    assert (tmp_path / "it/tls/ca.crt").read_bytes() == authority.certificate.read_bytes()
    assert [entry.purpose for entry in authority.entries()] == ["server"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say --yes, as nobody can be asked here"),
        (["--host", "a b"], "'a b' is no DNS name or IP address"),
        (["--listen", "here"], "'here' is not HOST:PORT"),
        (["--user", "a/b"], "the name 'a/b' may only hold"),
        (["--tenant", "a"], "--tenant is for --user"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    assert said in init(tmp_path, "--dir", "it", *words, code=USAGE)
    assert list(tmp_path.iterdir()) == []


def test_it_asks_for_what_is_not_said(tmp_path: Path) -> None:
    words = ["init", "--as-me", "--no-units", "--dir", "it"]
    with pexpect.spawn(
        str(JOBWORKER), words, cwd=tmp_path, timeout=DEADLINE_SECONDS, encoding="utf-8"
    ) as asking:
        for question, answer in (
            ("Names that users call it by.*: ", "jobs.example.org 10.0.0.7"),
            ("Where it listens.*: ", ""),
            ("First user.*: ", "alice"),
            ("Their tenants: ", "team-a team-b"),
            ("Make it.*: ", "y"),
        ):
            asking.expect(question)
            asking.sendline(answer)
        asking.expect(pexpect.EOF)
    assert asking.exitstatus == 0
    entries = CertificateAuthority(tmp_path / "it" / "ca").entries()
    assert [entry.hosts or entry.tenants for entry in entries] == [
        ("jobs.example.org", "10.0.0.7"),
        ("team-a", "team-b"),
    ]


def server(directory: Path, **more: object) -> FirstServer:
    given: dict[str, object] = {
        "directory": directory,
        "ca": directory / "ca",
        "state": directory / "state",
        "audit": directory / "audit",
        "listen": "[::1]:50051",
        "hosts": ("localhost",),
        "front_user": "jobworker",
        "group": "jobusers",
        "units": directory / "units",
        "program": Path("/opt/other/bin/jobworker"),
    }
    return FirstServer(**(given | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["plain", "a b", "quo'te\"s", "back\\slash", "-", "# no: {it}"])
def test_settings_are_what_was_said_however_it_is_spelt(tmp_path: Path, name: str) -> None:
    written = yaml.safe_load(server(tmp_path / name).settings_text())
    assert written["state_dir"] == str(tmp_path / name / "state")
    assert written["audit"] == {"directory": str(tmp_path / name / "audit")}
    assert written["listen"] == "[::1]:50051"
    assert written["front_user"] == "jobworker"
    assert written["jobs"] == {"users": {"names": "{cn}", "groups": ["jobusers"]}}
    own = yaml.safe_load(server(tmp_path, front_user=None, group=None).settings_text())
    assert own["jobs"] == {"users": {"jobs_run_as_root": True}}
    assert "front_user" not in own


def test_units_name_this_program_and_these_settings(tmp_path: Path) -> None:
    made = server(tmp_path)
    for path in made.unit_files():
        text = made.unit_text(path.name)
        commands = re.findall(r"^Exec\w+=-?(\S+) serve .*--config (\S+)$", text, re.MULTILINE)
        assert set(commands) == {("/opt/other/bin/jobworker", str(made.settings))}
        assert "adapt the paths" not in text
