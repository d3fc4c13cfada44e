"""Certificates for browsers: `jobworker cert export` and `jobworker ca issue --p12`."""

import os
import stat
import subprocess
from pathlib import Path

import pexpect
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from tests.cli.admin.test_ca_commands import JOBWORKER, ca, done

WORDS = "correct horse battery"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    done(tmp_path, "init")
    done(tmp_path, "issue", "--cn", "alice", "--ou", "team-a")
    (tmp_path / "words").write_text(f"{WORDS}\n")
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    files = {"CA": "ca.crt", "CERT": "alice.crt", "KEY": "alice.key"}
    named = {f"JOBWORKER_{name}": str(home / "ca" / file) for name, file in files.items()}
    return {
        **named,
        "JOBWORKER_SERVER": "localhost:1",
        "HOME": str(home),
        "PATH": os.environ["PATH"],
    }


def export(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [JOBWORKER, "cert", "export", *words],
        cwd=home,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def check(home: Path, file: Path, name: str = "alice") -> None:
    """The file is the user's: their certificate, its key, and the CA's certificate."""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    held = load_pkcs12(file.read_bytes(), WORDS.encode())
    key = load_pem_private_key((home / "ca" / f"{name}.key").read_bytes(), None)
    assert held.key is not None
    assert held.key.public_key() == key.public_key()
    assert held.cert is not None
    assert held.cert.certificate.public_key() == key.public_key()
    authority = x509.load_pem_x509_certificate((home / "ca/ca.crt").read_bytes())
    assert [one.certificate for one in held.additional_certs] == [authority]
    with pytest.raises(ValueError, match="password"):
        load_pkcs12(file.read_bytes(), b"another one")


def test_ones_own_certificate_for_a_browser(home: Path) -> None:
    finished = export(home, "--p12", "mine.p12", "--passphrase-file", "words")
    assert finished.returncode == 0, finished.stderr
    assert "mine.p12" in finished.stdout
    check(home, home / "mine.p12")


def test_the_passphrase_is_asked_for_unseen(home: Path) -> None:
    terminal = pexpect.spawn(
        str(JOBWORKER),
        ["cert", "export", "--p12", "mine.p12"],
        cwd=str(home),
        env=environment(home),
        encoding="utf-8",
        timeout=60,
    )
    for _ in range(2):
        terminal.expect(":")
        terminal.sendline(WORDS)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert WORDS not in str(terminal.before)
    check(home, home / "mine.p12")


def test_a_certificate_is_issued_for_a_browser(home: Path) -> None:
    done(home, "issue", "--cn", "bob", "--p12", "--passphrase-file", "words")
    check(home, home / "ca/bob.p12", "bob")


def test_what_is_there_stays_as_it_is(home: Path) -> None:
    (home / "mine.p12").write_text("another's")
    finished = export(home, "--p12", "mine.p12", "--passphrase-file", "words")
    assert finished.returncode == 2
    assert "is there already" in finished.stderr
    assert (home / "mine.p12").read_text() == "another's"


def test_refusals_are_sentences_and_change_nothing(home: Path) -> None:
    (home / "short").write_text("1234\n")
    for words in (
        ("--p12", "mine.p12"),
        ("--p12", "mine.p12", "--passphrase-file", "short"),
        ("--p12", "mine.p12", "--passphrase-file", "nowhere"),
        ("--p12", "nowhere/mine.p12", "--passphrase-file", "words"),
        ("--p12", "mine.p12", "--passphrase-file", "words", "--key", "ca/ca.key"),
        ("--p12", "mine.p12", "--passphrase-file", "words", "--cert", "words"),
        ("--p12", "mine.p12", "--passphrase-file", "words", "--cert", "nowhere"),
    ):
        finished = export(home, *words)
        assert finished.returncode == 2, words
        assert "Traceback" not in finished.stderr
        assert not (home / "mine.p12").exists()
    for words in (
        ("--cn", "carol", "--p12"),
        ("--cn", "carol", "--p12", "--passphrase-file", "short"),
        ("--server", "carol", "--p12", "--passphrase-file", "words"),
    ):
        assert ca(home, "issue", *words).returncode == 2, words
        assert not (home / "ca/carol.crt").exists()
