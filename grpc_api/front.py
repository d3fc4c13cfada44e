"""The front's process: TLS edge, gRPC, authorization. It can be killed without a job noticing."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Never

import grpc
import msgspec
import uvloop
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from jobworker.authz.audit.record import AuditError
from jobworker.authz.errors import AuthzError
from jobworker.authz.policy.in_force import PolicyInForce
from jobworker.console.calls import Calls
from jobworker.grpc_api.admin.acts import Acts
from jobworker.grpc_api.admin.desk import Desk, owner_of
from jobworker.grpc_api.admin.drain import Drain
from jobworker.grpc_api.check import tls_files
from jobworker.grpc_api.config import ServerConfig
from jobworker.grpc_api.edge.admission import EdgeLimits
from jobworker.grpc_api.edge.edge import Edge
from jobworker.grpc_api.edge.tls import FOR_BROWSERS
from jobworker.grpc_api.errors import ApiError
from jobworker.grpc_api.guard.access import Access
from jobworker.grpc_api.guard.audit_trail import open_trail
from jobworker.grpc_api.guard.call_counter import CallCounter
from jobworker.grpc_api.guard.guard import Guard
from jobworker.grpc_api.guard.job_trail import keep_recording
from jobworker.grpc_api.privileges import become_front, warning
from jobworker.grpc_api.service.output_service import OutputService
from jobworker.grpc_api.service.service import WorkerService
from jobworker.grpc_api.service.turns import Turns
from jobworker.grpc_api.upkeep.expiry import watch_expiry
from jobworker.grpc_api.upkeep.file_watch import FileWatch
from jobworker.grpc_api.upkeep.health import Health, watch_supervisor
from jobworker.grpc_api.upkeep.memory import KEPT_BYTES, give_back_freed_memory
from jobworker.grpc_api.upkeep.reload import keep_reloading, policy_files, policy_source, tls_source
from jobworker.proto.workerservice_pb2_grpc import add_WorkerServiceServicer_to_server
from jobworker.supervisor import (
    REFUSED,
    Line,
    SupervisorClient,
    keep_freed_memory,
    log_environment,
    log_to_stderr,
)

if TYPE_CHECKING:
    from jobworker.console.console import Console

log = logging.getLogger(__name__)

# How long calls in progress have to end by themselves when the front ends, and how long
# handshakes have to come to their end.
END_SECONDS = 1.0
ARRIVE_SECONDS = 2.0
# How long gRPC may take to begin a call that it was handed.
HANDED_SECONDS = 0.25
_OPTIONS = (
    # Calls that wait to be begun, beyond which gRPC would drop others', too: it does not
    # know whose they are. What one client may have at once is bounded for each connection.
    ("grpc.server.max_pending_requests", 1_000_000),
    ("grpc.server.max_pending_requests_hard_limit", 1_000_000),
    # The largest StartRequest the supervisor takes is 1 MiB.
    # The longest command line that execve(2) takes (6 MiB), and what comes with it.
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    # Clients may ping as often as they like, also without a call: the edge bounds it.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    # Only the edge connects, over a unix socket: no probing for a slow network.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.so_reuseport", 0),
)


def main(config: str, line: Line) -> None:
    """Serve until the keeper ends. Exits with REFUSED when no restart could help."""
    settings = msgspec.json.decode(config, type=ServerConfig)
    # A keeper of before an upgrade has not set it.
    os.environ.update(log_environment(settings.log.format, settings.log.level))
    log_to_stderr("front")
    # It prints its model, line by line.
    logging.getLogger("casbin").setLevel(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    become_front(settings)
    keep_freed_memory(KEPT_BYTES)
    if shared := warning(settings.supervisor()):
        log.warning("%s", shared)
    try:
        uvloop.run(_serve(settings, line))
    except AuditError as error:
        # The disk may be full, or the former front not quite gone: try again.
        log.error("%s", error)
        _end(1)
    except (ApiError, AuthzError) as error:
        log.error("%s", error)
        _end(REFUSED)
    except BrokenPipeError:
        # The keeper has gone while this front began; there is nobody to serve for.
        _end(0)
    _end(0)


def _end(status: int) -> Never:
    """End at once: what is left of gRPC is threads, and a server that misses its event loop."""
    logging.shutdown()
    os._exit(status)


async def _serve(config: ServerConfig, line: Line) -> None:
    supervisor = SupervisorClient(line.control)
    supervisor.open()
    files = tls_files(config)
    # Before they are read for the first time, so that no change is missed.
    watch = FileWatch((*files.all(), *policy_files(Path(config.policy))))
    backend = _backend(config)
    edge = Edge(files, backend, _limits(config))
    policy = PolicyInForce(Path(config.policy))
    access = Access(policy, supervisor)
    health = Health()
    await health.begin()
    trail = open_trail(config.audit, partial(health.tell_soon, "audit"))
    guard = Guard(edge, access, trail, stall_seconds=config.connections.stall_seconds)
    drain = Drain(config.runtime_directory())
    calls = CallCounter()
    streams = ("grpc.max_concurrent_streams", config.connections.streams)
    server = grpc.aio.server(interceptors=[calls, guard], options=(*_OPTIONS, streams))
    service = WorkerService(
        access,
        config.supervisor(),
        config.output,
        config.quotas,
        lambda: drain.words,
        config.tls.renewal,
    )
    add_WorkerServiceServicer_to_server(service, server)
    turns = Turns(policy, config.quotas, trail, revoked=edge.revoked, drained=lambda: drain.words)
    supervisor.judge_turns(turns.judge)
    add_HealthServicer_to_server(health, server)
    if config.reflection:
        # Those who do without need not wait for the import.
        from jobworker.grpc_api.service.reflection import add_reflection

        add_reflection(server)
    server.add_insecure_port(f"unix:{backend}")
    await server.start()
    edge.serve_output(_output_service(config, guard, calls, supervisor).serve)
    host, port = await edge.start(*config.address(), line.listening)
    console = await _console(config, Calls(guard, access, service, calls), line)
    edges = [edge, console.edge] if console else [edge]
    if (metrics := config.metrics.address()) is not None:
        # Those who do without need not wait for the import.
        from jobworker.grpc_api.upkeep.metrics import Counted, serve_metrics

        counted = Counted(calls, edges, health, policy, supervisor, trail)
        serve_metrics(counted, *metrics)
    sources = (policy_source(policy, guard.review), tls_source(edges, files))
    # The keeper holds them, too, so that clients can connect while there is no front.
    line.send(("listening",), sum((one.listening() for one in edges), ()))
    for kept in line.listening:
        kept.close()
    state_dir = Path(config.state_dir)
    acts = Acts(supervisor, drain, state_dir / "output", partial(_reread, edges))
    desk = await Desk(acts, trail, owner_of(state_dir)).serve(config.runtime_directory())
    line.send(("up", "front", f"{host}:{port}"), urgent=True)
    await _work_until_gone(
        supervisor,
        keep_reloading(watch, sources, health.tell),
        watch_expiry(edge, files, health.tell),
        watch_supervisor(supervisor, health.tell),
        keep_recording(supervisor, trail, config.audit),
        give_back_freed_memory(),
    )
    desk.close()
    await asyncio.gather(*(one.close(ARRIVE_SECONDS) for one in (edge, console) if one))
    await _caught_up(calls, edge.streams)
    # gRPC tells the clients to connect anew (GOAWAY, RFC 9113, 6.8), and so those
    # whose calls end here find the next front.
    stopping = asyncio.ensure_future(server.stop(2 * END_SECONDS))
    await guard.finish(END_SECONDS)
    await stopping
    await asyncio.gather(*(one.stop(END_SECONDS) for one in (edge, console) if one))


async def _work_until_gone(
    supervisor: SupervisorClient, *work: Coroutine[None, None, Never]
) -> None:
    """Do work without end until the keeper goes; an error of any ends the front instead."""
    gone = asyncio.ensure_future(supervisor.keeper_gone())
    working = [asyncio.ensure_future(one) for one in work]
    await asyncio.wait([gone, *working], return_when=asyncio.FIRST_COMPLETED)
    for one in working:
        if one.done():
            one.result()
        one.cancel()


def _reread(edges: Sequence[Edge]) -> None:
    """Put the edges' files in force as they are now. Raises TlsError."""
    for edge in edges:
        edge.reload()


