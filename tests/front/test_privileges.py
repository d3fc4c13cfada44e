"""A server says whose jobs run as whom, or does not start."""

import os
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from jobworker.grpc_api.privileges import closed_to
from jobworker.supervisor import find_account
from tests.support.pki import Authority
from tests.support.server import JOBWORKER, Server, configure, own_address

GAMES = 60
POLICY = 'rules:\n  - {allow: "*", to: "cn:*", jobs: "*/*"}\n'
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may pass through, as those of tmp_path are not."""
    with TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def refusal(directory: Path, settings: str, environment: Mapping[str, str] | None = None) -> str:
    """What a server with these settings says before it ends without having started."""
    assert isinstance(configure(directory, own_address(), POLICY, settings), Authority)
    for file in directory.rglob("pki/**/*"):
        os.chown(file, -1, GAMES)
        file.chmod(0o750)
    config = directory / "server.yaml"
    text = config.read_text()
    # What the tests add for root is what is left out here.
    config.write_text(
        "".join(line for line in text.splitlines(True) if "as_root: true}" not in line)
    )
    done = subprocess.run(
        [JOBWORKER, "serve", "--config", config],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    return done.stderr


@as_root
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", "the server is started by root, so jobs.users must say who runs jobs"),
        ("jobs: {users: {names: {a: daemon}}}\n", "front_user is missing"),
        ("front_user: root\njobs: {users: {names: {a: daemon}}}\n", "front_user must not be root"),
        (
            "front_user: nonesuch\njobs: {users: {names: {a: daemon}}}\n",
            "front_user: there is no Unix user nonesuch",
        ),
        (
            "front_user: games\njobs: {users: {names: {a: nonesuch}}}\n",
            "jobs.users: there is no Unix user nonesuch",
        ),
        (
            "front_user: daemon\njobs: {users: {tenants: {a: daemon}}}\n",
            "front_user daemon must not run jobs as well",
        ),
        (
            "front_user: games\njobs: {users: {tenants: {a: daemon}}}\n",
            "Permission denied (read as front_user games)",
        ),
    ],
)
def test_refusals_to_root(tmp_path: Path, settings: str, words: str) -> None:
    assert words in refusal(tmp_path, settings)


@as_root
def test_a_python_that_the_front_cannot_read(place: Path) -> None:
    """The front began, and ended with a traceback: "No module named 'importlib.readers'"."""
    roots = place / "roots"
    library = Path(sysconfig.get_path("stdlib"))
    (roots / "lib").mkdir(parents=True)
    (roots / "lib" / library.name).symlink_to(library)
    roots.chmod(0o700)
    settings = "front_user: games\njobs: {users: {names: {a: daemon}}}\n"
    said = refusal(place, settings, {"PYTHONHOME": str(roots)})
    assert "Traceback" not in said
    assert "front_user games cannot read /" in said
    assert "where Python or job-worker is installed" in said
    assert "serving on" not in said


@as_root
@pytest.mark.parametrize(
    ("closed", "mode"), [(".", 0o700), ("a", 0o711), ("a/b", 0o640), ("a/link", None)]
)
def test_what_is_closed_is_named(place: Path, closed: str, mode: int | None) -> None:
    """Directories on the way, those that can be passed but not searched, files, and links."""
    inner = place / "a"
    inner.mkdir(mode=0o755)
    (inner / "b").touch(mode=0o644)
    secret = place / "secret"
    secret.mkdir(mode=0o700)
    (secret / "c").touch()
    (inner / "link").symlink_to(secret / "c" if mode is None else inner / "b")
    if mode is not None:
        (place / closed).chmod(mode)
    needed = [inner, inner / "b", inner / "link"]
    assert closed_to(find_account("games"), needed) == (
        secret if mode is None else (place / closed).resolve()
    )
    place.chmod(0o755)


@as_root
def test_a_state_directory_that_others_can_write(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    settings = "jobs:\n  users:\n    jobs_run_as_root: true\n"
    assert "must belong to root and be writable by nobody else" in refusal(tmp_path, settings)


@as_root
def test_nothing_is_changed_in_a_state_directory_that_others_can_write(tmp_path: Path) -> None:
    """There, what the service would make its own may be a link that somebody has planted."""
    state, target = tmp_path / "state", tmp_path / "roots"
    for directory in (state, target):
        directory.mkdir()
        directory.chmod(0o777)
    (state / "front").symlink_to(target)
    settings = "jobs:\n  users:\n    jobs_run_as_root: true\n"
    assert "must belong to root" in refusal(tmp_path, settings)
    assert target.stat().st_mode & 0o777 == 0o777


def test_a_shared_user_is_told_at_the_start_and_in_status(server: Server) -> None:
    assert any("all jobs run as" in line for line in server.log)
    job_id = server.ask("alice", "start", "--", "true")
    assert '"user_shared": true' in server.ask("alice", "status", "-o", "json", job_id)
