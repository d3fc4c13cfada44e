"""The CA's record of what it issued and revoked: index.json, beside its key."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from jobworker.authz.ca import durable
from jobworker.authz.errors import CaError

State = Literal["valid", "expired", "revoked"]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One certificate.

    `serial` is in lower-case hex. A client has a `name` (its CN) and `tenants`
    (its OUs), a server `hosts`, the first of which is its `name`. Times are
    aware, in UTC; `revoked_at` is None unless it was revoked.
    """

    serial: str
    purpose: Literal["client", "server"]
    name: str
    tenants: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None = None

    def state(self, now: datetime) -> State:
        """Return what the certificate is good for at the time `now`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.not_after <= now else "valid"


def read_index(path: Path) -> tuple[Entry, ...]:
    """Return the entries, oldest first.

    Raises:
        CaError: The file is missing or damaged.
        OSError: It cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Entry, ...])
    except FileNotFoundError as error:
        raise no_ca(path.parent) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CaError(
            f"the CA's index {path} is damaged: {error}; restore it from a backup"
        ) from error


def write_index(path: Path, entries: Iterable[Entry]) -> None:
    """Write the entries in place of what is there; a crash leaves one or the other."""
    content = msgspec.json.format(msgspec.json.encode(list(entries)), indent=1)
    durable.replace(path, content + b"\n", 0o600)


def find(entries: Iterable[Entry], serial: str) -> Entry:
    """Return the entry with a serial number, in hex as `ca list` or openssl(1) spells it.

    Raises:
        CaError: There is none.
    """
    wanted = serial.replace(":", "").lower().removeprefix("0x").lstrip("0")
    for entry in entries:
        if entry.serial == wanted:
            return entry
    raise CaError(f"no certificate has the serial number {serial!r}; `ca list` shows them")


def of_name(entries: Iterable[Entry], name: str, now: datetime) -> list[Entry]:
    """Return the valid certificates of a client's CN or a server's first host, oldest first.

    Raises:
        CaError: There is none.
    """
    found = [entry for entry in entries if entry.name == name and entry.state(now) == "valid"]
    if not found:
        raise CaError(f"there is no valid certificate for {name!r}; `ca list` shows all")
    return found


def of_user(entries: Iterable[Entry], cn: str, now: datetime) -> list[Entry]:
    """Return the valid certificates of a client's CN, oldest first."""
    return [
        entry
        for entry in entries
        if entry.purpose == "client" and entry.name == cn and entry.state(now) == "valid"
    ]


def no_ca(directory: Path) -> CaError:
    """Return the error for a directory without a CA, or with part of one."""
    return CaError(
        f"there is no CA in {directory}; make one with `jobworker ca init`, "
        "or name its directory with --dir"
    )
