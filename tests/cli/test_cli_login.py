"""Where jobs start, and the login environment on demand."""

import json
import os
import pwd
from pathlib import Path

import pytest

from jobworker.supervisor.host.users import login_shell
from tests.conftest import POLICY, USERS
from tests.support.server import Server, running_server


def home() -> str:
    return pwd.getpwuid(os.geteuid()).pw_dir


def test_a_job_starts_in_its_users_home(server: Server) -> None:
    """It was `/`, where no user may write, and what was asked for had to be absolute."""
    assert server.ask("alice", "run", "--", "pwd") == home()
    assert server.ask("alice", "run", "-w", "..", "--", "pwd", "-P") == str(Path(home()).parent)
    assert server.ask("alice", "run", "-w", "/usr", "--", "pwd") == "/usr"


def test_a_directory_that_is_not_there_is_named_with_the_home(server: Server) -> None:
    done = server.run("alice", "run", "-w", "no/such/place", "--", "pwd")
    assert done.returncode == 125
    assert f"{home()}/no/such/place" in done.stderr.decode()


def test_login_reads_what_a_login_reads(tmp_path: Path) -> None:
    """PATH was bare, whatever the user's profile says."""
    own = tmp_path / "home"
    own.mkdir()
    (own / ".profile").write_text("export PATH=$PATH:/opt/marker CONDA=here\n")
    jobs = f'environment: {{PATH: "/usr/bin:/bin", HOME: "{own}"}}'
    if os.geteuid() == 0:
        jobs += ", users: {jobs_run_as_root: true}"
    with running_server(tmp_path, USERS, POLICY, f"jobs: {{{jobs}}}\n") as server:
        assert server.ask("alice", "run", "--", "printenv", "PATH") == "/usr/bin:/bin"
        job = server.ask("alice", "start", "--login", "--", "printenv", "PATH", "CONDA")
        server.end("alice", job)
        path, conda = server.ask("alice", "logs", job).splitlines()
        assert path.endswith(":/opt/marker")
        assert conda == "here"
        # It is told as it was asked for.
        status = json.loads(server.ask("alice", "status", job, "-o", "json"))
        assert status["command"] == ["printenv", "PATH", "CONDA"]
        # A variable of the job's is no program that the policy was not asked about.
        shell = tmp_path / "bash"
        shell.write_text("#!/bin/sh\necho another\n")
        shell.chmod(0o755)
        words = ("run", "--login", "-e", f"SHELL={shell}", "--", "echo", "this")
        assert server.ask("alice", *words) == "this"


@pytest.mark.parametrize(
    ("shell", "program"),
    [
        ("/bin/bash", "/bin/bash"),
        ("/usr/bin/zsh", "/usr/bin/zsh"),
        ("/usr/bin/fish", "/bin/sh"),
        ("/usr/sbin/nologin", "/bin/sh"),
        ("", "/bin/sh"),
    ],
)
def test_the_shell_is_one_that_takes_the_words(shell: str, program: str) -> None:
    assert login_shell(shell) == (program, "-l", "-c", 'exec "$@"', program)
