"""Slurm's commands: a batch job submitted, looked for, cancelled. They block: for threads."""

import os
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from jobworker.supervisor.errors import CannotPlace, Exhausted, SupervisorError
from jobworker.supervisor.host.users import Account

# How long a command may take: those of Slurm try again for longer where nobody answers.
ANSWER_SECONDS = 8.0
AWAY = (
    "Slurm's controller does not answer ({why}): jobs that run go on, and others are started "
    "when it does; try again later"
)
# What the commands say then: slurm_errno.c.
_UNREACHABLE = ("Unable to contact", "connect failure", "Connection refused", "timed out", "Zero B")
_UNLIMITED_LINE = 500


class ControllerAway(Exception):
    """Nobody answers: what was asked may have been done, or not."""


class Seen(NamedTuple):
    """A job as squeue(1) has it; `state` and `reason` in Slurm's words."""

    number: int
    comment: str
    state: str
    reason: str
    nodes: str


def _run(
    command: Sequence[str], *, stdin: str = "", account: Account | None = None
) -> "subprocess.CompletedProcess[str]":
    """Raises ControllerAway where it takes too long; a failure is the caller's to read."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("SBATCH_")}
    user: dict[str, object] = {}
    if account is not None and account.uid != os.geteuid():
        user = {"user": account.uid, "group": account.gid, "extra_groups": account.groups}
    try:
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            command,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            check=False,
            cwd="/",
            env={**own, "SLURM_TIME_FORMAT": "standard"},
            **user,
        )
    except subprocess.TimeoutExpired:
        raise ControllerAway(f"no answer within {ANSWER_SECONDS:g} s") from None


def _answer(done: "subprocess.CompletedProcess[str]") -> str:
    """What it printed. Raises ControllerAway."""
    if done.returncode and any(text in done.stderr for text in _UNREACHABLE):
        raise ControllerAway(_last_line(done.stderr))
    return done.stdout


def _last_line(text: str) -> str:
    lines = text.strip().splitlines() or ["no reason given"]
    return lines[-1].rpartition("error: ")[2][:_UNLIMITED_LINE]


def submit(script: str, options: Sequence[str], account: Account | None) -> int:
    """Submit a batch job as that user; its number. Raises ControllerAway and CannotPlace."""
    try:
        done = _run(["sbatch", "--parsable", *options], stdin=script, account=account)
    except FileNotFoundError:
        raise _no_commands("sbatch") from None
    number = _answer(done).strip().partition(";")[0]
    if done.returncode or not number.isdigit():
        raise CannotPlace(f"Slurm refuses the job: {_last_line(done.stderr)}")
    return int(number)


def queue() -> dict[int, Seen]:
    """All jobs that Slurm knows of, ended ones for a while, too. Raises ControllerAway."""
    try:
        done = _run(["squeue", "-h", "-t", "all", "-o", "%i|%k|%T|%r|%N"])
    except FileNotFoundError:
        raise ControllerAway("squeue is not installed") from None
    text = _answer(done)
    if done.returncode:
        raise ControllerAway(_last_line(done.stderr))
    found = [line.split("|") for line in text.splitlines()]
    return {
        int(fields[0]): Seen(int(fields[0]), *fields[1:])
        for fields in found
        if len(fields) == len(Seen._fields) and fields[0].isdigit()
    }


def cancel(number: int) -> None:
    """End a job at once, whatever it is doing. Raises ControllerAway."""
    for how in (["--signal=KILL", "--full"], []):
        try:
            _answer(_run(["scancel", "-Q", *how, str(number)]))
        except FileNotFoundError:
            raise ControllerAway("scancel is not installed") from None


def away(why: object) -> SupervisorError:
    """The error for a start while nobody answers."""
    return Exhausted(AWAY.format(why=why))


def _no_commands(name: str) -> SupervisorError:
    return CannotPlace(
        f"Slurm's commands are not installed on this host ({name}): see docs/cluster"
    )
