"""The README, followed word for word in a copy of the tree."""

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.server import leaving_no_process

ROOT = Path(__file__).parents[2]
PORT = 50051
BLOCKS = re.findall(
    r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
)
NOT_COPIED = (".venv", ".git", ".demo", "build", "*.egg-info", "__pycache__", ".*_cache")


class Shell:
    """An interactive reader's shell: takes a block of commands, gives what they print."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            ["bash", "-e"],
            cwd=directory,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(directory)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, block: str, until: str = "the block is done") -> str:
        """Run a block; return its output when a line holds `until`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{block}\necho the block is done\n")
        self.process.stdin.flush()
        return "".join(self._lines(until))

    def _lines(self, until: str) -> Iterator[str]:
        assert self.process.stdout is not None
        printed = []
        for line in self.process.stdout:
            if until in line:
                return
            if line != "the block is done\n":
                printed.append(line)
                yield line
        pytest.fail(f"the shell ended at: {''.join(printed)}")


@pytest.fixture
def copy() -> Iterator[Path]:
    """A copy of the tree, with the environment that these tests run in.

    Not below pytest's own directory: a reader's have paths that leave room for sockets.
    """
    with TemporaryDirectory(prefix="readme-") as name:
        yield _copied_to(Path(name))


def _copied_to(parent: Path) -> Path:
    directory = parent / "job-worker"
    shutil.copytree(ROOT, directory, ignore=shutil.ignore_patterns(*NOT_COPIED))
    (directory / ".venv").symlink_to(sys.prefix)
    # Or make would install the copy, and break the environment for all others.
    fresh = subprocess.run(["make", "--question", "venv"], cwd=directory, check=False)
    assert fresh.returncode == 0, "the environment is not up to date: run make venv"
    return directory


@pytest.fixture
def free_port() -> None:
    """Skip, aloud, where something else has the port that the README names."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("localhost", PORT))
        except OSError:
            pytest.skip(f"something else listens on localhost:{PORT}, the port of the README")


@pytest.mark.usefixtures("free_port")
def test_the_readme_works_word_for_word(copy: Path) -> None:
    demo, tests, certificates, serve, settings, jobs, end = BLOCKS
    with leaving_no_process():
        shell = Shell(copy)
        with shell.process:
            assert "That was all of it." in shell.run(demo)
            # These are the tests.
            assert tests == "make test\n"
            assert "ca/alice.key" in shell.run(certificates)
            shell.run(serve, until="serving on")
            shell.run(settings)
            printed = shell.run(jobs)
            for shown in (
                "hello",
                "line 1\nline 2\nline 3\n",
                "exited with 0",
                "killed by SIGTERM",
            ):
                assert shown in printed
            shell.run(f"{end}\nwait")
            assert shell.process.stdin is not None
            shell.process.stdin.close()
            assert shell.process.wait(30) == 0
