"""`serve --check` tells everything that is wrong with the settings, each with its place."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.front.disk.test_audit_full import disk, fill
from tests.support.server import (
    JOBS_AS_ROOT,
    JOBWORKER,
    configure,
    leaving_no_process,
    own_address,
    serving,
)

DEADLINE_SECONDS = 60
BAD_SETTINGS = 78
EVERYBODY = 'rules:\n  - {allow: "*", to: "cn:*", jobs: "{ou}/{cn}"}\n'
TEAMS = 'rules:\n  - {allow: "*", to: "ou:team-a", jobs: "team-b/*"}\n'
BOTH = EVERYBODY + TEAMS.removeprefix("rules:\n")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def serve(directory: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [JOBWORKER, "serve", "--config", directory / "server.yaml", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def settings(directory: Path, more: str, policy: str = EVERYBODY) -> Path:
    """Settings with more lines, and all that they name; root's jobs run as root."""
    configure(directory, own_address(), policy, "")
    file = directory / "server.yaml"
    text = file.read_text().replace(JOBS_AS_ROOT, "")
    users = "" if os.geteuid() or "jobs:" in more else JOBS_AS_ROOT
    file.write_text(text + more + users)
    return file


def places(directory: Path, said: str) -> dict[str, str]:
    """What is said of each line of server.yaml, its text being the key."""
    lines = (directory / "server.yaml").read_text().splitlines()
    found = re.findall(rf"{directory}/server.yaml:(\d+):\d+: (.*)", said)
    return {lines[int(line) - 1].strip(): told for line, told in found}


def test_a_directory_in_which_no_socket_could_be(tmp_path: Path) -> None:
    """The front was started eight times, each ending in a traceback."""
    long = tmp_path / ("d" * 100)
    settings(tmp_path, "")
    file = tmp_path / "server.yaml"
    file.write_text(re.sub(r"(?m)^state_dir: .*$", f"state_dir: {long}", file.read_text()))
    most = 107 - len("/front/admin.sock")
    for options in ((), ("--check",)):
        done = serve(tmp_path, *options)
        assert done.returncode == BAD_SETTINGS
        (said,) = places(tmp_path, done.stderr).values()
        assert f"is {len(str(long)) - most} bytes too long" in said
    assert not long.exists()


def test_good_settings(tmp_path: Path) -> None:
    """There was no `serve --check`. It leaves nothing behind."""
    settings(tmp_path, "")
    done = serve(tmp_path, "--check")
    assert done.returncode == 0
    # The certificates of tests are short-lived.
    assert [line for line in done.stderr.splitlines() if "expires at" not in line] == []
    assert done.stdout == f"{tmp_path}/server.yaml: can be served with\n"
    assert not (tmp_path / "state").exists()


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    """One fault was told at a time, and with the exit code 2, for which the unit starts again."""
    text = "listn: x\nconnections: {totl: 1, streams: many}\njobs:\n  grace: 1\n  umask: -x\n"
    settings(tmp_path, text)
    for options in ((), ("--check",), ("--upgrade",)):
        done = serve(tmp_path, *options)
        assert done.returncode == BAD_SETTINGS
        told = places(tmp_path, done.stderr)
        assert told["listn: x"] == "there is no setting 'listn'; did you mean listen?"
        assert "connections.streams: must be" in told["connections: {totl: 1, streams: many}"]
        assert "connections has no setting 'totl'" in done.stderr
        assert told["grace: 1"].startswith("jobs has no setting 'grace'")
        assert told["umask: -x"] == "jobs.umask: must be a whole number, not a text"


def test_all_that_the_settings_name_is_looked_at(tmp_path: Path) -> None:
    """Of certificates, policy, directories and names only the first fault was told."""
    settings(tmp_path, 'audit: {directory: audit}\nquotas:\n  tenants:\n    "*": {running: 1}\n')
    (tmp_path / "policy.yaml").write_text("rules: 5\n")
    for key in tmp_path.rglob("*.key"):
        key.write_text("rubbish")
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    (tmp_path / "audit").write_text("")
    done = serve(tmp_path, "--check")
    assert done.returncode == BAD_SETTINGS
    told = places(tmp_path, done.stderr)
    assert ".key holds " in told["tls:"]
    assert "writable by nobody else" in told["state_dir: state"]
    assert "'*' is no tenant's name" in told['"*": {running: 1}']
    assert f"{tmp_path}/policy.yaml:1:" in done.stderr
    assert (tmp_path / "audit").read_text() == ""


