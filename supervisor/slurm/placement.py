"""What a cluster can do for a job, and what it cannot: decided before the job is on record."""

import math
import os
import resource
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from posixpath import join

from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.errors import CannotPlace
from jobworker.supervisor.host.isolation import Profile
from jobworker.supervisor.host.tree import TOKEN_VARIABLE
from jobworker.supervisor.host.user_mapping import Users
from jobworker.supervisor.host.users import Account, login_shell, service_account
from jobworker.supervisor.job import Job, Overflow, Request
from jobworker.supervisor.slurm.files import Order, Places

_ON_CLUSTER = "this server's jobs run on a Slurm cluster, which cannot"
_MIB = 1024 * 1024
# What the recorder itself takes of what Slurm gives the job.
_RECORDER_MIB = 32
# What Slurm ends a job by later than we do, who are exact.
_SPARE_SECONDS = 60
# By this a job is found again.
COMMENT = "jobworker"


class Placement:
    """Plans on what the settings say and what was asked for."""

    def __init__(self, config: SupervisorConfig) -> None:
        self._config = config
        self._engine = config.engine
        self._users = Users(config.users, config.readers)
        self._service = service_account()
        self._node = config.engine.node or str(Path(sys.executable).with_name("jobworker-node"))

    def place(self, asked: Request) -> Request:
        """The request with all that it left open. Raises InvalidRequest and CannotPlace."""
        config = self._config
        account = self._users.account(asked.owner, asked.tenant)
        limits = config.limits.resolve(asked.limits, asked.tenant)
        isolation = config.isolation.resolve(asked.profile, asked.network, asked.tenant)
        placed = replace(
            asked,
            account=account,
            limits=limits,
            profile=isolation.profile,
            network=isolation.network,
            cwd=join(self._home(account), asked.cwd).rstrip("/") or "/",
        )
        if why := refused(placed):
            raise CannotPlace(f"{_ON_CLUSTER} {why}")
        return placed

    def _home(self, account: Account | None) -> str:
        account = account or self._service
        return account.home if account.owns_home() else self._config.working_directory

    def order(self, job: Job) -> Order:
        """What the node is to execute."""
        request, config = job.request, self._config
        account = request.account
        shell = (account or self._service).environment()["SHELL"]
        limit = request.output_limit
        rlimits = [(int(resource.RLIMIT_CORE), 0)]
        if request.limits.open_files:
            rlimits.append((int(resource.RLIMIT_NOFILE), request.limits.open_files))
        return Order(
            [*(login_shell(shell) if request.login else ()), *request.argv],
            {
                **({} if account else self._service.environment()),
                **config.environment,
                **(account.environment() if account else {}),
                **request.environment,
                TOKEN_VARIABLE: request.id,
            },
            request.cwd,
            config.umask,
            config.segment_bytes,
            rotate=limit.bytes if limit.overflow is Overflow.ROTATE else 0,
            most=0 if limit.overflow is Overflow.ROTATE else limit.bytes,
            memory=request.limits.memory,
            no_new_privileges=config.no_new_privileges,
            rlimits=rlimits,
        )

    def options(self, request: Request, comment: str) -> list[str]:
        """Those of sbatch(1)."""
        limits = request.limits
        found = [
            f"--job-name=jobworker-{request.id}",
            f"--comment={comment}",
            "--nodes=1",
            "--ntasks=1",
            "--no-requeue",
            "--export=NONE",
            "--chdir=/",
            "--input=/dev/null",
            "--output=/dev/null",
        ]
        if self._engine.partition:
            found.append(f"--partition={self._engine.partition}")
        if self._engine.account:
            found.append(f"--account={self._engine.account}")
        if limits.memory:
            found.append(f"--mem={math.ceil(limits.memory / _MIB) + _RECORDER_MIB}M")
        if limits.cpus:
            found.append(f"--cpus-per-task={math.ceil(limits.cpus)}")
        if limits.timeout:
            seconds = limits.timeout + request.grace + _SPARE_SECONDS
            found.append(f"--time={math.ceil(seconds / 60)}")
        return found

    def script(self, places: Places) -> str:
        """The batch script: the recorder takes its place."""
        words = (self._node, str(places.shared), places.job_id, places.nonce)
        return f"#!/bin/sh\nexec {shlex.join(words)}\n"


def refused(request: Request) -> str:
    """What a job asks for that a cluster cannot do, as the end of a sentence; empty for nothing."""
    limits = request.limits
    asked = {
        "start a program within a job": bool(request.inside),
        "give a job a terminal": request.terminal.rows > 0,
        "give a job input: have the program read a file": request.takes_input,
        "isolate a job (private, or without a network)": request.profile is Profile.PRIVATE,
        "put files into a job's directory": bool(request.uploads),
        "check a job's health at a port": request.health.port > 0,
        "keep a limit of processes": limits.processes > 0,
        "keep a share of a disk": limits.io_weight > 0,
        "keep a limit of output by the second": request.output_limit.rate > 0,
    }
    return next((what for what, is_asked in asked.items() if is_asked), "")


def comment_of(places: Places) -> str:
    """By what Slurm's job is found again."""
    return f"{COMMENT}:{places.job_id}:{places.nonce}"


def write_order(places: Places, order: Order, account: Account | None, readers: int) -> None:
    """Make the job's directory, its user's, and the order, which nobody else may read.

    Raises OSError. Done again, it is as before.
    """
    output = places.output
    mode = 0o750
    try:
        output.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        uid = account.uid if account is not None else -1
        if uid >= 0 or readers >= 0:
            os.chown(output, uid, readers)
            # What is made in it is that group's, too (inode(7), S_ISGID).
            mode |= 0o2000 if readers >= 0 else 0
        output.chmod(mode)
    part = places.order.with_suffix(".part")
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(part, flags, 0o600)
    try:
        os.write(descriptor, order.encode())
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)
    finally:
        os.close(descriptor)
    part.rename(places.order)


def add_signal(places: Places, line: str) -> None:
    """Write a signal down for the node. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(places.signals, flags, 0o644)
    try:
        os.fchmod(descriptor, 0o644)
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)
