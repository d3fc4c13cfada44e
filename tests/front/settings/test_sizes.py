"""Sizes in server.yaml: numbers of bytes, or such as 64K, 10M and 1G, wherever bytes are meant."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import pytest

from jobworker.cli.quantities import Bytes
from jobworker.grpc_api.config import ServerConfig
from jobworker.grpc_api.errors import ConfigError
from jobworker.grpc_api.settings_file import load_server_config
from jobworker.supervisor import is_size, size_of
from jobworker.supervisor.config import SupervisorConfig

GOOD = "state_dir: state\npolicy: policy.yaml\ntls: {certificate: a, key: b, ca: c}\n"
SIZES = """\
output: {default: {bytes: 1G, rate: 64k}, tenants: {a: {bytes: 2T}}}
quotas: {user: {output_bytes: 10MiB}, tenants: {a: {output_bytes: 5MB}}}
audit: {rotate_bytes: 1M}
jobs:
  limits: {default: {memory: 512M}, most: {memory: 1G}, tenants: {a: {most: {memory: 2GiB}}}}
  retention: {output_bytes: 100G}
  segment_bytes: 32M
  pipe_bytes: "65536"
"""


def load(directory: Path, more: str) -> ServerConfig:
    file = directory / "server.yaml"
    file.write_text(GOOD + more)
    return load_server_config(file)


def test_sizes_with_units(tmp_path: Path) -> None:
    """They had to be numbers of bytes: `bytes: 1G` was "must be a whole number, not a text"."""
    config = load(tmp_path, SIZES)
    assert (config.output.default.bytes, config.output.default.rate) == (2**30, 2**16)
    assert config.output.tenants["a"].bytes == 2**41
    assert config.quotas.user.output_bytes == 10 * 2**20
    assert config.quotas.of_tenant("a").output_bytes == 5 * 2**20
    assert config.audit.rotate_bytes == 2**20
    jobs = config.supervisor()
    assert (jobs.limits.default.memory, jobs.limits.most.memory) == (2**29, 2**30)
    assert jobs.limits.bounds("a").most.memory == 2**31
    assert jobs.retention.output_bytes == 100 * 2**30
    assert (jobs.segment_bytes, jobs.pipe_bytes) == (2**25, 2**16)


def number_fields(kind: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting, however deep, that is a whole number, with its type."""
    for inner in get_args(kind) or ():
        yield from number_fields(inner, name)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            label = f"{name}.{field.name}"
            if field.type is int or is_size(field.type):
                yield label, field.type
            else:
                yield from number_fields(field.type, label)


def test_every_number_of_bytes_may_have_a_unit() -> None:
    fields = [*number_fields(ServerConfig), *number_fields(SupervisorConfig, ".jobs")]
    sized = {name for name, kind in fields if is_size(kind)}
    bytes_like = {
        name
        for name, _ in fields
        if name.rpartition(".")[2] in {"memory", "rate", "bytes", "min_free"}
        or name.endswith("_bytes")
    }
    assert sized == bytes_like
    assert len(sized) > 10


@pytest.mark.parametrize("bad", ["1Q", "1.5G", "G", "-1G", "1 G", "[1]", "true", "1e3"])
def test_what_is_no_size(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, f"quotas: {{user: {{output_bytes: {bad}}}}}\n")
    said = str(raised.value)
    assert "server.yaml:4:31: quotas.user.output_bytes: must be a size in bytes, such as" in said


def test_a_text_that_is_no_size_stays_one(tmp_path: Path) -> None:
    jobs = load(tmp_path, "jobs: {environment: {BLOCK: 1G}}\n").supervisor()
    assert jobs.environment == {"BLOCK": "1G"}


@pytest.mark.parametrize("text", ["0", "4096", "64K", "10m", "1GiB", "3TB", "1.5G", "k", "1KK", ""])
def test_the_command_takes_the_same(text: str) -> None:
    try:
        value = Bytes().convert(text, None, None)
    except click.BadParameter:
        assert size_of(text) is None
    else:
        assert size_of(text) == value
