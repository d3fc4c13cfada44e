"""Who one is to the server, and what the policy in force lets one do."""

from starlette.requests import Request
from starlette.responses import Response

from jobworker.cli.display.rights import allowance_text
from jobworker.console.pages.views import moment
from jobworker.console.site import Site
from jobworker.grpc_api.guard.audit_trail import Caller
from jobworker.proto import workerservice_pb2 as pb


async def me(site: Site, request: Request, caller: Caller) -> Response:
    """The caller's names, their certificate's end, their rights and allowances."""
    rights = await site.calls.call("Rights", pb.RightsRequest(), caller)
    return site.page(
        request,
        caller,
        "me.html",
        ends=moment(caller.identity.not_after),
        rights=rights.rights,
        allowances=[allowance_text(one) for one in rights.allowances],
        version=site.calls.access.authority.version,
    )
