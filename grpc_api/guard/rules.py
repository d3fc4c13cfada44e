"""Which action each method of the contract takes, and what it is done to."""

from enum import Enum
from typing import NamedTuple

from jobworker.grpc_api.errors import UndeclaredMethod
from jobworker.proto.workerservice_pb2 import DESCRIPTOR

SERVICE = DESCRIPTOR.services_by_name["WorkerService"].full_name


class About(Enum):
    """What a method's action is done to."""

    NEW_JOB = "the job to be started"
    ONE_JOB = "the job of the request's jobID"
    EACH_JOB = "every job of the answer, by the method itself"
    ONESELF = "nobody but the caller"


class MethodRule(NamedTuple):
    """Who may call a method: those who may do the action to what it is about.

    `lasting` calls wait for what a job does: they are not waited for. The reader of a
    `patient` one may take nothing for as long as it likes.
    """

    action: str
    about: About
    lasting: bool = False
    patient: bool = False


RULES: dict[str, MethodRule] = {
    "Start": MethodRule("start", About.NEW_JOB),
    # And to start, by the method itself: what is executed is the caller's choice.
    "Exec": MethodRule("attach", About.ONE_JOB),
    # And to start, by the method itself, which takes one's own alone.
    "Again": MethodRule("status", About.ONE_JOB),
    "Stop": MethodRule("stop", About.ONE_JOB),
    "QueryStatus": MethodRule("status", About.ONE_JOB),
    "GetOutput": MethodRule("output", About.ONE_JOB, lasting=True),
    "Signal": MethodRule("signal", About.ONE_JOB),
    "Input": MethodRule("attach", About.ONE_JOB, lasting=True),
    "Pause": MethodRule("signal", About.ONE_JOB),
    "Resume": MethodRule("signal", About.ONE_JOB),
    "Forward": MethodRule("forward", About.ONE_JOB, lasting=True, patient=True),
    "Put": MethodRule("put", About.ONE_JOB, lasting=True),
    "Get": MethodRule("get", About.ONE_JOB, lasting=True),
    "Wait": MethodRule("status", About.ONE_JOB, lasting=True),
    "List": MethodRule("list", About.EACH_JOB),
    "Events": MethodRule("list", About.EACH_JOB, lasting=True),
    "Remove": MethodRule("stop", About.ONE_JOB),
    "Prune": MethodRule("stop", About.EACH_JOB),
    "WouldPrune": MethodRule("stop", About.EACH_JOB),
    # What these take depends on the schedule: the methods themselves ask for it.
    "AddSchedule": MethodRule("none", About.ONESELF),
    "ListSchedules": MethodRule("none", About.ONESELF),
    "ChangeSchedule": MethodRule("none", About.ONESELF),
    "WhoAmI": MethodRule("none", About.ONESELF),
    "CanI": MethodRule("none", About.ONESELF),
    "Rights": MethodRule("none", About.ONESELF),
    # The right to renew, for each of one's tenants: the method itself asks for it.
    "RenewCertificate": MethodRule("none", About.ONESELF),
}


def check_declared(rules: dict[str, MethodRule]) -> None:
    """Raise UndeclaredMethod unless there is a rule for every method of the contract."""
    for service in DESCRIPTOR.services_by_name.values():
        for method in service.methods_by_name:
            if method not in rules:
                raise UndeclaredMethod(f"{service.full_name}.{method} declares no action")
