"""From a job's request to the program that the keeper is to execute, or its sandbox."""

import errno
import os
from contextlib import ExitStack
from typing import NamedTuple

from jobworker.supervisor.exact_text import to_bytes
from jobworker.supervisor.host import inside
from jobworker.supervisor.host.inside import Entrance
from jobworker.supervisor.host.tree import TOKEN_VARIABLE
from jobworker.supervisor.keeper.program import Program, in_memory

# Variables that the dynamic loader acts on (ld.so(8)): the program's alone.
_LOADERS = ("LD_", "GLIBC_TUNABLES", "MALLOC_")
# The numbers that the files of a sandbox have in it, behind stdin, stdout and stderr; what
# enters one has the way in place of the options.
_OPTIONS, _TELLER, _TOLD = 3, 4, 5
_ENTRANCE = _OPTIONS


class Spec(NamedTuple):
    """What to execute and how: `argv[0]` is looked up on the PATH of `env`.

    `credentials` are (user ID, group ID, all group IDs), None to stay who we
    are; `resource_limits` pairs of a resource and its limit (setrlimit(2)).
    `sandbox` is bubblewrap and its options, or empty; `entrance`, which stays the
    caller's, the way into one that is there. What is not UTF-8 in the texts are lone
    surrogates. `apart` and `terminal` as in Program.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: str
    umask: int
    credentials: tuple[int, int, list[int]] | None = None
    resource_limits: tuple[tuple[int, int], ...] = ()
    no_new_privileges: bool = False
    sandbox: tuple[str, ...] = ()
    apart: bool = False
    terminal: bool = False
    entrance: Entrance | None = None


class Made(NamedTuple):
    """A program, and the descriptors of the files that it finds as 3, 4, ...; the caller's."""

    program: Program
    files: tuple[int, ...] = ()


def program_for(spec: Spec) -> Made:
    """What the keeper is to execute. Raises OSError where the files cannot be."""
    argv = tuple(map(to_bytes, spec.argv))
    paths = _candidates(argv[0], spec.env.get("PATH", os.defpath))
    user = None
    if spec.credentials is not None:
        uid, gid, groups = spec.credentials
        user = (uid, gid, tuple(groups))
    program = Program(
        paths,
        argv,
        tuple(_variable(name, text) for name, text in spec.env.items()),
        to_bytes(spec.cwd),
        spec.umask,
        user=user,
        limits=tuple((number, limit, limit) for number, limit in spec.resource_limits),
        no_new_privileges=spec.no_new_privileges,
        apart=spec.apart,
        terminal=spec.terminal,
    )
    if spec.entrance is not None:
        return _entering(program, spec, spec.entrance)
    return _inside(program, spec) if spec.sandbox else Made(program)


def _entering(program: Program, spec: Spec, entrance: Entrance) -> Made:
    """The same in the sandbox of another job. Raises OSError where the way is not to be had."""
    teller = inside.new_teller()
    if teller is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    with ExitStack() as undo:
        undo.callback(os.close, teller)
        told = inside.new_told()
        undo.callback(os.close, told)
        way = os.dup(entrance.pidfd)
        undo.pop_all()
    itself = b"/proc/self/fd/%d" % _TELLER
    how = (b"--enter", b"%d" % _ENTRANCE, b"%d" % entrance.namespaces, b"%d" % spec.terminal)
    own = [_variable(name, spec.env[name]) for name in _loaders(spec)]
    argv = (itself, b"%d" % _TOLD, b"%d" % _TELLER, *how, program.cwd, *own, b"--", *program.argv)
    loaders = tuple(name.encode() for name in _LOADERS)
    entering = program._replace(
        paths=(itself,),
        argv=argv,
        # Not those that would have the tenant's code run outside.
        environment=tuple(one for one in program.environment if not one.startswith(loaders)),
        # What is there inside may not be there outside.
        cwd=b"/",
        terminal=False,
    )
    return Made(entering, (way, teller, told))


def _inside(program: Program, spec: Spec) -> Made:
    """The same in its sandbox. Bubblewrap is executed whatever it is to execute: see `check`."""
    argv = program.argv
    with ExitStack() as undo:
        teller = inside.new_teller()
        if teller is not None:
            undo.callback(os.close, teller)
            told = inside.new_told()
            undo.callback(os.close, told)
            own = [_variable(name, spec.env[name]) for name in _loaders(spec)]
            start = (b"/proc/self/fd/%d" % _TELLER, b"%d" % _TOLD, b"%d" % _TELLER)
            argv = (*start, *own, b"--", *argv)
        options = [*map(to_bytes, spec.sandbox[1:]), b"--clearenv"]
        for name, value in spec.env.items():
            if teller is None or not name.startswith(_LOADERS):
                options += [b"--setenv", to_bytes(name), to_bytes(value)]
        # Not its own environment: LD_PRELOAD would run the tenant's code outside.
        # Not its arguments: they have less room, and all may read them.
        files = (in_memory("jobworker-sandbox", b"\0".join((*options, b""))),)
        undo.pop_all()
    wrapper = to_bytes(spec.sandbox[0])
    sandboxed = program._replace(
        paths=(wrapper,),
        argv=(wrapper, b"--args", b"%d" % _OPTIONS, b"--", *argv),
        environment=tuple(
            _variable(name, text) for name, text in spec.env.items() if name == TOKEN_VARIABLE
        ),
        check=program.paths,
    )
    return Made(sandboxed, files if teller is None else (*files, teller, told))


def _loaders(spec: Spec) -> list[str]:
    return [name for name in spec.env if name.startswith(_LOADERS)]


def _candidates(name: bytes, path: str) -> tuple[bytes, ...]:
    """Where execvp(3) looks for a program."""
    if b"/" in name:
        return (name,)
    return tuple(part + b"/" + name if part else name for part in to_bytes(path).split(b":"))


def _variable(name: str, text: str) -> bytes:
    return to_bytes(f"{name}={text}")
