"""A client generated from the contract's first text works against today's server."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from grpc_tools import protoc

from tests.support.server import Server

HERE = Path(__file__).parents[1] / "first_generation"
SCRIPT = "sh -c 'printf '\"'\"'h\\303\\251llo \\377'\"'\"'; exit 3'"
EXPECTED = {
    "started": [True, True, True],
    "output": "héllo \ufffd",
    "ended": ["EXITED", 3, SCRIPT],
    "running": ["RUNNING", 0],
    "stopped": [True, "EXITED", 128 + 15],
    "missing": "NOT_FOUND",
}


def run_client(server: Server, *command: str, cwd: Path | None = None) -> object:
    files = server.users["alice"]
    done = subprocess.run(
        [
            *command,
            server.address,
            str(server.authority.certificate),
            str(files.certificate),
            str(files.key),
        ],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_python_client_of_the_first_text(server: Server, tmp_path: Path) -> None:
    arguments = ["protoc", f"-I{HERE}", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    assert protoc.main([*arguments, "workerservice.proto"]) == 0
    seen = run_client(server, sys.executable, str(HERE / "client.py"), str(tmp_path))
    assert seen == EXPECTED


def test_node_client_of_the_first_text(server: Server, tmp_path: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed: the client in another language was NOT tried")
    shutil.copy(HERE / "client.js", tmp_path)
    install = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "@grpc/grpc-js@1", "@grpc/proto-loader@0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert install.returncode == 0, install.stderr
    seen = run_client(server, "node", "client.js", str(HERE / "workerservice.proto"), cwd=tmp_path)
    assert seen == EXPECTED


def test_the_first_text_is_part_of_todays_contract() -> None:
    """Every line of it stands in the contract unchanged, but for white space."""
    today = (Path(__file__).parents[2] / "proto" / "workerservice.proto").read_text()
    today_words = " ".join(today.split())
    for line in (HERE / "workerservice.proto").read_text().splitlines():
        for piece in line.replace("{", ";").replace("}", ";").split(";"):
            assert " ".join(piece.split()) in today_words
