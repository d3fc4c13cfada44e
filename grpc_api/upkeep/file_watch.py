"""Noticing that files have changed: replaced, rewritten, or reached by other links."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

# A look at some six files takes microseconds, and sees what inotify(7) would not: changes
# by other hosts on a network file system, and a directory that took another's place.
_LOOK_SECONDS = 0.25
# Changes that come within so long are one: a key and its certificate, say.
_SETTLE_SECONDS = 0.05
_MOST_SETTLE_LOOKS = 5

# Device, inode, size and time of change (ns); None for what is not there.
_State = tuple[int, int, int, int] | None


class FileWatch:
    """Some files, of which none changes unnoticed from here on; they need not be there."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._states = {file: _state(file) for file in files}

    async def changes(self) -> frozenset[Path]:
        """Return the files that changed since this was last asked, as soon as there are any."""
        while not (changed := self._look()):
            await asyncio.sleep(_LOOK_SECONDS)
        for _ in range(_MOST_SETTLE_LOOKS):
            await asyncio.sleep(_SETTLE_SECONDS)
            more = self._look()
            if not more:
                break
            changed |= more
        return changed

    def _look(self) -> frozenset[Path]:
        found = {file: _state(file) for file in self._states}
        before, self._states = self._states, found
        return frozenset(file for file in found if found[file] != before[file])


def _state(file: Path) -> _State:
    # Of what a link leads to.
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns
