"""What is news to a list: a job of another state, and nothing else."""

from jobworker.console.news import News
from jobworker.proto import ipc_pb2 as ipc
from jobworker.proto import workerservice_pb2 as pb
from jobworker.supervisor import JobSnapshot
from tests.console.test_console_pages import done
from tests.front.admin.test_admin import files_of
from tests.support.server import Server


def job(number: int, state: "pb.JobState", output: int = 0) -> JobSnapshot:
    return JobSnapshot.from_message(
        ipc.Job(id=str(number), argv=[b"true"], state=state, output_end=output)
    )


def test_another_state_is_news_and_more_output_is_none() -> None:
    news = News()
    versions = []
    for told in (
        job(1, pb.JOB_STATE_RUNNING),
        job(1, pb.JOB_STATE_RUNNING, output=10),
        job(2, pb.JOB_STATE_PENDING),
        job(2, pb.JOB_STATE_RUNNING),
        job(1, pb.JOB_STATE_RUNNING, output=20),
        job(1, pb.JOB_STATE_ENDED),
    ):
        news.told(told)
        versions.append(news.version)
    assert versions == [1, 1, 2, 3, 3, 4]


def test_the_audit_log_has_states_beside_a_console(server: Server) -> None:
    """Both are told of every job by one connection to the supervisor."""
    ended = done(server, "alice", "true")
    records = b"".join(file.read_bytes() for file in files_of(server.directory / "audit"))
    told = [line for line in records.splitlines() if ended.encode() in line]
    assert any(b'"ended"' in line for line in told)
