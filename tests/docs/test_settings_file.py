"""deploy/server.yaml: every setting there is, with its default."""

from pathlib import Path
from typing import Any

import msgspec

from jobworker.grpc_api.config import ServerConfig
from jobworker.grpc_api.settings_file import load_server_config
from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.host.user_mapping import UsersConfig

FILE = Path(__file__).parents[2] / "deploy" / "server.yaml"


def test_what_can_be_left_out_has_its_default() -> None:
    config = load_server_config(FILE)
    least = ServerConfig(state_dir=config.state_dir, tls=config.tls, policy=config.policy)
    assert msgspec.structs.replace(config, jobs={}, front_user=None) == least
    jobs = config.supervisor()
    assert jobs == SupervisorConfig(state_dir=config.state_dir, users=jobs.users)
    # What root has to say: the rest of it are defaults.
    assert config.front_user == "jobworker"
    assert jobs.users == UsersConfig(names="{cn}", groups=("jobusers",))


def test_every_setting_is_there() -> None:
    written: dict[str, Any] = msgspec.yaml.decode(FILE.read_bytes())
    assert _missing(ServerConfig, written) == []
    # The service's own directory is named once; the other is ignored, and of older files.
    assert _missing(SupervisorConfig, written["jobs"]) == ["state_dir", "spare_launchers"]
    assert _missing(UsersConfig, written["jobs"]["users"]) == []


def _missing(kind: type[msgspec.Struct], written: dict[str, Any]) -> list[str]:
    """The fields that are not written, of the struct and those in it."""
    missing = []
    for field in msgspec.structs.fields(kind):
        if field.name not in written:
            missing.append(field.name)
        elif isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            inner = _missing(field.type, written[field.name])
            missing += [f"{field.name}.{name}" for name in inner]
    return missing
