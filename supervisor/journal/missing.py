"""A state directory that has the output of jobs and no journal that knows of them."""

from pathlib import Path
from time import gmtime, strftime

from jobworker.supervisor.errors import StateError

JOURNAL = "journal.sqlite"


def check_journal_is_there(state_dir: Path) -> None:
    """Raise StateError where there is none, or one of no bytes, beside output of jobs."""
    jobs = _jobs_without_journal(state_dir)
    if jobs:
        raise StateError(
            f"{state_dir} has the output of {jobs} jobs, and {JOURNAL} is missing or empty: "
            "restore it from a backup, or begin a new one (serve --new-journal), which puts "
            "that output aside"
        )


def set_output_aside(state_dir: Path) -> Path | None:
    """Rename the output of jobs that no journal knows; its new place, None if there is no such.

    Raises StateError where there is a journal, which is nobody's to set aside.
    """
    if _size(state_dir / JOURNAL):
        raise StateError(f"there is a journal in {state_dir}: move it away to begin a new one")
    if not _jobs_without_journal(state_dir):
        return None
    aside = state_dir / f"output-of-{strftime('%Y%m%dT%H%M%SZ', gmtime())}"
    (state_dir / "output").rename(aside)
    return aside


def _jobs_without_journal(state_dir: Path) -> int:
    if _size(state_dir / JOURNAL):
        return 0
    try:
        return sum(1 for _ in (state_dir / "output").iterdir())
    except FileNotFoundError:
        return 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
