"""Every row of a table in docs/security.md names tests, and they exist."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
GUIDE = REPOSITORY / "docs/security.md"
# FILE::TEST, a FILE alone, or ::TEST of the file before; those of tests/guest by their stem.
NAME = re.compile(r"`([\w./]*)(?:::(test_\w+))?`")


def rows(text: str) -> list[tuple[str, str]]:
    """The first and the last cell of every row of the tables, the headings left out."""
    found: list[tuple[str, str]] = []
    heading = True
    for line in text.splitlines():
        if not line.startswith("|"):
            heading = True
        elif heading:
            assert line.endswith("| test |"), f"a table without tests: {line}"
            heading = False
        elif not line.startswith("|---"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            found.append((cells[0], cells[-1]))
    return found


def named_in(cell: str) -> list[tuple[Path, str]]:
    """The file and the function, or "", of each test that is named."""
    found: list[tuple[Path, str]] = []
    for name, function in NAME.findall(cell):
        if not name:
            path = found[-1][0]
        elif "/" in name:
            path = REPOSITORY / name
        else:
            path = REPOSITORY / f"tests/guest/{name}.py"
        found.append((path, function))
    return found


def functions(path: Path) -> set[str]:
    """The tests of a file."""
    nodes = ast.parse(path.read_text()).body
    found = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    return {name for name in found if name.startswith("test_")}


def test_there_are_tables() -> None:
    assert len(rows(GUIDE.read_text())) > 30


@pytest.mark.parametrize(("threat", "cell"), rows(GUIDE.read_text()))
def test_what_a_row_names_is_there(threat: str, cell: str) -> None:
    named = named_in(cell)
    assert named, f"no test is named for {threat}"
    for path, function in named:
        assert path.is_relative_to(REPOSITORY / "tests"), path
        assert path.is_file(), path
        assert functions(path), path
        assert not function or function in functions(path), f"{path} has no {function}"
