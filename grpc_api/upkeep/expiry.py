"""The end of certificates and revocation lists: renewed where that can be, else told ahead.

An expired one changes no file, so nothing else would notice it before the users do.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Never

from cryptography import x509

from jobworker.authz.ca.authority import CertificateAuthority
from jobworker.authz.errors import AuthzError
from jobworker.grpc_api.edge.credentials import TlsFiles
from jobworker.grpc_api.edge.edge import Edge

log = logging.getLogger(__name__)

# How long ahead is told, and a revocation list signed anew.
AHEAD = timedelta(days=30)
_AGAIN = timedelta(days=1)
_LOOK_SECONDS = 60.0

NO_LIST = (
    "tls.crl is null: certificates that were revoked go on being accepted; "
    "name the CA's ca.crl there"
)
_PARTS = {
    "certificate": ("the server's certificate", "run `jobworker ca renew`"),
    "ca": ("the CA's certificate", "make a new CA, and add its certificate and list to the files"),
    "crl": ("the revocation list", "run `jobworker ca crl` where the CA's key is, and copy it"),
}


async def watch_expiry(
    edge: Edge, files: TlsFiles, tell: Callable[[str, str | None], Awaitable[None]]
) -> Never:
    """Tell the log and health ("tls") of what expires or has expired, until cancelled."""
    if files.crl is None:
        log.warning("%s", NO_LIST)
    told: dict[tuple[str, datetime, bool], datetime] = {}
    while True:
        edge.reloaded.clear()
        now = datetime.now(UTC)
        if edge.expiries.get("crl", now + AHEAD) < now + AHEAD:
            # The new file is noticed as any other.
            await asyncio.to_thread(renew_revocations, files)
        for part, end in edge.expiries.items():
            # Told anew every day, and for what has expired once more when it has.
            key = part, end, now >= end
            if now < end - AHEAD or now < told.get(key, now - _AGAIN) + _AGAIN:
                continue
            told[key] = now
            text = expiry_warning(part, files, end, now)
            if now < end:
                log.warning("%s", text)
            else:
                log.error("%s", text)
                await tell("tls", text)
        coming = [(end - now).total_seconds() for end in edge.expiries.values() if end > now]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.01, min([_LOOK_SECONDS, *coming]))):
                await edge.reloaded.wait()


def expiry_warning(part: str, files: TlsFiles, end: datetime, now: datetime) -> str:
    """Return the sentence about a part of the files that expires soon, or has expired."""
    what, remedy = _PARTS[part]
    file = {"certificate": files.certificate, "ca": files.ca, "crl": files.crl}[part]
    when = f"{end:%Y-%m-%d %H:%M:%S} UTC"
    if now >= end:
        return f"{what} {file} expired at {when}: nobody can connect; {remedy}"
    return f"{what} {file} expires at {when}: nobody can connect from then on; {remedy}"


def renew_revocations(files: TlsFiles) -> None:
    """Sign a revocation list anew that ends soon, where it lies in its CA's own directory.

    Where the CA's key is not at hand, or not for this user, nothing happens.
    """
    if files.crl is None or files.crl.name != "ca.crl":
        return
    directory = files.crl.parent
    try:
        if not (directory / "ca.key").exists():
            return
        found = x509.load_pem_x509_crl(files.crl.read_bytes())
        end = found.next_update_utc
        if end is None or end > datetime.now(UTC) + AHEAD:
            return
        CertificateAuthority(directory).publish()
    except PermissionError:
        return
    except (OSError, ValueError, AuthzError) as error:
        log.warning("the revocation list %s could not be renewed: %s", files.crl, error)
    else:
        log.info("the revocation list %s was signed anew: it was to end soon", files.crl)
