"""The list of jobs, and that of those which wait for their turn."""

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from jobworker.authz.policy.policy import JobFacts
from jobworker.cli.selection import STATES
from jobworker.console.errors import invalid_form
from jobworker.console.pages.several import SEVERAL, SIGNALS
from jobworker.console.pages.views import Row, row
from jobworker.console.site import Site
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.proto import workerservice_pb2 as pb

PAGE = 50
# What the filter has beside the states.
NOT_ENDED = "not ended"
FAILED = "failed"
_MOST_WAITING = 1000


class Wanted(NamedTuple):
    """Which jobs are asked for: the words in the address of the page."""

    state: str
    owner: str
    tenant: str
    name: str
    label: str
    command: str
    before: str

    @classmethod
    def of(cls, request: Request) -> "Wanted":
        """What an address says."""
        words = {name: request.query_params.get(name, "").strip() for name in cls._fields}
        return cls(**words)

    def message(self) -> pb.ListRequest:
        """The request that List takes. Raises Refusal."""
        key, equals, value = self.label.partition("=")
        asked = pb.ListRequest(
            running=self.state == NOT_ENDED,
            failed=self.state == FAILED,
            owner=self.owner,
            tenant=self.tenant,
            name=self.name,
            labels={key: value} if equals else {},
            labelKeys=[] if equals or not key else [key],
            command=self.command,
            pageSize=PAGE,
            pageToken=self.before,
        )
        if self.state not in ("", NOT_ENDED, FAILED):
            if self.state not in STATES:
                raise invalid_form(f"{self.state[:64]!r} is no state of a job")
            asked.states.append(getattr(pb, f"JOB_STATE_{self.state.upper()}"))
        return asked

    def query(self, before: str) -> str:
        """The words for the page that begins behind a job; for the first, behind none."""
        words = self._replace(before=before)._asdict()
        return urlencode({name: word for name, word in words.items() if word})


def rows(site: Site, caller: Caller, jobs: Iterable[pb.QueryStatusResponse]) -> list[Row]:
    """The rows of a list; those may be chosen to which a button may do something."""
    return [row(job, choose=_steers(site, caller, job)) for job in jobs]


def _steers(site: Site, caller: Caller, job: pb.QueryStatusResponse) -> bool:
    # Of what is not to be started the policy looks at these two alone.
    about = JobFacts(job.owner, job.tenant)
    judge = site.calls.access.judge_facts
    return any(judge(caller.identity, act, about).error is None for act in ("signal", "stop"))


async def jobs(site: Site, request: Request, caller: Caller) -> Response:
    """Those the caller may list, newest first."""
    wanted = Wanted.of(request)
    answer = await site.calls.call("List", wanted.message(), caller)
    return site.page(
        request,
        caller,
        "jobs.html",
        rows=rows(site, caller, answer.jobs),
        acts=SEVERAL,
        signals=SIGNALS,
        query=wanted.query(wanted.before),
        wanted=wanted,
        states=("", NOT_ENDED, FAILED, *STATES),
        newer=f"/jobs?{wanted.query('')}" if wanted.before else "",
        older=f"/jobs?{wanted.query(answer.nextPageToken)}" if answer.nextPageToken else "",
        live=f"/live/jobs?{wanted.query(wanted.before)}",
    )


async def queue(site: Site, request: Request, caller: Caller) -> Response:
    """Those that wait for their turn, the oldest first, as far as the caller may list them."""
    message = pb.ListRequest(states=[pb.JOB_STATE_PENDING], pageSize=_MOST_WAITING)
    answer = await site.calls.call("List", message, caller)
    waiting = sorted(answer.jobs, key=lambda job: (job.request.queue, job.jobID))
    waits = [(row(job), job.request.queue, job.request.priority, job.detail) for job in waiting]
    return site.page(request, caller, "queue.html", rows=waits, more=bool(answer.nextPageToken))
