"""Reading and writing the kernel's small files, those of /proc and of cgroups.

Each takes three system calls, where Python's text files take seven: every start
and end of a job uses some thirty of them.
"""

import os

# More than any of the files that are read has: io.stat, with a line for each disk.
_MOST_BYTES = 64 * 1024


def read(path: str | os.PathLike[str]) -> str:
    """The file's text. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MOST_BYTES).decode()
    finally:
        os.close(descriptor)


def write(path: str | os.PathLike[str], text: str) -> None:
    """Give the kernel a text at once. Raises OSError, with the path as its file name."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        os.close(descriptor)
