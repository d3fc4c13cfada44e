"""Noticing that files have changed: replaced, rewritten, or reached by other links."""

import asyncio
import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

log = logging.getLogger(__name__)

# Changes that come within so long are one: a key and its certificate, say.
_SETTLE_MS = 50
_LONGEST_SETTLE_MS = 250
# Looked at this often whatever inotify(7) says: it knows nothing of changes by
# other hosts on a network file system, nor of a directory that took the place
# of the one it watches.
_GLANCE_SECONDS = 5.0

# Device, inode, size and time of change (ns); None for what is not there.
_State = tuple[int, int, int, int] | None


class FileWatch:
    """Some files, of which none changes unnoticed from here on.

    Their directories are watched: editors and `ca` put a new file in the place
    of the old, and a file may be a link that is made to lead elsewhere.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        """Watch files that need not be there; their directories must be, sooner or later."""
        self._stop = threading.Event()
        self._notify: RustNotify | None = None
        self._directories: dict[Path, _State] = {}
        self._states = {file: _state(file) for file in files}
        self._follow_links()

    async def changes(self) -> frozenset[Path]:
        """Return the files that changed since this was last asked, as soon as there are any."""
        while not (changed := self._look()):
            await self._stir()
            self._follow_links()
        return changed

    def close(self) -> None:
        """Watch no longer."""
        self._stop.set()

    def _look(self) -> frozenset[Path]:
        found = {file: _state(file) for file in self._states}
        before, self._states = self._states, found
        return frozenset(file for file in found if found[file] != before[file])

    async def _stir(self) -> None:
        """Return when something happens in the directories, or a glance is due."""
        if self._notify is None:
            await asyncio.sleep(_GLANCE_SECONDS)
            return
        await asyncio.to_thread(
            self._notify.watch,
            _LONGEST_SETTLE_MS,
            _SETTLE_MS,
            int(_GLANCE_SECONDS * 1000),
            self._stop,
        )

    def _follow_links(self) -> None:
        """Watch the directories that the files are in now."""
        places = {place for file in self._states for place in (file, file.resolve())}
        directories = {place.parent: _directory(place.parent) for place in places}
        if directories == self._directories:
            return
        self._directories = directories
        self._notify = _notify([path for path, state in directories.items() if state])


def _notify(directories: list[Path]) -> RustNotify | None:
    paths = [str(directory) for directory in directories]
    try:
        return RustNotify(
            paths,
            debug=False,
            force_polling=False,
            poll_delay_ms=300,
            recursive=False,
            ignore_permission_denied=True,
        )
    except (OSError, WatchfilesRustInternalError) as error:
        log.warning(
            "cannot be told of changes in %s (%s), so looking every %g s; "
            "is the limit fs.inotify.max_user_instances reached?",
            ", ".join(paths),
            error,
            _GLANCE_SECONDS,
        )
        return None


def _state(file: Path) -> _State:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns


def _directory(path: Path) -> _State:
    """Which directory it is, whatever happens within it."""
    found = _state(path)
    return (*found[:2], 0, 0) if found else None
