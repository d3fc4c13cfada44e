"""From what a job asks for to how it is run: as whom, within which limits, seeing what."""

import os
import resource
from dataclasses import replace
from posixpath import join

import msgspec

from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.errors import CannotPlace, InvalidRequest
from jobworker.supervisor.host.cgroup import JobCgroups
from jobworker.supervisor.host.inside import Entrance, can_enter
from jobworker.supervisor.host.isolation import Profile, bubblewrap, check_fits, private_options
from jobworker.supervisor.host.limits import FIELDS, MAX_BYTES, check_kept
from jobworker.supervisor.host.tree import TOKEN_VARIABLE, mark_of
from jobworker.supervisor.host.user_mapping import Users
from jobworker.supervisor.host.users import (
    Account,
    login_shell,
    service_account,
)
from jobworker.supervisor.job import Request
from jobworker.supervisor.local.programs import Spec
from jobworker.supervisor.porter.places import is_in_home

# Below so many bytes of memory, execve(2) itself may need more than the job has, and
# the kernel would end all who share memory with it.
_ENOUGH_TO_EXECUTE = 64 * 1024 * 1024
# What is left of the memory of a job within which something else starts, nobody knows.
_ANY = MAX_BYTES + 1
_OF_THE_OTHER = "what runs within a job has that job's, and can have no other"


class Placement:
    """Decides once, before a job is on record; what it decided is part of the record."""

    def __init__(self, config: SupervisorConfig, cgroups: JobCgroups | None) -> None:
        self._config = config
        self._users = Users(config.users, config.readers)
        self._service = service_account()
        self._cgroups = cgroups

    @property
    def controllers(self) -> frozenset[str]:
        """The cgroup controllers that keep limits of jobs."""
        return self._cgroups.controllers if self._cgroups else frozenset()

    def cgroup_of(self, job_id: str) -> str:
        """The directory of a job's cgroup; empty where jobs have none."""
        return str(self._cgroups.directory / job_id) if self._cgroups else ""

    def place(self, asked: Request) -> Request:
        """The request with all that it left open. Raises InvalidRequest and CannotPlace."""
        config = self._config
        account = self._users.account(asked.owner, asked.tenant)
        limits = config.limits.resolve(asked.limits, asked.tenant)
        shortfall = "there are no cgroups (version 2) for jobs with"
        if self._cgroups is not None:
            shortfall = self._cgroups.shortfall
        check_kept(limits, self.controllers, shortfall, own_user=_is_ordinary(account))
        isolation = config.isolation.resolve(asked.profile, asked.network, asked.tenant)
        if isolation.profile is Profile.PRIVATE:
            bubblewrap()
            check_fits(len(asked.argv) + len(login_shell("")), len(asked.environment))
        placed = replace(
            asked,
            account=account,
            limits=limits,
            profile=isolation.profile,
            network=isolation.network,
            # The home where nothing was asked for, as join() adds nothing to it then.
            cwd=join(self._home(account), asked.cwd).rstrip("/") or "/",
        )
        private = isolation.profile is Profile.PRIVATE
        if asked.uploads and private and not is_in_home(placed):
            raise CannotPlace(
                f"the directory {placed.cwd} is in the isolated job's sandbox, which is not there "
                "before it runs: files go into the home of its user"
            )
        return placed

    def place_inside(self, asked: Request, other: Request) -> Request:
        """The request as it holds within another job. Raises InvalidRequest and CannotPlace."""
        # Unlike the rest, a timeout is of one program, whatever holds for the other.
        timeout = self._config.limits.resolve(asked.limits, asked.tenant).timeout
        for name, wanted in msgspec.structs.asdict(asked.limits).items():
            if wanted and name != "timeout":
                raise InvalidRequest(f"limit of {name}: {_OF_THE_OTHER}", FIELDS[name])
        if asked.profile is not Profile.UNSPECIFIED:
            raise InvalidRequest(f"isolation: {_OF_THE_OTHER}", "isolation")
        if asked.waiting.queue:
            raise InvalidRequest("what runs within a job waits for no turn", "queue")
        if not asked.network:
            raise InvalidRequest(f"network: {_OF_THE_OTHER}", "noNetwork")
        if other.profile is Profile.PRIVATE and not can_enter():
            raise CannotPlace(
                "this host cannot start a program within an isolated job: job-worker was "
                "installed without a C compiler"
            )
        return replace(
            asked,
            account=other.account,
            limits=msgspec.structs.replace(other.limits, timeout=timeout),
            profile=other.profile,
            network=other.network,
            environment={**other.environment, **asked.environment},
            cwd=join(other.cwd, asked.cwd).rstrip("/") or "/",
        )

    def _home(self, account: Account | None) -> str:
        account = account or self._service
        return account.home if account.owns_home() else self._config.working_directory

    def spec(self, request: Request, entrance: Entrance | None = None) -> Spec:
        """What to execute, and how; with an `entrance`, in the sandbox that it leads to."""
        account = request.account
        environment = {
            **({} if account else self._service.environment()),
            **self._config.environment,
            **({"TERM": request.terminal.kind} if request.terminal.kind else {}),
            **(account.environment() if account else {}),
            **request.environment,
            TOKEN_VARIABLE: request.id,
        }
        return Spec(
            [*(self._login(account) if request.login else ()), *request.argv],
            environment,
            request.cwd,
            self._config.umask,
            (account.uid, account.gid, list(account.groups)) if account else None,
            self._resource_limits(request),
            self._config.no_new_privileges,
            () if request.inside else self._sandbox(request),
            apart=0 < request.limits.memory < (_ANY if request.inside else _ENOUGH_TO_EXECUTE),
            terminal=request.terminal.rows > 0,
            entrance=entrance,
        )

    def _login(self, account: Account | None) -> tuple[str, ...]:
        # Not of the job's variables: the policy was not asked about that program.
        return login_shell((account or self._service).environment()["SHELL"])

    def _resource_limits(self, request: Request) -> tuple[tuple[int, int], ...]:
        """What setrlimit(2) keeps: pairs of a resource and its limit, soft and hard."""
        limits = request.limits
        # A core dump would hold what the job held in memory, wherever the host puts it.
        found = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_RSS, mark_of(request.id))]
        if limits.open_files:
            found.append((resource.RLIMIT_NOFILE, limits.open_files))
        if limits.processes and "pids" not in self.controllers and _is_ordinary(request.account):
            found.append((resource.RLIMIT_NPROC, limits.processes))
        return tuple(found)

    def _sandbox(self, request: Request) -> tuple[str, ...]:
        if request.profile is not Profile.PRIVATE:
            return ()
        account = request.account
        others = self._users.others(account) if account else []
        hidden = (self._config.state_dir, *self._config.isolation.hidden)
        return (
            bubblewrap(),
            *private_options(
                account,
                others,
                hidden,
                network=request.network,
                cwd=request.cwd,
                shared_home=self._service.environment()["HOME"],
                devices=self._config.isolation.devices_of(request.tenant),
            ),
        )


def _is_ordinary(account: Account | None) -> bool:
    """Whether it is a user of its own whose processes setrlimit(2) can bound."""
    return account is not None and account.uid not in {0, os.geteuid()}
