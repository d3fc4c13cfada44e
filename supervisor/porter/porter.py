"""The porter's process: one file into a job's directory, or out of it, as the job's user.

It is executed by its path, as

    python -IS porter.py SOCKET

and imports the standard library alone: what the job's user may read of this package, and
what is seen in the job's sandbox, is nobody's concern then. It becomes the job's user, in
the job's mounts where those are its own, before it looks at any path.

On the socket, either way, come frames: a kind, four bytes of length, so many bytes. JSON
holds paths as Latin-1, by which any bytes are text. First come the supervisor's orders,
then what the front asks for. Of a put the porter tells how much it has already, is sent
the rest and an empty JSON, and answers when the file stands at its place. Of a get it
tells what there is, sends it, and then its hash. Whatever does not go ends with FAILED.

Paths resolve beneath the job's directory (openat2(2), RESOLVE_BENEATH): a link is followed
as long as it stays there. What is put is written beside its place, under a name made of
its hash, and renamed at the end; what is there of it already is gone on with.
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import select
import socket
import stat
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

# Kinds of frames.
JSON, DATA, FAILED = b"J", b"D", b"F"
HEAD = struct.Struct("!cI")
MAX_JSON = 64 * 1024
CHUNK_BYTES = 256 * 1024
# Of data in one frame, from whoever sends it.
MAX_DATA = 1024 * 1024
# How FAILED says what it was; carriage.py makes errors of them.
REFUSED, MISSING, NO_ROOM, CHANGED, BUSY, UNABLE = (
    *("refused", "missing", "no room", "changed", "busy", "unable"),
)
# What is not there as a whole yet: .NAME.jobworker-part-HASH.
PART = ".jobworker-part-"
_HASH_CHARACTERS = 16
_MAX_NAME = 255
NICENESS = 10
# For how long another porter with the same file is waited for: it may just have been left.
BUSY_SECONDS = 5.0
_LOOK_SECONDS = 0.02
# After so many bytes it is looked again whether the disk has room.
_LOOK_BYTES = 16 * 1024 * 1024
# Unless somebody says how much, a tenth of a small file system stays free: see disk_space.py.
_LEAST_FREE = 64 * 1024 * 1024

# linux/openat2.h, and its number on every architecture.
_OPENAT2 = 437
_NO_MAGICLINKS, _BENEATH = 0x02, 0x08
_TRIES = 16
# linux/prctl.h, linux/capability.h
_SET_DUMPABLE, _SET_NO_NEW_PRIVILEGES = 4, 38
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """It cannot be done; `kind` is one of those above."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Root(NamedTuple):
    """A directory that paths may lead into: what it is called, and the open one."""

    name: bytes
    descriptor: int


# -- frames ----------------------------------------------------------------------------------------


def send(line: socket.socket, kind: bytes, payload: bytes) -> None:
    """Send a frame. Raises EOFError where nobody takes it."""
    try:
        line.sendall(HEAD.pack(kind, len(payload)))
        line.sendall(payload)
    except ConnectionError:
        raise EOFError from None


def send_json(line: socket.socket, value: dict[str, Any]) -> None:
    """Send a frame of JSON."""
    send(line, JSON, json.dumps(value).encode())


def receive(line: socket.socket) -> tuple[bytes, bytes]:
    """The next frame. Raises EOFError where there is none, or half of one."""
    kind, length = HEAD.unpack(_exactly(line, HEAD.size))
    if length > (MAX_DATA if kind == DATA else MAX_JSON):
        raise EOFError
    return kind, _exactly(line, length)


def receive_json(line: socket.socket) -> dict[str, Any]:
    """The next frame, which is JSON. Raises EOFError."""
    kind, payload = receive(line)
    if kind != JSON:
        raise EOFError
    value: dict[str, Any] = json.loads(payload)
    return value


