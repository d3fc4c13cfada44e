"""Certificates that the CA signed and that name nobody, shown to a real server over real TLS."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import grpc
import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from jobworker.authz.identity import MAX_TENANTS
from jobworker.authz.names import shown
from jobworker.client.endpoint import Endpoint
from jobworker.client.errors import CallFailed
from jobworker.client.output_connection import OutputConnection
from jobworker.proto import workerservice_pb2 as pb
from jobworker.proto.workerservice_pb2_grpc import WorkerServiceStub
from tests.authz.test_identity import CN, HOSTILE, OU, attribute, named
from tests.front.test_reload_policy import told
from tests.support.client import calling, refused, start, wait
from tests.support.pki import CLIENT, Issued
from tests.support.server import Server
from tests.support.waiting import until

# cryptography warns of names as long as some of these.
pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length")

# Who is known to the server, with a good certificate of hers.
ALICE = "alice"


@contextmanager
def channel_with(server: Server, shows: Issued) -> Iterator[grpc.Channel]:
    """A channel of its own that shows a certificate."""
    credentials = grpc.ssl_channel_credentials(
        server.authority.certificate.read_bytes(),
        shows.key.read_bytes(),
        shows.certificate.read_bytes(),
    )
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.secure_channel(server.address, credentials, options) as channel:
        yield channel


def refusals(
    server: Server, name: x509.Name, usages: Sequence[x509.ObjectIdentifier] = (CLIENT,)
) -> set[str]:
    """In which words each kind of call is refused; none may be allowed."""
    started = server.directory / "started"
    words: set[str] = set()
    with channel_with(server, server.authority.client(name=name, usages=usages)) as channel:
        worker = WorkerServiceStub(channel)
        calls: Sequence[Callable[[], object]] = (
            lambda: worker.WhoAmI(pb.WhoAmIRequest()),
            lambda: worker.Start(pb.StartRequest(commandName="touch", Arguments=[str(started)])),
            lambda: worker.List(pb.ListRequest()),
            lambda: list(worker.GetOutput(pb.GetOutputRequest(jobID="0" * 36))),
            lambda: worker.CanI(pb.CanIRequest(action="stop", jobID="0" * 36)),
            lambda: HealthStub(channel).Check(HealthCheckRequest()),
        )
        for call in calls:
            with refused(grpc.StatusCode.UNAUTHENTICATED) as told_client:
                call()
            words.update(told_client)
    assert not started.exists()
    return words


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_name_may_nothing(server: Server, name: str) -> None:
    (words,) = refusals(server, named(name, ["team-a"]))
    # What it says of the name is what the client showed, and nothing of others.
    assert words.startswith(f"the certificate's CN {shown(name)} ")
    assert "team-a" not in words.replace(shown(name), "")


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_tenant_gives_nothing(server: Server, name: str) -> None:
    (words,) = refusals(server, named(ALICE, ["team-a", name]))
    assert words.startswith(f"the certificate's OU {shown(name)} ")
    assert ALICE not in words.replace(shown(name), "")


STRUCTURES = {
    "no name": (x509.Name([]), "the certificate has 0 CNs; it must have exactly one"),
    "no CN": (
        x509.Name([attribute(OU, "team-a")]),
        "the certificate has 0 CNs; it must have exactly one",
    ),
    "two CNs": (
        x509.Name([attribute(CN, ALICE), attribute(CN, "ann")]),
        "the certificate has 2 CNs; it must have exactly one",
    ),
    "an OU twice": (named(ALICE, ["team-a", "team-a"]), "the certificate names an OU twice"),
    "many OUs": (
        named(ALICE, [f"team-{number}" for number in range(MAX_TENANTS + 1)]),
        "the certificate has 33 OUs; 32 are allowed",
    ),
    "a shared RDN": (
        x509.Name(
            [x509.RelativeDistinguishedName([attribute(CN, ALICE), attribute(OU, "team-a")])]
        ),
        "the certificate's CN shares an RDN with another name",
    ),
    "another string": (
        x509.Name([attribute(CN, ALICE, _ASN1Type.BMPString)]),
        "the certificate's CN is neither a UTF8String nor a PrintableString",
    ),
}


@pytest.mark.parametrize(("name", "reason"), STRUCTURES.values(), ids=STRUCTURES)
def test_a_name_that_could_be_two_is_nobodys(server: Server, name: x509.Name, reason: str) -> None:
    (words,) = refusals(server, name)
    # Of a set, which comes first is up to who reads it.
    assert words.replace("certificate's OU shares", "certificate's CN shares") == reason


def test_a_certificate_for_nothing_in_particular_may_nothing(server: Server) -> None:
    (words,) = refusals(server, named(ALICE, ["team-a"]), ())
    assert "lacks the extended key usage clientAuth" in words


@pytest.mark.parametrize(
    "usage",
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
    ids=["server", "any"],
)
def test_a_certificate_for_something_else_does_not_pass_the_handshake(
    fresh_server: Server, usage: x509.ObjectIdentifier
) -> None:
    issued = fresh_server.authority.client(ALICE, usages=[usage])
    with channel_with(fresh_server, issued) as channel, refused(grpc.StatusCode.UNAVAILABLE):
        WorkerServiceStub(channel).WhoAmI(pb.WhoAmIRequest())
    until(told(fresh_server, "its certificate is refused: "))


@pytest.mark.parametrize("name", ["alice,CN=root", "*", "../../etc"])
def test_output_is_not_given_either(server: Server, name: str) -> None:
    """Not over a connection that is for output alone, which gRPC has no part in."""
    issued = server.authority.client(name=named(name, ["team-a"]))
    with calling(server, ALICE) as alice:
        job_id = start(alice, "echo", "on")
        wait(alice, job_id)
    settings = Endpoint(
        server.address, server.authority.certificate, issued.certificate, issued.key
    )
    with OutputConnection(settings) as connection, pytest.raises(CallFailed) as caught:
        next(connection.output(pb.GetOutputRequest(jobID=job_id)))
    assert caught.value.code == "UNAUTHENTICATED"
    assert caught.value.message.startswith(f"the certificate's CN {name!r} ")


def test_the_administrator_is_told_on_one_line(server: Server) -> None:
    refusals(server, named("alice\nroot", ["team-a"]))
    until(told(server, r"names nobody: the certificate's CN 'alice\nroot' may only hold"))


def test_the_name_that_others_resemble_is_let_in(server: Server) -> None:
    with calling(server, ALICE) as alice:
        assert alice.WhoAmI(pb.WhoAmIRequest()).commonName == ALICE
