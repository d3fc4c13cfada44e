"""The sdist and the wheel: the same bytes each time, all that belongs there, and it installs."""

import email
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Of deploy, the rest is for readers of the repository.
DEPLOYED = re.compile(r"deploy/(__init__\.py|policy\.yaml|.*\.service)")
FOLDERS = (
    *("authz", "cli", "client", "console", "deploy", "grpc_api"),
    *("policies", "proto", "supervisor"),
)


def tracked() -> list[str]:
    done = subprocess.run(
        ["git", "-C", ROOT, "ls-tree", "-r", "--name-only", "HEAD", *FOLDERS],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"this is no clone: {done.stderr.strip()}")
    files = done.stdout.splitlines()
    return [file for file in files if file[:7] != "deploy/" or DEPLOYED.fullmatch(file)]


def package(directory: Path, epoch: str = "1700000000") -> dict[str, str]:
    """Build both; the hash of each by its name."""
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "package", directory],
        env={**os.environ, "SOURCE_DATE_EPOCH": epoch, "CFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: digest for digest, name in map(str.split, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tracked()
    directory = tmp_path_factory.mktemp("dist")
    package(directory)
    return directory


def the(pattern: str, directory: Path) -> Path:
    (found,) = directory.glob(pattern)
    return found


def test_two_builds_are_the_same_bytes(built: Path, tmp_path: Path) -> None:
    again = package(tmp_path)
    assert {path.name for path in built.iterdir()} == set(again)
    for name in again:
        assert (built / name).read_bytes() == (tmp_path / name).read_bytes()
    assert package(tmp_path / "later", "1700000002") != again


def test_all_that_belongs_there_is_there_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(the("*.whl", built)) as wheel:
        names = {
            name.removeprefix("jobworker/") for name in wheel.namelist() if "info/" not in name
        }
    missing = set(tracked()) - names
    assert missing == set()
    generated = {name for name in names - set(tracked()) if "_pb2" not in name}
    assert {name for name in generated if not name.endswith(".so")} <= {"supervisor/host/inside"}
    with tarfile.open(the("*.tar.gz", built)) as sdist:
        packed = {member.name.partition("/")[2] for member in sdist if member.isfile()}
        assert {(member.uid, member.gid, member.mtime) for member in sdist} == {(0, 0, 1700000000)}
    assert set(tracked()) - packed == set()
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE"} <= packed


def test_nothing_tells_where_it_was_built(built: Path) -> None:
    """The extension looked for libraries in the home of whoever had built it (RUNPATH)."""
    with zipfile.ZipFile(the("*.whl", built)) as wheel:
        for name in wheel.namelist():
            content = wheel.read(name)
            for place in (sys.base_prefix, str(ROOT), "/tmp/"):
                binary = name.endswith((".so", "/inside"))
                assert not binary or place.encode() not in content, (name, place)


def test_the_metadata_say_what_it_is(built: Path) -> None:
    with zipfile.ZipFile(the("*.whl", built)) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        told = email.message_from_bytes(wheel.read(name))
    assert (told["Name"], told["License-Expression"]) == ("job-worker", "Apache-2.0")
    assert told["Description-Content-Type"] == "text/markdown"
    assert told["Requires-Python"] == ">=3.11"
    assert "server" in told.get_all("Provides-Extra", [])
    assert any("Linux" in one for one in told.get_all("Classifier", []))


def test_what_is_installed_from_the_wheel_runs(built: Path, tmp_path: Path) -> None:
    """Without this repository: the dependencies are those of this environment."""
    words = ["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", tmp_path / "lib"]
    subprocess.run([sys.executable, *words, the("*.whl", built)], check=True)
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from jobworker.cli.main import main\n"
        "import jobworker.cli, jobworker.deploy\n"
        "print(jobworker.cli.__file__, jobworker.deploy.__file__, flush=True); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "lib", "init", "--dry-run", "--dir", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(tmp_path / "lib")) == 2
    assert "CA " in done.stdout
