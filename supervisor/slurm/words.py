"""Slurm's states and reasons in words, and what they mean for a job. Pure."""

from typing import NamedTuple

from jobworker.supervisor.job import Reason
from jobworker.supervisor.slurm.controller import Seen

# squeue(1), JOB STATE CODES: those in which nothing more becomes of a job.
ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
# squeue(1), JOB REASON CODES; others are told as they are.
_WAITING = {
    "None": "for its turn",
    "Priority": "for jobs before it",
    "Resources": "for free processors or memory",
    "Dependency": "for another job of Slurm's",
    "JobHeldUser": "until its hold is released",
    "JobHeldAdmin": "until an administrator of Slurm's releases it",
    "PartitionDown": "for its partition, which is down",
    "PartitionConfig": "for more than its partition has",
    "PartitionNodeLimit": "for more than its partition has",
    "PartitionTimeLimit": "with a longer timeout than its partition allows",
    "ReqNodeNotAvail": "for a node that is not available",
    "Reservation": "for its reservation",
    "QOSMaxJobsPerUserLimit": "for other jobs of its user's to end",
    "BeginTime": "for its time to begin",
}


class Ending(NamedTuple):
    """What Slurm's word for an end is here; NONE where it says nothing against the node's."""

    reason: Reason
    detail: str


_NOTHING = Ending(Reason.NONE, "")


def waiting(seen: Seen) -> str:
    """Why a job does not run yet."""
    what = _WAITING.get(seen.reason)
    if what is None:
        return f"waits in Slurm: {seen.reason}"
    return f"waits in Slurm {what} ({seen.reason})"


OUT_OF_MEMORY = "it had more memory than its limit"
_ENDINGS = {
    "TIMEOUT": Ending(Reason.TIMED_OUT, "Slurm ended it: its time was over"),
    "DEADLINE": Ending(Reason.TIMED_OUT, "Slurm ended it: its deadline was over"),
    "OUT_OF_MEMORY": Ending(Reason.OUT_OF_MEMORY, OUT_OF_MEMORY),
    "NODE_FAIL": Ending(Reason.LOST, "the node failed"),
    "BOOT_FAIL": Ending(Reason.LOST, "the node did not come up"),
    "PREEMPTED": Ending(Reason.LOST, "Slurm gave its place to another job"),
    "CANCELLED": Ending(Reason.STOPPED, "somebody cancelled it in Slurm (scancel)"),
}


def ending(state: str) -> Ending:
    """What Slurm says of an end by its state."""
    return _ENDINGS.get(state, _NOTHING)


def without_record(seen: Seen | None) -> Ending:
    """Why a job is over of which no node has told the end."""
    found = ending(seen.state if seen else "")
    if seen and found.reason:
        where = f" (node {seen.nodes})" if seen.nodes else ""
        return Ending(found.reason, found.detail + where)
    state = seen.state if seen else "Slurm knows it no more"
    return Ending(
        Reason.LOST,
        f"its recorder on the node ended before it could tell how the job did ({state}): "
        "the end of its output may be missing",
    )
