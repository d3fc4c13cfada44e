"""Faults of the command itself: a sentence for the user, the traceback in a file."""

import sys
import threading

from jobworker.cli.errors import ExitCode, tell


def tell_fault(error: BaseException) -> None:
    """Say that the command failed in a way it should not, and where the traceback is."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    tell(f"a fault of this command: {what}; {_kept(error)}", ExitCode.FAULT)


def _kept(error: BaseException) -> str:
    """Keep the traceback; says where."""
    # As good as never needed, and slow to import.
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="jobworker-fault-", suffix=".txt", delete=False
        ) as file:
            file.write(f"{sys.version}\n{sys.argv[0]}\n{text}")
    except OSError as no_file:
        return f"its traceback cannot be kept ({no_file})"
    return f"please report it, with {file.name}"


def tell_those_of_threads() -> None:
    """Have what nobody catches, in threads and destructors, told in the same way."""
    threading.excepthook = lambda fault: _tell(fault.exc_value)
    sys.unraisablehook = lambda fault: _tell(fault.exc_value)


def _tell(error: BaseException | None) -> None:
    if error is not None:
        tell_fault(error)
