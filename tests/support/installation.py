"""An installation of job-worker that can be replaced by another: as an upgrade does it."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("authz", "cli", "client", "grpc_api", "policies", "proto", "supervisor")
# setup.py generates what protoc makes, and then builds: only the first is wanted.
GENERATE = """
import runpy, setuptools
setuptools.setup = lambda **_: None
runpy.run_path("setup.py")["generate"]()
"""


class Installation:
    """A directory to import `jobworker` from, which leads to one checkout or another."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to import from here."""
        return {**os.environ, "PYTHONPATH": str(self._directory)}

    def lead_to(self, checkout: Path) -> None:
        """What is imported from now on is that checkout's."""
        packages = self._directory / f"of-{checkout.name}"
        packages.mkdir()
        for folder in FOLDERS:
            if (checkout / folder).is_dir():
                (packages / folder).symlink_to(checkout / folder)
        new = self._directory / "new"
        new.symlink_to(packages.name)
        new.rename(self._directory / "jobworker")


def checkout_of(commit: str, directory: Path) -> Path:
    """The tree of a commit, with the code that is generated from its contract.

    Skips the test where this is no clone, or one without that commit.
    """
    archive = directory.with_suffix(".tar")
    done = subprocess.run(
        ["git", "-C", ROOT, "archive", "--output", archive, commit],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"this clone does not have commit {commit}: {done.stderr.strip()}")
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    subprocess.run([sys.executable, "-c", GENERATE], cwd=directory, check=True)
    return directory
