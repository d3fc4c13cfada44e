"""A job of a cluster: what the engine holds for it, and what it has on record of it."""

import asyncio
import secrets
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import msgspec

from jobworker.supervisor.job import Job
from jobworker.supervisor.slurm.files import Places


class Phase(Enum):
    """How far a job has come, as the engine sees it."""

    SUBMITTING = "it is being submitted"
    QUEUED = "Slurm has it, and its program does not execute yet"
    RUNNING = "its program executes"
    OVER = "what there was to tell has been told"


class Whereabouts(msgspec.Struct, frozen=True, omit_defaults=True):
    """By what a job is found: this engine's record of it.

    The `nonce` of the attempt to start it, and the `number` that Slurm has given it, 0 until then.
    """

    nonce: str = ""
    number: int = 0

    @classmethod
    def new(cls) -> "Whereabouts":
        """Of a start that nobody has heard of."""
        return cls(secrets.token_hex(8))

    @classmethod
    def of(cls, job: Job) -> "Whereabouts":
        """What is on record of the job; no nonce where another engine wrote that."""
        return msgspec.json.decode(job.engine_record or "{}", type=cls)

    def note_in(self, job: Job) -> None:
        """Make it what is on record."""
        job.engine_record = msgspec.json.encode(self).decode()


@dataclass
class SlurmJob:
    """A job, where it is, and what is going on about it. Times are the loop's.

    Slurm is believed to have ended it, or to know it no more, since `gone_since`. A stop of it
    ends with SIGKILL at `kill_at`, and as nothing came of that, is in Slurm's hands at `cancel_at`.
    """

    job: Job
    where: Whereabouts
    places: Places
    phase: Phase = Phase.SUBMITTING
    submitted_at: float = 0.0
    submissions: int = 0
    gone_since: float | None = None
    state: str = ""
    given_up: bool = False
    being_stopped: bool = False
    overflowed: bool = False
    kill_at: float | None = None
    cancel_at: float | None = None
    timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, job: Job, shared: Path) -> "SlurmJob":
        """A job as on record."""
        where = Whereabouts.of(job)
        return cls(job, where, Places(shared, job.id, where.nonce))

    def note_number(self, number: int) -> None:
        """Slurm has given it this number."""
        self.where = Whereabouts(self.where.nonce, number)
        self.where.note_in(self.job)
