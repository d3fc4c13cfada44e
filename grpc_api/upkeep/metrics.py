"""What the server counts, as text for Prometheus at http://HOST:PORT/metrics.

Totals alone, with no name of a user, a tenant or a job: a reader is not asked
who they are.
"""

import asyncio
import logging
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, MetricsHandler, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from jobworker.authz.policy.in_force import PolicyInForce
from jobworker.grpc_api.edge.edge import Edge
from jobworker.grpc_api.errors import ListenError
from jobworker.grpc_api.guard.audit_trail import AuditTrail
from jobworker.grpc_api.guard.call_counter import CallCounter
from jobworker.grpc_api.upkeep.health import Health
from jobworker.proto import ipc_pb2 as ipc
from jobworker.supervisor import (
    SupervisorClient,
    SupervisorError,
)

log = logging.getLogger(__name__)

# How long the event loop may take to answer, and the supervisor's part of that.
_ANSWER_SECONDS = 5.0
_SUPERVISOR_SECONDS = 2.0
# How long a reader may take to say something, or to read something.
_READER_SECONDS = 2.0
_PAGE = 1000


class Counted(NamedTuple):
    """Those who know what is told; they belong to the event loop."""

    calls: CallCounter
    # The first is that of the command's port, the other that of the console.
    edges: Sequence[Edge]
    health: Health
    policy: PolicyInForce
    supervisor: SupervisorClient
    trail: AuditTrail


def serve_metrics(counted: Counted, host: str, port: int) -> None:
    """Serve on an address, in a thread, until the process ends. Raises ListenError."""
    registry = CollectorRegistry()
    registry.register(_Totals(counted, asyncio.get_running_loop()))
    ProcessCollector(registry=registry)
    try:
        server = _Server(host, port, _Reader.factory(registry))
    except OSError as error:
        reason = error.strerror or error
        raise ListenError(f"cannot serve metrics on {host}:{port}: {reason}") from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class _Reader(MetricsHandler):
    timeout = _READER_SECONDS


class _Server(socketserver.TCPServer):
    """Answers one reader at a time: those who connect never hold more than a descriptor."""

    allow_reuse_address = True

    def __init__(self, host: str, port: int, reader: Callable[..., _Reader]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), reader)

    def handle_error(self, request: Any, client_address: Any) -> None:
        del request
        log.warning("cannot tell the metrics to %s", client_address, exc_info=True)


class _Totals(Collector):
    """Asks for everything when somebody reads."""

    def __init__(self, counted: Counted, loop: asyncio.AbstractEventLoop) -> None:
        self._counted = counted
        self._loop = loop

    def collect(self) -> Iterable[Metric]:
        asked = asyncio.run_coroutine_threadsafe(_metrics(self._counted), self._loop)
        return asked.result(_ANSWER_SECONDS)


async def _metrics(counted: Counted) -> list[Metric]:
    running = await _running(counted.supervisor)
    return [*_counters(counted), *_gauges(counted, running)]


def _counters(counted: Counted) -> Iterator[Metric]:
    policy, trail = counted.policy, counted.trail
    decisions = [
        ((action, "allow" if allowed else "deny"), count)
        for (action, allowed), count in trail.decisions.items()
    ]
    calls = counted.calls.ended.items()
    turned_away = sum((edge.refused for edge in counted.edges), Counter[str]())
    refused = [((reason,), count) for reason, count in turned_away.items()]
    yield _counter("policy_loads", "Policies put in force", policy.loads)
    yield _counter("policy_refusals", "Policies refused at a reload", policy.refusals)
    yield _counter("decisions", "Decisions on requests", decisions, "action", "decision")
    yield _counter("audit_failures", "Events that could not be recorded", trail.failures)
    yield _counter("calls", "Calls that ended", calls, "method", "code")
    yield _counter("connections_refused", "Connections refused", refused, "reason")


def _gauges(counted: Counted, running: int | None) -> Iterator[Metric]:
    policy, parts = counted.policy, counted.health.parts
    serving = [((part,), int(serves)) for part, serves in parts.items()]
    yield _gauge("policy_info", "The policy in force", [((policy.version,), 1)], "version")
    yield _gauge("serving", "Whether health says that a part serves", serving, "part")
    expiries = counted.edges[0].expiries
    ends = [((part,), int(end.timestamp())) for part, end in expiries.items()]
    yield _gauge("tls_expiry_seconds", "When a TLS file expires, Unix time", ends, "part")
    connections = sum(len(edge.connections()) for edge in counted.edges)
    yield _gauge("connections", "Connections that are open", connections)
    if running is not None:
        yield _gauge("running_jobs", "Jobs that have not ended", running)


async def _running(supervisor: SupervisorClient) -> int | None:
    """How many jobs have not ended; None while the supervisor does not answer."""
    count, before = 0, ""
    try:
        async with asyncio.timeout(_SUPERVISOR_SECONDS):
            while True:
                page = await supervisor.list(ipc.List(before=before, limit=_PAGE, running=True))
                count += len(page)
                if len(page) < _PAGE:
                    return count
                before = page[-1].id
    except (TimeoutError, SupervisorError):
        return None


# One number, or one for each combination of labels.
_Values = int | Iterable[tuple[tuple[str, ...], int]]


def _counter(name: str, text: str, values: _Values, *labels: str) -> Metric:
    return _filled(CounterMetricFamily(f"jobworker_{name}", text, labels=labels), values)


def _gauge(name: str, text: str, values: _Values, *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(f"jobworker_{name}", text, labels=labels), values)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: _Values) -> Metric:
    for labels, value in [((), values)] if isinstance(values, int) else values:
        family.add_metric(labels, value)
    return family
