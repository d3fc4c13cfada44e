"""What happens to jobs, read across broken connections."""

from collections.abc import Generator
from contextlib import closing

from jobworker.client.connection import Service
from jobworker.client.errors import CallFailed
from jobworker.client.follow import outlast
from jobworker.client.outage import Outage
from jobworker.proto import workerservice_pb2 as pb


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
