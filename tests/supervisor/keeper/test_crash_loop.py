"""A supervisor that cannot come up: the keeper gives up, unless it has jobs to stay for."""

import re
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from jobworker.supervisor import Chunk, SupervisorUnavailable, library
from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.control import spawn_keeper
from jobworker.supervisor.keeper.backoff import HOPELESS_FAILURES
from jobworker.supervisor.keeper.config import REFUSED, KeeperConfig, ServiceConfig
from tests.support import dying_supervisor
from tests.support.library import DEADLINE_SECONDS, Site, eventually

# No job's cgroup has a part in it.
pytestmark = pytest.mark.parametrize("site", ["off"], indirect=True)


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file: as long as it holds something, no supervisor comes up."""
    path = tmp_path / "failing"
    path.touch()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("DIES_COUNT", str(path))
    monkeypatch.setattr(library, "SUPERVISOR_TARGET", dying_supervisor.NEVER_UP)
    return path


def keeper(site: Site) -> "subprocess.Popen[bytes]":
    """A keeper without a front, whose supervisor is the one of the tests."""
    config = SupervisorConfig(state_dir=str(site.state), cgroup=site.cgroup)
    service = ServiceConfig(dying_supervisor.NEVER_UP, msgspec.json.encode(config).decode())
    return spawn_keeper(KeeperConfig(str(site.state), service, None, -1, {}))


def test_what_can_never_come_up_is_given_up(
    site: Site, failing: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failing.write_text("x")
    began = time.monotonic()
    with keeper(site) as process:
        assert process.wait(DEADLINE_SECONDS) == 1
    # Not at once: what is wrong may pass.
    assert time.monotonic() - began > 2
    said = capfd.readouterr().err
    assert said.count("it fails") == HOPELESS_FAILURES
    counts = re.findall(r"supervisor ended \(exit status 1\), (\d) in a row", said)
    assert counts == [str(number) for number in range(1, HOPELESS_FAILURES)]
    last = said.splitlines()[-1]
    assert "supervisor: none before it did any better, and there is no job to stay for" in last


def test_what_no_restart_can_mend_is_given_up_at_once(
    site: Site, failing: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    site.state.mkdir()
    (site.state / "journal.sqlite").write_text("rubbish that is no database" * 100)
    with keeper(site) as process:
        assert process.wait(DEADLINE_SECONDS) == REFUSED
    said = capfd.readouterr().err
    assert said.count("is not a usable journal") == 1
    assert "its settings cannot be served with, and there is no job to stay for" in said


def test_a_program_hears_that_its_service_cannot_come_up(site: Site, failing: Path) -> None:
    failing.write_text("x")
    with pytest.raises(SupervisorUnavailable, match=str(site.state)), site.worker():
        pytest.fail("it started")


def test_a_keeper_with_jobs_stays_and_goes_on_when_it_can(site: Site, failing: Path) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    with site.worker() as worker:
        job = worker.start(["sh", "-c", f"exec 2>&-; {script}"])
        pid = job.status().pid
        pieces = job.output()
        next(pieces)
        process = site.keeper()
        failing.write_text("x")
        site.signal_supervisor()
        deaths: set[int] = set()

        def hopeless() -> bool:
            supervisor = site.supervisor()
            deaths.update({supervisor.pid} if supervisor else ())
            return len(deaths) > HOPELESS_FAILURES

        eventually("more failures than it takes to give up", hopeless)
        assert process.is_running()
        failing.write_text("")
        assert (job.status().pid, job.status().ended) == (pid, False)
        job.signal(signal.SIGTERM)
        assert job.wait().exit_code == 5
        rest = b"".join(piece.data for piece in pieces if isinstance(piece, Chunk))
        assert rest == b"bye\n"
