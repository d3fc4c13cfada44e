"""What is wrong in server.yaml is told with line and column, in words, and with what was meant."""

from pathlib import Path

import pytest

from jobworker.grpc_api.errors import ConfigError
from jobworker.grpc_api.settings_file import load_server_config

GOOD = """\
state_dir: state
policy: policy.yaml
tls: {certificate: a, key: b, ca: c}
"""

# What is added to GOOD as its line 4 on: the place, and what is said.
FAULTS = {
    "listn: x:1": ("4:1", "there is no setting 'listn'; did you mean listen?"),
    "listen: x": ("4:9", "listen: 'x' is not HOST:PORT"),
    "metrics: {listen: x}": ("4:19", "metrics.listen: 'x' is not HOST:PORT"),
    "listen: 50051": ("4:9", "listen: must be a text, not a whole number"),
    "connections:\n  totl: 5": ("5:3", "connections has no setting 'totl'; did you mean total?"),
    "connections: {total: many}": ("4:22", "connections.total: must be a whole number, not a text"),
    "connections: 5": ("4:14", "connections: must be a mapping (`name: ...` lines), not"),
    "quotas:\n  users:\n    alice: {runing: 1}": (
        "6:13",
        "quotas.users.alice has no setting 'runing'; did you mean running?",
    ),
    "quotas:\n  users:\n    bob: {}\n    alice: {running: -1}": (
        "7:12",
        "quotas.users.alice: a quota is 0 to 2147483648, not -1",
    ),
    "output: {default: {overflow: burn}}": ("4:19", "output.default: overflow must be one of"),
    "jobs:\n  grace_second: 5": ("5:3", "jobs has no setting 'grace_second'; did you mean grace_s"),
    "jobs:\n  umask: 18\n  grace_seconds: long": (
        "6:18",
        "jobs.grace_seconds: must be a number, not a text",
    ),
    # It was not looked at.
    "jobs: {state_dir: /srv}": ("4:8", "jobs: state_dir is no setting of jobs"),
    "jobs: {grace_seconds: 0}": ("4:7", "jobs: grace_seconds must be between 0 and 86400 seconds"),
    "jobs:\n  limits:\n    most: {cpu: 1}": ("6:12", "jobs.limits.most has no setting 'cpu'; did"),
    "jobs: {isolation: {hidden: [/a, 5]}}": ("4:33", "jobs.isolation.hidden[1]: must be a text"),
    "jobs: {limits: {tenants: {a: {most: {memory: 1}}}}}": (
        "4:37",
        "jobs.limits.tenants.a.most: memory must be 0 or between",
    ),
    "audit: {}\naudit: {}": ("5:1", "audit is there twice"),
    "audit: {directory: {a}": ("5:1", "not YAML: "),
}


def told(tmp_path: Path, text: str) -> str:
    file = tmp_path / "server.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_server_config(file)
    return str(raised.value).removeprefix(str(file))


@pytest.mark.parametrize("added", FAULTS)
def test_it_says_where_and_what_was_meant(tmp_path: Path, added: str) -> None:
    """It was `Object contains unknown field 'listn'`, without a place."""
    place, words = FAULTS[added]
    said = told(tmp_path, f"{GOOD}{added}\n")
    assert said.startswith(f":{place}: {words}"), said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", " is empty: see deploy/server.yaml for what goes into it"),
        ("state_dir: x\n", ":1:1: the file needs tls and policy; add `tls: ...`"),
        ("tls: {key: a}\npolicy: b\nstate_dir: c\n", ":1:6: tls needs certificate and ca; add"),
        ("- a\n", ":1:1: must be a mapping (`name: ...` lines), not a list"),
        ("a: [\n", ":2:1: not YAML: "),
        ("a: \x00\n", ":1:1: not YAML: "),
    ],
)
def test_what_is_no_settings_file(tmp_path: Path, text: str, words: str) -> None:
    said = told(tmp_path, text)
    assert said.startswith(words), said


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "server.yaml"
    file.write_text(
        GOOD + "jobs: {users: null, isolation: {tenants: {a: {profile: private}}}}\n"
        "quotas: {users: {alice: &some {running: 1}, bob: {<<: *some}}}\n"
    )
    config = load_server_config(file)
    assert config.supervisor().users is None
    assert config.quotas.of_user("bob").running == 1