async def _caught_up(calls: CallCounter, streams: int) -> None:
    """Wait until gRPC has begun the calls it was handed: those in between it would drop.

    Not for long, as it begins none for a stream that breaks its rules.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + HANDED_SECONDS
    while calls.begun < streams and loop.time() < deadline:
        await asyncio.sleep(0.002)


def _output_service(
    config: ServerConfig, guard: Guard, calls: CallCounter, supervisor: SupervisorClient
) -> OutputService:
    directory = Path(config.state_dir) / "output"
    return OutputService(guard, calls, supervisor, directory, config.connections.stall_seconds)


def _backend(config: ServerConfig) -> Path:
    """Where gRPC listens for the edge; free of what an earlier front left there."""
    path = config.runtime_directory() / "grpc.sock"
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return path


async def _console(config: ServerConfig, calls: Calls, line: Line) -> "Console | None":
    """The web pages, where the settings want them; with an edge of their own, and its counts."""
    if (address := config.console.address()) is None:
        return None
    # Those who do without need not wait for the import.
    from jobworker.console.console import Console
    from jobworker.console.site import Places

    backend = config.runtime_directory() / "web.sock"
    edge = Edge(tls_files(config), backend, _limits(config), FOR_BROWSERS)
    settings, stall = config.console, config.connections.stall_seconds
    audit = Path(config.audit.directory) if config.audit.directory else None
    console = Console(edge, calls, settings.hosts, stall, Places(Path(config.state_dir), audit))
    await console.start(backend, address, line.listening)
    return console


def _limits(config: ServerConfig) -> EdgeLimits:
    asked = config.connections
    return EdgeLimits(
        connections=asked.total,
        connections_per_name=asked.per_name,
        handshake_seconds=asked.handshake_seconds,
        idle_frames=asked.streams + asked.streams // 5,
    )
