"""The signer's process: it believes nobody but the keys of certificates that the CA has issued.

So whoever has taken over the front gets no certificate by it that they could not have
got without.
"""

import asyncio
import os
import pwd
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import msgspec

from jobworker.authz.ca.authority import CertificateAuthority
from jobworker.authz.ca.index import Entry
from jobworker.authz.ca.renewal import renewed
from jobworker.authz.errors import CaError
from jobworker.grpc_api.errors import ApiError
from jobworker.grpc_api.signer.wire import MOST_BYTES, PATIENCE_SECONDS, Answer, Ask

# Each waits for the CA's files.
MOST_AT_ONCE = 8


class CannotSign(ApiError):
    """The signer cannot listen, or its CA will not do."""


def listen(path: Path, user: str | None) -> socket.socket:
    """Listen at a path, which this user alone, or `user` in their place, can connect to.

    Raises CannotSign.
    """
    try:
        owner = pwd.getpwnam(user).pw_uid if user else -1
    except KeyError as error:
        raise CannotSign(f"there is no user {user} on this host") from error
    listening = socket.socket(socket.AF_UNIX)
    try:
        if _answers(path):
            raise CannotSign(f"another signer listens at {path}")
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        os.chown(path, owner, -1)
        listening.listen(MOST_AT_ONCE)
    except OSError as error:
        listening.close()
        raise CannotSign(f"cannot listen at {path}: {error.strerror or error}") from error
    except CannotSign:
        listening.close()
        raise
    return listening


async def sign(
    authority: CertificateAuthority,
    lifetime: timedelta,
    listening: socket.socket,
    told: Callable[[str], None],
) -> None:
    """Answer whoever connects, until SIGTERM or SIGINT. `told` has a sentence for each."""
    one = partial(_attend, authority, lifetime, asyncio.Semaphore(MOST_AT_ONCE), told)
    server = await asyncio.start_unix_server(one, sock=listening, limit=MOST_BYTES)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with server:
        await ended.wait()


async def _attend(
    authority: CertificateAuthority,
    lifetime: timedelta,
    room: asyncio.Semaphore,
    told: Callable[[str], None],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    with suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(PATIENCE_SECONDS), room:
            asked = await reader.readuntil()
            answer = await asyncio.to_thread(_answer, authority, lifetime, asked, told)
            writer.write(msgspec.json.encode(answer) + b"\n")
            await writer.drain()
    writer.close()


def _answer(
    authority: CertificateAuthority, lifetime: timedelta, line: bytes, told: Callable[[str], None]
) -> Answer:
    try:
        asked = msgspec.json.decode(line, type=Ask)
        entry, certificate = renewed(
            authority, asked.certificate, asked.request, asked.proof, lifetime
        )
    except (CaError, msgspec.DecodeError) as error:
        told(f"not renewed: {error}")
        return Answer(error=str(error))
    told(_renewed(entry))
    return Answer(certificate)


def _renewed(entry: Entry) -> str:
    names = " ".join([f"cn={entry.name}", *(f"ou={tenant}" for tenant in entry.tenants)])
    return f"renewed {names}: {entry.serial}, until {entry.not_after:%Y-%m-%d %H:%M:%S} UTC"


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(path))
        except OSError:
            return False
        return True
