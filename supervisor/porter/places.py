"""Where a job's files are, and whose: while it goes on, and after its end."""

import os
from typing import NamedTuple

from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.errors import AlreadyEnded, CannotPlace
from jobworker.supervisor.host.isolation import Profile
from jobworker.supervisor.host.user_mapping import Users
from jobworker.supervisor.host.users import SERVICE_USER, Account
from jobworker.supervisor.job import Job, Request

# Of its own in every private job's mounts.
SCRATCH = "/tmp"  # noqa: S108 - the job's own


class Place(NamedTuple):
    """Where a job's files are.

    `account` is None for the service's own user. `roots` are pairs: the first is the job's
    directory. A pair is a directory and what its path must not lead out of, `/` for any.
    `min_free` is what is to stay free on a disk (-1: see disk_space.py), `most` the most
    bytes of a file that is put, 0 for any.
    """

    account: Account | None
    roots: tuple[tuple[str, str], ...]
    min_free: int
    most: int


class Places:
    """Finds them by what is on record of a job, and by the settings."""

    def __init__(self, config: SupervisorConfig) -> None:
        self._config = config
        self._users = Users(config.users, config.readers)

    def inside(self, job: Job) -> Place:
        """Of a job whose mounts are to be entered, or that has none of its own."""
        request = job.request
        roots = [(request.cwd, "/")]
        if request.profile is Profile.PRIVATE:
            roots.append((SCRATCH, "/"))
        return self._place(request, *roots)

    def left_by(self, job: Job) -> Place:
        """Of a job that has ended. Raises AlreadyEnded and CannotPlace.

        What it saw in a sandbox is gone with that, but for its user's home. The settings may
        be others by now: nobody comes by files through an old job that a new one would not have.
        """
        request = job.request
        self._check_user(request)
        rule = self._config.isolation.rule_of(request.tenant)
        private = request.profile is Profile.PRIVATE or rule.profile == "private"
        if not private or is_in_home(request):
            return self._outside(request, private=private)
        raise AlreadyEnded(
            f"job {job.id} has ended, and its directory {request.cwd} was in its sandbox, of "
            "which nothing is left but the home of its user"
        )

    def before(self, job: Job) -> Place:
        """Of a job whose program is to be executed: of a private one, `is_in_home` holds."""
        return self._outside(job.request, private=job.request.profile is Profile.PRIVATE)

    def _outside(self, request: Request, *, private: bool) -> Place:
        within = request.account.home if private and request.account else "/"
        return self._place(request, (request.cwd, within))

    def _check_user(self, request: Request) -> None:
        now, then = self._users.account(request.owner, request.tenant), request.account
        if (now and now.uid) != (then and then.uid):
            raise CannotPlace(
                f"the job ran as {then.name if then else SERVICE_USER}, as whom jobs of "
                f"{request.owner} run no longer: its files are not {request.owner}'s to have"
            )

    def _place(self, request: Request, *roots: tuple[str, str]) -> Place:
        return Place(request.account, roots, self._config.min_free, self._config.file_bytes)


def is_in_home(request: Request) -> bool:
    """Whether the job's directory is in the home of its user, which a sandbox has, too."""
    account = request.account
    return account is not None and account.owns_home() and _is_in(request.cwd, account.home)


def _is_in(path: str, directory: str) -> bool:
    return os.path.commonpath([directory, os.path.normpath(path)]) == os.path.normpath(directory)
