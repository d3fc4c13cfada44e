"""The rooms: who may import whom, and through which doors.

A *place* is a room (a sub-package, "supervisor.host") with all of its files, or a file
that stands beside rooms and is named here ("supervisor.job"). A folder without a room
is one place. Imports within functions and those for types count, too.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jobworker import supervisor
from tests.support.arrows import (
    ROOT,
    Arrow,
    arrows,
    circles,
    graph_of,
    imports,
    modules,
    place_of,
    rooms,
)

# What each place may import, besides its own files. From the bottom up.
ALLOWED = {
    "proto": "",
    "policies": "",
    # `supervisor` itself is the public door: inside it, files import each other past it.
    "supervisor.keeper": "",
    "supervisor.errors": "",
    "supervisor.exact_text": "",
    "supervisor.host": "supervisor.errors supervisor.keeper",
    "supervisor.config": "supervisor.host supervisor.job",
    "supervisor.job": "supervisor.host",
    "supervisor.quotas": "supervisor.errors",
    "supervisor.schedule": "supervisor.job",
    "supervisor.ipc": """
        proto supervisor.errors supervisor.exact_text supervisor.host supervisor.job
        supervisor.keeper supervisor.quotas supervisor.schedule
    """,
    "supervisor.output": "supervisor.host supervisor.ipc",
    "supervisor.journal": """
        supervisor.errors supervisor.exact_text supervisor.host supervisor.ipc supervisor.job
        supervisor.quotas supervisor.schedule
    """,
    "supervisor.porter": """
        supervisor.config supervisor.errors supervisor.exact_text supervisor.host supervisor.job
    """,
    "supervisor.engine": "supervisor.errors supervisor.host supervisor.job",
    "supervisor.local": """
        supervisor.config supervisor.engine supervisor.errors supervisor.exact_text
        supervisor.host supervisor.job supervisor.keeper supervisor.output supervisor.porter
    """,
    "supervisor.slurm": """
        supervisor.config supervisor.engine supervisor.errors supervisor.host supervisor.job
        supervisor.output
    """,
    "supervisor.live": """
        supervisor.engine supervisor.errors supervisor.job supervisor.journal supervisor.quotas
    """,
    "supervisor.waiting": """
        supervisor.config supervisor.engine supervisor.errors supervisor.ipc supervisor.job
        supervisor.journal supervisor.live supervisor.quotas supervisor.schedule
    """,
    "supervisor.core": """
        supervisor.config supervisor.engine supervisor.errors supervisor.host supervisor.ipc
        supervisor.job supervisor.journal supervisor.keeper supervisor.live supervisor.local
        supervisor.output supervisor.slurm supervisor.waiting
    """,
    "supervisor.control": "supervisor.errors supervisor.keeper",
    "supervisor.library": """
        proto supervisor.config supervisor.control supervisor.errors supervisor.exact_text
        supervisor.host supervisor.ipc supervisor.job supervisor.keeper supervisor.output
    """,
    "supervisor.threaded": """
        supervisor.errors supervisor.host supervisor.ipc supervisor.job supervisor.library
        supervisor.output
    """,
    "supervisor": """
        supervisor.config supervisor.control supervisor.errors supervisor.exact_text
        supervisor.host supervisor.ipc supervisor.job supervisor.journal supervisor.keeper
        supervisor.library supervisor.output supervisor.porter supervisor.threaded
    """,
    "authz": "",
    "authz.ca": "authz",
    "authz.policy": "authz",
    "authz.workbench": "authz authz.policy",
    "authz.audit": "authz authz.policy",
    "grpc_api": "authz proto supervisor",
    "grpc_api.edge": "authz grpc_api proto",
    "grpc_api.guard": "authz authz.audit authz.policy grpc_api proto supervisor",
    "grpc_api.signer": "authz authz.ca grpc_api",
    "grpc_api.service": """
        authz authz.policy grpc_api grpc_api.edge grpc_api.guard grpc_api.signer proto supervisor
    """,
    "grpc_api.admin": """
        authz.audit grpc_api grpc_api.guard grpc_api.service proto supervisor
    """,
    "grpc_api.upkeep": """
        authz authz.ca authz.policy grpc_api grpc_api.edge grpc_api.guard proto supervisor
    """,
    "grpc_api.check": """
        authz authz.policy grpc_api grpc_api.edge grpc_api.upkeep supervisor
    """,
    "grpc_api.serve": """
        grpc_api grpc_api.check grpc_api.edge grpc_api.guard grpc_api.upkeep supervisor
    """,
    "grpc_api.front": """
        authz authz.audit authz.policy console console.console grpc_api grpc_api.admin
        grpc_api.check grpc_api.edge grpc_api.guard grpc_api.service grpc_api.upkeep proto
        supervisor
    """,
    "console": "authz authz.policy grpc_api grpc_api.guard grpc_api.service proto supervisor",
    # They tell of jobs in the words of the command.
    "console.pages": """
        authz authz.audit authz.policy authz.workbench cli cli.display client console
        grpc_api.guard proto supervisor
    """,
    "console.live": "client console console.pages grpc_api.guard grpc_api.service proto supervisor",
    "console.app": "console console.live console.pages grpc_api.guard supervisor",
    "console.console": "console console.app grpc_api.edge",
    "client": "proto",
    "cli": "client proto",
    "cli.display": "cli client proto",
    "cli.commands": "cli cli.display client proto",
    "cli.top": "cli cli.display client proto",
    "cli.files": "cli cli.display client",
    "cli.events": "cli cli.display client proto",
    "cli.services": "cli cli.commands cli.display client proto",
    "cli.schedules": "cli cli.commands cli.display client proto",
    "cli.setup": "authz authz.ca cli cli.display client proto",
    "cli.host": """
        authz authz.audit authz.ca authz.policy authz.workbench cli cli.display client
        grpc_api grpc_api.admin grpc_api.serve grpc_api.signer proto
    """,
}

# Arrows that are not as they should be yet, and what ends them. A line that is not
# needed any more makes a test fail, so the list only shrinks.
NOT_YET: dict[tuple[str, str], str] = {}

# The one file of core that knows which engines there are; the others know engine.py.
CHOOSES_THE_ENGINE = "supervisor.core.process"

# The files of each room that other places import.
DOORS = {
    "authz.audit": "files log record search",
    "authz.ca": "authority bundle certificates durable index lists renewal requests",
    "authz.policy": """
        cases command_pattern csv_form globs in_force job_pattern judge policy rights rules
        statements yaml_writer
    """,
    "authz.workbench": "diff explanation lint",
    "cli.commands": "new_job",
    "cli.display": "attempts job lines progress rights sink table usage",
    "console.live": "job jobs terminal usage",
    "console.pages": """
        acts audit job jobs me output policy schedules several start terminal usage views
    """,
    "grpc_api.admin": "acts caller desk drain",
    "grpc_api.edge": "admission credentials edge output_connection peers tls",
    "grpc_api.guard": """
        access audit_trail call_counter fields guard job_trail references refusal rules
    """,
    "grpc_api.service": "messages output_service reflection service turns",
    "grpc_api.signer": "asking signer wire",
    "grpc_api.upkeep": "expiry file_watch health memory metrics reload",
    "supervisor.host": """
        accounting cgroup descriptors disk_space holes inside isolation job_sockets limits memory
        ports sizes tree user_mapping users whole_tree
    """,
    "supervisor.ipc": """
        client handover job_ids messages requests schedule_messages server snapshot
        start_request watches
    """,
    "supervisor.journal": "journal missing schedules start_keys",
    "supervisor.keeper": "config forked logs packets proc program state_lock upgrade",
    "supervisor.live": "live_job live_jobs quota_counts starts turn",
    "supervisor.local": "engine keeper_link",
    "supervisor.output": "follow limbo pump reader recorder segments",
    "supervisor.porter": "carriage places porter porters uploads",
    "supervisor.slurm": "engine shared",
    "supervisor.waiting": "health names pending restarts schedules",
}

# The keeper's own names for its children are changed by the one library that can.
BESIDES_THE_STANDARD_LIBRARY = {"supervisor.keeper.child": {"setproctitle"}}

MOST_FILES = 20


def places(arrow: Arrow) -> tuple[str, str]:
    """The places at an arrow's two ends."""
    return place_of(arrow.importer, ALLOWED), place_of(arrow.imported, ALLOWED)


