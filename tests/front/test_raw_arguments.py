"""Arguments as bytes: judged, recorded and told as those in strings are."""

import grpc
import pytest

from jobworker.proto import workerservice_pb2 as pb
from tests.support.client import calling, output, refused, start, wait
from tests.support.server import Server


def test_a_deny_holds_for_bytes_too(server: Server) -> None:
    with calling(server, "bob") as bob:
        for argv in ([b"/bin/false"], [b"/bin/./false", b"\xff"]):
            request = pb.StartRequest(rawArguments=argv)
            with refused(grpc.StatusCode.PERMISSION_DENIED):
                bob.Start(request)
            assert not bob.CanI(pb.CanIRequest(action="start", start=request)).allowed
        with refused(grpc.StatusCode.FAILED_PRECONDITION) as said:
            bob.Start(pb.StartRequest(rawArguments=[b"/bin/\xff"]))
        assert said[0].startswith("cannot execute /bin/\ufffd")


@pytest.mark.parametrize(
    "request_",
    [
        pb.StartRequest(commandName="true", rawArguments=[b"true"]),
        pb.StartRequest(Arguments=["x"], rawArguments=[b"true"]),
        pb.StartRequest(rawArguments=[b""]),
        pb.StartRequest(rawArguments=[b"a\0b"]),
        pb.StartRequest(commandName="true", rawEnvironment=[pb.RawVariable(name=b"=\xff")]),
        pb.StartRequest(commandName="true", rawWorkingDirectory=b"\xff" * 5000),
    ],
)
def test_what_makes_no_sense_is_refused(server: Server, request_: pb.StartRequest) -> None:
    with calling(server, "alice") as alice:
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            alice.Start(request_)
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            alice.CanI(pb.CanIRequest(action="start", start=request_))


def test_strings_stay_valid_and_bytes_are_beside_them(server: Server) -> None:
    with calling(server, "alice") as alice:
        argv = [b"printf", b"%s|", b"\xff", "\u00fc".encode()]
        job = alice.Start(pb.StartRequest(rawArguments=argv)).jobID
        status = wait(alice, job)
        assert output(alice, job) == b"\xff|\xc3\xbc|"
        assert [status.commandName, *status.Arguments] == ["printf", "%s|", "\ufffd", "\u00fc"]
        assert list(status.rawArguments) == argv
        assert status.command == "printf '%s|' '\ufffd' '\u00fc'"
        plain = wait(alice, start(alice, "true", "\u00fc"))
        assert list(plain.rawArguments) == []
        assert plain.Arguments == ["\u00fc"]
