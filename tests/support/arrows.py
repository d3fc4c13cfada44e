"""What the product's files import of each other, read from their source."""

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("proto", "supervisor", "authz", "grpc_api", "client", "cli", "console", "policies")


@dataclass(frozen=True, order=True)
class Arrow:
    """One import. Names are dotted and without `jobworker.`: "supervisor.host.cgroup"."""

    importer: str
    imported: str

    def __str__(self) -> str:
        """As a line of a list of what is wrong."""
        return f"{self.importer} -> {self.imported}"


def module_of(path: Path) -> str:
    """A file's module, without `jobworker.`: "supervisor.host" for its __init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """The files of the product, but for the generated ones."""
    files = (file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
    return {module_of(file): file for file in files if "_pb2" not in file.name}


@cache
def rooms() -> dict[str, Path]:
    """The packages of the product: folders and the rooms in them, with their __init__.py."""
    return {name: path for name, path in modules().items() if path.name == "__init__.py"}


def imports(path: Path) -> Iterator[str]:
    """The full names of what a file imports, lazily and for types, too."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module_in(name: str) -> str | None:
    """The module of ours that a full name is, or is a name in."""
    first, _, inside = name.partition(".")
    if first != "jobworker":
        return None
    if inside.startswith("proto."):
        return "proto"
    return inside if inside in modules() else inside.rpartition(".")[0]


@cache
def arrows() -> frozenset[Arrow]:
    """All imports between files of the product. Generated code counts as `proto`."""
    return frozenset(
        Arrow(importer, imported)
        for importer, path in modules().items()
        for imported in map(_module_in, imports(path))
        if imported is not None and imported != importer
    )


def place_of(module: str, places: Collection[str]) -> str:
    """The place a module is in: the one named as it is, or as the nearest package above."""
    while module not in places:
        assert "." in module, f"{module} is in no place of the table"
        module = module.rpartition(".")[0]
    return module


def circles(graph: dict[str, set[str]]) -> list[str]:
    """One circle for each point that reaches itself, as "a -> b -> a"."""
    found = []
    for start in sorted(graph):
        path = _path_back(graph, start)
        if path:
            found.append(" -> ".join(path))
    return found


def _path_back(graph: dict[str, set[str]], start: str) -> list[str]:
    """A shortest way from `start` to itself; empty if there is none."""
    paths = [[start]]
    seen: set[str] = set()
    for path in paths:
        for after in sorted(graph.get(path[-1], ())):
            if after == start:
                return [*path, after]
            if after not in seen:
                seen.add(after)
                paths.append([*path, after])
    return []


def graph_of(pairs: Collection[tuple[str, str]]) -> dict[str, set[str]]:
    """What each name points at, but for itself."""
    graph: dict[str, set[str]] = {}
    for importer, imported in pairs:
        if importer != imported:
            graph.setdefault(importer, set()).add(imported)
    return graph
