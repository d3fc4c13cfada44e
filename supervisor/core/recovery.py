"""What a new supervisor makes of the journal and of what the keeper kept for it."""

import logging
from time import time_ns

from jobworker.supervisor.core.supervisor import Supervisor
from jobworker.supervisor.engine import Engine
from jobworker.supervisor.job import Happening, Job, Reason, State, after
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.live.live_job import LiveJob
from jobworker.supervisor.output.segments import recorded_end, segment_starts

log = logging.getLogger(__name__)


def recover(supervisor: Supervisor, journal: Journal, engine: Engine) -> None:
    """Go on with every job that the engine knows; record the others as lost, and end them.

    Call it before anything else reaches the supervisor. What the engine has of a
    job that is not on record is let go: that was withdrawn.
    """
    lost: list[Job] = []
    for job in journal.unfinished():
        if engine.knows(job):
            _resume(supervisor, engine, job)
        else:
            lost.append(job)
    engine.clean_up(lost)
    for job in lost:
        _record_loss(supervisor, journal, job)
    journal.sync()
    # When it is known what has become of the jobs that others come after.
    supervisor.pending.recover()
    supervisor.scheduler.begin()


def _resume(supervisor: Supervisor, engine: Engine, job: Job) -> None:
    live = LiveJob(job)
    supervisor.jobs.add(live)
    if job.state is State.STARTING:
        supervisor.starts.resume(live)
    engine.take_up(job)
    if job.state.going_on or job.state is State.STOPPING:
        supervisor.arm_timeout(live)
    if job.state.going_on:
        supervisor.health.watch(live)
    if job.state is State.PAUSED:
        engine.pause(job)
    if job.state is State.STOPPING:
        supervisor.stop(live, None, job.reason)
    if job.state is State.RESTARTING:
        supervisor.restarts.clear(live)
    supervisor.jobs.retire(live)


def _record_loss(supervisor: Supervisor, journal: Journal, job: Job) -> None:
    output = supervisor.output_directory(job.id)
    job.output_end = recorded_end(output)
    job.output_begin = min([*segment_starts(output), job.output_end])
    job.output_complete = True
    if job.state is not State.ENDED and not _begins_anew(supervisor, job):
        log.warning("job %s is lost: the service ended while it ran", job.id)
        job.state = after(job.state, Happening.LOSS)
    journal.update(job)


def _begins_anew(supervisor: Supervisor, job: Job) -> bool:
    """Whether a job that is lost is started again, unless somebody has asked for its stop."""
    stopped = job.state is State.STOPPING and job.reason is Reason.STOPPED
    if job.state is not State.RESTARTING:
        job.reason = Reason.LOST
        job.detail = "the service ended while the job ran; what was left of it was killed"
        job.ended_ns = time_ns()
    return not stopped and supervisor.restarts.follows_loss(job)
