"""What people call a job: its ID, a part of that, its name, or @last."""

import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from jobworker.supervisor import JobSnapshot, is_job_name, legible

_FULL_ID = 36
# So much of an ID, at least, is taken for a job.
MIN_PART = 4
_ID_PART = re.compile(rf"[0-9a-f-]{{{MIN_PART},{_FULL_ID}}}")
_NEWEST = "@last"
# So many jobs are named when a part is that of several, and so much of a command.
_CANDIDATES = 10
_COMMAND_LENGTH = 60


class Whole(NamedTuple):
    """The ID, or what looks like one."""

    id: str


class Part(NamedTuple):
    """What an ID begins or ends with."""

    text: str


class Named(NamedTuple):
    """A name, of a job of somebody's: one that has not ended comes first, else the newest."""

    owner: str
    name: str


class Newest(NamedTuple):
    """Somebody's newest job."""

    owner: str


Reference = Whole | Part | Named | Newest


def reference(text: str, caller: str) -> Reference | None:
    """What somebody means by this; None where it can be no job's.

    >>> reference("nightly", "alice")
    Named(owner='alice', name='nightly')
    >>> reference("bob/nightly", "alice")
    Named(owner='bob', name='nightly')
    """
    if _ID_PART.fullmatch(text):
        return Whole(text) if len(text) == _FULL_ID else Part(text)
    if text == _NEWEST:
        return Newest(caller)
    owner, slash, name = text.rpartition("/")
    if not is_job_name(name) or (slash and not owner):
        return None
    return Named(owner or caller, name)


def candidates(part: str, jobs: Sequence[JobSnapshot]) -> str:
    """What to choose from when several jobs have a part, the newest first."""
    lines = [f"{len(jobs)} jobs have IDs that begin or end with {part}: give more of the ID"]
    newest = sorted(jobs, key=lambda job: job.id, reverse=True)
    for job in newest[:_CANDIDATES]:
        command = shlex.join(map(legible, job.argv))
        cut = command if len(command) <= _COMMAND_LENGTH else f"{command[:_COMMAND_LENGTH]}..."
        lines.append(f"  {job.id}  {job.state.name.lower()}  {' '.join(cut.splitlines())}")
    if len(jobs) > _CANDIDATES:
        lines.append(f"  and {len(jobs) - _CANDIDATES} more")
    return "\n".join(lines)
