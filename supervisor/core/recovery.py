"""What a new supervisor makes of the journal and of what the keeper kept for it."""

import contextlib
import logging
import signal
from pathlib import Path
from time import monotonic, time_ns

from jobworker.supervisor.core.supervisor import Supervisor
from jobworker.supervisor.host import tree
from jobworker.supervisor.host.cgroup import Cgroup, JobCgroups
from jobworker.supervisor.job import Happening, Job, Reason, State, after
from jobworker.supervisor.journal.journal import Journal
from jobworker.supervisor.keeper import packets
from jobworker.supervisor.local.keeper_link import KeeperLink
from jobworker.supervisor.local.live_job import LiveJob
from jobworker.supervisor.output.segments import recorded_end, segment_starts

log = logging.getLogger(__name__)

# How long a process that was sent SIGKILL is waited for: one that waits for a
# dead disk or file server may never end.
SURVIVOR_SECONDS = 5.0


def recover(
    supervisor: Supervisor,
    journal: Journal,
    keeper: KeeperLink,
    kept: dict[str, tuple[int, ...]],
    cgroups: JobCgroups | None,
) -> None:
    """Go on with every job that is kept; record the others as lost and end their processes.

    Call it before anything else reaches the supervisor. What is kept of a job
    that is not on record is let go: its launcher has had no orders.
    """
    lost: list[Job] = []
    for job in journal.unfinished():
        descriptors = kept.pop(job.id, None)
        if descriptors is None:
            lost.append(job)
        else:
            _resume(supervisor, job, descriptors)
    for job_id, descriptors in kept.items():
        packets.close_all(descriptors)
        keeper.drop(job_id)
    _end_survivors(lost)
    for job in lost:
        _record_loss(journal, job, supervisor.output_directory(job.id))
    journal.sync()
    _reclaim_cgroups(supervisor, cgroups)


def _resume(supervisor: Supervisor, job: Job, descriptors: tuple[int, ...]) -> None:
    live = LiveJob.from_kept(job, supervisor.recorder(job.request), descriptors)
    job.output_begin, job.output_end = live.recorder.begin, live.recorder.end
    supervisor.jobs.add(live)
    if job.state is State.STARTING:
        supervisor.starts.resume(live)
    else:
        live.close_launcher()
        supervisor.capture.listen(live)
        supervisor.arm_timeout(live)
    if job.state is State.STOPPING:
        supervisor.stop(live, None, job.reason)
    supervisor.jobs.retire(live)


def _reclaim_cgroups(supervisor: Supervisor, cgroups: JobCgroups | None) -> None:
    """Remove those of the launchers and the jobs that the supervisor before has left."""
    in_use = {live.job.cgroup for live in supervisor.jobs}
    for cgroup in cgroups.jobs() if cgroups is not None else ():
        if str(cgroup.directory) not in in_use:
            supervisor.starts.pool.reclaim(str(cgroup.directory))


def _end_survivors(lost: list[Job]) -> None:
    """SIGKILL what is left of jobs whose service died, until nothing is or none ends any more.

    They are found by cgroup, by mark or token, or by the PID of the main process
    together with its start time: never by a PID alone.
    """
    for job in lost:
        if job.cgroup:
            cgroup = Cgroup(Path(job.cgroup))
            with contextlib.suppress(OSError):
                cgroup.kill()
    roots = [tree.JobRoot(job.id, job.pid, job.pid_start) for job in lost]
    deadline = monotonic() + SURVIVOR_SECONDS
    while roots:
        processes = tree.snapshot(doomed=roots)
        left = [process for root in roots for process in tree.members(processes, root)]
        if not left:
            return
        if monotonic() > deadline:
            log.error("processes of lost jobs do not end: %s", [process.pid for process in left])
            return
        tree.send(left, signal.SIGKILL)


def _record_loss(journal: Journal, job: Job, output: Path) -> None:
    if job.state is not State.ENDED:
        log.warning("job %s is lost: the service ended while it ran", job.id)
        job.state = after(job.state, Happening.LOSS)
        job.reason = Reason.LOST
        job.detail = "the service ended while the job ran; what was left of it was killed"
        job.ended_ns = time_ns()
    job.output_end = recorded_end(output)
    job.output_begin = min([*segment_starts(output), job.output_end])
    job.output_complete = True
    journal.update(job)
