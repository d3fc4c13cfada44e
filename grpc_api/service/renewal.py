"""Renewing the caller's certificate: who may is decided here, and signed elsewhere."""

import logging
from pathlib import Path

import grpc
from cryptography import x509

from jobworker.authz.identity import Identity
from jobworker.authz.policy.policy import JobFacts
from jobworker.grpc_api.guard.access import Access
from jobworker.grpc_api.guard.guard import Call
from jobworker.grpc_api.guard.refusal import Refusal, invalid
from jobworker.grpc_api.signer.asking import NoSigner, ask
from jobworker.grpc_api.signer.wire import Ask
from jobworker.proto import workerservice_pb2 as pb

log = logging.getLogger(__name__)

# Of a certificate, a request or a signature.
_MOST_BYTES = 64 * 1024


class Renewal:
    """Asks the signer at a socket; `socket` is empty where there is none."""

    def __init__(self, access: Access, socket: str) -> None:
        self._access = access
        self._socket = socket

    async def renew(
        self, call: Call, request: pb.RenewCertificateRequest
    ) -> pb.RenewCertificateResponse:
        """Have the caller's certificate renewed. Raises Refusal."""
        # It speaks for all of their tenants.
        for tenant in call.identity.tenants or ("",):
            about = JobFacts(call.identity.common_name, tenant)
            verdict = self._access.judge_facts(call.identity, "renew", about)
            call.record(verdict)
            if verdict.error is not None:
                raise verdict.error
        if not self._socket:
            raise _not_renewed(
                "this server renews no certificates: its administrator has not set tls.renewal; "
                "have a request signed as for your first one",
                "NO_RENEWAL",
            )
        _check(call.identity, request)
        asked = Ask(request.request, request.certificate, request.proof)
        try:
            answer = await ask(Path(self._socket), asked)
        except (NoSigner, TimeoutError) as error:
            log.error("no certificate is renewed: %s", error)
            raise _not_renewed(
                "what signs certificates for this server does not answer; its administrator "
                "can find out why",
                "NO_SIGNER",
            ) from error
        if answer.error:
            raise _not_renewed(f"the certificate is not renewed: {answer.error}", "NOT_RENEWED")
        return pb.RenewCertificateResponse(certificate=answer.certificate)


def _check(identity: Identity, request: pb.RenewCertificateRequest) -> None:
    for field in ("request", "certificate", "proof"):
        if not 0 < len(getattr(request, field)) <= _MOST_BYTES:
            raise invalid(field, f"it has 1 to {_MOST_BYTES} bytes")
    try:
        serial = x509.load_pem_x509_certificate(request.certificate).serial_number
    except ValueError as error:
        raise invalid("certificate", "it is not one in PEM form") from error
    if format(serial, "x") != identity.serial:
        raise invalid("certificate", "it is not the one that this connection was made with")


def _not_renewed(words: str, reason: str) -> Refusal:
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, reason, words)
