"""Limits as numbers: what is asked for, what a tenant has by default, and at most."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.supervisor.config import SupervisorConfig
from jobworker.supervisor.errors import CannotPlace, InvalidRequest
from jobworker.supervisor.host.cgroup import settings_of
from jobworker.supervisor.host.limits import (
    CONTROLLER,
    MIN_MEMORY_BYTES,
    Bounds,
    Limits,
    LimitsConfig,
    check_kept,
)

limits = st.builds(
    Limits,
    memory=st.just(0) | st.integers(MIN_MEMORY_BYTES, 2**40),
    cpus=st.just(0.0) | st.floats(0.01, 64),
    processes=st.integers(0, 1000),
    open_files=st.just(0) | st.integers(8, 1000),
    io_weight=st.integers(0, 10_000),
    timeout=st.just(0.0) | st.floats(0.001, 86400),
)


def bounds_of(default: Limits, most: Limits) -> Bounds:
    """Bounds with a default brought down to the most, as Bounds takes no other."""
    fields = {
        name: min(getattr(default, name), getattr(most, name) or float("inf"))
        for name in Limits.__struct_fields__
    }
    return Bounds(Limits(**fields), most)


@given(limits, limits, limits)
def test_what_holds_is_asked_for_or_the_default_and_never_more_than_the_most(
    asked: Limits, default: Limits, most: Limits
) -> None:
    bounds = bounds_of(default, most)
    config = LimitsConfig(tenants={"team-a": bounds})
    too_much = any(
        getattr(most, name) and getattr(asked, name) > getattr(most, name)
        for name in Limits.__struct_fields__
    )
    if too_much:
        with pytest.raises(InvalidRequest, match=r"more than a job of tenant team-a may have"):
            config.resolve(asked, "team-a")
        return
    held = config.resolve(asked, "team-a")
    for name in Limits.__struct_fields__:
        value, least_known = getattr(held, name), getattr(most, name)
        assert value == (getattr(asked, name) or getattr(bounds.default, name) or least_known)
        assert not least_known or 0 < value <= least_known
    # Others are not bound by what binds the tenant.
    assert config.resolve(asked, "team-b") == asked


@given(limits, st.sets(st.sampled_from(sorted(CONTROLLER.values()))), st.booleans())
def test_every_limit_is_kept_by_something_or_refused(
    asked: Limits, controllers: set[str], own_user: bool
) -> None:
    unkept = {
        name
        for name, controller in CONTROLLER.items()
        if getattr(asked, name) and controller not in controllers
    }
    if own_user:
        unkept.discard("processes")
    if unkept:
        with pytest.raises(CannotPlace, match="cannot keep a limit of"):
            check_kept(asked, controllers, "", own_user=own_user)
    else:
        check_kept(asked, controllers, "", own_user=own_user)


@given(limits)
def test_each_limit_is_written_to_its_controllers_file(asked: Limits) -> None:
    written = {name.partition(".")[0] for name in settings_of(asked)}
    assert written == {CONTROLLER[name] for name in CONTROLLER if getattr(asked, name)}


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"default": {"memory": 1}}, "memory must be 0 or between"),
        ({"default": {"cpus": -1}}, "cpus must be"),
        ({"most": {"io_weight": 10_001}}, "io_weight must be"),
        ({"most": {"timeout": float("nan")}}, "timeout must be"),
        ({"default": {"cpus": 2}, "most": {"cpus": 1}}, r"the default for cpus \(2\) exceeds"),
        ({"default": {"ram": 1}}, "unknown field `ram`"),
        ({"tenants": {"a": {"most": {"processes": "many"}}}}, "Expected `int`"),
    ],
)
def test_settings_that_cannot_be_meant(limits: dict[str, object], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert({"state_dir": "/s", "limits": limits}, SupervisorConfig)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"users": {}}, "users names no Unix user"),
        ({"isolation": {"profile": "jail"}}, 'must be "none" or "private"'),
        ({"isolation": {"tenants": {"a": {"network": False}}}}, 'needs profile: "private"'),
    ],
)
def test_who_and_how_that_cannot_be_meant(settings: dict[str, object], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert({"state_dir": "/s", **settings}, SupervisorConfig)
