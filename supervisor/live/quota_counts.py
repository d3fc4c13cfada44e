"""Counting what users and tenants have, over everything the supervisor knows of."""

from collections.abc import Callable

from jobworker.supervisor.engine import Engine
from jobworker.supervisor.job import Input, State
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.live.live_jobs import LiveJobs
from jobworker.supervisor.live.turn import Turn
from jobworker.supervisor.quotas import WINDOW_SECONDS, Counts, Quotas, Subject, subjects_of


def quotas_over(
    jobs: LiveJobs, journal: Journal, turn: Turn, engine: Engine, clock: Callable[[], float]
) -> Quotas:
    """Quotas that count these, and the starts that the journal has of the last minute."""

    def output_bytes(subject: Subject) -> int:
        # What is complete counts as the journal has it.
        turn.settle_all()
        unfinished = (
            live.job.output_end - live.job.output_begin
            for live in jobs.of(subject)
            # That of one that waits is kept output, too.
            if live.job.state is not State.PENDING
            and not (live.job.state is State.ENDED and live.job.output_complete)
        )
        stored = (engine.stored_input(live.job) for live in jobs.of(subject) if _stores(live))
        return journal.kept_output.of(subject) + sum(unfinished) + sum(stored)

    quotas = Quotas(Counts(jobs.running, output_bytes), clock)
    for seconds_ago, request in journal.started_within(WINDOW_SECONDS):
        for subject in subjects_of(request):
            quotas.started(subject, seconds_ago)
    return quotas


def _stores(live: LiveJob) -> bool:
    request = live.job.request
    return request.input is Input.STORED or bool(request.uploads)
