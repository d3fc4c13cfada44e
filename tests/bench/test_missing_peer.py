"""Measuring on a machine that lacks what is measured beside."""

import shutil
import sys
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench.peers.daemon import NotInstalled
from bench.peers.openssh import running_openssh


def test_a_part_without_its_peer_is_left_out_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without sshd it ended in a traceback."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["bench", "output"])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 1
    assert "output is not measured: install OpenSSH's server" in capsys.readouterr().out


def test_it_says_which_programs_are_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "ssh-keygen" else name)
    with pytest.raises(NotInstalled, match="without ssh-keygen there"), running_openssh(tmp_path):
        raise AssertionError("it is not there")