def crossing() -> list[tuple[Arrow, tuple[str, str]]]:
    """The arrows from one place to another, with their places."""
    return [(arrow, ends) for arrow in sorted(arrows()) if len(set(ends := places(arrow))) == 2]


def as_lines(lines: list[str]) -> str:
    """A message for a person who has just added an import."""
    return "\n  ".join(["", *lines])


def test_every_room_is_in_the_table() -> None:
    assert [room for room in rooms() if room not in ALLOWED] == []
    assert [place for place in ALLOWED if place not in modules()] == []


def test_every_room_is_packaged() -> None:
    """One that was not worked in a clone, and in no installation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.partition(".")[2] for name in project["tool"]["setuptools"]["packages"]}
    assert packages - {"deploy"} == set(rooms())


def test_places_import_only_what_stands_below_them() -> None:
    wrong = [
        str(arrow)
        for arrow, (importer, imported) in crossing()
        if imported not in ALLOWED[importer].split() and (importer, imported) not in NOT_YET
    ]
    assert not wrong, as_lines(
        [
            "the table of tests/test_rooms.py does not allow these imports",
            "(a new file beside rooms needs a line of its own there):",
            *wrong,
        ]
    )


def test_core_knows_engines_through_their_protocol_alone() -> None:
    knowing = {
        arrow.importer
        for arrow, ends in crossing()
        if ends
        in (("supervisor.core", "supervisor.local"), ("supervisor.core", "supervisor.slurm"))
    }
    assert knowing == {CHOOSES_THE_ENGINE}


def test_the_table_names_no_arrow_that_does_not_exist() -> None:
    real = {ends for _, ends in crossing()}
    claimed = {(place, below) for place, text in ALLOWED.items() for below in text.split()}
    unused = sorted(claimed - real)
    assert not unused, as_lines(["nothing imports so any more:", *map(str, unused)])


@pytest.mark.parametrize(("importer", "imported"), NOT_YET)
def test_an_exception_is_still_needed(importer: str, imported: str) -> None:
    assert (importer, imported) in {ends for _, ends in crossing()}, "remove it from NOT_YET"
    assert imported not in ALLOWED[importer].split(), "it is allowed: remove it from NOT_YET"


def test_no_circle_between_places() -> None:
    allowed = [(place, below) for place, text in ALLOWED.items() for below in text.split()]
    assert circles(graph_of([*allowed, *(ends for _, ends in crossing())])) == []


def test_no_circle_between_files() -> None:
    assert circles(graph_of([(arrow.importer, arrow.imported) for arrow in arrows()])) == []


def test_rooms_are_entered_through_their_doors() -> None:
    used: dict[str, set[str]] = {}
    for arrow, (_, room) in crossing():
        if room in rooms() and "." in room:
            used.setdefault(room, set()).add(arrow.imported.removeprefix(room).lstrip("."))
    assert {room: sorted(doors) for room, doors in used.items()} == {
        room: sorted(doors.split()) for room, doors in DOORS.items()
    }


def test_the_public_door_is_the_only_way_into_the_library() -> None:
    within = ("supervisor", *(name for name in ALLOWED if name.startswith("supervisor.")))
    past = [
        str(arrow)
        for arrow, (importer, imported) in crossing()
        if importer not in within and imported.startswith("supervisor.")
    ]
    assert not past, as_lines(["import these from jobworker.supervisor, its door:", *past])


def test_the_public_door_opens_lazily_and_for_every_name() -> None:
    assert sorted(supervisor.__all__) == sorted(supervisor._HOME)
    for name in supervisor.__all__:
        assert getattr(supervisor, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        supervisor.Nothing  # noqa: B018 - what it raises is what is asked
    ours = {name for name in loaded_by("jobworker.supervisor") if name.startswith("jobworker")}
    assert ours == {"jobworker", "jobworker.supervisor"}


@pytest.mark.parametrize("room", sorted(rooms()))
def test_a_room_says_what_it_is(room: str) -> None:
    text = rooms()[room].read_text()
    docstring = text.removeprefix('"""').partition('"""')[0].strip()
    assert text.startswith('"""')
    assert docstring
    if "." in room:
        after = docstring.partition("\n\n")[2]
        assert after, f"{room}/__init__.py says neither what it stands on nor who uses it"