def _exactly(line: socket.socket, count: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < count:
        try:
            piece = line.recv(count - len(pieces))
        except ConnectionError:
            piece = b""
        if not piece:
            raise EOFError
        pieces += piece
    return bytes(pieces)


def check_wanted(line: socket.socket) -> None:
    """Raise EOFError where nobody waits any more, for a porter that is busy without sending."""
    poll = select.poll()
    poll.register(line, select.POLLRDHUP)
    if poll.poll(0):
        raise EOFError


def shown(path: bytes) -> str:
    """A path as people read it."""
    return path.decode("utf-8", "backslashreplace")


# -- becoming who the job is ---------------------------------------------------------------------


def become(orders: dict[str, Any]) -> None:
    """Be the job's user, in its mounts, without privileges. Raises Failed."""
    try:
        if orders["user"] is not None:
            uid, gid, groups = orders["user"]
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        # Who else runs as this user has no way into this process.
        _libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
        _check(_libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
        if orders["entrance"] is not None:
            pidfd, namespaces = orders["entrance"]
            _check(_libc.setns(pidfd, namespaces))
            os.close(pidfd)
            _give_up_capabilities()
    except ProcessLookupError:
        raise Failed(UNABLE, "the job has just ended: ask again") from None
    except OSError as error:
        raise Failed(UNABLE, f"the job's place cannot be entered: {error.strerror}") from error


def _give_up_capabilities() -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


# -- paths -----------------------------------------------------------------------------------------


def open_roots(orders: dict[str, Any]) -> list[Root]:
    """The directories that paths may lead into; relative ones into the first. Raises Failed."""
    roots: list[Root] = []
    for base, name in orders["roots"]:
        wanted = name.encode("latin-1")
        try:
            descriptor = os.open(base.encode("latin-1"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            if base != "/":
                # That directory is the user's own place, and its links may lead out of it.
                rest = os.path.relpath(wanted, base.encode("latin-1"))
                descriptor = beneath(descriptor, rest, os.O_PATH | os.O_DIRECTORY)
            else:
                descriptor = os.open(wanted, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if roots:
                continue
            why = f"the job's directory {shown(wanted)} cannot be opened: {error.strerror}"
            raise Failed(MISSING, why) from error
        roots.append(Root(wanted, descriptor))
    return roots


def beneath(directory: int, path: bytes, flags: int) -> int:
    """Open a path that leads nowhere but beneath a directory. Raises OSError: EXDEV if it does."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, _BENEATH | _NO_MAGICLINKS)
    for left in reversed(range(_TRIES)):
        found = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_long(directory),
            ctypes.c_char_p(path or b"."),
            ctypes.c_char_p(how),
            ctypes.c_size_t(len(how)),
        )
        try:
            return _check(found)
        except BlockingIOError:
            # Something was renamed on the way: whether it leads out is not known.
            if not left:
                raise
    raise AssertionError


def place_of(roots: list[Root], path: bytes) -> tuple[Root, bytes]:
    """The root that a path is beneath, and the rest of it. Raises Failed."""
    if b"\0" in path:
        raise Failed(MISSING, "a path has no NUL in it")
    if not path.startswith(b"/"):
        return roots[0], path
    for root in roots:
        top = root.name.rstrip(b"/") + b"/"
        if (path + b"/").startswith(top):
            return root, path[len(top) :].lstrip(b"/")
    raise _leads_out(roots, path)


def _leads_out(roots: list[Root], path: bytes) -> Failed:
    places = " and ".join(shown(root.name) for root in roots)
    return Failed(
        REFUSED, f"{shown(path)} leads out of the job's directory: files are beneath {places} alone"
    )


@contextlib.contextmanager
def telling(roots: list[Root], path: bytes) -> Iterator[None]:
    """Raise Failed for what the kernel refuses in the block."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise _leads_out(roots, path) from error
        kind, words = _REASONS.get(error.errno or 0, (REFUSED, os.strerror(error.errno or 0)))
        raise Failed(kind, f"{shown(path)}: {words}") from error


_REASONS = {
    errno.ENOENT: (MISSING, "there is no such file or directory in the job's directory"),
    errno.ENOTDIR: (MISSING, "what the path leads through is not a directory"),
    errno.ENAMETOOLONG: (MISSING, "the name is too long"),
    errno.EISDIR: (MISSING, "it is a directory, and files alone are carried"),
    errno.ENXIO: (MISSING, "it is not a regular file"),
    errno.EACCES: (REFUSED, "the job's user may not do that (permission denied)"),
    errno.EPERM: (REFUSED, "the job's user may not do that (operation not permitted)"),
    errno.EROFS: (REFUSED, "the job may not write there (read-only file system)"),
    errno.ELOOP: (REFUSED, "the path leads through too many links, or one that is not followed"),
    errno.ENOSPC: (NO_ROOM, "there is no space left on the disk"),
    errno.EDQUOT: (NO_ROOM, "the disk quota of the job's user is used up"),
    errno.EFBIG: (NO_ROOM, "the file is larger than that file system, or its limit, takes"),
    errno.ENOSYS: (UNABLE, "this host's kernel is too old for it (it takes Linux 5.6)"),
}


def _check_regular(found: os.stat_result, path: bytes) -> None:
    """Raise Failed for what is no regular file."""
    if stat.S_ISREG(found.st_mode):
        return
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    what = kinds.get(stat.S_IFMT(found.st_mode), "a device")
    raise Failed(MISSING, f"{shown(path)} is {what}: regular files alone are carried")


# -- out -------------------------------------------------------------------------------------------


def get(line: socket.socket, roots: list[Root], asked: dict[str, Any]) -> None:
    """Send a file: what there is of it, its bytes from `offset` on, the hash of all. Raises Failed.

    It begins at 0 where it is not the file of `version` any more.
    """
    path = asked["path"].encode("latin-1")
    root, rest = place_of(roots, path)
    with telling(roots, path):
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        descriptor = beneath(root.descriptor, rest, flags)
        found = os.fstat(descriptor)
    _check_regular(found, path)
    version = f"{found.st_dev:x}-{found.st_ino:x}-{found.st_ctime_ns:x}-{found.st_size:x}"
    offset = asked["offset"] if asked["version"] == version else 0
    mode = stat.S_IMODE(found.st_mode) & 0o777
    begun = {"size": found.st_size, "mode": mode, "offset": offset, "version": version}
    send_json(line, begun)
    digest, position = hashlib.sha256(), 0
    while position < found.st_size:
        # Together they do not run over the place where the sending begins.
        most = min(CHUNK_BYTES, (offset if position < offset else found.st_size) - position)
        with telling(roots, path):
            piece = os.pread(descriptor, most, position)
        if not piece:
            raise Failed(CHANGED, f"{shown(path)} was made shorter while it was read")
        digest.update(piece)
        if position >= offset:
            send(line, DATA, piece)
        else:
            check_wanted(line)
        position += len(piece)
    now = os.fstat(descriptor)
    changed = (now.st_mtime_ns, now.st_size) != (found.st_mtime_ns, found.st_size)
    send_json(line, {"sha256": digest.hexdigest(), "changed": changed})


# -- in --------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """Where a file is put: the name in a directory, and the path that was asked for."""

    directory: int
    name: bytes
    path: bytes


def target_of(roots: list[Root], asked: dict[str, Any]) -> Target:
    """Where it is to be: in a directory under its own name, else at the path. Raises Failed."""
    path = asked["path"].encode("latin-1")
    root, rest = place_of(roots, path)
    above, slash, name = rest.rpartition(b"/")
    flags = os.O_PATH | os.O_DIRECTORY
    with telling(roots, path):
        try:
            directory = beneath(root.descriptor, rest, flags)
        except (FileNotFoundError, NotADirectoryError):
            if name in (b"", b".", b".."):
                raise
            directory = beneath(root.descriptor, above + slash, flags)
        else:
            name = asked["name"].encode("latin-1")
            path = path.rstrip(b"/") + b"/" + name if path else name
    if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise Failed(MISSING, f"{shown(name)!r} is no name for a file")
    with telling(roots, path), contextlib.suppress(FileNotFoundError):
        _check_regular(os.stat(name, dir_fd=directory, follow_symlinks=False), path)
    return Target(directory, name, path)


def part_name(name: bytes, sha256: str) -> bytes:
    """What a file is called while it is not there as a whole."""
    ending = f"{PART}{sha256[:_HASH_CHARACTERS]}".encode()
    return b"." + name[: _MAX_NAME - 1 - len(ending)] + ending


def open_part(target: Target, part: bytes) -> int:
    """Open what there is of a file, or make it; nobody else has it open then. Raises Failed.

    Raises OSError, too.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        descriptor = os.open(part, flags, 0o600, dir_fd=target.directory)
        found = os.fstat(descriptor)
        own = found.st_nlink <= 1 and found.st_uid == os.geteuid()
        if not (stat.S_ISREG(found.st_mode) and own):
            raise Failed(REFUSED, f"{shown(part)} is in the way, and not the service's own")
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.stat(part, dir_fd=target.directory, follow_symlinks=False)
            # Who had it before may have renamed it meanwhile.
            if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino):
                return descriptor
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise Failed(BUSY, f"{shown(target.path)} is being put by somebody else")
        time.sleep(_LOOK_SECONDS)


def put(
    line: socket.socket, roots: list[Root], asked: dict[str, Any], orders: dict[str, Any]
) -> None:
    """Take a file, go on with what there is of it, and have it stand at its place. Raises Failed.

    Raises EOFError when who sends it has gone; what has come stays for the next time.
    """
    size, sha256 = asked["size"], asked["sha256"]
    if 0 < orders["most"] < size:
        most = orders["most"]
        raise Failed(NO_ROOM, f"{size} bytes are more than the {most} that this server takes")
    target = target_of(roots, asked)
    part = part_name(target.name, sha256)
    with telling(roots, target.path):
        descriptor = open_part(target, part)
        try:
            _fill(line, descriptor, asked, orders["min_free"], target)
            digest = _digest_of(line, descriptor)
            if digest != sha256:
                raise Failed(
                    CHANGED, f"{shown(target.path)}: what has come is not what was to be sent"
                )
            os.fchmod(descriptor, asked["mode"] & 0o777)
            os.fsync(descriptor)
            os.rename(part, target.name, src_dir_fd=target.directory, dst_dir_fd=target.directory)
        except (Failed, OSError):
            # What is wrong is not gone on with, and takes no room.
            with contextlib.suppress(OSError):
                os.unlink(part, dir_fd=target.directory)
            raise
    # As long as it is open to be written, nobody can execute it (ETXTBSY).
    os.close(descriptor)
    _sync_directory(target.directory)
    send_json(line, {"bytes": size, "sha256": digest})


def _fill(
    line: socket.socket, descriptor: int, asked: dict[str, Any], least: int, target: Target
) -> None:
    """Write what is missing, as it comes. Raises Failed, OSError and EOFError."""
    size, have = asked["size"], os.fstat(descriptor).st_size
    if have > size:
        os.ftruncate(descriptor, 0)
        have = 0
    _check_room(descriptor, size - have, least, target)
    send_json(line, {"offset": have})
    looked = have
    while True:
        kind, payload = receive(line)
        if kind == JSON:
            break
        if have + len(payload) > size:
            raise Failed(CHANGED, f"{shown(target.path)}: more has come than was to be sent")
        view = memoryview(payload)
        while view:
            written = os.pwrite(descriptor, view, have)
            view, have = view[written:], have + written
        if have - looked >= _LOOK_BYTES:
            looked = have
            _check_room(descriptor, size - have, least, target)
    if have != size:
        raise Failed(CHANGED, f"{shown(target.path)}: less has come than was to be sent")


def _check_room(descriptor: int, need: int, least: int, target: Target) -> None:
    """Raise Failed where the file would take what of the disk is to stay free."""
    found = os.fstatvfs(descriptor)
    if least < 0:
        least = min(_LEAST_FREE, found.f_blocks * found.f_frsize // 10)
    free = found.f_bavail * found.f_frsize - least
    if need > 0 and need > free:
        raise Failed(
            NO_ROOM,
            f"{shown(target.path)}: {need} bytes more do not fit: {max(0, free)} are free on "
            f"that disk besides the {least} that stay so",
        )


def _digest_of(line: socket.socket, descriptor: int) -> str:
    """The hash of what is in the file, whoever wrote it. Raises EOFError."""
    digest, position = hashlib.sha256(), 0
    while piece := os.pread(descriptor, CHUNK_BYTES, position):
        digest.update(piece)
        position += len(piece)
        check_wanted(line)
    return digest.hexdigest()


def _sync_directory(directory: int) -> None:
    with contextlib.suppress(OSError):
        # The one there is cannot be synced (O_PATH), and this one may not be readable.
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        os.fsync(descriptor)
        os.close(descriptor)


# -- the process -----------------------------------------------------------------------------------


def serve(line: socket.socket) -> None:
    """Do as is ordered and asked, and tell what does not go."""
    try:
        orders = receive_json(line)
        become(orders)
        asked = receive_json(line)
        roots = open_roots(orders)
        if orders["put"]:
            put(line, roots, asked, orders)
        else:
            get(line, roots, asked)
    except EOFError:
        return
    except Failed as error:
        _tell(line, error.kind, str(error))
    except Exception as error:  # noqa: BLE001 - nobody else would tell of it
        _tell(line, UNABLE, f"the porter failed: {error!r}")


def _tell(line: socket.socket, kind: str, message: str) -> None:
    """Say why it does not go, and read what is sent meanwhile: unread, it would undo the answer."""
    with contextlib.suppress(OSError, EOFError):
        send(line, FAILED, json.dumps({"kind": kind, "message": message}).encode())
        line.shutdown(socket.SHUT_WR)
        while line.recv(CHUNK_BYTES):
            pass


if __name__ == "__main__":
    os.umask(0o077)
    # It is in no job's cgroup: what it costs gives way to what has to be quick.
    os.nice(NICENESS)
    serve(socket.socket(fileno=int(sys.argv[1])))
