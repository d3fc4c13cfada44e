"""What takes root, other users and cgroup controllers: the tests of tests/guest, in a guest."""

import ast
import os
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from tests.support.user_mode_linux import GUEST, KERNEL, NoGuest, run_in_guest

FILES = [
    GUEST / f"{name}.py"
    for name in ("limits", "isolation", "escapes", "mapping", "reach", "files", "clock")
]
REPORT = "report.xml"
# A run takes a minute or two; where others use both processors, five were seen.
DEADLINE_SECONDS = 600.0


class Outcome(NamedTuple):
    """How a test ended: `passed`, or in the words of junit.xml; and what is to be said of it."""

    how: str
    text: str = ""


PASSED = Outcome("passed")


def names_of(file: Path) -> list[str]:
    """The tests of a file, as FILE::TEST."""
    functions = ast.parse(file.read_text()).body
    return [
        f"{file.stem}::{function.name}"
        for function in functions
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_")
    ]


def outcomes_of(files: list[Path], directory: Path, first: str) -> dict[str, Outcome]:
    """How each test of the files went in one guest, by FILE::TEST."""
    words = ["-m", "pytest", "-q", "--color=no", "--durations=12", "-p", "no:cacheprovider"]
    words += [f"--junitxml=/run/files/{REPORT}", *map(str, files)]
    try:
        output = run_in_guest(words, directory, DEADLINE_SECONDS, first=first)
    except NoGuest as error:
        pytest.skip(str(error))
    report = directory / REPORT
    assert report.exists(), output
    # Shown when a test fails: how the others went, and how long they took.
    print(output)
    found: dict[str, Outcome] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name, outcome = _name(case), _outcome(case)
        # Of several cases of a test, the first that did not pass is told.
        if found.get(name, PASSED) == PASSED:
            found[name] = outcome
    return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """How each test went that a plain guest will do for."""
    return outcomes_of(FILES, tmp_path_factory.mktemp("guest"), "boot.py")


def _name(case: ElementTree.Element) -> str:
    function = case.get("name", "").partition("[")[0]
    return f"{case.get('classname', '').rpartition('.')[2]}::{function}"


def _outcome(case: ElementTree.Element) -> Outcome:
    for part in case:
        if part.tag in {"failure", "error", "skipped"}:
            return Outcome(part.tag, f"{part.get('message')}\n{part.text}")
    return PASSED


@pytest.mark.timeout(DEADLINE_SECONDS + 20)
@pytest.mark.parametrize("name", [name for file in FILES for name in names_of(file)])
def test_in_guest(outcomes: dict[str, Outcome], name: str) -> None:
    check_passed(outcomes, name)


def check_passed(outcomes: dict[str, Outcome], name: str) -> None:
    """Fail, or skip, as the test did in the guest."""
    assert name in outcomes, f"the guest did not get as far as this, only to {sorted(outcomes)}"
    how, text = outcomes[name]
    if how == "skipped":
        pytest.skip(f"in the guest: {text}")
    assert how == "passed", text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_why_there_is_no_guest_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a sandbox that forbids ptrace(2)."""
    kernel = tmp_path / KERNEL
    kernel.write_text("#!/bin/sh\necho ptrace failed, errno = 1\nexit 1\n")
    kernel.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(NoGuest, match="does not run on this host: ptrace failed, errno = 1"):
        run_in_guest(["-V"], tmp_path, 30)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NoGuest, match="apt install user-mode-linux"):
        run_in_guest(["-V"], tmp_path, 30)
