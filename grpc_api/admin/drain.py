"""Whether the server starts new jobs: kept in a file, so that it outlives the front."""

import logging
from pathlib import Path

log = logging.getLogger(__name__)

MAX_WORDS = 500
_FILE = "drain"


class Drain:
    """The words in which new starts are refused; empty while there is no reason to."""

    def __init__(self, runtime: Path) -> None:
        """`runtime` is the front's own directory."""
        self._file = runtime / _FILE
        self.words = ""
        if self._file.exists():
            self.words = self._file.read_text(errors="replace")[:MAX_WORDS]
            log.warning("no new jobs are started: %s", self.words)

    def begin(self, words: str) -> None:
        """Refuse new starts from here on. Raises OSError when that cannot be kept."""
        new = self._file.with_name(f"{_FILE}.new")
        new.write_text(words)
        new.rename(self._file)
        self.words = words
        log.warning("no new jobs are started from here on: %s", words)

    def end(self) -> None:
        """Start jobs again. Raises OSError."""
        self._file.unlink(missing_ok=True)
        if self.words:
            log.info("new jobs are started again")
        self.words = ""
