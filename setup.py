"""Generates the protobuf and gRPC code while the package is built.

Everything else about the build is in pyproject.toml. The generated files go
beside their .proto, where git ignores them, so that an editable install sees
them too.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PROTO = Path(__file__).parent / "proto"


def generate() -> None:
    """Run protoc over proto/*.proto for the import path jobworker.proto."""
    import grpc_tools
    from grpc_tools import protoc

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    sources = sorted(PROTO.glob("*.proto"))
    # The virtual path makes the generated imports read `from jobworker.proto`;
    # protoc then writes below it, so the output root is a link back to here.
    root = PROTO / ".generated"
    (root / "jobworker").mkdir(parents=True, exist_ok=True)
    link = root / "jobworker" / "proto"
    if not link.is_symlink():
        link.symlink_to(PROTO.resolve(), target_is_directory=True)
    arguments = [
        "protoc",
        f"-Ijobworker/proto={PROTO}",
        f"-I{well_known}",
        f"--python_out={root}",
        f"--pyi_out={root}",
        *(f"jobworker/proto/{source.name}" for source in sources),
    ]
    services = [
        "protoc",
        f"-Ijobworker/proto={PROTO}",
        f"-I{well_known}",
        f"--grpc_python_out={root}",
        "jobworker/proto/workerservice.proto",
    ]
    for call in (arguments, services):
        if protoc.main(call) != 0:
            raise SystemExit(f"protoc failed: {' '.join(call)}")
    link.unlink()
    (root / "jobworker").rmdir()
    root.rmdir()


class BuildWithProtos(build_py):
    """build_py, after the code it is to package has been generated."""

    def run(self) -> None:
        """Generate, then build."""
        generate()
        super().run()


setup(cmdclass={"build_py": BuildWithProtos})
