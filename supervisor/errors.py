"""What can go wrong with jobs, as one family of exceptions."""

import errno as errno_names
import os


class SupervisorError(Exception):
    """The base of every error this package raises on purpose."""


class InvalidRequest(SupervisorError):
    """A request is malformed; nothing was done.

    `field` is where, as ipc.proto names it, or for a start the contract
    (`outputLimit.rate`); empty when it is no single one.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class KeyTaken(SupervisorError):
    """The request ID has started another job, or one that was removed since; nothing was done."""


class NameTaken(SupervisorError):
    """Another of the owner's jobs that have not ended has the name; nothing was done."""


class NoSuchSchedule(SupervisorError):
    """There is no schedule of this owner and name."""


class NotOpen(SupervisorError):
    """A worker of the library is used outside of its block, or not by who opened it."""


class NoSuchJob(SupervisorError):
    """No job has this ID."""


class CannotExecute(SupervisorError):
    """The operating system refused to run the program; no job is left behind.

    `errno` is the number execve(2) or the step before it gave; `program` tells
    the two apart: whether it was the program that could not be executed.
    """

    def __init__(self, message: str, errno: int, *, program: bool = False) -> None:
        super().__init__(message)
        self.errno = errno
        self.program = program


class CannotPlace(SupervisorError):
    """This host, or its configuration, cannot run the job as it is asked to be run.

    It lacks a user for the job, what keeps a limit, or the means to isolate it.
    """


class AlreadyEnded(SupervisorError):
    """The job has ended, so there is nothing to signal, and nobody to send input to."""


class NoInput(SupervisorError):
    """The job takes no input, or has no terminal: it was not started with one, or has ended."""


class NotRunning(SupervisorError):
    """The job is being started or stopped, or is paused: that is for one that runs."""


class NothingListens(SupervisorError):
    """No process of the job listens at the port, or none takes the connection."""


class NoSuchFile(SupervisorError):
    """There is no such file in a job's directory, or it is no regular file."""


class FileRefused(SupervisorError):
    """The path leads out of a job's directory, or the job's user may not do that there."""


class FileChanged(SupervisorError):
    """What has come of a file is not what was to be: it has changed meanwhile."""


class FileBusy(SupervisorError):
    """The same file is being put at the same place already."""


class StillRunning(SupervisorError):
    """The job has not ended, so it cannot be removed."""


class Exhausted(SupervisorError):
    """The host or the service is out of something, such as processes or descriptors."""


class QuotaReached(SupervisorError):
    """A user or a tenant has as much as they may.

    `quota` says of what, for programs: `tenant/team-a/running`.
    """

    def __init__(self, message: str, quota: str) -> None:
        super().__init__(message)
        self.quota = quota


class ShuttingDown(SupervisorError):
    """The service is stopping and starts no more jobs."""


class Drained(SupervisorError):
    """The administrator has said that nothing new is started for now, and why."""


class SupervisorUnavailable(SupervisorError):
    """The supervisor did not answer in time; the request may be sent again."""


class SupervisorBug(SupervisorError):
    """The supervisor failed in a way it should not; its log says more."""


class StateError(SupervisorError):
    """The state directory, or something in it, cannot be used as it is."""


# What says that the host is out of something, for now.
OUT_OF = {
    errno_names.EAGAIN,
    errno_names.EMFILE,
    errno_names.ENFILE,
    errno_names.ENOMEM,
    errno_names.ENOSPC,
}


def fitting(error: Exception) -> SupervisorError:
    """The error to answer with when something fails that should not."""
    if isinstance(error, SupervisorError):
        return error
    if isinstance(error, OSError) and error.errno in OUT_OF:
        return Exhausted(f"the service is out of something: {words(error.errno)}: try again later")
    return SupervisorBug(f"the supervisor failed: {error}")


def words(number: int) -> str:
    """An errno as people read it: `No such file or directory (ENOENT)`."""
    return f"{os.strerror(number)} ({errno_names.errorcode.get(number, number)})"
