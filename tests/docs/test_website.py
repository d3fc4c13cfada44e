"""The documentation's site: every page is in it, and what leads nowhere is found."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from docs import website

ROOT = Path(__file__).parents[2]
MKDOCS = ROOT / "build" / "tools" / "bin" / "mkdocs"
needs_mkdocs = pytest.mark.skipif(not MKDOCS.exists(), reason="needs mkdocs: run make docs")


def named(nav: object) -> list[str]:
    """The pages of a navigation, in its order."""
    if isinstance(nav, dict):
        return [page for inner in nav.values() for page in named(inner)]
    return [page for inner in nav for page in named(inner)] if isinstance(nav, list) else [str(nav)]


def built(directory: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [MKDOCS, "build", "--strict", "-f", directory / "mkdocs.yml"],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_page_is_in_the_navigation_once(tmp_path: Path) -> None:
    website.prepare(tmp_path)
    source = tmp_path / "src"
    pages = named(website.nav(source))
    there = {str(path.relative_to(source)) for path in source.rglob("*.md")}
    assert sorted(pages) == sorted(there)
    papers = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert papers <= {Path(page).name for page in pages}
    assert "reference/jobworker-admin-offboard.md" in pages
    missing = [page for group in website.NAV.values() for page in group if page not in there]
    assert missing == []


def test_what_a_help_text_has_is_shown_as_it_is() -> None:
    told = website._text("a <b> & *c* [d] `e<f> *g*` h_i")
    assert told == r"a &lt;b&gt; &amp; \*c\* \[d\] `e<f> *g*` h\_i"


@needs_mkdocs
def test_it_is_built_and_fetches_nothing_from_elsewhere(tmp_path: Path) -> None:
    website.prepare(tmp_path)
    done = built(tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "index.html").read_text()
    for attribute in ('src="http', "fonts.googleapis"):
        assert attribute not in page


@needs_mkdocs
@pytest.mark.parametrize(
    "link", ["[x](nonesuch.md)", "[x](docs/client.md#no-such-heading)", "[x](docs/nonesuch.json)"]
)
def test_a_link_that_leads_nowhere_fails(tmp_path: Path, link: str) -> None:
    copy = tmp_path / "repository"
    for folder in ("docs", "deploy", "policies", "proto"):
        shutil.copytree(ROOT / folder, copy / folder)
    for paper in ROOT.glob("*.md"):
        shutil.copy(paper, copy)
    shutil.copy(ROOT / "LICENSE", copy)
    with (copy / "README.md").open("a") as readme:
        readme.write(f"\n{link}\n")
    website.prepare(tmp_path / "site", copy)
    done = built(tmp_path / "site")
    assert done.returncode != 0
    assert "README.md" in done.stderr
