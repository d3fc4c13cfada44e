"""docs/operations.md: what it says dies, and the tests that show what it says."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs/operations.md").read_text()
COLUMNS = ["what dies", "what users see", "what is kept", "test"]


def rows() -> list[list[str]]:
    """The table of deaths, without its head."""
    section = TEXT.partition("## When something dies\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == COLUMNS
    return cells[2:]


def known_tests() -> Counter[str]:
    """The names of all tests, with how many there are of each."""
    return Counter(
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_row_has_its_test(row: list[str]) -> None:
    assert len(row) == len(COLUMNS)
    assert all(row), "a row says nothing"
    names = re.findall(r"`(test_\w+)`", row[3])
    assert names, f"no test shows what is said of: {row[0]}"
    known = known_tests()
    for name in names:
        assert known[name] == 1, f"{known[name]} tests are named {name}"


def test_every_process_of_the_service_has_a_row() -> None:
    dying = " ".join(row[0] for row in rows())
    for process in ("front", "supervisor", "keeper", "all", "main process", "library"):
        assert process in dying
