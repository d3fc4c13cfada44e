"""A server for all the tests of sessions."""

from collections.abc import Iterator

import pytest

from tests.support.server import Server, running_server

POLICY = """
rules:
  - allow: "*"
    to: ou:team-a
    jobs: "*/{cn}"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("session"), [("alice", "team-a")], POLICY) as up:
        yield up
