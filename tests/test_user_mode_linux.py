"""What takes root, other users and cgroup controllers: the tests of tests/guest, in a guest."""

import ast
from pathlib import Path

import pytest

from tests.user_mode_linux import GUEST, run_in_guest

# Not part of `make test` yet: the guest hides /tmp and /home, where a clone may be.
pytestmark = pytest.mark.guest

FILES = [GUEST / f"{name}.py" for name in ("limits", "isolation", "escapes")]


def _names(file: Path) -> list[str]:
    functions = ast.parse(file.read_text()).body
    return [
        f"{file.stem}::{function.name}"
        for function in functions
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_")
    ]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """How each test went in one guest."""
    return run_in_guest(tmp_path_factory.mktemp("guest"), FILES)


@pytest.mark.timeout(320)
@pytest.mark.parametrize("name", [name for file in FILES for name in _names(file)])
def test_in_guest(outcomes: dict[str, str], name: str) -> None:
    assert name in outcomes, f"the guest did not get as far as this, only to {sorted(outcomes)}"
    assert not outcomes[name], outcomes[name]
