"""The documentation as a site: what `make docs` gives mkdocs.

    python -m docs.website DIRECTORY

puts the papers there as they lie in the repository, so that their links lead where they do here,
with pages of the command's `--help`, and mkdocs.yml. A page that is in no group of NAV is
added to its last.
"""

import html
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from docs.manual import commands_below
from jobworker.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
# What links lead to: papers, and what they name.
COPIED = ("*.md", "LICENSE", "docs/**/*", "deploy/**/*", "policies/*", "proto/*.proto")
NOT_COPIED = {".py", ".pyc", ".pyi"}
NAV: dict[str, tuple[str, ...]] = {
    "Begin": ("README.md", "deploy/README.md", "docs/client.md"),
    "Coming from": (
        "docs/coming-from-ssh-and-tmux.md",
        "docs/coming-from-docker.md",
        "docs/coming-from-pueue.md",
        "docs/coming-from-cron.md",
    ),
    "Running it": (
        "docs/operations.md",
        "docs/policies.md",
        "docs/security.md",
        "docs/performance.md",
        "SECURITY.md",
    ),
    "Explanation": ("docs/architecture.md", "docs/decisions/README.md", "CONTRIBUTING.md"),
    "Reference": ("reference/README.md", "docs/json.md", "docs/glossary.md", "CHANGELOG.md"),
    "Using it": ("docs/names.md", "docs/sessions.md", "docs/queue.md", "docs/schedules.md"),
}
# In the order in which they are shown.
_SHOWN = ("Begin", "Coming from", "Using it", "Running it", "Reference", "Explanation")


def prepare(directory: Path, root: Path = ROOT) -> None:
    """Fill a directory with the pages, below `src`, and mkdocs.yml."""
    source = directory / "src"
    shutil.rmtree(source, ignore_errors=True)
    for pattern in COPIED:
        for file in sorted(root.glob(pattern)):
            if file.is_file() and file.suffix not in NOT_COPIED:
                target = source / file.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
    for page in source.rglob("*.md"):
        page.write_text(_within(page.read_text(), root / page.relative_to(source), source, root))
    reference = source / "reference"
    reference.mkdir()
    for name, text in pages():
        (reference / f"{name}.md").write_text(text)
    (directory / "mkdocs.yml").write_text(
        "\n".join(f"{key}: {json.dumps(value)}" for key, value in _settings(source).items()) + _MORE
    )


def _within(text: str, page: Path, source: Path, root: Path) -> str:
    """The text of a page without its links to files of the repository that are no part of this.

    What leads nowhere stays, for mkdocs to find.
    """

    def link(match: re.Match[str]) -> str:
        target = (page.parent / match[2].partition("#")[0]).resolve()
        if not target.is_file() or not target.is_relative_to(root):
            return match[0]
        # mkdocs takes what has no suffix for a directory.
        known = target.suffix and (source / target.relative_to(root)).exists()
        return match[0] if known else match[1]

    return re.sub(r"\[([^\]\[]*)\]\(([^)\s]+)\)", link, text)


def nav(source: Path) -> list[dict[str, object]]:
    """The groups with their pages."""
    there = {str(path.relative_to(source)) for path in source.rglob("*.md")}
    groups = {name: [page for page in NAV[name] if page in there] for name in _SHOWN}
    within = {
        "docs/decisions/README.md": sorted(p for p in there if p.startswith("docs/decisions/0")),
        "reference/README.md": sorted(p for p in there if p.startswith("reference/jobworker")),
    }
    named = {page for pages in (*groups.values(), *within.values()) for page in pages}
    groups["Using it"] += sorted(there - named)
    return [{name: [*_with_those_within(group, within)]} for name, group in groups.items() if group]


def _with_those_within(group: list[str], within: dict[str, list[str]]) -> Iterator[object]:
    titles = {"docs/decisions/README.md": "Decisions", "reference/README.md": "The command"}
    for page in group:
        yield {titles[page]: [page, *within[page]]} if page in within else page


def _settings(source: Path) -> dict[str, object]:
    return {
        "site_name": "job-worker",
        "docs_dir": "src",
        "site_dir": "html",
        "use_directory_urls": False,
        "nav": nav(source),
        # Nothing is fetched from elsewhere.
        "theme": {"name": "material", "font": False, "features": ["navigation.indexes"]},
        "plugins": ["search"],
        "strict": True,
        "validation": {
            "nav": {"omitted_files": "warn", "not_found": "warn"},
            "links": {
                "not_found": "warn",
                "anchors": "warn",
                "absolute_links": "warn",
                "unrecognized_links": "warn",
            },
        },
    }


# What JSON, which is YAML, cannot say: anchors as GitHub has them, and diagrams.
_MORE = """
markdown_extensions:
  - admonition
  - attr_list
  - def_list
  - sane_lists
  - tables
  - toc:
      permalink: true
      slugify: !!python/object/apply:pymdownx.slugs.slugify {kwds: {case: lower}}
  - pymdownx.highlight
  - pymdownx.superfences:
      custom_fences:
        - name: mermaid
          class: mermaid
          format: !!python/name:pymdownx.superfences.fence_code_format
"""


# -- the command -------------------------------------------------------------------------


def pages(
    command: click.Command = cli, words: tuple[str, ...] = ("jobworker",)
) -> Iterator[tuple[str, str]]:
    """Yield the page of a command and of each below it: its file's name, and Markdown."""
    context = click.Context(command, info_name=" ".join(words))
    below = list(commands_below(command, context))
    name = "-".join(words) if words[1:] else "README"
    usage = " ".join((*words, *command.collect_usage_pieces(context)))
    lines = [f"# {' '.join(words)}", "", "```", usage, "```", ""]
    for paragraph in re.split(r"\n{2,}", (command.help or "").strip()):
        kept = paragraph.startswith("\b\n")
        text = paragraph.removeprefix("\b\n")
        lines += ["```sh", text, "```", ""] if kept else [_text(" ".join(text.split())), ""]
    records = [one.get_help_record(context) for one in command.get_params(context)]
    for left, right in (record for record in records if record is not None):
        lines += [f"`{left}`", f":   {_text(right) or '&nbsp;'}", ""]
    for inner, found in below:
        file = "-".join((*words, inner))
        lines.append(
            f"- [{' '.join((*words, inner))}]({file}.md): {_text(found.get_short_help_str(500))}"
        )
    yield name, "\n".join(lines) + "\n"
    for inner, found in below:
        yield from pages(found, (*words, inner))


def _text(text: str) -> str:
    """A text as Markdown shows it as it is; `code` stays what it is."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part[:1] == "`" else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_\[\]|#`])", r"\\\1", html.escape(text, quote=False))


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
