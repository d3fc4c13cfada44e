"""Five hundred jobs at once: all start, all run, all end, nothing is lost."""

from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.support.client import calling, output, start, wait
from tests.support.server import Server

JOBS = 500


@pytest.mark.timeout(300)
def test_five_hundred_at_once(fresh_server: Server, record_property: object) -> None:
    gate = fresh_server.directory / "gate"
    script = (
        "echo begin $1; while ! [ -e $2 ]; do sleep 0.5; done; echo end $1 >&2; exit $(($1 % 256))"
    )
    with calling(fresh_server, "alice") as worker, ThreadPoolExecutor(16) as pool:
        command = ["sh", "-c", script, "sh"]
        ids = list(pool.map(lambda n: start(worker, *command, str(n), str(gate)), range(JOBS)))
        running = worker.List(pb.ListRequest(running=True, pageSize=1000)).jobs
        assert {job.jobID for job in running} == set(ids)
        _report_memory(fresh_server, record_property)
        gate.touch()
        ended = list(pool.map(lambda job_id: wait(worker, job_id), ids))
        outputs = list(pool.map(lambda job_id: output(worker, job_id), ids))
    assert [job.exitCode for job in ended] == [n % 256 for n in range(JOBS)]
    assert outputs == [f"begin {n}\nend {n}\n".encode() for n in range(JOBS)]


def _report_memory(server: Server, record_property: object) -> None:
    for process in psutil.Process(server.process.pid).children():
        name = process.cmdline()[0]
        if name.startswith("jobworker: "):
            resident = process.memory_info().rss
            print(f"{name} with {JOBS} jobs: {resident / 2**20:.0f} MiB resident")
            record_property(f"{name} resident bytes", resident)
