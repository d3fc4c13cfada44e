"""Jobs of a cluster run as their Unix users, who reach what is theirs and nothing else."""

import grp
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from jobworker.supervisor import Job
from tests.support.library import eventually
from tests.support.slurm.worker import ClusterSite, sh, streams

ROOT = Path(__file__).parents[3]
# Others than root may not reach the interpreter that runs the tests.
PYTHON = "/usr/bin/python3"
USER, READERS = "daemon", "games"


def node_for_all(directory: Path) -> Path:
    """A jobworker-node that any user can execute."""
    check = [PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if not Path(PYTHON).exists() or subprocess.run(check, check=False).returncode:
        pytest.skip(f"{PYTHON} is not Python 3.11 or newer")
    unneeded = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "supervisor", directory / "jobworker/supervisor", ignore=unneeded)
    program = directory / "node"
    module = "jobworker.supervisor.slurm.node"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={directory} exec {PYTHON} -m {module} "$@"\n')
    program.chmod(0o755)
    return program


def test_a_job_runs_as_its_user(place: ClusterSite) -> None:
    directory = place.shared.parent / "node"
    directory.mkdir(mode=0o755)
    engine = {
        "kind": "slurm",
        "shared_dir": str(place.shared),
        "node": str(node_for_all(directory)),
    }
    users = {"names": {"library": USER}}
    readers = grp.getgrnam(READERS).gr_gid
    with place.site.worker(engine=engine, users=users, readers=readers) as worker:
        job: Job = sh(worker, 'id -un; ls "$1" "$1/output" 2>&1; umask', str(place.shared))
        out, _ = streams(job)
        assert out.splitlines()[0] == USER.encode()
        assert out.count(b"Permission denied") == 2
        output = place.shared / "output" / job.id
        about = output.stat()
        assert (about.st_uid, about.st_gid) == (pwd.getpwnam(USER).pw_uid, readers)
        for path in output.iterdir():
            assert path.stat().st_gid == readers
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert job.wait().exit_code == 0
        eventually("its order is gone", lambda: not list((place.shared / "orders").iterdir()))
