"""What every test may use: a running server, a place for the library."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.file_systems import Hanging, hanging_copy
from tests.support.library import Site, leaving_nothing, own_cgroup
from tests.support.server import Server, running_server

# How long an example takes is a matter of what else the machine does.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# What takes longest, each a virtual machine: begun first, where several processes test.
FIRST = ("test_user_mode_linux.py", "test_systemd.py")

USERS = (("alice", "team-a"), ("bob", "team-b"), ("ann", "audit"))
POLICY = """\
rules:
  - allow: "*"
    to: cn:*
    jobs: "{ou}/{cn}"
  - allow: read
    to: cn:ann
    jobs: "*/*"
  - deny: start
    to: cn:bob
    jobs: "*/*"
    command: /bin/false
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest before the rest, in the order that it is in."""
    items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for alice, bob and ann, who reads everything; all own their own jobs.

    The tests of a module share it, so it has the jobs of those before.
    """
    with running_server(tmp_path_factory.mktemp("server"), USERS, POLICY) as running:
        yield running


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[Server]:
    """Such a server for one test alone."""
    with running_server(tmp_path, USERS, POLICY) as running:
        yield running


@pytest.fixture(params=["auto", "off"], ids=["cgroup", "no-cgroup"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A place for a worker, which must leave nothing behind; with cgroups and without."""
    if request.param == "auto" and own_cgroup() is None:
        pytest.skip("this host has no cgroup v2 that this user may write")
    with leaving_nothing(tmp_path):
        yield Site(tmp_path / "state", request.param)


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Hanging]:
    """A true(1) that hangs when it is executed."""
    with hanging_copy(tmp_path / "hanging", "/bin/true") as program:
        yield program
