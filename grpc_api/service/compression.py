"""Whether output is compressed on its way: where the network is slower than compressing is.

How fast the network takes bytes shows while it is what everything waits for.
Compressing is tried on one piece then, and done as long as it gets more output
across. The bytes that arrive are the same.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import zstandard

# Faster links gain nothing: one core compresses text at 200 to 500 MB/s.
SLOW_LINK = 150e6
# What compressing must gain, as it takes time that others could use.
LEAST_GAIN = 1.2
# Small pieces gain little, and come where nobody waits for the network.
LEAST_BYTES = 16 * 1024
# So much that nobody waited for came over no slow link.
UNHINDERED_BYTES = 16 * 1024 * 1024
# After a try that was in vain, so much is sent as it is before the next.
RETRY_BYTES = 4 * 1024 * 1024
# Of zstd's levels 1 to 22, its default.
_LEVEL = 3

_local = threading.local()


@dataclass
class Link:
    """How fast a network takes bytes. `clock` is in seconds."""

    clock: Callable[[], float] = time.monotonic
    # In bytes a second; 0 while it is not known.
    rate: float = 0.0
    # When it last had room again after a wait; None when nobody waited for it.
    _mark: float | None = None
    # Sent since then, or since the last wait.
    _bytes: int = 0

    def sent(self, count: int, *, waited: bool) -> None:
        """So many bytes are on their way; whether for their sake somebody waited for room."""
        self._bytes += count
        if not waited:
            # The source was the slower of the two, so that this says nothing.
            self._mark = None
            if self._bytes > UNHINDERED_BYTES:
                self.rate = 0.0
            return
        now = self.clock()
        if self._mark is not None and now > self._mark:
            rate = self._bytes / (now - self._mark)
            self.rate = rate if not self.rate else (self.rate + rate) / 2
        self._mark, self._bytes = now, 0


@dataclass
class Gain:
    """What compressing did to the last piece it was tried on."""

    # Uncompressed bytes for one compressed, and for a second of compressing.
    ratio: float = 0.0
    rate: float = 0.0

    def worth_it(self, link_rate: float) -> bool:
        """Whether more output crosses a link of so many bytes a second with it than without."""
        return min(self.rate, link_rate * self.ratio) > LEAST_GAIN * link_rate


class Compression:
    """Decides for one reader, piece by piece."""

    def __init__(self, rate: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        """`rate` is how fast the link seemed to be before, in bytes a second; 0 for not known."""
        self.link = Link(clock, rate)
        self._gain: Gain | None = None
        self._plain_bytes = 0

    def wanted(self, count: int) -> bool:
        """Whether a piece of so many bytes is to be compressed."""
        if count < LEAST_BYTES or not 0 < self.link.rate < SLOW_LINK:
            return False
        if self._gain is None or self._gain.worth_it(self.link.rate):
            return True
        self._plain_bytes += count
        if self._plain_bytes < RETRY_BYTES:
            return False
        self._plain_bytes = 0
        return True

    async def compressed(self, data: bytes) -> bytes | None:
        """The piece as one Zstandard frame; None if it is not smaller.

        Off the event loop: others' output goes on meanwhile.
        """
        encoded, seconds = await asyncio.to_thread(_compress, data)
        self._gain = Gain(len(data) / len(encoded), len(data) / max(seconds, 1e-9))
        return encoded if len(encoded) < len(data) else None


def _compress(data: bytes) -> tuple[bytes, float]:
    """The frame, and how many seconds of CPU time it took."""
    # One for each thread: making it costs as much as compressing a small piece.
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(_LEVEL)
    compressor: zstandard.ZstdCompressor = _local.compressor
    before = time.thread_time()
    encoded = compressor.compress(data)
    return encoded, time.thread_time() - before
