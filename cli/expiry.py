"""Warns of one's certificate before it ends, once a day."""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jobworker.cli.errors import tell
from jobworker.cli.quantities import moment_text, span_text
from jobworker.client.certificate import validity_of
from jobworker.client.errors import BadFile

WARN_BEFORE = timedelta(days=7)
AGAIN_AFTER = timedelta(days=1)


def warn_of_expiry(certificate: Path, environ: Mapping[str, str]) -> None:
    """Tell on stderr that the certificate ends within WARN_BEFORE, unless that was told today.

    What is wrong with it now is told when the server does not accept it.
    """
    try:
        end = validity_of(certificate).end
    except BadFile:
        return
    now = datetime.now(UTC)
    if not now < end < now + WARN_BEFORE:
        return
    if not _due(_mark(certificate, environ), now):
        return
    tell(
        f"warning: your certificate {certificate} ends in {span_text(end - now)}, "
        f"at {moment_text(end)}; get a new one: "
        "by `jobworker cert renew` where the server renews, else from its administrator"
    )


def _mark(certificate: Path, environ: Mapping[str, str]) -> Path:
    """The file whose time is that of the last warning (XDG base directory specification)."""
    cache = Path(environ.get("XDG_CACHE_HOME", ""))
    base = cache if cache.is_absolute() else Path("~/.cache").expanduser()
    name = hashlib.sha256(os.fsencode(certificate.absolute())).hexdigest()[:16]
    return base / "jobworker" / f"certificate-{name}"


def _due(mark: Path, now: datetime) -> bool:
    """Whether it is time to warn (again); notes that it is done."""
    with suppress(OSError):
        told = datetime.fromtimestamp(mark.stat().st_mtime, UTC)
        # A time to come is that of another clock.
        if timedelta() <= now - told < AGAIN_AFTER:
            return False
    # Where nothing can be noted it is told each time.
    with suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return True
