"""The enrolment of docs/client.md, typed word for word by a user and an administrator."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.support.server import DEADLINE_SECONDS, JOBWORKER

TEXT = (Path(__file__).parents[2] / "docs" / "client.md").read_text()


def blocks() -> list[str]:
    section = TEXT.partition("## A certificate whose key never leaves\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def type_in(text: str, home: Path) -> str:
    """Run what a reader types, in a home of theirs; what it says. Every command must succeed."""
    path = f"{Path(JOBWORKER).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=home,
        env={"HOME": str(home), "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_enrolment_works_word_for_word(tmp_path: Path) -> None:
    """The page had the administrator sign alice.csr, which nothing makes."""
    user, admin = tmp_path / "user", tmp_path / "admin"
    for home in (user, admin):
        home.mkdir()
    ours, theirs, openssl = blocks()
    type_in("jobworker ca init", admin)
    said = type_in(ours, user)
    settings = user / ".config/jobworker"
    shutil.copy(settings / "jobs.example.org.csr", admin)
    fingerprint = re.search(r"SHA256:\S+", said)
    assert fingerprint is not None
    # Nobody can be asked here; tests/cli/admin/test_enroll.py has somebody asked.
    assert fingerprint[0] in type_in(theirs.replace("ca sign", "ca sign --yes"), admin)
    for file in (admin / "jobs.example.org.crt", admin / "ca/ca.crt"):
        shutil.copy(file, settings)
    view = type_in("jobworker config view", user)
    for setting in ("ca.crt", "jobs.example.org.crt", "jobs.example.org.key"):
        assert str(settings / setting) in view
        assert (settings / setting).exists()
    # A request that is made elsewhere does as well.
    type_in(openssl, admin)
    assert "cn=alice ou=team-a" in type_in("jobworker ca requests alice.csr", admin)
