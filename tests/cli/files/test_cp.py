"""`jobworker cp`: files into jobs' directories and out of them, as people call both."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

from jobworker.cli.files.places import PlaceType, Remote
from tests.support.relay import relay_to
from tests.support.server import DEADLINE_SECONDS, JOBWORKER, PORT, Server


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def job(server: Server, there: Path) -> str:
    return server.ask("alice", "start", "-w", str(there), "--", "sleep", "1000")


def cp(
    server: Server, here: Path, *words: str, user: str = "alice", sent: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """Copy, in that directory, with that on stdin."""
    return subprocess.run(
        [JOBWORKER, "cp", *words],
        cwd=here,
        env=server.environment(user) | {"TMPDIR": str(here)},
        input=sent,
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def copied(server: Server, here: Path, *words: str, sent: bytes = b"") -> bytes:
    """Copy; it must succeed, and say nothing. Returns what came on stdout."""
    done = cp(server, here, *words, sent=sent)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_in_and_out_under_every_name_of_a_job(server: Server, here: Path, there: Path) -> None:
    words = ["start", "--name", "train", "-w", str(there), "--", "sleep", "1000"]
    job = server.ask("alice", *words)
    (here / "a:b").write_bytes(b"\0\xff" * 100_000)
    (here / "a:b").chmod(0o711)
    for number, call in enumerate((job, job[-8:], "train", "@last", "alice/train")):
        copied(server, here, "./a:b", f"{call}:copy")
        copied(server, here, f"{call}:copy", f"back{number}")
        back = here / f"back{number}"
        assert back.read_bytes() == (here / "a:b").read_bytes()
        assert back.stat().st_mode & 0o777 == 0o711
    assert os.listdir(there) == ["copy"]
    server.ask("alice", "stop", job)
    copied(server, here, f"{job}:copy", "after")
    assert (here / "after").read_bytes() == (here / "a:b").read_bytes()


def test_directories_take_it_under_its_own_name(
    server: Server, here: Path, there: Path, job: str
) -> None:
    (here / "file").write_text("data")
    (here / "into").mkdir()
    (there / "into").mkdir()
    for target in ("", "into", "into/"):
        copied(server, here, "file", f"{job}:{target}")
    assert (there / "file").read_text() == (there / "into/file").read_text() == "data"
    for target in ("into", "into/", "."):
        copied(server, here, f"{job}:into/file", target)
    assert (here / "into/file").read_text() == "data"


def test_pipes(server: Server, here: Path, there: Path, job: str) -> None:
    data = os.urandom(1_000_000)
    copied(server, here, "-", f"{job}:file", sent=data)
    copied(server, here, "/dev/stdin", f"{job}:other", sent=data)
    assert (there / "file").read_bytes() == (there / "other").read_bytes() == data
    assert (there / "file").stat().st_mode & 0o777 == 0o644
    assert copied(server, here, f"{job}:file", "-") == data
    copied(server, here, f"{job}:file", "/dev/null")
    assert os.listdir(here) == []
    done = cp(server, here, "-", f"{job}:", sent=data)
    assert (done.returncode, b"name" in done.stderr) == (1, True)


def test_a_link_of_one_s_own_is_written_through(
    server: Server, here: Path, there: Path, job: str
) -> None:
    (there / "file").write_text("data")
    (here / "real").mkdir()
    (here / "link").symlink_to("real/file")
    copied(server, here, f"{job}:file", "link")
    assert (here / "real/file").read_text() == "data"
    assert (here / "link").is_symlink()


def test_how_it_fails(server: Server, here: Path, there: Path, job: str) -> None:
    (here / "file").write_text("data")
    (there / "link").symlink_to("/etc/passwd")
    for words, code, said in (
        (("file", "other"), 2, "one of SRC and DST is JOB:PATH"),
        ((f"{job}:a", f"{job}:b"), 2, "one of SRC and DST is JOB:PATH"),
        (("file", ":x"), 2, "names no job"),
        (("absent", f"{job}:"), 1, "absent: No such file or directory"),
        ((".", f"{job}:"), 1, "tar c . |"),
        (("file", f"{job}:absent/x"), 1, "no such file or directory in the job's directory"),
        ((f"{job}:absent", "."), 1, "no such file or directory in the job's directory"),
        ((f"{job}:", "."), 1, "files alone"),
        ((f"{job}:link", "."), 1, "leads out of the job's directory"),
        (("file", f"{job}:/etc/new"), 1, "leads out of the job's directory"),
        ((f"{job}:link", "absent/x"), 1, "leads out"),
        (("file", "nonesuch:"), 3, "no job 'nonesuch'"),
    ):
        done = cp(server, here, *words)
        assert (done.returncode, said in done.stderr.decode()) == (code, True), done
    assert cp(server, here, f"{job}:file", ".", user="bob").returncode == 3
    refused = cp(server, here, f"{job}:file", ".", user="ann")
    assert (refused.returncode, b"get refused to cn=ann" in refused.stderr) == (4, True)
    assert os.listdir(here) == ["file"]
    assert not Path("/etc/new").exists()


def test_what_is_local() -> None:
    convert = PlaceType().convert
    for local in ("file", "./a:b", "../a:b", "/a:b", "-", "."):
        assert convert(local, None, None) == local
    for text, job, path in (
        ("j:", "j", ""),
        ("@last:a:b", "@last", "a:b"),
        ("bob/train:/x", "bob/train", "/x"),
    ):
        assert convert(text, None, None) == Remote(job, path)


def test_completion(server: Server, here: Path, there: Path) -> None:
    server.ask("alice", "start", "--name", "weekly-report", "--", "sleep", "1000")
    environment = server.environment("alice") | {"_JOBWORKER_COMPLETE": "bash_complete"}

    def completed(words: str, number: int) -> list[str]:
        done = subprocess.run(
            [JOBWORKER],
            env=environment | {"COMP_WORDS": words, "COMP_CWORD": str(number)},
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=True,
        )
        return done.stdout.splitlines()

    assert completed("jobworker cp weekly", 2) == ["plain,weekly-report:"]
    for words, number in (("jobworker cp ./week", 2), ("jobworker cp x ", 3)):
        assert [line.partition(",")[0] for line in completed(words, number)] == ["file"]


def test_a_line_tells_how_far_it_is_on_a_terminal(
    server: Server, here: Path, there: Path, job: str
) -> None:
    (there / "file").write_bytes(os.urandom(2_000_000))
    ours, theirs = pty.openpty()
    with relay_to((server.host, PORT), rate=1_000_000) as relay:
        done = subprocess.run(
            [JOBWORKER, "cp", f"{job}:file", "."],
            cwd=here,
            env=server.environment("alice", relay.address),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    os.close(theirs)
    told = os.read(ours, 65536)
    os.close(ours)
    assert done.returncode == 0
    assert b"/s\r\x1b[K" in told
    assert told.endswith(b"\r\x1b[K")
    assert (here / "file").stat().st_size == 2_000_000
