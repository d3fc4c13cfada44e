"""What the buttons of a job do: of one on its own page, and of several in the list."""

from collections.abc import Collection
from typing import Any, NamedTuple

from google.protobuf.message import Message

from jobworker.cli.selection import GOING_ON
from jobworker.console.errors import invalid_form
from jobworker.proto import workerservice_pb2 as pb


class Act(NamedTuple):
    """What a button does: the method and its request, the right it takes, and in which states."""

    method: str
    request: Message
    action: str
    states: Collection[str]

    def about(self, job_id: str) -> Any:
        """Its request for a job."""
        asked: Any = type(self.request)()
        asked.CopyFrom(self.request)
        asked.jobID = job_id
        return asked


ACTS = {
    "pause": Act("Pause", pb.PauseRequest(), "signal", ("running",)),
    "resume": Act("Resume", pb.ResumeRequest(), "signal", ("paused",)),
    "stop": Act("Stop", pb.StopRequest(noWait=True), "stop", GOING_ON),
    "again": Act("Again", pb.AgainRequest(), "start", ("ended",)),
    "remove": Act("Remove", pb.RemoveRequest(), "stop", ("ended",)),
}


def act_of(name: str) -> Act:
    """The act of a button. Raises Refusal for one that there is not."""
    if (found := ACTS.get(name)) is None:
        raise invalid_form("there is no such button")
    return found


def fitting(state: str) -> list[str]:
    """The buttons that a job in a state is for."""
    return [name for name, act in ACTS.items() if state in act.states]
