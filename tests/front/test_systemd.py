"""What takes systemd: the tests of tests/guest/deployment.py, in a guest of its own."""

from pathlib import Path

import pytest

from tests.front.test_user_mode_linux import (
    DEADLINE_SECONDS,
    Outcome,
    check_passed,
    names_of,
    outcomes_of,
)
from tests.support.user_mode_linux import GUEST

DEPLOYMENT = GUEST / "deployment.py"
SYSTEMD = Path("/lib/systemd/systemd")


@pytest.fixture(scope="module")
def systemd_outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """How each test went that needs systemd."""
    if not SYSTEMD.exists():
        pytest.skip("needs systemd: apt install systemd")
    return outcomes_of([DEPLOYMENT], tmp_path_factory.mktemp("guest"), "boot_systemd.py")


@pytest.mark.timeout(DEADLINE_SECONDS + 20)
@pytest.mark.parametrize("name", names_of(DEPLOYMENT))
def test_in_guest_of_systemd(systemd_outcomes: dict[str, Outcome], name: str) -> None:
    check_passed(systemd_outcomes, name)
