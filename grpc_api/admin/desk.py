"""The administrator's socket: who is at its other end is what the kernel says (unix(7)).

Root may, and the user the service was started by. The policy is not asked, so that
nobody is locked out by it; the audit log has it all.
"""

import asyncio
import logging
import pwd
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError

from jobworker.authz.audit.record import AuditError, Decided
from jobworker.grpc_api.admin.acts import Acts
from jobworker.grpc_api.admin.wire import LENGTH, frame, socket_path
from jobworker.grpc_api.errors import ApiError
from jobworker.grpc_api.guard.audit_trail import AuditTrail
from jobworker.proto import admin_pb2 as admin
from jobworker.supervisor import JobSnapshot, SupervisorError

log = logging.getLogger(__name__)

_CREDENTIALS = struct.Struct("=iII")
# A request has job IDs and words; nobody needs more.
_MAX_REQUEST = 1024 * 1024


class Peer(NamedTuple):
    """A process on this host, and whose it is."""

    pid: int
    uid: int
    gid: int

    @property
    def name(self) -> str:
        """The Unix user's name, its number if it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


class Desk:
    """Serves the socket. `owner` is the user ID that may use it, beside root's."""

    def __init__(self, acts: Acts, trail: AuditTrail, owner: int) -> None:
        self._acts = acts
        self._trail = trail
        self._owner = owner

    async def serve(self, runtime: Path) -> asyncio.Server:
        """Listen in the front's own directory, until the server that is returned is closed."""
        path = socket_path(runtime)
        path.unlink(missing_ok=True)
        return await asyncio.start_unix_server(self._attend, path)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = peer_of(writer.get_extra_info("socket"))
        end = admin.End()
        try:
            request = await self._request(reader)
            if peer.uid not in {0, self._owner}:
                self._record(peer, _act(request), None, "", allowed=False)
                end.refused = True
                raise ApiError(f"only root may, or the service's user; you are {peer.name}")
            replies = self._acts.perform(
                request, lambda act, job, words: self._record(peer, act, job, words, allowed=True)
            )
            async for reply in replies:
                await _send(writer, reply)
        except (ApiError, SupervisorError) as error:
            end.error = str(error)
        except (asyncio.IncompleteReadError, DecodeError, ConnectionError):
            # Nobody is there any more, or somebody who speaks otherwise.
            writer.close()
            return
        with suppress(ConnectionError):
            await _send(writer, admin.Reply(end=end))
            writer.close()
            await writer.wait_closed()

    async def _request(self, reader: asyncio.StreamReader) -> admin.Request:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        if length > _MAX_REQUEST:
            raise ApiError("the request is too long")
        return admin.Request.FromString(await reader.readexactly(length))

    def _record(
        self, peer: Peer, act: str, job: JobSnapshot | None, words: str, *, allowed: bool
    ) -> None:
        """Put it in the audit log; where that cannot be written, in the service's log alone."""
        log.info("admin %s%s by %s", act, f" of {job.id}" if job else "", peer.name)
        with suppress(AuditError):
            # It has been told by the trail; who must stop what fills the disk is not kept from it.
            self._trail.append(
                Decided(
                    cn=peer.name,
                    tenants=(),
                    serial="",
                    peer=f"unix:uid={peer.uid},pid={peer.pid}",
                    action=f"admin {act}",
                    job=job.id if job else "",
                    owner=job.owner if job else "",
                    tenant=job.tenant if job else "",
                    command=words,
                    command_sha256="",
                    allowed=allowed,
                    rule="the host's administrator" if allowed else "",
                    policy="",
                )
            )


def peer_of(sock: socket.socket) -> Peer:
    """Who is at the other end of a unix socket, as of when it was connected (SO_PEERCRED)."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Peer(*_CREDENTIALS.unpack(credentials))


def owner_of(state_dir: Path) -> int:
    """The user whom a service was started by, who owns its directory."""
    return state_dir.stat().st_uid


def _act(request: admin.Request) -> str:
    return request.WhichOneof("act") or "nothing"


async def _send(writer: asyncio.StreamWriter, reply: admin.Reply) -> None:
    writer.write(frame(reply.SerializeToString()))
    await writer.drain()
