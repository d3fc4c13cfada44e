"""The list of jobs, and that of those which wait for their turn."""

from typing import NamedTuple
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from jobworker.console.pages.views import row
from jobworker.console.site import Site
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.proto import workerservice_pb2 as pb

PAGE = 50
# Those that have not ended, of which the waiting ones are some.
_MOST_WAITING = 1000


class Wanted(NamedTuple):
    """Which jobs are asked for: the words in the address of the page."""

    running: bool
    owner: str
    tenant: str
    before: str

    @classmethod
    def of(cls, request: Request) -> "Wanted":
        """What an address says."""
        query = request.query_params
        return cls(
            running=query.get("state") == "running",
            owner=query.get("owner", "").strip(),
            tenant=query.get("tenant", "").strip(),
            before=query.get("before", ""),
        )

    def message(self) -> pb.ListRequest:
        """The request that List takes."""
        return pb.ListRequest(
            running=self.running,
            owner=self.owner,
            tenant=self.tenant,
            pageSize=PAGE,
            pageToken=self.before,
        )

    def query(self, before: str) -> str:
        """The words for the page that begins behind a job; for the first, behind none."""
        words = {"state": "running" if self.running else "", "owner": self.owner}
        words |= {"tenant": self.tenant, "before": before}
        return urlencode({name: word for name, word in words.items() if word})


async def jobs(site: Site, request: Request, caller: Caller) -> Response:
    """Those the caller may list, newest first."""
    wanted = Wanted.of(request)
    answer = await site.calls.call("List", wanted.message(), caller)
    return site.page(
        request,
        caller,
        "jobs.html",
        rows=[row(job) for job in answer.jobs],
        wanted=wanted,
        newer=f"/jobs?{wanted.query('')}" if wanted.before else "",
        older=f"/jobs?{wanted.query(answer.nextPageToken)}" if answer.nextPageToken else "",
        live=f"/live/jobs?{wanted.query(wanted.before)}",
    )


async def queue(site: Site, request: Request, caller: Caller) -> Response:
    """Those that wait for their turn, the oldest first, as far as the caller may list them."""
    message = pb.ListRequest(running=True, pageSize=_MOST_WAITING)
    answer = await site.calls.call("List", message, caller)
    waiting = [job for job in answer.jobs if job.state == pb.JOB_STATE_PENDING]
    waiting.sort(key=lambda job: (job.request.queue, job.jobID))
    rows = [(row(job), job.request.queue, job.request.priority, job.detail) for job in waiting]
    return site.page(request, caller, "queue.html", rows=rows, more=bool(answer.nextPageToken))