@as_root
@pytest.mark.parametrize(
    ("users", "line", "words"),
    [
        ("users: null", "users: null", "the server is started by root, so jobs.users must say"),
        ('users: {names: {"*": games}}', None, "jobs.users.names: '*' is no user's name"),
        (
            'users: {names: {"*": games}}',
            None,
            'a line, or all of them the Unix user of the same name: `names: "{cn}"`',
        ),
        ("users: {names: {al: nonesuch}}", None, "there is no Unix user nonesuch"),
        (
            'users: {names: "games", groups: [users]}',
            None,
            "names: 'games' is no pattern: write {cn}",
        ),
        ('users: {names: "{ou}", groups: [users]}', None, "names: '{ou}' is no pattern"),
        ('users: {names: "{cn}{cn}", groups: [users]}', None, "write {cn} once"),
        ('users: {names: "{cn}"}', None, 'names: "{cn}" needs groups'),
        ('users: {tenants: "x-{ou}"}', None, 'tenants: "x-{ou}" needs groups'),
        (
            'users: {names: "{cn}", tenants: {a: games}, groups: [users]}',
            None,
            "leave out tenants, as it would never be asked",
        ),
        ('users: {names: "{cn}", groups: [nonesuch]}', None, "there is no Unix group nonesuch"),
        ('users: {names: "{cn}", groups: []}', None, "needs groups"),
        ("users: {names: 7}", None, "must be a text or a mapping (`name: ...` lines)"),
    ],
)
def test_whose_jobs_run_as_whom(tmp_path: Path, users: str, line: str | None, words: str) -> None:
    """`users: null` and `names: {"*": games}` were taken, and then nobody could start a job."""
    front = "" if "null" in users else "front_user: daemon\n"
    settings(tmp_path, f"{front}jobs:\n  {users}\n")
    done = serve(tmp_path, "--check")
    assert done.returncode == BAD_SETTINGS
    assert words in places(tmp_path, done.stderr)[line or users]


@pytest.mark.parametrize(
    ("table", "policy", "tenant", "hint"),
    [
        ("output", TEAMS, "taem-a", "did you mean team-a?"),
        ("quotas", TEAMS, "x", "known are team-a, team-b"),
        ("quotas", TEAMS, "team-b", None),
        ("quotas", EVERYBODY, "taem-a", None),
        ("jobs.limits", BOTH, "taem-a", "did you mean team-a?"),
        ("jobs.isolation", BOTH, "taem-a", "did you mean team-a?"),
        ("quotas", BOTH, "x", None),
        ("quotas", TEAMS.replace("team-b", "t*"), "taem-a", None),
    ],
)
def test_a_tenant_that_no_policy_knows(
    tmp_path: Path, table: str, policy: str, tenant: str, hint: str | None
) -> None:
    """Limits for `taem-a` were taken, and held for nobody."""
    *outer, inner = table.split(".")
    users = "" if os.geteuid() or not outer else "  users: {jobs_run_as_root: true}\n"
    lines = "".join(f"{name}:\n" for name in outer) + users
    value = f"{{tenants: {{{tenant}: {{}}}}}}"
    settings(tmp_path, f"{lines}{'  ' * len(outer)}{inner}: {value}\n", policy)
    done = serve(tmp_path, "--check")
    assert done.returncode == 0
    told = [told for told in done.stderr.splitlines() if "expires at" not in told]
    if hint is None:
        assert told == []
    else:
        where = f"no rule of {tmp_path}/policy.yaml names the tenant {tenant}"
        assert list(places(tmp_path, "".join(told)).values()) == [
            f"{table}.tenants: {where}; {hint}"
        ]
        assert told[0].startswith("jobworker: warning: ")


def test_a_server_that_starts_says_what_it_doubts(tmp_path: Path) -> None:
    file = settings(tmp_path, "quotas: {tenants: {taem-a: {}}}\n", TEAMS)
    with leaving_no_process(), serving(file) as (_, log):
        doubted = [line for line in log if line.startswith("jobworker serve: warning: ")]
    assert len(doubted) == 1
    assert "names the tenant taem-a; did you mean team-a?" in doubted[0]


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A full disk was taken for settings that no other start could do better with."""
    file = settings(tmp_path, "")
    with disk(tmp_path / "disk") as place:
        (place / "state").mkdir(mode=0o711)
        fill(place)
        file.write_text(file.read_text().replace("state_dir: state", f"state_dir: {place}/state"))
        done = serve(tmp_path)
    # There may be space when the unit starts it again.
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert f"cannot write to {place}/state" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_state_directory_that_is_none(tmp_path: Path) -> None:
    file = settings(tmp_path, "")
    file.write_text(file.read_text().replace("state_dir: state", "state_dir: policy.yaml"))
    done = serve(tmp_path)
    assert done.returncode == BAD_SETTINGS
    assert "Traceback" not in done.stderr
    assert "policy.yaml" in done.stderr


def test_what_is_no_settings_file(tmp_path: Path) -> None:
    """It ended with 2, for which the unit starts the server again and again."""
    assert serve(tmp_path, "--check").returncode == BAD_SETTINGS
    assert serve(tmp_path).returncode == BAD_SETTINGS


def test_the_unit_does_not_start_again_with_bad_settings() -> None:
    unit = Path(__file__).parents[3] / "deploy" / "jobworker-keeper.service"
    assert f"RestartPreventExitStatus={BAD_SETTINGS}" in unit.read_text().splitlines()
