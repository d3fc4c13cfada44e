"""A server with a console, and browsers of its users."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import POLICY, USERS
from tests.support.server import Server, running_server
from tests.support.web.browser import CONSOLE, Browser, browser

SETTINGS = CONSOLE + "audit: {directory: audit}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("console"), USERS, POLICY, SETTINGS) as running:
        yield running


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path, USERS, POLICY, SETTINGS) as running:
        yield running


@pytest.fixture
def alice(server: Server) -> Browser:
    return browser(server, "alice")


@pytest.fixture
def bob(server: Server) -> Browser:
    return browser(server, "bob")


@pytest.fixture
def ann(server: Server) -> Browser:
    return browser(server, "ann")
