"""deploy/: installed under systemd by typing deploy/README.md, and what becomes of it then."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.guest.boot import REPOSITORY
from tests.support.waiting import until

README = REPOSITORY / "deploy" / "README.md"
CLONE = Path("/srv/job-worker")
SETTINGS = Path("/etc/jobworker/server.yaml")
NOT_COPIED = (".venv", ".git", ".demo", "build", "*.egg-info", "__pycache__", ".*_cache")
# Those of this environment stand for what a package index would give.
INSTALLED = sysconfig.get_path("purelib")
ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": f"{sys.base_prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
WITHOUT_AN_INDEX = {"PYTHONPATH": INSTALLED, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
DEADLINE_SECONDS = 120
BAD_SETTINGS = 78

pytestmark = pytest.mark.timeout(300)


def blocks() -> list[str]:
    """What the guide has one type, a box each."""
    return re.findall(r"^```sh\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


def type_in(text: str, more: dict[str, str] | None = None) -> str:
    """Run what a reader types, in the clone; what it says. Every command must succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=CLONE,
        env={**ENVIRONMENT, **(more or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    journal = "" if done.returncode == 0 else of_systemd("journalctl", "--unit=jobworker")
    assert done.returncode == 0, f"{done.stdout}\n{journal}"
    return done.stdout


def of_systemd(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def unit(name: str) -> str:
    """A property of the service's unit."""
    return of_systemd("systemctl", "show", "--value", f"--property={name}", "jobworker")


def alice(words: str) -> str:
    """Run a command as alice does after a login."""
    return type_in(f"runuser --login alice --command '{words}'").strip()


def status(job_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(alice(f"jobworker status --output json {job_id}"))
    return found


@pytest.fixture(scope="module")
def first_job() -> str:
    """What the last command of the guide says, of all before somebody leaves."""
    shutil.copytree(REPOSITORY, CLONE, ignore=shutil.ignore_patterns(*NOT_COPIED))
    program, *others, _ = blocks()
    type_in(program, WITHOUT_AN_INDEX)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    Path("/opt/jobworker/lib", version, "site-packages/of-tests.pth").write_text(INSTALLED)
    return type_in("".join(others))


@pytest.fixture(autouse=True)
def installed(first_job: str) -> str:
    """The service is installed for every test."""
    return first_job


def test_the_guide_leads_to_a_first_job(installed: str) -> None:
    """Names of files that nobody makes, a CA that front_user cannot read, no users, no policy."""
    said = installed.splitlines()
    assert said[-1] == "alice"
    assert f"{SETTINGS}: can be served with" in said
    assert [line for line in said if "warning" in line] == []
    assert unit("ActiveState") == "active"


def test_the_front_is_nobodys_user_and_jobs_are_theirs(installed: str) -> None:
    main = unit("MainPID")
    children = of_systemd("ps", "-o", "user:20=,args=", "--ppid", main).splitlines()
    assert [one.split()[0] for one in children if "jobworker: front" in one] == ["jobworker"]
    assert alice("jobworker run -- pwd") == "/home/alice"


def test_limits_are_kept_by_cgroups_below_the_units(installed: str) -> None:
    """Delegate=yes."""
    group = alice("jobworker run --memory 64M --processes 50 -- cat /proc/self/cgroup")
    assert group.startswith("0::/system.slice/jobworker.service/")


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
def test_private_jobs_run_below_the_unit(installed: str) -> None:
    """ProtectKernelTunables and ProtectKernelLogs mount over /proc: then none can be mounted."""
    assert alice("jobworker run --isolation private -- ls /home") == "alice"


def test_jobs_run_through_a_reload(installed: str) -> None:
    job = alice("jobworker start -- sleep 1000")
    before, main = status(job), unit("MainPID")
    type_in("systemctl reload jobworker")
    after = status(job)
    assert (after["state"], after["pid"]) == ("running", before["pid"])
    assert unit("MainPID") == main
    alice(f"jobworker stop {job}")


def test_jobs_run_while_the_service_sleeps(installed: str) -> None:
    job = alice("jobworker start -- sleep 1000")
    before, main = status(job), unit("MainPID")
    type_in("systemctl kill --signal=SIGUSR1 --kill-whom=main jobworker")
    until(lambda: "jobworker: front" not in of_systemd("ps", "-o", "args=", "--ppid", main))
    assert unit("ActiveState") == "active"
    type_in("systemctl reload jobworker")
    after = status(job)
    assert (after["state"], after["pid"]) == ("running", before["pid"])
    assert unit("MainPID") == main
    alice(f"jobworker stop {job}")


def test_a_restart_ends_jobs_and_keeps_the_record(installed: str) -> None:
    job = alice("jobworker start -- sleep 1000")
    type_in("systemctl restart jobworker")
    ended = status(job)
    assert (ended["state"], ended["reason"]) == ("ended", "stopped")
    assert alice("jobworker run -- echo again") == "again"


def test_bad_settings_are_not_tried_again(installed: str) -> None:
    good = SETTINGS.read_text()
    SETTINGS.write_text(f"{good}listn: 1\n")
    try:
        assert subprocess.run(["systemctl", "restart", "jobworker"], check=False).returncode != 0
        assert unit("ExecMainStatus") == str(BAD_SETTINGS)
        assert (unit("ActiveState"), unit("NRestarts")) == ("failed", "0")
    finally:
        SETTINGS.write_text(good)
    type_in("systemctl restart jobworker")
    assert alice("jobworker run -- echo again") == "again"


def test_a_service_that_is_killed_comes_back(installed: str) -> None:
    job = alice("jobworker start -- sleep 1000")
    main = int(unit("MainPID"))
    os.kill(main, 9)
    until(lambda: unit("ActiveState") == "active" and unit("MainPID") not in {"0", str(main)})
    assert status(job)["reason"] == "lost"


def test_who_leaves_is_locked_out_and_their_jobs_end(installed: str) -> None:
    job = alice("jobworker start -- sleep 1000")
    assert job in type_in(blocks()[-1])

    def locked_out() -> bool:
        command = ["runuser", "--login", "alice", "--command", "jobworker list"]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        return done.returncode != 0 and "revoked" in done.stderr

    until(locked_out)
    found = type_in("jobworker admin list --output json")
    states = {one["id"]: one["state"] for one in map(json.loads, found.splitlines())}
    assert states[job] == "ended"


def test_the_unit_is_in_order(installed: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "jobworker.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "jobworker" in line] == []
    assert done.returncode == 0
