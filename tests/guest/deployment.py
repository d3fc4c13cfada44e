"""deploy/: installed under systemd by typing deploy/README.md, and what becomes of it then."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
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
    journal = "" if done.returncode == 0 else of_systemd("journalctl", "--unit=jobworker*")
    assert done.returncode == 0, f"{done.stdout}\n{journal}"
    return done.stdout


def of_systemd(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def unit(name: str, of: str = "jobworker-keeper") -> str:
    """A property of a unit, the one with the processes if no other is named."""
    return of_systemd("systemctl", "show", "--value", f"--property={name}", of)


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


def test_init_makes_what_the_guide_does() -> None:
    """With users of its own, as root has it; the units are not those of the guide's server."""
    said = type_in(
        "jobworker init --dir /srv/first --state-dir /srv/first/state --units /srv/first/units"
        " --host localhost --listen 127.0.0.1:50099 --front-user first --group firstusers"
        " --user alice --tenant team-a --yes"
    )
    assert "systemctl enable --now jobworker" in said
    assert "warning" not in said
    stated = type_in("stat --format '%U:%G %a' /srv/first/tls/server.key /srv/first/audit")
    assert stated.split("\n")[:2] == ["root:first 640", "first:root 700"]
    type_in("jobworker serve --check --config /srv/first/server.yaml")
    type_in("systemd-analyze verify /srv/first/units/jobworker-keeper.service")


def children(part: str) -> set[tuple[str, ...]]:
    """The user and PID of each child of the keeper that is this part of the service."""
    found = of_systemd("ps", "-o", "user:20=,pid=,args=", "--ppid", unit("MainPID")).splitlines()
    return {tuple(one.split()[:2]) for one in found if f"jobworker: {part}" in one}


def test_the_front_is_nobodys_user_and_jobs_are_theirs(installed: str) -> None:
    assert [user for user, _ in children("front")] == ["jobworker"]
    assert alice("jobworker run -- pwd") == "/home/alice"


def test_limits_are_kept_by_cgroups_below_the_units(installed: str) -> None:
    """Delegate=yes."""
    group = alice("jobworker run --memory 64M --processes 50 -- cat /proc/self/cgroup")
    assert group.startswith("0::/system.slice/jobworker-keeper.service/")


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
    type_in("systemctl kill --signal=SIGUSR1 --kill-whom=main jobworker-keeper")
    until(lambda: not children("front"))
    assert unit("ActiveState") == "active"
    type_in("systemctl reload jobworker")
    after = status(job)
    assert (after["state"], after["pid"]) == ("running", before["pid"])
    assert unit("MainPID") == main
    alice(f"jobworker stop {job}")


def test_jobs_run_through_a_restart(installed: str) -> None:
    """It ended them all."""
    job = alice("jobworker start -- sleep 1000")
    before, main, fronts = status(job), unit("MainPID"), children("front")
    type_in("systemctl restart jobworker")
    after = status(job)
    assert (after["state"], after["pid"]) == ("running", before["pid"])
    assert unit("MainPID") == main
    # What serves is new, all the same.
    assert not fronts & children("front")
    alice(f"jobworker stop {job}")


def test_the_unit_with_the_jobs_is_not_restarted_by_itself(installed: str) -> None:
    """As needrestart(1) would, which asks which unit a process is of."""
    job = alice("jobworker start -- sleep 1000")
    for verb in ("restart", "try-restart", "stop"):
        done = subprocess.run(
            ["systemctl", verb, "jobworker-keeper"], capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "refused" in done.stderr
    assert status(job)["state"] == "running"
    alice(f"jobworker stop {job}")


def test_a_stop_ends_jobs_and_keeps_the_record(installed: str) -> None:
    job = alice("jobworker start -- sleep 1000")
    main = unit("MainPID")
    # It does not wait for the jobs, but the start does.
    type_in("systemctl stop jobworker; systemctl start jobworker")
    assert unit("MainPID") != main
    ended = status(job)
    assert (ended["state"], ended["reason"]) == ("ended", "stopped")
    assert alice("jobworker run -- echo again") == "again"


@contextmanager
def bad_settings() -> Iterator[None]:
    """For the time of the block, the settings are some that cannot be served with."""
    good = SETTINGS.read_text()
    SETTINGS.write_text(f"{good}listn: 1\n")
    try:
        yield
    finally:
        SETTINGS.write_text(good)


def test_a_restart_with_bad_settings_changes_nothing(installed: str) -> None:
    job = alice("jobworker start -- sleep 1000")
    before = status(job)
    with bad_settings():
        subprocess.run(["systemctl", "restart", "jobworker"], check=False)
        assert "listn" in of_systemd("journalctl", "--unit=jobworker")
        assert status(job)["pid"] == before["pid"]
    type_in("systemctl restart jobworker")
    after = status(job)
    assert (after["state"], after["pid"]) == ("running", before["pid"])
    alice(f"jobworker stop {job}")


def test_a_start_with_bad_settings_is_not_tried_again(installed: str) -> None:
    type_in("systemctl stop jobworker")
    until(lambda: unit("ActiveState") == "inactive")
    with bad_settings():
        assert subprocess.run(["systemctl", "start", "jobworker"], check=False).returncode != 0
        assert unit("ExecMainStatus") == str(BAD_SETTINGS)
        assert (unit("ActiveState"), unit("NRestarts")) == ("failed", "0")
    type_in("systemctl start jobworker")
    assert alice("jobworker run -- echo again") == "again"


def test_a_service_that_is_killed_comes_back(installed: str) -> None:
    job = alice("jobworker start -- sleep 1000")
    main = int(unit("MainPID"))
    os.kill(main, 9)
    until(lambda: unit("ActiveState") == "active" and unit("MainPID") not in {"0", str(main)})
    assert status(job)["reason"] == "lost"


def test_the_signer_renews_what_its_unit_lets_it(installed: str) -> None:
    """As docs/operations.md has it typed; the front is another user, and has no key of the CA's."""
    # What stands for the index may be below /tmp, of which the unit has one of its own.
    more = Path("/etc/systemd/system/jobworker-signer.service.d/of-tests.conf")
    more.parent.mkdir()
    more.write_text(f"[Service]\nBindReadOnlyPaths={INSTALLED}\n")
    type_in(
        "install --mode=644 deploy/jobworker-signer.service /etc/systemd/system/\n"
        "systemctl daemon-reload\n"
        "systemctl enable --now jobworker-signer"
    )
    socket = Path("/run/jobworker-signer/socket")
    until(socket.exists)
    SETTINGS.write_text(SETTINGS.read_text().replace('renewal: ""', f"renewal: {socket}"))
    checked = type_in(f"jobworker serve --check --config {SETTINGS}")
    assert "warning" not in checked
    type_in("systemctl reload jobworker")
    before = alice("jobworker whoami --output json")
    alice("jobworker cert renew")
    after = alice("jobworker whoami --output json")
    assert json.loads(after)["serial"] != json.loads(before)["serial"]
    signed = of_systemd("journalctl", "--unit=jobworker-signer", "--output=cat")
    assert f"renewed cn=alice ou=team-a: {json.loads(after)['serial']}" in signed


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
        ["systemd-analyze", "verify", "jobworker.service", "jobworker-keeper.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "jobworker" in line] == []
    assert done.returncode == 0
