"""The asyncio client of a supervisor: requests that survive its restarts, and watching jobs."""

import asyncio
import builtins
import contextlib
import itertools
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jobworker.proto import ipc_pb2 as ipc
from jobworker.supervisor.errors import Exhausted, SupervisorError, SupervisorUnavailable
from jobworker.supervisor.ipc.handover import collect
from jobworker.supervisor.ipc.job_ids import JobIDs
from jobworker.supervisor.ipc.messages import error_of, stop_message
from jobworker.supervisor.ipc.snapshot import JobSnapshot
from jobworker.supervisor.ipc.watches import Watched, Watches
from jobworker.supervisor.ipc.wire import FrameProtocol
from jobworker.supervisor.job import AS_EVER, Asker, InputPiece, Received, StopWay
from jobworker.supervisor.keeper import packets

log = logging.getLogger(__name__)

# How long a request waits for a supervisor that is being restarted.
PATIENCE_SECONDS = 30.0
# How long a job's end may take to be put on record once that has failed.
RECORD_SECONDS = 3.0


@dataclass
class Attending:
    """Somebody attends to a job; `leaves` is set when they take leave of it."""

    leaves: bool = False


# Says of a job whose turn has come, and of who asked for it, whether it may be started.
Judge = Callable[[JobSnapshot, Asker], ipc.Admit]


class _Observer(NamedTuple):
    within_ns: Callable[[], int]
    told: Callable[[JobSnapshot], None]


