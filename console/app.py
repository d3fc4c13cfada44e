"""The console as an application of ASGI: which address is which page."""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from jobworker.console.errors import http_status
from jobworker.console.live import job as live_job
from jobworker.console.live import jobs as live_jobs
from jobworker.console.live import terminal as live_terminal
from jobworker.console.live import usage as live_usage
from jobworker.console.pages import (
    audit,
    job,
    jobs,
    me,
    policy,
    schedules,
    several,
    start,
    terminal,
    usage,
)
from jobworker.console.safety import Hosts, Safety
from jobworker.console.site import Site
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.grpc_api.guard.refusal import Refusal
from jobworker.supervisor import SupervisorError

_STATIC = Path(__file__).parent / "static"
_Page = Callable[[Site, Request, Caller], Awaitable[Response]]

_READ: dict[str, _Page] = {
    "/jobs": jobs.jobs,
    "/jobs/{job}": job.job,
    "/jobs/{job}/output": job.download,
    "/queue": jobs.queue,
    "/schedules": schedules.schedules,
    "/start": start.form,
    "/usage": usage.usage,
    "/policy": policy.policy,
    "/audit": audit.audit,
    "/me": me.me,
    "/jobs/{job}/terminal": terminal.terminal,
    "/live/usage": live_usage.usage,
    "/live/jobs": live_jobs.jobs,
    "/live/jobs/{job}": live_job.job,
}
_CHANGE: dict[str, _Page] = {
    "/jobs/{job}/{act}": job.act,
    "/jobs": several.several,
    "/schedules/{act}": schedules.act,
    "/start": start.start,
}


def application(site: Site, hosts: Hosts) -> ASGIApp:
    """All of it, behind Safety."""
    routes = [
        Route("/", _to_the_jobs),
        *_routes(site, _CHANGE.items(), "POST"),
        *_routes(site, _READ.items(), "GET"),
        WebSocketRoute("/live/jobs/{job}/terminal", partial(_serve_socket, site)),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]
    handlers = {
        Refusal: partial(_refused, site),
        SupervisorError: partial(_refused, site),
        HTTPException: partial(_missing, site),
    }
    return Safety(Starlette(routes=routes, exception_handlers=handlers), hosts)


def _routes(site: Site, pages: Iterable[tuple[str, _Page]], method: str) -> Iterable[Route]:
    for path, page in pages:
        yield Route(path, partial(_serve, site, page), methods=[method])


async def _serve(site: Site, page: _Page, request: Request) -> Response:
    return await page(site, request, site.caller(request))


async def _serve_socket(site: Site, socket: WebSocket) -> None:
    await live_terminal.terminal(site, socket)


async def _to_the_jobs(request: Request) -> Response:
    del request
    return RedirectResponse("/jobs", 303)


async def _refused(site: Site, request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, Refusal | SupervisorError)  # noqa: S101 - as the handlers say
    status = http_status(error)
    return site.notice(status.phrase, str(error), status)


async def _missing(site: Site, request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, HTTPException)  # noqa: S101 - as the handlers say
    words = "There is no such page." if error.status_code == 404 else str(error.detail)
    return site.notice(error.detail, words, error.status_code)
