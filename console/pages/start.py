"""Starting a job from a form, which says beforehand whether it would be started."""

import secrets
import shlex
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from jobworker.cli.quantities import seconds
from jobworker.client.messages import set_texts
from jobworker.console.errors import http_status, invalid_form
from jobworker.console.safety import asked_by_our_own
from jobworker.console.site import Site, Verbatim
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.grpc_api.guard.refusal import Refusal
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import SupervisorError

_FIELDS = ("command", "directory", "name", "tenant", "queue", "timeout", "key")


async def form(site: Site, request: Request, caller: Caller) -> Response:
    """The form, empty or filled in by the address."""
    # What another site would have one start it does not fill in.
    query = request.query_params if asked_by_our_own(request) else {}
    filled = {name: query.get(name, "") for name in _FIELDS}
    return _form(site, request, caller, filled)


async def start(site: Site, request: Request, caller: Caller) -> Response:
    """Start what is filled in, or say whether it would be started (POST)."""
    fields = await site.form(request, caller)
    filled = {name: fields.get(name, "") for name in _FIELDS}
    try:
        message = _message(filled)
        if fields.get("do") == "start":
            answer = await site.calls.call("Start", message, caller)
            return RedirectResponse(f"/jobs/{answer.jobID}", 303)
        asked = pb.CanIRequest(action="start", start=message)
        verdict = await site.calls.call("CanI", asked, caller)
    except (Refusal, SupervisorError) as error:
        words = f"No: {error}"
        return _form(site, request, caller, filled, words, http_status(error))
    words = "Yes" if verdict.allowed else "No"
    return _form(site, request, caller, filled, f"{words}: {verdict.reason}")


def _form(
    site: Site,
    request: Request,
    caller: Caller,
    filled: Mapping[str, str],
    words: str = "",
    status: int = 200,
) -> Response:
    # Pressed twice, it starts one job.
    key = filled["key"] or secrets.token_hex(16)
    typed = {name: Verbatim(text) for name, text in filled.items()} | {"key": Verbatim(key)}
    tenants = caller.identity.tenants
    return site.page(
        request, caller, "start.html", status=status, filled=typed, words=words, tenants=tenants
    )


def _message(filled: Mapping[str, str]) -> pb.StartRequest:
    """The request for what is filled in. Raises Refusal."""
    try:
        words = shlex.split(filled["command"])
    except ValueError as error:
        raise invalid_form(f"the command has a quote without its end: {error}") from error
    if not words:
        raise invalid_form("say what is to be started")
    length = seconds(filled["timeout"] or "0")
    if length is None:
        raise invalid_form(f"{filled['timeout'][:64]!r} is no length of time, such as 10, 2m or 7d")
    message = pb.StartRequest(
        name=filled["name"],
        tenant=filled["tenant"],
        queue=filled["queue"],
        timeoutSeconds=length,
        requestID=filled["key"],
    )
    set_texts(message, (word.encode() for word in words), (), filled["directory"].encode())
    return message
