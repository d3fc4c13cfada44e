"""Generates the protobuf and gRPC code, and compiles a little C, while the package is built.

Everything else about the build is in pyproject.toml. The generated files go
beside their .proto, where git ignores them, so that an editable install sees
them too.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from warnings import warn

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# Elsewhere there are clients alone.
ON_LINUX = sys.platform == "linux"
PROTO = Path(__file__).parent / "proto"
# What tells a sandboxed job's end exactly; without a compiler it is told less so.
INSIDE = Path(__file__).parent / "supervisor" / "host" / "inside.c"


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


def compile_inside() -> None:
    """Compile inside.c beside itself, if there is a compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        warn(
            "no C compiler: exit codes of isolated jobs above 128 will be taken for signals",
            stacklevel=2,
        )
        return
    program = INSIDE.with_suffix("")
    new = program.with_name("inside.new")
    options = ["-O2", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run([compiler, *options, "-o", str(new), str(INSIDE)], check=False)
    if done.returncode:
        warn(f"{INSIDE.name} cannot be compiled: see above", stacklevel=2)
    else:
        # One that runs is not written to.
        new.replace(program)


class BuildWithProtos(build_py):
    """build_py, after what it is to package has been generated and compiled."""

    def run(self) -> None:
        """Generate, compile, then build."""
        generate()
        if ON_LINUX:
            compile_inside()
        super().run()


class BuildNative(build_ext):
    """build_ext, which goes on without the extension where that cannot be built."""

    def build_extension(self, ext: Extension) -> None:
        """Build it, or say why not."""
        try:
            super().build_extension(ext)
        except Exception as error:  # noqa: BLE001 - whatever a compiler's absence makes of itself
            warn(f"{ext.name} cannot be built ({error}): fork(2) serves in its place", stacklevel=2)


NATIVE_SPAWN = Extension(
    "jobworker.supervisor.keeper._spawn",
    ["supervisor/keeper/spawn.c"],
    extra_compile_args=["-std=gnu11", "-Wall", "-Wextra", "-Wno-missing-field-initializers"],
    optional=True,
)

setup(
    cmdclass={"build_py": BuildWithProtos, "build_ext": BuildNative},
    ext_modules=[NATIVE_SPAWN] if ON_LINUX else [],
)
