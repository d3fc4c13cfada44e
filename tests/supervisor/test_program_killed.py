"""The death of a program that uses the library ends its service, and its jobs with their grace."""

import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.server import leaving_no_process

JOB = "exec 2>&-; trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"
PROGRAM = """
import sys
from jobworker.supervisor import JobWorker
with JobWorker(sys.argv[1]) as worker:
    job = worker.start(["sh", "-c", sys.argv[2]])
    print(job.id, flush=True)
    next(job.output())
    print("up", flush=True)
    sys.stdin.read()
"""


def test_the_program_is_killed(tmp_path: Path) -> None:
    with leaving_no_process():
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "state"), JOB],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert program.stdout is not None
        job_id = program.stdout.readline().strip()
        assert program.stdout.readline() == "up\n"
        service = psutil.Process(program.pid).children(recursive=True)
        program.kill()
        program.communicate()
        assert psutil.wait_procs(service, timeout=30)[1] == []
    recorded = (tmp_path / "state" / "output" / job_id).glob("*.data")
    assert b"".join(path.read_bytes() for path in recorded) == b"up\nbye\n"
