"""What may happen to a job, whatever happens to it."""

import itertools
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobworker.supervisor.job import (
    Happening,
    ImpossibleTransition,
    Reason,
    State,
    after,
    end_reason,
)

# What follows what, drawn anew here: a state's line has what may happen in it.
LIFE = {
    State.PENDING: {
        Happening.TURN_CAME: State.STARTING,
        Happening.GIVEN_UP: State.ENDED,
    },
    State.STARTING: {
        Happening.GIVEN_UP: State.ENDED,
        Happening.EXECUTED: State.RUNNING,
        Happening.EXIT: State.ENDED,
        Happening.LOSS: State.ENDED,
        Happening.ATTEMPT_ENDED: State.RESTARTING,
    },
    State.RUNNING: {
        Happening.PAUSE_ASKED: State.PAUSED,
        Happening.RESUME_ASKED: State.RUNNING,
        Happening.STOP_ASKED: State.STOPPING,
        Happening.EXIT: State.ENDED,
        Happening.LOSS: State.ENDED,
        Happening.ATTEMPT_ENDED: State.RESTARTING,
    },
    State.PAUSED: {
        Happening.PAUSE_ASKED: State.PAUSED,
        Happening.RESUME_ASKED: State.RUNNING,
        Happening.STOP_ASKED: State.STOPPING,
        Happening.EXIT: State.ENDED,
        Happening.LOSS: State.ENDED,
        Happening.ATTEMPT_ENDED: State.RESTARTING,
    },
    State.STOPPING: {
        Happening.STOP_ASKED: State.STOPPING,
        Happening.EXIT: State.ENDED,
        Happening.LOSS: State.ENDED,
        Happening.ATTEMPT_ENDED: State.RESTARTING,
    },
    State.RESTARTING: {
        Happening.CLEARED: State.PENDING,
        Happening.STOP_ASKED: State.ENDED,
    },
    State.ENDED: {},
}


# Running and paused take turns.
AGE = {
    State.PENDING: -1,
    State.STARTING: 0,
    State.RUNNING: 1,
    State.PAUSED: 1,
    State.STOPPING: 2,
    State.RESTARTING: 3,
    State.ENDED: 4,
}


@pytest.mark.parametrize(("state", "happening"), list(itertools.product(State, Happening)))
def test_every_pair_leads_to_a_state_or_is_impossible(state: State, happening: Happening) -> None:
    if happening in LIFE[state]:
        assert after(state, happening) is LIFE[state][happening]
    else:
        with pytest.raises(ImpossibleTransition, match=f"{happening.name}.*{state.name}"):
            after(state, happening)


FIRST = st.sampled_from([State.PENDING, State.STARTING])
ENDS = {Happening.EXIT, Happening.LOSS, Happening.GIVEN_UP}


@given(FIRST, st.lists(st.sampled_from(Happening)))
def test_a_life_goes_forward_and_ends_once(state: State, happenings: list[Happening]) -> None:
    ends = 0
    for happening in happenings:
        before = state
        try:
            state = after(state, happening)
        except ImpossibleTransition:
            assert state is before
            continue
        if happening is not Happening.CLEARED:
            assert AGE[state] >= AGE[before], "a job went back"
        assert before is not State.ENDED, "something happened to a job after its end"
        ends += state is State.ENDED
        stopped_between = before is State.RESTARTING and happening is Happening.STOP_ASKED
        assert (state is State.ENDED) == (happening in ENDS or stopped_between)
    assert ends == (state is State.ENDED)


@given(st.lists(st.sampled_from(Happening)), st.sampled_from([Happening.EXIT, Happening.LOSS]))
def test_every_job_can_end_at_any_time(happenings: list[Happening], end: Happening) -> None:
    for state in (State.STARTING, State.PENDING):
        for happening in happenings:
            if happening in LIFE[state]:
                state = after(state, happening)  # noqa: PLW2901 - how it goes on
        # Between two attempts nobody can lose it: it is stopped, or waits for its turn.
        lasts = {
            State.PENDING: Happening.GIVEN_UP,
            State.RESTARTING: Happening.STOP_ASKED,
        }
        last = lasts.get(state, end)
        assert state is State.ENDED or after(state, last) is State.ENDED


signals = st.integers(0, 64)
states = st.sampled_from([State.RUNNING, State.PAUSED, State.STOPPING])
why = st.sampled_from([Reason.STOPPED, Reason.TIMED_OUT, Reason.OUTPUT_LIMIT])


@given(why, signals, st.booleans())
def test_a_job_that_is_being_stopped_ends_for_that_reason(
    why_stopping: Reason, number: int, oom: bool
) -> None:
    assert end_reason(State.STOPPING, why_stopping, number, oom=oom) is why_stopping


@given(signals, st.booleans())
def test_a_job_that_runs_ends_by_itself_by_a_signal_or_for_lack_of_memory(
    number: int, oom: bool
) -> None:
    assert end_reason(State.PAUSED, Reason.NONE, number, oom=oom) is end_reason(
        State.RUNNING, Reason.NONE, number, oom=oom
    )
    reason = end_reason(State.RUNNING, Reason.NONE, number, oom=oom)
    # The kernel kills for lack of memory with SIGKILL; another end is the program's own.
    if oom and number == signal.SIGKILL:
        assert reason is Reason.OUT_OF_MEMORY
    else:
        assert reason is (Reason.SIGNALED if number else Reason.EXITED)


@given(states, why, signals, st.booleans())
def test_every_end_has_a_reason(state: State, why_stopping: Reason, number: int, oom: bool) -> None:
    reason = end_reason(state, why_stopping, number, oom=oom)
    assert reason not in {Reason.NONE, Reason.LOST}
