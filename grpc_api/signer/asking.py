"""The front's side: has the signer renew a certificate."""

import asyncio
from pathlib import Path

import msgspec

from jobworker.grpc_api.errors import ApiError
from jobworker.grpc_api.signer.wire import MOST_BYTES, PATIENCE_SECONDS, Answer, Ask


class NoSigner(ApiError):
    """The signer cannot be reached, or does not answer."""


async def ask(socket: Path, asked: Ask) -> Answer:
    """Return the signer's answer. Raises NoSigner."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_unix_connection(socket, limit=MOST_BYTES)
            try:
                writer.write(msgspec.json.encode(asked) + b"\n")
                await writer.drain()
                return msgspec.json.decode(await reader.readuntil(), type=Answer)
            finally:
                writer.close()
    except (
        OSError,
        asyncio.IncompleteReadError,
        asyncio.LimitOverrunError,
        msgspec.DecodeError,
    ) as error:
        raise NoSigner(f"the signer at {socket} does not answer: {error}") from error