def test_no_folder_holds_too_many_files() -> None:
    counts: dict[Path, int] = {}
    for file in modules().values():
        counts[file.parent] = counts.get(file.parent, 0) + 1
    for top in ("tests", "bench", "docs"):
        for file in (ROOT / top).rglob("*.py"):
            counts[file.parent] = counts.get(file.parent, 0) + 1
    full = {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > MOST_FILES}
    assert full == {}, f"more than {MOST_FILES} Python files: open a room"


@pytest.mark.parametrize(
    "module", sorted(name for name in modules() if name.startswith("supervisor.keeper"))
)
def test_the_keeper_imports_the_standard_library_and_itself(module: str) -> None:
    strangers = {
        name
        for name in imports(modules()[module])
        if not name.startswith("jobworker.supervisor.keeper.")
        and name.partition(".")[0] not in sys.stdlib_module_names
    }
    known = BESIDES_THE_STANDARD_LIBRARY.get(module, set())
    assert {name.partition(".")[0] for name in strangers} == known


def test_the_porter_imports_the_standard_library_alone() -> None:
    """It is executed by its path, where nothing else may be found."""
    names = imports(modules()["supervisor.porter.porter"])
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


def loaded_by(*names: str) -> set[str]:
    """The modules that a fresh interpreter has loaded more after importing these."""
    script = (
        "import sys; before = set(sys.modules); from importlib import import_module\n"
        "for name in sys.argv[1:]: import_module(name)\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *names], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_a_fresh_keeper_has_loaded_the_standard_library_and_itself() -> None:
    files = [name for name in modules() if name.startswith("supervisor.keeper.")]
    # Its __main__ becomes the keeper when imported.
    names = [f"jobworker.{name}" for name in files if not name.endswith("__main__")]
    loaded = loaded_by(*names)
    # Compiled from spawn.c, where there was a compiler.
    loaded.discard("jobworker.supervisor.keeper._spawn")
    ours = {name for name in loaded if name.startswith("jobworker")}
    assert ours == {"jobworker", "jobworker.supervisor", "jobworker.supervisor.keeper", *names}
    # multiprocessing calls the main module by a second name.
    others = {name.partition(".")[0] for name in loaded - ours} - {"__mp_main__"}
    assert others <= set(sys.stdlib_module_names)
    assert not others & {"asyncio", "sqlite3", "ssl"}


def test_the_client_brings_nothing_of_the_server() -> None:
    names = [f"jobworker.{name}" for name in modules() if name.partition(".")[0] == "client"]
    loaded = loaded_by(*names)
    assert "grpc" in loaded
    assert not loaded & {"casbin", "uvloop", "cryptography", "msgspec", "yaml", "click", "sqlite3"}
    ours = {name for name in loaded if name.startswith("jobworker.")}
    assert {name.split(".")[1] for name in ours} == {"client", "proto"}
