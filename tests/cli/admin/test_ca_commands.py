"""`jobworker ca`, as an administrator runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

JOBWORKER = Path(sys.executable).with_name("jobworker")
DEADLINE_SECONDS = 60


def ca(directory: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `jobworker ca` with its default directory below `directory`."""
    return subprocess.run(
        [JOBWORKER, "ca", *words],
        cwd=directory,
        env={},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def done(directory: Path, *words: str) -> str:
    """What a command that must succeed prints."""
    finished = ca(directory, *words)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return finished.stdout


def refused(directory: Path, *words: str) -> str:
    """What a command says that must fail for what it was given."""
    finished = ca(directory, *words)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert "Traceback" not in finished.stderr
    return finished.stderr


@pytest.fixture
def home(tmp_path: Path) -> Path:
    done(tmp_path, "init")
    return tmp_path


def test_a_ca_from_nothing_to_revocation(home: Path) -> None:
    issued = done(home, "issue", "--cn", "alice", "--ou", "team-a", "--ou", "team-b")
    assert issued.startswith("ca/alice.crt and ca/alice.key: ")
    assert issued.endswith("client alice ou=team-a ou=team-b\n")
    assert "server localhost 127.0.0.1" in done(
        home, "issue", "--server", "localhost", "--server", "127.0.0.1"
    )
    assert [line.split()[1] for line in done(home, "list").splitlines()] == ["valid", "valid"]
    told = done(home, "revoke", "--cn", "alice")
    assert "revoked" in told
    # It said that, and nobody knew which servers would ever hear of it.
    assert "Servers whose tls.crl is ca/ca.crl refuse it within a second" in told
    assert [line.split()[1] for line in done(home, "list").splitlines()] == ["revoked", "valid"]
    assert "server localhost" in done(home, "renew", "localhost")
    assert len(done(home, "list").splitlines()) == 3


def test_json_tells_all(home: Path) -> None:
    issued = json.loads(done(home, "issue", "--cn", "alice", "--ou", "team-a", "-o", "json"))
    assert issued["certificate"] == "ca/alice.crt"
    assert issued["key"] == "ca/alice.key"
    listed = json.loads(done(home, "list", "-o", "json"))
    assert listed == {key: issued[key] for key in listed}
    assert listed["state"] == "valid"
    assert listed["tenants"] == ["team-a"]
    revoked = json.loads(done(home, "revoke", listed["serial"], "-o", "json"))
    assert revoked["state"] == "revoked"
    assert revoked["revoked_at"].endswith("Z")
    empty = ca(home, "revoke", listed["serial"], "-o", "json")
    assert (empty.stdout, empty.stderr) == ("", '{"message": "it was revoked before"}\n')


def test_the_directory_is_an_option_or_in_the_environment(tmp_path: Path) -> None:
    done(tmp_path, "init", "--dir", "here/ca")
    finished = subprocess.run(
        [JOBWORKER, "ca", "issue", "--cn", "alice"],
        cwd=tmp_path,
        env={"JOBWORKER_CA_DIR": "here/ca"},
        timeout=DEADLINE_SECONDS,
        check=False,
        capture_output=True,
    )
    assert finished.returncode == 0
    assert (tmp_path / "here/ca/alice.key").exists()


def test_the_revocation_list_is_written_where_a_server_looks(home: Path) -> None:
    assert done(home, "crl") == "ca/ca.crl\n"
    assert done(home, "crl", "--out", "served.crl") == "served.crl\n"
    assert (home / "served.crl").read_bytes() == (home / "ca/ca.crl").read_bytes()
    assert (home / "served.crl").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["init"], "there is a CA in ca already"),
        (["issue"], "give either --cn, for a user, or --server, for a server"),
        (["issue", "--cn", "a", "--server", "b"], "give either --cn"),
        (["issue", "--server", "b", "--ou", "c"], "a server has no tenants"),
        (["issue", "--cn", "a/b"], "the name 'a/b' may only hold"),
        (["issue", "--cn", "a", "--days", "0"], "'--days'"),
        (["issue", "--cn", "a", "--out", "missing"], "missing"),
        (["issue", "--cn", "a", "--dir", "missing"], "there is no CA in missing"),
        (["list", "--dir", "missing"], "there is no CA in missing"),
        (["revoke"], "give either a SERIAL"),
        (["revoke", "12"], "no certificate has the serial number '12'"),
        (["renew", "bob"], "there is no valid certificate for 'bob'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    home: Path, words: list[str], message: str
) -> None:
    assert message in refused(home, *words)
