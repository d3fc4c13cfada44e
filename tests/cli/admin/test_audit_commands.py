"""`jobworker audit`, as an administrator runs it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobworker.authz.audit.files import files_of, verify
from jobworker.authz.audit.log import AuditLog
from jobworker.authz.audit.record import Changed, Recovered
from tests.authz.test_audit import decision

JOBWORKER = Path(sys.executable).with_name("jobworker")
DEADLINE_SECONDS = 60


def audit(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run `jobworker audit`."""
    finished = subprocess.run(
        [JOBWORKER, "audit", *words],
        env={},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert "Traceback" not in finished.stderr
    return finished


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    log = AuditLog(tmp_path / "audit")
    log.append(decision("alice", "start", "/bin/ls", "-l"))
    log.append(decision("bob", "stop"))
    log.append(Changed(job="j1", owner="alice", tenant="a", state="ended", detail="exit code 3"))
    log.append(Recovered(dropped_bytes=7))
    log.append(decision("bob", "start", "\x1b[2J\n"))
    log.close()
    return tmp_path / "audit"


def test_tail_tells_records_in_words(directory: Path) -> None:
    told = audit("tail", directory)
    assert told.returncode == 0
    assert [line.split(" ", 2)[2] for line in told.stdout.splitlines()] == [
        "allowed start to cn=alice ou=a ou=b (10.0.0.1:5) for a/alice /bin/ls -l: policy.yaml:2",
        "REFUSED stop to cn=bob ou=a ou=b (10.0.0.1:5) for a/bob /bin/ls: no rule",
        "job j1 a/alice is ended: exit code 3",
        "the log goes on after a crash; 7 bytes were unfinished",
        "REFUSED start to cn=bob ou=a ou=b (10.0.0.1:5) for a/bob '\\x1b[2J\\n': no rule",
    ]
    assert len(audit("tail", directory, "-n", "2").stdout.splitlines()) == 2
    assert audit("tail", directory, "-n", "0").stdout == ""


def test_tail_tells_json(directory: Path) -> None:
    lines = audit("tail", directory, "-n", "1", "-o", "json").stdout.splitlines()
    (file,) = files_of(directory)
    assert [json.loads(line) for line in lines] == [json.loads(file.read_bytes().splitlines()[-1])]


def test_tail_follows_until_interrupted(directory: Path) -> None:
    with subprocess.Popen(
        # What runs the tests may ignore SIGINT, which is inherited.
        ["env", "--default-signal=INT", JOBWORKER, "audit", "tail", "-f", "-n", "1", directory],
        env={"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert "REFUSED start" in process.stdout.readline()
            log = AuditLog(directory)
            log.append(decision("alice", "signal"))
            log.close()
            assert "allowed signal to cn=alice" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_SECONDS) == 130
        finally:
            process.kill()


def test_verify_tells_what_holds_and_the_head(directory: Path) -> None:
    head = verify(directory).head
    told = audit("verify", directory)
    assert told.returncode == 0
    assert told.stdout == f"Records 1 to 5 are as they were written.\nhead {head}\n"
    assert audit("verify", directory, "--head", head).returncode == 0
    assert json.loads(audit("verify", directory, "-o", "json").stdout) == {
        "files": 1,
        "first": 1,
        "last": 5,
        "head": head,
    }


def test_verify_fails_for_a_log_that_was_changed(directory: Path) -> None:
    (file,) = files_of(directory)
    file.write_bytes(file.read_bytes().replace(b'"cn":"bob"', b'"cn":"eve"', 1))
    told = audit("verify", directory)
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr == (
        f"jobworker: {file}:3: record 3 does not follow from the line before it, "
        "which was changed, or this one was\n"
    )


def test_verify_fails_without_the_line_that_was_noted(directory: Path) -> None:
    told = audit("verify", directory, "--head", "0" * 64)
    assert told.returncode == 1
    assert "no line has the hash" in told.stderr


def test_an_empty_log_and_a_missing_one(tmp_path: Path) -> None:
    AuditLog(tmp_path / "audit").close()
    assert audit("verify", tmp_path / "audit").stdout == "The log is empty.\n"
    assert audit("tail", tmp_path / "audit").stdout == ""
    missing = audit("verify", tmp_path / "missing")
    assert missing.returncode == 2
    assert "missing" in missing.stderr


def test_search_tells_what_fits_in_words_and_as_json(directory: Path) -> None:
    told = audit("search", directory, "--refused", "--user", "bob")
    assert told.returncode == 0
    assert [line.split(" ", 4)[2:4] for line in told.stdout.splitlines()] == [
        ["REFUSED", "stop"],
        ["REFUSED", "start"],
    ]
    last = audit("search", directory, "--user", "bob", "--limit", "1", "-o", "json").stdout
    assert [json.loads(line)["number"] for line in last.splitlines()] == [5]
    job = audit("search", directory, "--job", "j1", "--since", "1d", "--until", "0s")
    assert job.stdout.rstrip().endswith("job j1 a/alice is ended: exit code 3")


def test_search_that_finds_nothing_ends_well(directory: Path) -> None:
    for nothing in (("--user", "nobody"), ("--until", "2000-01-01"), ("--action", "no such")):
        told = audit("search", directory, *nothing)
        assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    wrong = audit("search", directory, "--since", "yesterday")
    assert wrong.returncode == 2
    assert "neither so long ago" in wrong.stderr


def test_search_goes_on_past_a_damaged_line(directory: Path) -> None:
    (file,) = files_of(directory)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], b"{}\n", *lines[2:]]))
    told = audit("search", directory)
    assert told.returncode == 1
    assert len(told.stdout.splitlines()) == 4
    assert f"{file}:2: not a record" in told.stderr
