"""A job's output and end, and what happens to jobs, read across broken connections."""

from collections.abc import Generator
from contextlib import closing

from jobworker.client.connection import Opened, Service
from jobworker.client.diagnosis import check_dates, explained
from jobworker.client.errors import BadFile, CallFailed, CertificateEnded, GaveUp, NotServed
from jobworker.client.flood import Flood
from jobworker.client.outage import Outage
from jobworker.client.pieces import Gap, Piece, chunk_of
from jobworker.proto import workerservice_pb2 as pb


def read_output(
    service: Service,
    request: pb.GetOutputRequest,
    outage: Outage | None = None,
    opened: Opened = lambda _: None,
) -> Generator[Piece, None, None]:
    """Yield what `request` selects of a job's output; it asks for raw.

    When the connection breaks, it goes on from the byte it had come to; so it
    does, by a faster way, when the output turns out to come in a flood. `opened` is
    told, each time, what ends it from another thread.

    Raises:
        CallFailed: The server refused.
        CertificateEnded: One's certificate has expired meanwhile, or was revoked.
        GaveUp: The connection broke and did not come back in time.
    """
    outage = outage or Outage()
    flood = Flood()
    # Where to go on; None before the first byte.
    offset: int | None = None
    while True:
        try:
            rest = request if offset is None else _from(offset, request)
            with closing(_pieces(service, rest, flood, opened)) as pieces:
                for piece in pieces:
                    outage.over()
                    offset = piece.end
                    yield piece
                    if flood.begins_with(piece.end - piece.offset):
                        break
                else:
                    return
        except CallFailed as error:
            if flood.flows and error.code == "RESOURCE_EXHAUSTED":
                # One connection too many; gRPC has one already.
                flood.dam()
            else:
                outlast(error, outage, service, f"the output of {request.jobID}")


def _pieces(
    service: Service, request: pb.GetOutputRequest, flood: Flood, opened: Opened
) -> Generator[Piece, None, None]:
    """What `request` selects, by the way that suits."""
    if flood.flows:
        try:
            with service.output_connection() as connection:
                opened(connection.hang_up)
                yield from connection.output(request, flood.rate)
            return
        except NotServed:
            flood.dam()
    with closing(service.output(request, opened)) as replies:
        for reply in replies:
            yield _piece(reply)


def _piece(reply: pb.GetOutputResponse) -> Piece:
    if reply.gapBytes:
        return Gap(reply.offset, reply.gapBytes)
    return chunk_of(reply, reply.offset, reply.data)


def _from(offset: int, request: pb.GetOutputRequest) -> pb.GetOutputRequest:
    """Return the request that goes on at `offset`, whatever it began with."""
    rest = pb.GetOutputRequest()
    rest.CopyFrom(request)
    for beginning in ("tailLines", "tailBytes", "since"):
        rest.ClearField(beginning)
    rest.offset = offset
    return rest


def wait_for_end(
    service: Service, request: pb.WaitRequest, outage: Outage | None = None
) -> pb.QueryStatusResponse:
    """Return a job's status once it has ended; a broken connection is outlasted.

    Raises:
        CallFailed: The server refused.
        CertificateEnded: One's certificate has expired meanwhile, or was revoked.
        GaveUp: The connection broke and did not come back in time.
    """
    outage = outage or Outage()
    while True:
        try:
            return service.wait(request)
        except CallFailed as error:
            outlast(error, outage, service, f"the end of {request.jobID}")


def read_events(
    service: Service, request: pb.EventsRequest, outage: Outage | None = None
) -> Generator[pb.Event, None, None]:
    """Yield the events that `request` selects; after a broken connection, from behind the last.

    Raises:
        CallFailed: The server refused.
        CertificateEnded: One's certificate has expired meanwhile, or was revoked.
        GaveUp: The connection broke and did not come back in time.
    """
    outage = outage or Outage()
    rest = pb.EventsRequest()
    rest.CopyFrom(request)
    while True:
        try:
            with closing(service.events(rest)) as events:
                for event in events:
                    outage.over()
                    rest.cursor = event.cursor
                    rest.ClearField("since")
                    if not event.at:
                        yield event
            return
        except CallFailed as error:
            outlast(error, outage, service, "the events")


def outlast(error: CallFailed, outage: Outage, service: Service, sought: str) -> None:
    """Wait out the outage that `error` tells of; raise it if it is none, or lasts too long.

    Certificate files that were renewed are taken up first.
    """
    if error.code == "ABORTED":
        # Whoever reads our output paused for longer than the server waits.
        return
    if error.code != "UNAVAILABLE":
        raise error
    if not service.renew():
        _check_certificate(error, outage, service, sought)
    if not outage.lasting:
        service.notice(
            f"lost the connection to {service.endpoint.server}; "
            f"going on with {sought} when it is back"
        )
    if not outage.wait():
        raise GaveUp(sought, error) from error


def _check_certificate(error: CallFailed, outage: Outage, service: Service, sought: str) -> None:
    """Raise CertificateEnded when it is that which broke the connection: no waiting mends it."""
    try:
        check_dates(service.endpoint)
        # To ask the server takes another connection; at first it may just be away.
        why = explained(error, service.endpoint) if outage.lasting else error
    except BadFile:
        # It may be being replaced at this moment.
        return
    except CallFailed as expired:
        why = expired
    if isinstance(why, CallFailed) and why.code == "UNAUTHENTICATED":
        raise CertificateEnded(sought, why.message) from error
