"""What the service's processes say on stderr: lines of text or, for programs, of JSON.

The keeper's environment says how, so that all three processes do the same.
"""

import contextlib
import json
import os
import sys

# From what is said most often to what is always said.
LEVELS = ("debug", "info", "warning", "error")
_FORMAT, _LEVEL = "JOBWORKER_LOG_FORMAT", "JOBWORKER_LOG_LEVEL"


def log_environment(form: str, level: str) -> dict[str, str]:
    """The variables by which a process, and those it starts, log in this form, from this level."""
    return {_FORMAT: form, _LEVEL: level}


def say(process: str, text: str, level: str = "info") -> None:
    """Write a line in the name of a process, unless its level is too low.

    Where stderr is closed, full, or read by nobody, it is lost: no job is to end for that.
    """
    if LEVELS.index(level) >= LEVELS.index(_lowest()):
        with contextlib.suppress(OSError):
            # In one piece, also where PYTHONUNBUFFERED has each text written by itself:
            # other processes write there, too.
            print(f"{_line(process, level, text)}\n", end="", file=sys.stderr, flush=True)  # noqa: T201


def log_to_stderr(process: str) -> None:
    """Have the standard library's logging do the same, in the name of this process."""
    # Not above: the keeper has no use for it, and every fork would pay for its size.
    import logging

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            level = record.levelname.lower() if record.levelno < logging.ERROR else "error"
            fault = self.formatException(record.exc_info) if record.exc_info else ""
            return _line(process, level, record.getMessage(), fault, record.created)

    handler = logging.StreamHandler()
    handler.setFormatter(Formatter())
    logging.basicConfig(level=_lowest().upper(), handlers=[handler])


def _lowest() -> str:
    level = os.environ.get(_LEVEL, "")
    return level if level in LEVELS else "info"


def _line(process: str, level: str, text: str, fault: str = "", when: float | None = None) -> str:
    """A line; `fault` is a traceback, `when` in seconds since 1970, None for now."""
    if os.environ.get(_FORMAT) == "json":
        # Not above, for the same reason as logging.
        from datetime import UTC, datetime

        now = datetime.now(UTC) if when is None else datetime.fromtimestamp(when, UTC)
        fields = {"time": now.isoformat(), "level": level, "process": process, "message": text}
        return json.dumps({**fields, "exception": fault} if fault else fields)
    # Most is information, and is read as such without a word.
    prefix = f"{level}: " if level in ("warning", "error") else ""
    return f"jobworker {process}: {prefix}{text}" + (f"\n{fault}" if fault else "")
