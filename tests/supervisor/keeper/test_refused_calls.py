"""Each system call of a birth fails once, in both ways: it is told of, and nothing is left."""

import errno
import os
import pty
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobworker.supervisor.keeper import spawn
from jobworker.supervisor.keeper.births import Births
from jobworker.supervisor.keeper.program import REPORT, STEPS, Program
from tests.supervisor.keeper.test_births import as_bytes, open_files, order
from tests.support.kernel.refused_calls import CALLS, Place, with_a_refused_call
from tests.support.library import own_cgroup

LASTING = Program(
    (b"/bin/sleep",),
    (b"sleep", b"1000"),
    check=(b"/bin/sleep",),
    user=(65534, 65534, (65534,)) if os.geteuid() == 0 else None,
    limits=((resource.RLIMIT_CORE, 0, 0),),
    no_new_privileges=True,
    terminal=True,
)
MISSING = LASTING._replace(paths=(b"/no/such",), check=())
# What fails in the child fails as this step; the first of them where nothing is said here.
STEP_OF = {
    "openat": 1,
    "write": 1,
    "prlimit64": 2,
    "setgroups": 3,
    "setresgid": 3,
    "setresuid": 3,
    "prctl": 3,
    "chdir": 4,
    "newfstatat": 5,
    "access": 5,
    "faccessat": 5,
    "execve": 5,
}
# What may also fail without a harm: whether in the child, and the name.
HARMLESS = {
    # The last four of the parent's are for its slots' sake, and tried again.
    "native": {(False, "dup3"), (True, "write")},
    # Descriptors are closed one by one then; a process joins the cgroup that it was not born in.
    "python": {(True, "close_range"), (True, "prlimit64"), (True, "write"), (False, "clone3")},
}
# With which Python's open() looks at what it has opened.
OPEN = {(who, call) for who in (False, True) for call in ("newfstatat", "ioctl", "openat")}
SECONDS = 10


@pytest.fixture
def cgroup(way: str, tmp_path: Path) -> Iterator[str]:
    """One to be born in, or a directory that looks like one to be joined."""
    own = own_cgroup()
    if way == "python":
        (tmp_path / "cgroup.procs").touch()
        yield str(tmp_path)
    elif own is None:
        yield ""
    else:
        (own / "jobworker-test-refused").mkdir()
        yield str(own / "jobworker-test-refused")
        (own / "jobworker-test-refused").rmdir()


native = pytest.mark.skipif(
    not spawn.BUILT, reason="the native way was not built here: it takes a C compiler, on x86_64"
)
both_ways = pytest.mark.parametrize("way", [pytest.param("native", marks=native), "python"])


@pytest.mark.parametrize("program", [LASTING, MISSING], ids=["executes", "cannot execute"])
@both_ways
def test_a_system_call_that_fails_is_told_of_and_leaves_nothing(
    way: str, program: Program, cgroup: str
) -> None:
    """A refused pidfd_open(2) left a program that nobody knew of, setsid(2) one that never was.

    And a refused close_range(2) hid what the child reported.
    """
    tried = partial(_birth, way, program, cgroup)
    well, places = with_a_refused_call(tried)
    assert well["told"] == (_reported(0, 0) if program is LASTING else _reported(errno.ENOENT, 5))
    # It is a birth that has been looked at.
    assert {"execve", "setsid", "dup2"} <= {place.name for place in places if place.in_child}
    for place in places if program is LASTING else [one for one in places if one.name == "write"]:
        found = with_a_refused_call(tried, place).result
        harmless = (place.in_child, place.name) in HARMLESS[way] | OPEN
        expected = [_told(way, place)] + [well["told"]] * harmless
        assert found["told"] in expected, place
        assert (found["left"], found["next"]) == (0, _reported(0, 0)), place
        assert set(found["statuses"]) <= {signal.SIGKILL, 127 << 8}, place


@native
@pytest.mark.parametrize("way", ["native"])
@pytest.mark.parametrize("place", [Place(False, "clone3", 0), Place(True, "close_range", 0)])
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_where_the_native_way_is_not_known_the_other_serves(
    place: Place, number: int, cgroup: str
) -> None:
    """A container's rules that know no close_range(2) had every start fail."""
    found = with_a_refused_call(partial(_birth, "native", LASTING, cgroup), place, number).result
    executed = _reported(0, 0)
    assert found == {"told": executed, "left": 0, "statuses": [signal.SIGKILL], "next": executed}


def _told(way: str, place: Place) -> dict[str, Any]:
    """What is to be told of a call that failed."""
    number = CALLS[place.name][1]
    unshared = (True, "close_range", 0)
    if not place.in_child or (way == "native" and place == unshared):
        return {"refused": number}
    return _reported(number, STEP_OF.get(place.name, 0))


def _reported(number: int, step: int) -> dict[str, Any]:
    return {"reported": [os.strerror(number), STEPS[step]] if number else []}


def _birth(way: str, program: Program, cgroup: str, mark: Callable[[], object]) -> dict[str, Any]:
    """Make one process for a job, end it, and make another: what came of it."""
    # It ends by that if it hangs.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    os.environ[spawn.WAY_VARIABLE] = way
    births = Births()
    before = open_files()
    found: dict[str, Any] = {"told": _made(births, program, cgroup, mark)}
    found["left"] = open_files() - before
    found["statuses"] = _reaped()
    found["next"] = _made(births, LASTING, cgroup, lambda: None)
    _reaped()
    return found


def _made(
    births: Births, program: Program, cgroup: str, mark: Callable[[], object]
) -> dict[str, Any]:
    """Have it made, with a terminal; the refusal or the report, as the supervisor hears it."""
    ours, theirs = pty.openpty()
    descriptors = (*order(as_bytes(program)), ours, theirs)
    mark()
    try:
        born = births.make("job", cgroup, descriptors, more=1)
    except OSError as error:
        return {"refused": error.errno}
    finally:
        mark()
    with socket.socket(fileno=os.dup(born.kept[2])) as report:
        told = report.recv(REPORT.size)
    births.undo("job")
    return _reported(*REPORT.unpack(told)) if told else _reported(0, 0)


def _reaped() -> list[int]:
    """The wait status of each child, of which none is to go on."""
    statuses = []
    while True:
        try:
            statuses.append(os.waitpid(-1, 0)[1])
        except ChildProcessError:
            return statuses
