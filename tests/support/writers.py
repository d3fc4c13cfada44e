"""A job that writes random bytes from several processes in odd-sized pieces, run by tests.

    python writers.py TOTAL_BYTES PROCESSES

Every process writes to the same pipe, with a pause for readers to keep up with
nothing but the pipe. The bytes come from a seeded generator, and a copy of what
the pipe took is impossible to order across processes; so each piece is framed
(length, process, number) and no larger than PIPE_BUF, which makes it atomic
(pipe(7)): the reader can check every piece and that none is missing or doubled.
"""

import os
import random
import struct
import sys

HEADER = struct.Struct("<HHI")
PIPE_BUF = 4096


def payload(process: int, number: int, size: int) -> bytes:
    """What a piece holds: the same for the same numbers."""
    return random.Random(f"{process}.{number}").randbytes(size)


def write(process: int, total: int) -> None:
    sizes = random.Random(process)
    number = written = 0
    while written < total:
        size = sizes.randrange(1, PIPE_BUF - HEADER.size)
        piece = HEADER.pack(size, process, number) + payload(process, number, size)
        os.write(1, piece)
        number += 1
        written += len(piece)


def check(output: bytes) -> dict[int, int]:
    """How many pieces of each process the output holds, every one whole and in its order."""
    seen: dict[int, int] = {}
    at = 0
    while at < len(output):
        size, process, number = HEADER.unpack_from(output, at)
        at += HEADER.size
        assert number == seen.get(process, 0), f"process {process} lost or doubled a piece"
        assert output[at : at + size] == payload(process, number, size)
        seen[process] = number + 1
        at += size
    return seen


def main() -> None:
    total, processes = int(sys.argv[1]), int(sys.argv[2])
    children = []
    for process in range(processes):
        child = os.fork()
        if not child:
            write(process, total // processes)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