class SupervisorClient:
    """Talks to the supervisor that the keeper connects it to, and to every one after that.

    All requests are idempotent: those without an answer are sent again to the
    next supervisor. Raises SupervisorUnavailable when there is none in time,
    else the errors of `errors`.
    """

    def __init__(self, control: socket.socket) -> None:
        """`control` is the packet socket on which the keeper sends the ends of pipes."""
        self._control = control
        self._observers: list[_Observer] = []
        self._judge: Judge | None = None
        self._protocol: FrameProtocol | None = None
        self._numbers = itertools.count(1)
        self._unanswered: dict[int, tuple[bytes, asyncio.Future[ipc.Reply]]] = {}
        self._watches = Watches(self._unwatch)
        self._connecting: set[asyncio.Task[None]] = set()
        self._keeper_gone = asyncio.Event()
        self._ids: JobIDs | None = None
        self._attending: dict[tuple[str, str], Attending] = {}

    def open(self) -> None:
        """Listen to the keeper, within the running event loop."""
        asyncio.get_running_loop().add_reader(self._control, self._readable)

    async def keeper_gone(self) -> None:
        """Return when the keeper has ended or tells this process to end."""
        await self._keeper_gone.wait()

    def close(self) -> None:
        """Disconnect; requests without an answer fail."""
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        if self._protocol is not None:
            self._protocol.close()
        self._fail_all()

    def abandon(self) -> None:
        """In a forked child: let the parent's end be the last, and touch nothing of its loop."""
        self._control.close()

    # -- requests ----------------------------------------------------------------

    async def new_id(self) -> str:
        """An ID for a new job, after that of every job there is."""
        if self._ids is None:
            newest = await self.list(ipc.List(limit=1))
            # Others may have asked meanwhile.
            self._ids = self._ids or JobIDs()
            for job in newest:
                self._ids.follow(job.id)
        return self._ids.next()

    async def start(self, request: ipc.Start) -> JobSnapshot:
        """Start a job, or find the one this request started before."""
        return await self._one(ipc.Request(start=request))

    async def may_start(self, request: ipc.Start) -> tuple[str, str]:
        """Why a job would not be started now, and the field that is why, if it is one.

        Both empty if it would be. Raises InvalidRequest.
        """
        reply = await self._call(ipc.Request(may_start=request))
        return reply.refusal, reply.field

    async def stop(
        self, job_id: str, grace: float | None = None, way: StopWay = AS_EVER
    ) -> JobSnapshot:
        """Begin to end a job's tree; what is None or left open is the job's own.

        `grace` is in seconds.
        """
        stop = ipc.Stop(id=job_id, grace_seconds=grace, way=stop_message(way))
        return await self._one(ipc.Request(stop=stop))

    async def end(
        self, job_id: str, grace: float | None = None, way: StopWay = AS_EVER
    ) -> JobSnapshot:
        """As `stop`; returns the job once none of its tree is left.

        Raises Exhausted when its end cannot be put on record.
        """
        async with self.watch(job_id) as watched:
            job = await self.stop(job_id, grace, way)
            seconds = RECORD_SECONDS + (job.request.graceSeconds if grace is None else grace)
            await watched.until(lambda job: job.unrecorded or (job.ended and job.gone))
            try:
                async with asyncio.timeout(seconds):
                    return await watched.until(lambda job: job.ended and job.gone)
            except TimeoutError:
                raise Exhausted(
                    f"job {job_id} has been told to end, which cannot be put on record: "
                    "is the disk of its state directory full?"
                ) from None

    async def signal(self, job_id: str, number: int, *, to_all: bool = False) -> JobSnapshot:
        """Signal a job's main process, or all of its processes. Raises AlreadyEnded."""
        signal = ipc.Signal(id=job_id, signal=number, all=to_all)
        return await self._one(ipc.Request(signal=signal))

    async def give(self, job_id: str, piece: InputPiece) -> Received:
        """Send a job input; how far it is then: after a while also where it takes nothing.

        Raises NoInput for a job that takes none.
        """
        given = ipc.Input(id=job_id, offset=piece.offset, data=piece.data, end=piece.end)
        reply = await self._call(ipc.Request(input=given))
        return Received(reply.received, reply.over)

    @asynccontextmanager
    async def attending(self, job_id: str, who: str) -> AsyncIterator[Attending]:
        """Attend to a job within the block; see there for how it ends. Raises NoSuchJob."""
        key = (job_id, who)
        attending = Attending()
        try:
            # It counts from when it is sent, not from when its answer is here.
            await self._call(ipc.Request(attend=ipc.Attend(id=job_id, who=who)))
            self._attending[key] = attending
            yield attending
        finally:
            self._attending.pop(key, None)
            gone = ipc.Attend(id=job_id, who=who, gone=2 if attending.leaves else 1)
            # Also where this is cancelled: a next supervisor is told, if need be.
            self._later(self._call(ipc.Request(attend=gone)))

    def _later(self, call: Coroutine[Any, Any, object]) -> None:
        async def made() -> None:
            with contextlib.suppress(SupervisorError):
                await call

        task = asyncio.get_running_loop().create_task(made())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def resize(self, job_id: str, rows: int, columns: int) -> None:
        """Set the size of a job's terminal. Raises NoInput for a job that has none."""
        await self._call(ipc.Request(resize=ipc.Resize(id=job_id, rows=rows, columns=columns)))

    async def pause(self, job_id: str) -> JobSnapshot:
        """Have a job's tree stand still. Raises AlreadyEnded and NotRunning."""
        return await self._one(ipc.Request(pause=ipc.Pause(id=job_id)))

    async def resume(self, job_id: str) -> JobSnapshot:
        """Have it go on. Raises AlreadyEnded and NotRunning."""
        return await self._one(ipc.Request(resume=ipc.Resume(id=job_id)))

    async def connect(self, job_id: str, port: int) -> socket.socket:
        """A connection to a TCP port at which a process of the job listens.

        Raises AlreadyEnded, NothingListens and Exhausted.
        """
        return await self._offered(ipc.Request(connect=ipc.Connect(id=job_id, port=port)))

    async def porter(self, job_id: str, *, put: bool) -> socket.socket:
        """A connection to a porter for one file of the job's: see Carriage.

        Raises NotRunning for a job that has not begun, AlreadyEnded for one of whose files
        nothing is left, CannotPlace and Exhausted.
        """
        return await self._offered(ipc.Request(porter=ipc.Porter(id=job_id, put=put)))

    async def _offered(self, request: ipc.Request) -> socket.socket:
        offer = (await self._call(request)).offer
        directory = Path(os.fsdecode(offer.directory))
        try:
            descriptor = await asyncio.to_thread(collect, directory, offer.token)
        except OSError as error:
            raise SupervisorUnavailable(f"the connection was lost on its way: {error}") from error
        return socket.socket(fileno=descriptor)

    async def start_of(self, job_id: str) -> ipc.Start:
        """All that a job was asked for with, its environment too. Raises NoSuchJob."""
        return (await self._call(ipc.Request(start_of=ipc.Get(id=job_id)))).start

    async def get(self, job_id: str) -> JobSnapshot:
        """The job as it is. Raises NoSuchJob."""
        return await self._one(ipc.Request(get=ipc.Get(id=job_id)))

    async def remove(self, job_id: str) -> None:
        """Forget a job that has ended, and its output. Raises StillRunning."""
        await self._call(ipc.Request(remove=ipc.Remove(id=job_id)))

    async def list(self, query: ipc.List) -> list[JobSnapshot]:
        """A page of jobs, newest first."""
        reply = await self._call(ipc.Request(list=query))
        return [JobSnapshot.from_message(job) for job in reply.jobs]

    async def owners(self) -> builtins.list[tuple[str, str]]:
        """Everybody who has a job, with each tenant it is for."""
        reply = await self._call(ipc.Request(owners=ipc.Owners()))
        return [(one.owner, one.tenant) for one in reply.owners]

    async def add_schedule(self, asked: ipc.Schedule) -> ipc.Schedule:
        """Have something run again and again. Raises InvalidRequest, NameTaken and Exhausted."""
        return (await self._call(ipc.Request(schedule=asked))).schedules[0]

    async def schedules(self, owner: str = "") -> builtins.list[ipc.Schedule]:
        """The schedules of an owner, or of all."""
        reply = await self._call(ipc.Request(schedules=ipc.Schedules(owner=owner)))
        return builtins.list(reply.schedules)

    async def change_schedule(self, asked: ipc.ChangeSchedule) -> ipc.Schedule:
        """Change a schedule; as it was for one that is removed. Raises NoSuchSchedule."""
        return (await self._call(ipc.Request(change_schedule=asked))).schedules[0]

    @asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Watched]:
        """Follow a job's state; its first is there on entering. Raises NoSuchJob."""
        with self._watches.following(job_id) as watched:
            if watched.job is None:
                await self._call(ipc.Request(watch=ipc.Watch(id=job_id)))
            yield watched

    def _unwatch(self, job_id: str) -> None:
        self._send_only(ipc.Request(unwatch=ipc.Unwatch(id=job_id)))

    def observe(self, within_ns: Callable[[], int], told: Callable[[JobSnapshot], None]) -> None:
        """Have `told` called with every job whose state is another; more often does no harm.

        At first, and whenever there is a new supervisor, it is called for those
        that have not ended, and for those that ended `within_ns()` ago or later.
        """
        self._observers.append(_Observer(within_ns, told))
        self._observe_on()

    def _observe_on(self) -> None:
        if self._observers:
            within_ns = max(one.within_ns() for one in self._observers)
            self._send_only(ipc.Request(observe=ipc.Observe(within_ns=within_ns)))

    def judge_turns(self, judge: "Judge") -> None:
        """Be asked whether a job that waited may be started, whenever the turn of one has come.

        Of its Admit, the ID is filled in here.
        """
        self._judge = judge
        self._send_only(ipc.Request(turns=ipc.Turns()))

    def _turn(self, turn: ipc.Turn) -> None:
        if self._judge is None:
            return
        asker = Asker(tuple(turn.asker.tenants), turn.asker.serial, turn.asker.not_after_us)
        try:
            admit = self._judge(JobSnapshot.from_message(turn.job), asker)
        except Exception as error:
            # Unanswered, it would wait for ever.
            log.exception("job %s could not be judged", turn.job.id)
            admit = ipc.Admit(drained=f"whether it may be started cannot be told: {error}")
        admit.id = turn.job.id
        self._later(self._call(ipc.Request(admit=admit)))

    async def _one(self, request: ipc.Request) -> JobSnapshot:
        reply = await self._call(request)
        return JobSnapshot.from_message(reply.jobs[0])

    async def _call(self, request: ipc.Request) -> ipc.Reply:
        number = request.seq = next(self._numbers)
        frame = request.SerializeToString()
        answer: asyncio.Future[ipc.Reply] = asyncio.get_running_loop().create_future()
        self._unanswered[number] = (frame, answer)
        if self._protocol is not None:
            self._protocol.send(frame)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reply = await answer
        except TimeoutError:
            raise SupervisorUnavailable(
                f"the supervisor did not answer within {PATIENCE_SECONDS:g} s"
            ) from None
        finally:
            self._unanswered.pop(number, None)
        if reply.code != ipc.OK:
            raise error_of(reply)
        return reply

    def _send_only(self, request: ipc.Request) -> int:
        """Send a request whose answer nobody waits for; its sequence number."""
        number = request.seq = next(self._numbers)
        if self._protocol is not None:
            self._protocol.send(request.SerializeToString())
        return number

    # -- connections ---------------------------------------------------------------

    def _readable(self) -> None:
        match packets.receive(self._control):
            case (("client",), (descriptor,)):
                task = asyncio.get_running_loop().create_task(self._connect(descriptor))
                self._connecting.add(task)
                task.add_done_callback(self._connecting.discard)
            case None:
                asyncio.get_running_loop().remove_reader(self._control)
                self._keeper_gone.set()

    async def _connect(self, descriptor: int) -> None:
        end = socket.socket(fileno=descriptor)
        end.setblocking(False)
        protocol = FrameProtocol(self._received, lambda: self._lost(protocol))
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, end)
        self._protocol = protocol
        self._observe_on()
        if self._judge is not None:
            self._send_only(ipc.Request(turns=ipc.Turns()))
        for job_id, who in self._attending:
            self._send_only(ipc.Request(attend=ipc.Attend(id=job_id, who=who)))
        for frame, _ in list(self._unanswered.values()):
            protocol.send(frame)
        self._watches.renew(lambda job_id: self._send_only(ipc.Request(watch=ipc.Watch(id=job_id))))

    def _lost(self, protocol: FrameProtocol) -> None:
        if self._protocol is protocol:
            self._protocol = None

    def _received(self, frame: bytes) -> None:
        event = ipc.Event.FromString(frame)
        match event.WhichOneof("event"):
            case "changed":
                self._watches.changed(event.changed.job)
                if self._observers:
                    job = JobSnapshot.from_message(event.changed.job)
                    for observer in self._observers:
                        observer.told(job)
            case "removed":
                self._watches.removed(event.removed)
            case "turn":
                self._turn(event.turn)
            case "reply":
                self._watches.answered(event.reply)
                _, answer = self._unanswered.get(event.reply.seq, (b"", None))
                if answer is not None and not answer.done():
                    answer.set_result(event.reply)

    def _fail_all(self) -> None:
        for _, answer in self._unanswered.values():
            if not answer.done():
                answer.set_exception(SupervisorUnavailable("the connection was closed"))
        self._watches.end(SupervisorUnavailable("the connection was closed"))
