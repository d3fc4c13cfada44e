"""Every way a call can fail has an exit code and a sentence."""

from functools import partial
from pathlib import Path

import grpc
import pytest

from jobworker.cli.errors import ExitCode, failure
from jobworker.client import diagnosis
from jobworker.client.endpoint import Endpoint
from jobworker.client.errors import BadFile, CallFailed, CertificateEnded, GaveUp

FAILURES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


HERE = Endpoint("here:1", Path("/ca.crt"), Path("/a.crt"), Path("/a.key"))


@pytest.fixture(autouse=True)
def _reason_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason why a server cannot be reached is what gRPC says."""
    why = partial(CallFailed, "UNAVAILABLE")
    monkeypatch.setattr(diagnosis, "why_unreachable", lambda _endpoint, said: why(said))


def told(code: str) -> tuple[str, int]:
    error = failure(CallFailed(code, "no {such} thing"), HERE)
    return str(error), error.exit_code


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
def test_each_status_code_ends_the_command(code: grpc.StatusCode) -> None:
    sentence, exit_code = told(code.name)
    assert sentence
    assert exit_code in list(ExitCode)
    assert exit_code != ExitCode.RUN_FAILED


@pytest.mark.parametrize(
    ("code", "sentence", "exit_code"),
    [
        ("PERMISSION_DENIED", "no {such} thing", 4),
        ("UNAUTHENTICATED", "the server does not accept the certificate /a.crt: ", 4),
        ("NOT_FOUND", "no {such} thing (`jobworker list`", 3),
        ("UNAVAILABLE", "cannot talk to the server here:1: no {such} thing", 5),
        ("DEADLINE_EXCEEDED", "the server here:1 did not answer in time", 5),
        ("RESOURCE_EXHAUSTED", "a limit is reached: no {such} thing", 6),
        ("INTERNAL", "the server here:1 failed (INTERNAL): no {such} thing", 7),
        ("UNKNOWN", "the server here:1 failed (UNKNOWN): ", 7),
        ("FAILED_PRECONDITION", "no {such} thing", 1),
        ("INVALID_ARGUMENT", "no {such} thing", 2),
    ],
)
def test_what_is_told(code: str, sentence: str, exit_code: int) -> None:
    said, ended_with = told(code)
    assert said.startswith(sentence)
    assert ended_with == exit_code


def test_an_outage_that_lasts_ends_as_its_last_attempt_did() -> None:
    gave_up = failure(GaveUp("the end of job 1", CallFailed("UNAVAILABLE", "no route")), HERE)
    assert gave_up.exit_code == ExitCode.UNREACHABLE
    assert str(gave_up) == (
        "gave up on the end of job 1: cannot talk to the server here:1: no route"
    )


def test_a_file_that_will_not_do_is_bad_usage() -> None:
    bad = failure(BadFile("cannot read it"), HERE)
    assert (str(bad), bad.exit_code) == ("cannot read it", ExitCode.USAGE)


def test_a_certificate_that_ends_meanwhile_is_a_refusal() -> None:
    ended = failure(CertificateEnded("the output of job 1", "it expired at noon"), HERE)
    assert ended.exit_code == ExitCode.REFUSED
    assert str(ended) == (
        "gave up on the output of job 1: the server does not accept the certificate /a.crt: "
        "it expired at noon; the job goes on"
    )
