"""The page of a job's terminal."""

from starlette.requests import Request
from starlette.responses import Response

from jobworker.console.errors import invalid_form
from jobworker.console.safety import POLICY
from jobworker.console.site import Site
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.proto import workerservice_pb2 as pb

# xterm.js makes style sheets for its lines. What it draws is never HTML.
_POLICY = f"{POLICY}; style-src 'self' 'unsafe-inline'"


async def terminal(site: Site, request: Request, caller: Caller) -> Response:
    """The page, for who may see the job; the terminal itself is decided when it is opened."""
    asked = pb.QueryStatusRequest(jobID=request.path_params["job"])
    message = await site.calls.call("QueryStatus", asked, caller)
    if not message.request.HasField("terminal"):
        raise invalid_form("this job has no terminal: it was not started with -t")
    page = site.page(
        request,
        caller,
        "terminal.html",
        id=message.jobID,
        title=message.request.name or message.jobID,
        live=f"/live/jobs/{message.jobID}/terminal",
    )
    page.headers["content-security-policy"] = _POLICY
    return page
