"""The papers for those who change the code: what they name is there."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from jobworker.supervisor import State
from tests.support.arrows import rooms

ROOT = Path(__file__).parents[2]
PAPERS = sorted([*ROOT.glob("*.md"), *ROOT.glob("deploy/*.md"), *ROOT.glob("docs/**/*.md")])
DECISIONS = sorted(ROOT.glob("docs/decisions/0*.md"))
TOP = (
    "authz",
    "cli",
    "client",
    "console",
    "deploy",
    "docs",
    "grpc_api",
    "proto",
    "supervisor",
    "tests",
)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
GLOSSARY = (ROOT / "docs/glossary.md").read_text()
_PATH = re.compile(rf"`((?:{'|'.join(TOP)})/[\w./-]+)`")


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(paper: Path) -> None:
    links = [link for link in _LINK.findall(paper.read_text()) if "://" not in link]
    assert [link for link in links if not (paper.parent / link).exists()] == []


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_that_are_named_are_there(paper: Path) -> None:
    paths = _PATH.findall(paper.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_architecture_is_the_same_picture_as_the_tree() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    table = text.partition("## The rooms")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `([\w/]+)` \|", table, re.MULTILINE)
    assert sorted(told) == sorted(room.replace(".", "/") for room in rooms())


def test_the_journeys_name_files_of_the_rooms_they_pass() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    journeys = text.partition("## Three journeys")[2].partition("\n## ")[0]
    steps = re.findall(r"^\| `([\w/]+)` \| (.*) \|$", journeys, re.MULTILINE)
    assert len(steps) > 20
    named = [(room, file) for room, step in steps for file in re.findall(r"`(\w+\.py)`", step)]
    assert len(named) > 30
    assert [one for one in named if not (ROOT / one[0] / one[1]).exists()] == []


def test_every_decision_is_in_the_list() -> None:
    listed = _LINK.findall((ROOT / "docs/decisions/README.md").read_text())
    assert listed == [path.name for path in DECISIONS]
    for number, path in enumerate(DECISIONS, 1):
        text = path.read_text()
        assert text.startswith(f"# {number}. ")
        assert path.name.startswith(f"{number:04}-")
        for part in ("**Decided.**", "**Why.**", "**What else there was.**", "**What it costs.**"):
            assert part in text, f"{path.name} does not say {part}"


def test_the_glossary_is_in_order_and_has_each_word_once() -> None:
    rows = re.findall(r"^\| (\w.*?) \| ", GLOSSARY, re.MULTILINE)
    words = [word.casefold() for word in rows[1:]]
    assert len(words) > 30
    assert words == sorted(set(words))


def test_the_glossary_has_every_state_of_a_job() -> None:
    (row,) = re.findall(r"^\| state \| Of a job: ([a-z, ]+)\.", GLOSSARY, re.MULTILINE)
    # What is told as another has no name of its own.
    told = set(State) - {State.RESTARTING}
    assert set(row.split(", ")) == {state.name.lower() for state in told}


def test_the_licence_is_the_one_that_the_package_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    # What is others' has its own beside it.
    assert project["license-files"] == ["LICENSE", "console/static/vendor/*.LICENSE"]
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_both_automatic_checks_call_what_people_call() -> None:
    workflow = msgspec.yaml.decode((ROOT / ".github/workflows/ci.yml").read_bytes())
    (job,) = workflow["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    hooks = msgspec.yaml.decode((ROOT / ".pre-commit-config.yaml").read_bytes())
    (repository,) = hooks["repos"]
    assert repository["repo"] == "local"
    programs = {hook["entry"].split()[0] for hook in repository["hooks"]}
    assert programs == {".venv/bin/ruff", "make"}


def test_the_readme_has_one_picture_which_is_small() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert len(pictures) == 1
    assert (ROOT / pictures[0]).read_bytes().startswith(b"\x89PNG")
    assert (ROOT / pictures[0]).stat().st_size < 150_000
