"""Whose files a job's are once it has ended, under settings that may be others by then."""

import os
import pwd
from dataclasses import replace
from pathlib import Path

import pytest

from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.errors import AlreadyEnded, CannotPlace
from jobworker.supervisor.host.isolation import IsolationConfig, IsolationRule, Profile
from jobworker.supervisor.host.user_mapping import UsersConfig
from jobworker.supervisor.host.users import Account
from jobworker.supervisor.job import Job, Request
from jobworker.supervisor.porter.places import Place, Places

ME = pwd.getpwuid(os.geteuid())


def account(home: Path) -> Account:
    return Account(ME.pw_name, ME.pw_uid, ME.pw_gid, (ME.pw_gid,), str(home), "")


def ended(**request: object) -> Job:
    asked = {"owner": "alice", "tenant": "team-a", "argv": ("true",), "cwd": "/srv"}
    whole = Request(id="0" * 36, **asked)
    return Job(replace(whole, **request), created_ns=1)


def left(job: Job, **settings: object) -> Place:
    config = SupervisorConfig(state_dir="/nonexistent", **settings)
    return Places(config).left_by(job)


def mapped(**names: str) -> UsersConfig:
    return UsersConfig(names=names, jobs_run_as_root=True)


def test_what_shared_all_with_the_host_has_its_directory_still() -> None:
    assert left(ended()).roots == (("/srv", "/"),)


def test_of_a_sandbox_the_home_of_its_user_is_left(tmp_path: Path) -> None:
    users = mapped(alice=ME.pw_name)
    own = {"account": account(tmp_path), "profile": Profile.PRIVATE}
    for cwd in (tmp_path, tmp_path / "below"):
        place = left(ended(cwd=str(cwd), **own), users=users)
        assert place.roots == ((str(cwd), str(tmp_path)),)
    for cwd in ("/srv", "/tmp", f"{tmp_path}x", f"{tmp_path}/../x"):
        with pytest.raises(AlreadyEnded):
            left(ended(cwd=cwd, **own), users=users)
    # The home that it found empty, or that is not its own.
    with pytest.raises(AlreadyEnded):
        left(ended(cwd=ME.pw_dir, profile=Profile.PRIVATE))
    elsewhere = account(Path("/nonexistent"))
    with pytest.raises(AlreadyEnded):
        left(ended(cwd="/nonexistent", account=elsewhere, profile=Profile.PRIVATE), users=users)


def test_isolation_that_is_demanded_since_holds_for_old_jobs(tmp_path: Path) -> None:
    job = ended(account=account(tmp_path), profile=Profile.NONE)
    users = mapped(alice=ME.pw_name)
    assert left(job, users=users).roots == (("/srv", "/"),)
    for isolation in (
        IsolationConfig(profile="private"),
        IsolationConfig(tenants={"team-a": IsolationRule(profile="private")}),
    ):
        with pytest.raises(AlreadyEnded):
            left(job, users=users, isolation=isolation)


@pytest.mark.skipif(os.geteuid() != 0, reason="mapping to others takes root")
def test_who_is_another_user_by_now_has_no_files_of_before(tmp_path: Path) -> None:
    job = ended(account=account(tmp_path))
    with pytest.raises(CannotPlace, match="run no longer"):
        left(job, users=mapped(alice="nobody"))
    with pytest.raises(CannotPlace, match="no Unix user is set"):
        left(job, users=mapped(bob="nobody"))
    # It ran as the service's own user, before there were others.
    with pytest.raises(CannotPlace, match="run no longer"):
        left(ended(), users=mapped(alice="nobody"))
