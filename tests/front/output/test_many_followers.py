"""Many readers of much output hold a bounded part of it in memory; a few get large pieces."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from jobworker.supervisor import AsyncJobWorker, Chunk, Gap
from jobworker.supervisor.output.follow import CARRIED_BYTES, CHUNK_BYTES, LEAST_BYTES

MIB = 1024 * 1024
FOLLOWERS = 1000
SIZE = 4 * MIB


async def next_size(pieces: AsyncIterator[Chunk | Gap]) -> int:
    """How large the next piece is."""
    piece = await anext(pieces)
    assert isinstance(piece, Chunk)
    return len(piece.data)


def test_readers_that_are_many_get_smaller_pieces(tmp_path: Path) -> None:
    async def run() -> None:
        async with AsyncJobWorker(tmp_path / "state") as worker:
            job = await worker.start(["head", "-c", str(SIZE), "/dev/zero"])
            await job.wait()
            whole = [piece async for piece in job.output()]
            assert sum(len(piece.data) for piece in whole if isinstance(piece, Chunk)) == SIZE
            readers = [job.output() for _ in range(FOLLOWERS)]
            first = [await next_size(reader) for reader in readers]
            assert first[0] == CHUNK_BYTES
            # Each took its share of what the ones before had left.
            assert sum(first) < 5 * CARRIED_BYTES
            second = [await next_size(reader) for reader in readers]
            assert sum(second) <= FOLLOWERS * LEAST_BYTES
            for reader in readers:
                await reader.aclose()
            alone = job.output()
            assert await next_size(alone) == CHUNK_BYTES
            await alone.aclose()

    asyncio.run(run())
